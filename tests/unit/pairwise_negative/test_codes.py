"""What is refused says why, in a stable word for records and in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from lokket import limits
from lokket.crypto.keys import X25519KeyPair
from lokket.errors import DecodeError, DecryptionFailed, DuplicateMessage, KeyRefused
from lokket.protocol.pairwise import Ciphertext, SessionRecord, braid, double_ratchet, spqr
from lokket.protocol.pairwise.braid import Message, Payload, Secret
from lokket.protocol.pairwise.braid_states import Authenticator, EkSentCt1Received, NoHeaderReceived
from lokket.protocol.pairwise.messages import SignalMessage, decode_prekey_message, ec_key
from lokket.protocol.pairwise.work import Work
from tests.support import pairwise as support
from tests.support import protobuf as lenient
from tests.support.entropy import SeededEntropy
from tests.support.pairwise import Device
from tests.support.refusals import refusal

ENTROPY = SeededEntropy("codes")
EC_KEY = b"\x05" + X25519KeyPair(b"\x01" * 32).public
SIGNAL = [(1, EC_KEY), (2, 0), (3, 0), (4, bytes(16)), (5, b"\x01\x01\x01\x00")]
PREKEY = [(1, 1), (2, EC_KEY), (3, EC_KEY), (4, b""), (5, 1), (6, 1), (7, 1), (8, b"\x08" + bytes(1568))]


def whisper(changes: dict[int, int | bytes | None]) -> bytes:
    return b"\x44" + lenient.replaced(lenient.write(SIGNAL), changes) + bytes(8)


def prekey(changes: dict[int, int | bytes | None]) -> bytes:
    return b"\x44" + lenient.replaced(lenient.write(PREKEY), changes)


def padded(size: int) -> bytes:
    """A body of that size that is a message but for what it is padded with, an unknown field."""
    return b"\x44" + lenient.write([(99, bytes(size - 6))])


@pytest.mark.parametrize(
    ("decode", "body", "code"),
    [
        (SignalMessage, padded(limits.PAIRWISE_MESSAGE_MAX_BYTES + 1), "too-long"),
        (SignalMessage, padded(limits.PAIRWISE_MESSAGE_MAX_BYTES), "malformed"),
        (SignalMessage, b"\x34" + whisper({})[1:], "bad-version"),
        (SignalMessage, b"", "bad-version"),
        (SignalMessage, b"\x44" + bytes(7), "malformed"),
        (SignalMessage, b"\x44" + bytes(8), "malformed"),
        (SignalMessage, whisper({1: b"\x06" + EC_KEY[1:]}), "bad-key-encoding"),
        (SignalMessage, whisper({1: EC_KEY[:-1]}), "bad-key-encoding"),
        (SignalMessage, whisper({3: None}), "malformed"),
        (SignalMessage, whisper({5: None}), "no-pq-ratchet"),
        (SignalMessage, whisper({5: b""}), "no-pq-ratchet"),
        (decode_prekey_message, padded(limits.PAIRWISE_MESSAGE_MAX_BYTES + 1), "too-long"),
        (decode_prekey_message, padded(limits.PAIRWISE_MESSAGE_MAX_BYTES), "malformed"),
        (decode_prekey_message, b"\x34" + prekey({})[1:], "bad-version"),
        (decode_prekey_message, prekey({8: b"\x0a" + bytes(1568)}), "bad-kem-type"),
        (decode_prekey_message, prekey({8: b"\x08" + bytes(1567)}), "malformed"),
        (decode_prekey_message, prekey({5: 0x4000}), "malformed"),
        (decode_prekey_message, prekey({2: EC_KEY[1:]}), "bad-key-encoding"),
        (decode_prekey_message, prekey({3: EC_KEY[1:]}), "bad-key-encoding"),
        (ec_key, b"\x05" + bytes(31), "bad-key-encoding"),
    ],
)
def test_of_bytes(decode: Callable[[bytes], object], body: bytes, code: str) -> None:
    with refusal(DecodeError, code):
        decode(body)


def test_the_largest_that_are_read() -> None:
    assert len(padded(limits.PAIRWISE_MESSAGE_MAX_BYTES)) == limits.PAIRWISE_MESSAGE_MAX_BYTES
    assert decode_prekey_message(prekey({5: 0x3FFF})).registration_id == 0x3FFF
    assert SignalMessage(whisper({2: 2**32 - 1, 3: 2**32 - 1})).counter == 2**32 - 1


# --- the ratchets ---


def test_of_the_double_ratchet() -> None:
    prekey_pair = X25519KeyPair(b"\x02" * 32)
    alice = double_ratchet.initiator(bytes(32), bytes(32), prekey_pair.public, ENTROPY)
    bob = double_ratchet.responder(bytes(32), bytes(32), prekey_pair)
    sent = double_ratchet.send(alice)

    def receive(state: double_ratchet.DoubleRatchet, counter: int) -> double_ratchet.DoubleRatchet:
        return double_ratchet.receive(state, sent.ratchet_key, counter, ENTROPY, Work())[0]

    far = limits.SKIP_AHEAD_MAX + 1
    with refusal(DecryptionFailed, "too-far-ahead"):
        receive(bob, far)
    receive(bob, far - 1)
    bob = receive(bob, 0)
    with refusal(DecryptionFailed, "too-far-ahead"):
        receive(bob, far + 1)
    receive(bob, far)
    with refusal(DuplicateMessage, "duplicate"):
        receive(bob, 0)


def test_of_the_post_quantum_ratchet() -> None:
    bob = spqr.start(b"q" * 32, initiator=False)

    def receive(state: spqr.Spqr, data: bytes) -> spqr.Spqr:
        return spqr.receive(state, data, Work())[0]

    def at(index: int, epoch: int = 1) -> bytes:
        return b"\x01" + lenient.varint(epoch) + lenient.varint(index) + b"\x00"

    for data, code in (
        (b"", "pq-version"),
        (b"\x02" + at(1)[1:], "pq-version"),
        (b"\x01\x01\x01", "malformed"),
        (b"\x01\x80\x01\x01", "malformed"),
        (at(0), "no-pq-key"),
        (at(1, epoch=0), "no-pq-key"),
        (at(1)[:-1] + b"\x07", "malformed"),
        (at(1)[:-1] + b"\x01" + bytes(32), "malformed"),
        (at(1)[:-1] + b"\x01" + lenient.varint(65_536) + bytes(32), "malformed"),
    ):
        with refusal(DecodeError, code):
            receive(bob, data)
    receive(bob, at(1)[:-1] + b"\x01" + lenient.varint(65_535) + bytes(32))
    far = limits.SKIP_AHEAD_MAX + 2
    with refusal(DecryptionFailed, "too-far-ahead"):
        receive(bob, at(far))
    receive(bob, at(far - 1))
    with refusal(DecryptionFailed, "pq-key-gone"):
        receive(receive(bob, at(5)), at(5))
    with refusal(DecryptionFailed, "pq-epoch"):
        receive(bob, at(1, epoch=2))
    later = spqr.Spqr(bob.braid, 0, bob.root, False, (bytes(7) + b"\x01" + bob.links[0][8:],))
    with refusal(DecryptionFailed, "pq-epoch"):  # its chains are gone
        receive(later, at(1))
    with refusal(DecryptionFailed, "pq-epoch"):
        spqr._add_epoch(bob, Secret(2, bytes(32)))


def test_of_the_braid() -> None:
    state = braid.start(b"q" * 32, initiator=False)
    for epoch in (2, 3):
        message = Message(epoch, Payload.NONE, 0, b"")
        with refusal(DecryptionFailed, "pq-epoch"):
            braid.receive(state, 0, message)
    keys = Authenticator(bytes(32), bytes(32))
    collecting: list[tuple[braid.State, Payload, int]] = [
        (NoHeaderReceived(1, keys, b""), Payload.HDR, 3),
        (EkSentCt1Received(1, keys, bytes(64), bytes(960), b""), Payload.CT2, 5),
    ]
    for begun, payload, count in collecting:
        state = begun
        for place in range(count - 1):
            state = braid.receive(state, 0, Message(1, payload, place, bytes(32)))[0]
        last = Message(1, payload, count - 1, bytes(32))
        with refusal(DecryptionFailed, "pq-mac"):
            braid.receive(state, 0, last)


# --- whole messages ---


def refused(device: Device, sender: Device, message: Ciphertext, code: str) -> None:
    kind = KeyRefused if code in ("own-identity", "identity-changed") else DecryptionFailed
    with refusal(kind, code):
        device.decrypt(sender.address, message)


def test_of_first_messages() -> None:
    alice, bob = support.pair()
    first = alice.send(bob.address, b"first")

    def changed(changes: dict[int, int | bytes | None]) -> Ciphertext:
        return Ciphertext(first.kind, b"\x44" + lenient.replaced(first.body[1:], changes))

    for number in (1, 6, 7):
        refused(bob, alice, changed({number: 99}), "unknown-prekey")
    inner = lenient.value(first.body[1:], 4)
    assert isinstance(inner, bytes)
    refused(bob, alice, changed({4: inner[:-1] + bytes((inner[-1] ^ 1,))}), "bad-mac")
    bare = b"\x44" + lenient.replaced(inner[1:-8], {6: None}) + bytes(8)
    refused(bob, alice, changed({4: bare}), "no-addresses")
    refused(bob, Device("carol"), first, "wrong-address")
    refused(alice, bob, first, "own-identity")
    bob.receive(alice.address, first)
    second = alice.send(bob.address, b"second")
    body = b"\x44" + lenient.replaced(second.body[1:], {7: 99})
    refused(bob, alice, Ciphertext(second.kind, body), "other-handshake")
    impostor = Device("impostor")
    impostor.local = replace(impostor.local, address=alice.address)
    impostor.begin(bob.bundle())
    refused(bob, alice, impostor.send(bob.address, b"posing"), "identity-changed")


def test_of_later_messages() -> None:
    alice, bob = support.talking()
    message = alice.send(bob.address, b"x")
    refused(Device("carol"), alice, message, "no-session")
    record = bob.record(alice.address)
    assert record is not None
    bob.records[alice.address] = SessionRecord(record.remote, record.identity_key, None, ()).encode()
    refused(bob, alice, message, "no-session")


def test_of_several_sessions_the_current_one_says_why() -> None:
    """Only if there is none, the newest that was archived does."""
    alice, bob = support.talking()
    alice.begin(bob.bundle())
    bob.receive(alice.address, alice.send(bob.address, b"a newer session"))
    alice.receive(bob.address, bob.send(alice.address, b"answer"))
    message = alice.send(bob.address, b"x")
    far = b"\x44" + lenient.replaced(message.body[1:-8], {2: 2**31}) + message.body[-8:]
    refused(bob, alice, Ciphertext(message.kind, far), "too-far-ahead")
    forged = Ciphertext(message.kind, message.body[:-1] + bytes((message.body[-1] ^ 1,)))
    refused(bob, alice, forged, "bad-mac")
    record = bob.record(alice.address)
    assert record is not None
    without = SessionRecord(record.remote, record.identity_key, None, record.archived)
    bob.records[alice.address] = without.encode()
    refused(bob, alice, forged, "pq-key-gone")
