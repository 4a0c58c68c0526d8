"""Long seeded conversations, whose messages and stored records are known bytes.

Not all that a state holds shows at once: an index that is read later, a chunk that is sent again. A change of
these digests is a change of what is sent or stored, and has to be one that is meant.
"""

from __future__ import annotations

import hashlib
import random

import pytest

from lokket.protocol.pairwise import Ciphertext
from lokket.protocol.pairwise.braid_states import STATES
from tests.sim.entropy import SeededEntropy
from tests.support.pairwise import Device

KNOWN = {
    0: [
        "312faac02607537cac103deaff746c6bcd5b3cf908c1eea19fb112ce077a5e13",
        "2b3b3a453918551d42e36a32b73132db1d498b0950afe56b5759850f53537962",
    ],
    1: [
        "b2953e9c4388e4820d81beb679294c248904a01d07254312b7b8e1cd9a17618a",
        "cb224c834229e43007f9d74eecca566d03242000d071d602b7eefb336b0803f8",
    ],
}


class Talk:
    """Two devices, all of whose draws follow from their names, encapsulations as well."""

    def __init__(self) -> None:
        self.alice, self.bob = Device("alice"), Device("bob")
        for device, name in ((self.alice, "alice"), (self.bob, "bob")):
            device.entropy = SeededEntropy(name)  # type: ignore[assignment]
        self.sent, self.stored = hashlib.sha256(), hashlib.sha256()
        self.states: set[str] = set()

    def send(self, sender: Device, receiver: Device, text: bytes) -> Ciphertext:
        message = sender.send(receiver.address, text)
        self.sent.update(message.body)
        self._store(sender, receiver)
        return message

    def receive(self, receiver: Device, sender: Device, message: Ciphertext) -> None:
        receiver.receive(sender.address, message)
        self._store(receiver, sender)

    def _store(self, device: Device, other: Device) -> None:
        self.stored.update(device.records[other.address])
        record = device.record(other.address)
        assert record is not None
        assert record.current is not None
        self.states.add(type(record.current.ratchet[1].braid.state).__name__)


@pytest.mark.parametrize("lost", KNOWN)
def test_a_conversation_is_these_bytes(lost: int) -> None:
    """Every state of the Braid, loss in one direction, late messages, archived sessions that speak again."""
    talk, chance = Talk(), random.Random(lost)
    late: list[tuple[Device, Device, Ciphertext]] = []
    for turn in range(600):
        sender, receiver = ((talk.alice, talk.bob), (talk.bob, talk.alice))[turn % 2]
        if turn in (0, 301):
            sender.begin(receiver.bundle(one_time=turn == 0))
        message = talk.send(sender, receiver, b"%d" % turn)
        if turn < 10 or turn % 2 != lost or turn % 6 == lost:
            talk.receive(receiver, sender, message)
        elif turn % 3:
            late.append((receiver, sender, message))
        late = late[-2:]  # a message may be late by four steps of its sender
        if late and chance.random() < 0.3:
            talk.receive(*late.pop(chance.randrange(len(late))))
    assert talk.states == {kind.__name__ for kind in STATES.values()}
    assert [talk.sent.hexdigest(), talk.stored.hexdigest()] == KNOWN[lost]
