"""Which session two devices use: the model in ``models/initiation.pml``, and its runs with the real sessions.

A run of the model is a list of events. Each is done with two ``lokket.protocol.pairwise`` devices whose
records are stored and decoded between all steps, and after each the model's state must be theirs.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from lokket.errors import DuplicateMessage, RemoteError
from lokket.protocol.pairwise import Ciphertext, MessageKind, sesame
from tests.models import spin
from tests.models.spin import Event
from tests.support.pairwise import Device

pytestmark = [spin.needs_spin, pytest.mark.attack(25)]


class Pair:
    """Two devices; ``keys`` are the base keys of the model's sessions, by its numbers."""

    def __init__(self) -> None:
        self.devices = (Device("zero"), Device("one"))
        self.sent: dict[tuple[int, int], Ciphertext] = {}
        self.keys: dict[int, bytes] = {}
        self.arrived: set[tuple[int, int]] = set()

    def do(self, event: Event) -> None:
        who, number = event.numbers
        device, peer = self.devices[who], self.devices[1 - who]
        session = int(event.state["session"])
        match event.name:
            case "writes":
                if device.record(peer.address) is None:
                    device.begin(peer.bundle())
                message = device.send(peer.address, self.text(who, number))
                self.sent[who, number] = message
                prekey = event.state["prekey"] == "1"
                assert message.kind == (MessageKind.PREKEY if prekey else MessageKind.WHISPER)
                assert self.keys.setdefault(session, self.current(who)) == self.current(who)
            case "reads":
                text = device.receive(peer.address, self.sent[1 - who, number])
                assert text == self.text(1 - who, number)
                assert self.current(who) == self.keys[session]
                self.arrived.add((1 - who, number))
            case "reads_again":
                before = device.records[peer.address]
                with pytest.raises(DuplicateMessage):
                    device.decrypt(peer.address, self.sent[1 - who, number])
                assert device.records[peer.address] == before
            case "renews":
                device.begin(peer.bundle())
                self.keys[session] = self.current(who)
            case "loses":
                pass
            case _:
                raise AssertionError(f"an event that nobody knows: {event}")

    def check(self, event: Event) -> None:
        """What the model says of the sessions is so."""
        for who, (current, archived) in enumerate(
            zip(event.state["current"].split(","), event.state["archived"].split(","), strict=True)
        ):
            record = self.devices[who].record(self.devices[1 - who].address)
            if record is None:
                assert current == "0", event
            else:
                assert record.handshake.base_key == self.keys[int(current)], event
                assert len(record.archived) == int(archived), event

    def current(self, who: int) -> bytes:
        record = self.devices[who].record(self.devices[1 - who].address)
        assert record is not None
        return record.handshake.base_key

    @staticmethod
    def text(who: int, number: int) -> bytes:
        return b"%d %d" % (who, number)

    def open_the_rest(self) -> int:
        """Whatever is still under way arrives; how much of it does not open."""
        refused = 0
        for who, number in sorted(self.sent.keys() - self.arrived):
            try:
                self.devices[1 - who].receive(self.devices[who].address, self.sent[who, number])
            except RemoteError:
                refused += 1
        return refused

    def replay(self, events: tuple[Event, ...]) -> None:
        for event in events:
            self.do(event)
            self.check(event)


@pytest.mark.parametrize(
    "bounds",
    spin.bounds(
        {"MESSAGES": 2, "RENEWALS": 1}, {"MESSAGES": 2, "RENEWALS": 2}, {"MESSAGES": 3, "RENEWALS": 1}
    ),
    ids=str,
)
def test_every_interleaving_ends_in_one_session(bounds: dict[str, int], tmp_path: Path) -> None:
    found = spin.search("initiation", tmp_path, **bounds)
    print(f"{found.states} states")
    assert not found.broken, found.broken
    assert found.states > 10_000


def test_runs_of_the_model_are_runs_of_the_code(tmp_path: Path) -> None:
    seen = set()
    for seed in range(spin.runs(25)):
        events = spin.simulate("initiation", tmp_path, seed, MESSAGES=3, RENEWALS=2)
        seen |= {event.name for event in events}
        print(f"seed {seed}: {len(events)} events")
        Pair().replay(events)
    assert seen == {"writes", "reads", "reads_again", "loses", "renews"}


def test_without_an_archive_the_model_and_the_code_lose_messages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = spin.search("initiation", tmp_path, ARCHIVE=0)
    assert found.broken, "an empty archive must lose what is under way"
    healthy = Pair()
    for event in found.broken:
        healthy.do(event)
    assert healthy.open_the_rest() == 0
    monkeypatch.setattr(sesame, "ARCHIVED_SESSIONS_MAX", 0)
    broken = Pair()
    broken.replay(found.broken)
    assert broken.open_the_rest() > 0


def test_two_stubborn_devices_never_agree(tmp_path: Path) -> None:
    """Whoever opens a session follows it: without that rule a run ends in two."""
    assert spin.search("initiation", tmp_path, STUBBORN=1).broken
