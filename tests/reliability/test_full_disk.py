"""Disks that are really full, under whole processes: nothing accepted is lost, and it goes on by itself."""

from __future__ import annotations

import pytest

from lokket import limits
from tests.support.daemon import short_folder
from tests.support.machine import Machine, RelayMachine, eventually, machines
from tests.support.small_disk import small_disk

BARE = "--insecure-no-passphrase"
MEBIBYTE = 1024 * 1024
LONG = "long " * 6_000  # so that a few of them do not fit into what is left by chance


def texts(machine: Machine, petname: str) -> list[str]:
    return [record["text"] for record in machine.json("history", petname, "-n", "1000")]


def states(machine: Machine, petname: str) -> dict[str, str]:
    return {record["text"]: record["state"] for record in machine.json("history", petname, "-n", "1000")}


def one_sentence(errors: str) -> str:
    """What a person reads. AssertionError: it is more than that."""
    assert "Traceback" not in errors
    lines = [line for line in errors.splitlines() if line.strip()]
    assert len(lines) == 1, lines
    return lines[0]


def met(relay: RelayMachine, alice: Machine, bob: Machine) -> None:
    relay.serve()
    alice.json("join", relay.invite, "--name", "alice", BARE)
    link = alice.json("invite")[0]["link"]
    bob.json("join", link, "--name", "bob", "--inviter", "alice", BARE)
    alice.json("listen", "--once")
    bob.json("listen", "--once")


@pytest.mark.attack(42)
def test_a_relay_whose_disk_is_full_delivers_and_deletes_and_takes_mail_when_there_is_room() -> None:
    with (
        short_folder() as folder,
        small_disk(folder / "relay", limits.DISK_RESERVE_BYTES + 12 * MEBIBYTE) as disk,
        machines(folder, "alice", "bob") as (relay, alice, bob),
    ):
        assert isinstance(relay, RelayMachine)
        met(relay, alice, bob)
        serving = relay.serving
        before = [f"before {number}" for number in range(5)]
        for text in before:
            assert alice.json("send", "bob", text, "--wait", "sent")[0]["state"] == "sent"

        disk.fill(limits.DISK_RESERVE_BYTES // 2)
        refused = alice.run("send", "bob", "while it is full", "--wait", "sent", "--timeout", "3")
        assert refused.returncode == 3, refused.stderr
        assert "the relay's disk is full" in one_sentence(refused.stderr)
        got = bob.json("listen", "--once")
        assert [record["text"] for record in got if record["type"] == "message"] == before
        assert not [record for record in bob.json("listen", "--once") if record["type"] == "message"]
        assert relay.json("relay", "stats")[0]["mail"] == 0

        disk.fill()
        assert disk.free == 0
        refused = alice.run("send", "bob", "not a byte is left", "--wait", "sent", "--timeout", "3")
        assert refused.returncode == 3, refused.stderr
        one_sentence(refused.stderr)
        daemon = alice.daemon()  # it goes on trying, as it would all day
        found = states(alice, "bob")
        assert [found[text] for text in ("while it is full", "not a byte is left")] == ["queued", "queued"]

        disk.empty()
        reading = bob.start("listen", "--json")
        arrived = [reading.record("message")["text"] for _ in range(2)]
        assert arrived == ["while it is full", "not a byte is left"]
        eventually(lambda: set(states(alice, "bob").values()) == {"delivered"})
        assert daemon.stop() == 0
        reading.stop()
        assert texts(alice, "bob") == texts(bob, "alice") == [*before, *arrived]
        assert serving._process.poll() is None
        assert "Traceback" not in "".join(serving.errors)


@pytest.mark.attack(42)
def test_a_vault_whose_disk_is_full_says_so_and_loses_and_doubles_nothing() -> None:
    """Commands, then a daemon that stays while the disk fills and empties under it."""
    with (
        short_folder() as folder,
        small_disk(folder / "alice", 8 * MEBIBYTE) as disk,
        machines(folder, "alice", "bob") as (relay, alice, bob),
    ):
        assert isinstance(relay, RelayMachine)
        met(relay, alice, bob)
        alice.json("send", "bob", "before", "--wait", "sent")

        disk.fill()
        for _ in range(2):
            refused = alice.run("send", "bob", "no room for this " + LONG)
            assert refused.returncode in (1, 4), refused.stderr
            assert "the disk is full" in one_sentence(refused.stderr)
        assert bob.json("send", "alice", "to a full disk", "--wait", "sent")[0]["state"] == "sent"
        refused = alice.run("listen", "--once")
        assert "Traceback" not in refused.stderr
        assert "to a full disk" not in refused.stdout

        disk.empty()
        daemon = alice.daemon()
        alice.json("send", "bob", "there is room", "--wait", "sent")
        disk.fill()
        refused = alice.run("send", "bob", "no room with a daemon " + LONG)
        assert refused.returncode in (1, 4), refused.stderr
        assert "the disk is full" in one_sentence(refused.stderr)
        bob.json("send", "alice", "to a full daemon " + LONG, "--wait", "sent")

        disk.empty()
        eventually(lambda: texts(alice, "bob")[-1].startswith("to a full daemon"))
        alice.json("send", "bob", "after", "--wait", "sent", "--timeout", "30")
        assert not [line for line in daemon.errors if "Traceback" in line]
        assert daemon.stop() == 0
        bob.json("listen", "--once")
        said = ["before", "to a full disk", "there is room", "to a full daemon " + LONG, "after"]
        assert sorted(texts(alice, "bob")) == sorted(texts(bob, "alice")) == sorted(said)
