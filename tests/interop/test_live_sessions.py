"""Live sessions with libsignal-client: who begins, what is lost and what is late, resets, restarts.

Every test runs with either side beginning. Our device restarts from its stored bytes at every step
(``tests.support.pairwise.Device``); libsignal's at random ones. A random schedule prints its seed.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from libsignal_peer import Peer, Refused
from lokket.errors import DuplicateMessage, RemoteError
from lokket.limits import RECEIVER_CHAINS_MAX
from lokket.protocol.pairwise import Ciphertext, MessageKind
from node_device import NodeDevice
from tests.support import pairwise as support
from tests.support import protobuf as lenient
from tests.support.pairwise import Device

Side = Device | NodeDevice


@dataclass
class Pair:
    ours: Device
    theirs: NodeDevice

    def sides(self, initiator: str) -> tuple[Side, Side]:
        return (self.ours, self.theirs) if initiator == "lokket" else (self.theirs, self.ours)


@pytest.fixture
def pair(libsignal: Peer, request: pytest.FixtureRequest) -> Pair:
    name = request.node.name
    return Pair(Device(f"lokket {name}"), NodeDevice(libsignal, f"node {name}", 3))


@pytest.fixture
def chance() -> random.Random:
    seed = int(os.environ.get("LOKKET_SEED", random.SystemRandom().randrange(2**32)))
    print(f"LOKKET_SEED={seed}")
    return random.Random(seed)


either_begins = pytest.mark.parametrize("initiator", ["lokket", "libsignal"])


def carry(sender: Side, receiver: Side, plaintext: bytes) -> Ciphertext:
    """Send, deliver, compare."""
    message = sender.send(receiver.address, plaintext)
    assert receiver.receive(sender.address, message) == plaintext
    return message


def begun(pair: Pair, initiator: str) -> tuple[Side, Side]:
    """Initiator and responder after one message each way."""
    first, second = pair.sides(initiator)
    first.begin(second.bundle())
    carry(first, second, b"hello")
    carry(second, first, b"hello back")
    return first, second


def pq_epoch(message: Ciphertext) -> int:
    """The Braid epoch that a message was sent in."""
    body = message.body
    if message.kind == MessageKind.PREKEY:
        inner = lenient.value(body[1:], 4)
        assert isinstance(inner, bytes)
        body = inner
    field = lenient.value(body[1:-8], 5)
    assert isinstance(field, bytes)
    assert field[1] < 0x80
    return field[1]


@either_begins
@pytest.mark.parametrize("one_time", [True, False], ids=["one-time prekey", "last resort"])
@pytest.mark.parametrize("size", [0, 1, 15, 16, 100, 5_000])
def test_first_messages(pair: Pair, initiator: str, one_time: bool, size: int) -> None:
    first, second = pair.sides(initiator)
    first.begin(second.bundle(one_time=one_time, one_time_kem=one_time))
    for number in range(3):
        assert carry(first, second, os.urandom(size)).kind == MessageKind.PREKEY, number
    assert carry(second, first, os.urandom(size)).kind == MessageKind.WHISPER
    assert carry(first, second, os.urandom(size)).kind == MessageKind.WHISPER
    if one_time:
        left = pair.ours.store if initiator == "libsignal" else None
        if left is not None:
            assert not left.one_time
            assert not left.kem
        else:
            reply = pair.theirs.peer.call("prekeys_left", party=pair.theirs.party)
            assert reply["prekeys"] == reply["kyber_prekeys"] == []


@either_begins
def test_one_last_resort_key_serves_several_senders(pair: Pair, initiator: str, libsignal: Peer) -> None:
    first, second = pair.sides(initiator)
    bundle = second.bundle(one_time=False)
    first.begin(bundle)
    carry(first, second, b"first")
    other = Device("other") if initiator == "lokket" else NodeDevice(libsignal, "other")
    other.begin(bundle)
    carry(other, second, b"second")
    carry(first, second, b"third")


@either_begins
@pytest.mark.parametrize("turns", [(1, 1), (10, 10), (9, 1)], ids=["ping-pong", "bursts", "one-sided"])
def test_epochs_in_order(pair: Pair, initiator: str, turns: tuple[int, int]) -> None:
    """At least five epochs of the post-quantum ratchet, or three when hardly anyone answers."""
    sides = begun(pair, initiator)
    wanted = 3 if turns == (9, 1) else 6
    for number in range(1_500):
        for sender, receiver, count in (*zip(sides, reversed(sides), turns, strict=True),):
            for _ in range(count):
                epoch = pq_epoch(carry(sender, receiver, b"%d" % number))
        if epoch == wanted:
            return
    pytest.fail("the epochs do not come")


@either_begins
@pytest.mark.parametrize(("loss", "shuffled"), [(0.0, True), (0.1, False), (0.1, True)])
def test_lost_and_late(
    pair: Pair, initiator: str, loss: float, shuffled: bool, chance: random.Random
) -> None:
    """Random turns, loss and order; what arrives opens, once."""
    first, second = begun(pair, initiator)
    carry(first, second, b"so that both have sent whisper messages")
    inboxes = [Inbox(first, second), Inbox(second, first)]
    for inbox in inboxes:  # the keys that both sides have now are not new ones
        inbox.queue.append((b"known", inbox.sender.send(inbox.receiver.address, b"known")))
        inbox.deliver(0)
    epoch = number = 0
    while epoch < 6 and number < 3_000:
        number += 1
        inbox = chance.choice(inboxes)
        plaintext = b"%d" % number
        message = inbox.sender.send(inbox.receiver.address, plaintext)
        epoch = pq_epoch(message)
        if chance.random() >= loss:
            inbox.queue.append((plaintext, message))
        for one in inboxes:
            while len(one.queue) > (12 if shuffled else 0):
                one.deliver(chance.randrange(len(one.queue)) if shuffled else 0)
        if chance.random() < 0.02:
            pair.theirs.restart(pair.ours.address)
    for one in inboxes:
        while one.queue:
            one.deliver(chance.randrange(len(one.queue)))
        assert one.opened > 10 * one.too_late, (one.opened, one.too_late)
    assert epoch >= 6, number


class Inbox:
    """What was sent to one side, and what it can open: messages under its newest keys and under new ones."""

    def __init__(self, receiver: Side, sender: Side) -> None:
        self.receiver = receiver
        self.sender = sender
        self.queue: list[tuple[bytes, Ciphertext]] = []
        self.ratchet_keys: list[object] = []
        self.opened = self.too_late = 0

    def deliver(self, place: int) -> None:
        plaintext, message = self.queue.pop(place)
        key = lenient.value(message.body[1:-8], 1)
        if key in self.ratchet_keys[:-RECEIVER_CHAINS_MAX]:
            self.too_late += 1
            with pytest.raises((RemoteError, Refused)):
                self.receiver.receive(self.sender.address, message)
            return
        assert self.receiver.receive(self.sender.address, message) == plaintext
        self.opened += 1
        if key not in self.ratchet_keys:
            self.ratchet_keys.append(key)
        with pytest.raises((DuplicateMessage, Refused)) as again:
            self.receiver.receive(self.sender.address, message)
        assert isinstance(again.value, DuplicateMessage) or again.value.name == "DuplicatedMessage"


@either_begins
def test_a_long_silence_is_skipped(pair: Pair, initiator: str) -> None:
    first, second = begun(pair, initiator)
    lost = [first.send(second.address, b"%d" % number) for number in range(1_000)]
    carry(first, second, b"after 1,000")
    for number in (0, 500, 999):
        assert second.receive(first.address, lost[number]) == b"%d" % number


@pytest.mark.parametrize("answers_first", ["lokket", "libsignal"])
def test_simultaneous_initiation(pair: Pair, answers_first: str) -> None:
    ours, theirs = pair.ours, pair.theirs
    our_bundle, their_bundle = ours.bundle(), theirs.bundle()
    ours.begin(their_bundle)
    theirs.begin(our_bundle)
    from_us = [ours.send(theirs.address, b"ours %d" % number) for number in range(3)]
    from_them = [theirs.send(ours.address, b"theirs %d" % number) for number in range(3)]
    for number in (0, 1):
        assert ours.receive(theirs.address, from_them[number]) == b"theirs %d" % number
        assert theirs.receive(ours.address, from_us[number]) == b"ours %d" % number
    first, second = pair.sides(answers_first)
    for number in range(2):
        carry(first, second, b"a %d" % number)
        carry(second, first, b"b %d" % number)
    assert ours.receive(theirs.address, from_them[2]) == b"theirs 2"  # late, of the other session
    assert theirs.receive(ours.address, from_us[2]) == b"ours 2"
    for number in range(6):
        message = carry(first, second, b"c %d" % number)
        carry(second, first, b"d %d" % number)
    assert message.kind == MessageKind.WHISPER


@either_begins
@pytest.mark.parametrize("resets", ["lokket", "libsignal"])
def test_reset(pair: Pair, initiator: str, resets: str) -> None:
    """One side begins anew over a living session; late messages of the old one still open."""
    begun(pair, initiator)
    who, other = pair.sides(resets)
    late = other.send(who.address, b"late")
    late_too = who.send(other.address, b"late too")
    if isinstance(who, NodeDevice):
        assert who.call("archive_session", other.address)["archived"]
    who.begin(other.bundle())
    assert carry(who, other, b"anew").kind == MessageKind.PREKEY
    assert who.receive(other.address, late) == b"late"
    assert other.receive(who.address, late_too) == b"late too"
    for number in range(4):
        carry(other, who, b"x %d" % number)
        carry(who, other, b"y %d" % number)


@either_begins
def test_a_lost_store_heals_by_a_new_session(pair: Pair, initiator: str) -> None:
    """libsignal forgets the session; we begin a new one and it goes on."""
    begun(pair, initiator)
    ours, theirs = pair.ours, pair.theirs
    theirs.call("delete_session", ours.address)
    with pytest.raises(Refused):
        theirs.receive(ours.address, ours.send(theirs.address, b"lost"))
    ours.begin(theirs.bundle())
    carry(ours, theirs, b"again")
    carry(theirs, ours, b"and back")


def test_libsignals_addresses_are_required_and_right(pair: Pair) -> None:
    """Their prekey messages carry addresses that our strict device wants; another address is refused."""
    ours, theirs = pair.ours, pair.theirs
    assert ours.local.require_addresses
    theirs.begin(ours.bundle())
    message = theirs.send(ours.address, b"first")
    with pytest.raises(RemoteError) as refused:
        ours.decrypt(replace(theirs.address, device=4), message)
    assert refused.value.code == "wrong-address"
    assert ours.receive(theirs.address, message) == b"first"


# --- what libsignal refuses of ours ---


def spoil_bundle(slot: str) -> Callable[[Device], object]:
    def spoil(device: Device) -> object:
        bundle = device.bundle()
        other = support.Device("mallory").bundle()
        return replace(bundle, **{slot: getattr(other, slot)})

    return spoil


@pytest.mark.parametrize(
    "slot", ["identity_key", "signed_prekey", "signed_prekey_signature", "kem_prekey", "kem_prekey_signature"]
)
def test_libsignal_refuses_a_bundle_whose_signatures_are_wrong(pair: Pair, slot: str) -> None:
    with pytest.raises(Refused):
        pair.theirs.begin(spoil_bundle(slot)(pair.ours))  # type: ignore[arg-type]
    pair.theirs.begin(pair.ours.bundle())
    carry(pair.theirs, pair.ours, b"honest")


def test_libsignal_refuses_what_was_changed_on_the_way(pair: Pair) -> None:
    ours, theirs = pair.ours, pair.theirs
    ours.begin(theirs.bundle())
    first = ours.send(theirs.address, b"first")
    with pytest.raises(Refused):
        theirs.receive(ours.address, Ciphertext(first.kind, b"\x33" + first.body[1:]))
    for field in (2, 3, 4, 8):
        value = lenient.value(first.body[1:], field)
        assert isinstance(value, bytes)
        changed = b"\x44" + lenient.replaced(first.body[1:], {field: value[:-1] + bytes((value[-1] ^ 1,))})
        with pytest.raises(Refused):
            theirs.receive(ours.address, Ciphertext(first.kind, changed))
    assert theirs.receive(ours.address, first) == b"first"
    carry(theirs, ours, b"answer")
    message = ours.send(theirs.address, b"second")
    for changes in ({5: None}, {2: 30_000}, {1: b"\x05" + bytes(32)}, {4: bytes(16)}):
        body = b"\x44" + lenient.replaced(message.body[1:-8], dict(changes)) + message.body[-8:]
        with pytest.raises(Refused):
            theirs.receive(ours.address, Ciphertext(message.kind, bytes(body)))
    assert theirs.receive(ours.address, message) == b"second"
    with pytest.raises(Refused) as again:
        theirs.receive(ours.address, message)
    assert again.value.name == "DuplicatedMessage"


def test_libsignal_refuses_another_recipients_message(pair: Pair, libsignal: Peer) -> None:
    ours, theirs = pair.ours, pair.theirs
    ours.begin(theirs.bundle())
    message = ours.send(theirs.address, b"first")
    stranger = NodeDevice(libsignal, "stranger")
    with pytest.raises(Refused):
        stranger.receive(ours.address, message)
    with pytest.raises(Refused):
        theirs.receive(replace(ours.address, device=2), message)  # the addresses inside say device 1
    assert theirs.receive(ours.address, message) == b"first"


def test_a_changed_identity_is_refused_by_both(libsignal: Peer) -> None:
    ours, theirs = Device("one identity"), NodeDevice(libsignal, "strict", strict_identity=True)
    ours.begin(theirs.bundle())
    carry(ours, theirs, b"first")
    carry(theirs, ours, b"answer")
    impostor = Device("another identity")
    impostor.local = replace(impostor.local, address=ours.address)
    impostor.begin(theirs.bundle())
    with pytest.raises(Refused) as refused:
        theirs.receive(ours.address, impostor.send(theirs.address, b"posing"))
    assert refused.value.name == "UntrustedIdentity"
    again = NodeDevice(libsignal, "strict")  # the same address with a new identity
    with pytest.raises(RemoteError) as changed:
        ours.begin(again.bundle())
    assert changed.value.code == "identity-changed"
    carry(ours, theirs, b"still")
