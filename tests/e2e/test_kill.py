"""kill -9 of each process in the middle of traffic: nothing that was accepted is lost, nothing is doubled."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.support.machine import Machine, Process, RelayMachine, machines

MESSAGES = 60
KILL_AFTER = (7, 23, 41)
BARE = "--insecure-no-passphrase"


class Street:
    """Alice types into ``chat``, Bob listens; each of the processes can be killed and started anew."""

    daemon: Process  # Bob's, in rounds that have one

    def __init__(self, relay: RelayMachine, alice: Machine, bob: Machine) -> None:
        self.relay, self.alice, self.bob = relay, alice, bob
        relay.serve()
        alice.json("join", relay.invite, "--name", "alice", BARE)
        link = alice.json("invite")[0]["link"]
        bob.json("join", link, "--name", "bob", BARE)
        alice.json("listen", "--once")
        self.printed: list[dict[str, Any]] = []  # what Bob's processes wrote, in all their lives

    def talk(self, lines: list[str]) -> None:
        self.talking = self.alice.start("chat", "bob")
        self.talking.write("".join(f"{line}\n" for line in lines))

    def listen(self) -> None:
        self.listening = self.bob.start("listen", "--json")

    def read_until(self, count: int) -> None:
        """Until Bob has printed so many different messages."""
        while len({record["id"] for record in self.printed}) < count:
            self.printed.append(self.listening.record("message"))

    def take_rest(self, process: Process) -> None:
        for line in process.rest():
            if line.endswith("}"):
                record = json.loads(line)
                if record["type"] == "message":
                    self.printed.append(record)

    def accepted(self) -> list[str]:
        """What is in Alice's vault: from there on it must arrive."""
        return [record["text"] for record in self.alice.json("history", "bob", "-n", "100000")]


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Street]:
    with machines(tmp_path_factory.mktemp("street"), "alice", "bob") as (relay, alice, bob):
        assert isinstance(relay, RelayMachine)
        yield Street(relay, alice, bob)


@pytest.mark.attack(38, 95, 96)
@pytest.mark.parametrize("victim", ["sender", "reader", "relay"])
def test_kill_in_the_middle_of_traffic(street: Street, victim: str) -> None:
    kill_round(street, victim, [f"{victim} {at}" for at in range(MESSAGES)], KILL_AFTER)


def kill_round(street: Street, victim: str, lines: list[str], kill_after: Sequence[int]) -> None:
    """Alice says ``lines``; the victim dies when Bob has read so many of them; all count at the end.

    ``make kill KILLS=3000`` does it with victims and moments of a seed (``tests/e2e/kills.py``).
    """
    before = len(street.accepted())
    street.printed.clear()
    if victim == "daemon":
        street.daemon = street.bob.daemon()
    street.listen()
    street.talk(lines)
    for count in kill_after:
        street.read_until(count)
        match victim:
            case "sender":
                street.talking.kill()
                accepted = set(street.accepted())
                street.talk([line for line in lines if line not in accepted])
            case "reader":
                street.listening.kill()
                street.take_rest(street.listening)
                street.listen()
            case "daemon":  # Bob's, who holds the vault; the reader is its caller
                street.daemon.kill()
                street.listening.kill()
                street.take_rest(street.listening)
                street.daemon = street.bob.daemon()
                street.listen()
            case "relay":
                street.relay.serving.kill()
                street.relay.serve()
    street.talking.close_input()
    street.read_until(len(lines))
    assert street.talking.wait() == 0
    street.listening.stop()
    street.take_rest(street.listening)
    if victim == "daemon":
        street.daemon.stop()

    assert street.accepted()[before:] == lines
    held = street.bob.json("history", street.bob.json("contacts")[0]["petname"], "-n", "100000")
    assert [record["text"] for record in held][before:] == lines
    first = {record["id"]: record["text"] for record in street.printed}
    assert list(first.values()) == lines
    if victim in ("sender", "relay"):  # a killed reader may print again what it had not yet confirmed
        assert len(street.printed) == len(lines)
    # The last reader may have been stopped before its first line.
    again = street.bob.json("listen", "--once")[1:]
    assert {record["id"] for record in again if record["type"] == "message"} <= first.keys()
    assert victim in ("reader", "daemon") or not again, again
    assert not street.bob.json("listen", "--once")[1:]
