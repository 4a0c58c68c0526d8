"""Targets and starting values of pairwise sessions, for ``targets.py`` and ``seeds.py``.

Beside a value or a RemoteError they promise: the state that was handed in is unchanged, and the key
derivations are those that ``limits.py`` allows (``work.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Final

from fuzz.work import CHAIN_STEPS_MAX, DERIVATIONS_MAX, counted
from lokket.codec import protobuf
from lokket.crypto.primitives import sha256
from lokket.errors import LokketError, RemoteError
from lokket.protocol import pairwise
from lokket.protocol.pairwise import (
    Address,
    Ciphertext,
    Decrypted,
    MessageKind,
    SessionRecord,
    Work,
    messages,
    spqr,
)
from tests.support import protobuf as lenient
from tests.support.entropy import SeededEntropy
from tests.support.pairwise import Device, talking

BOBS_RECORD: Final = Path(__file__).parent / "fixtures" / "record"  # of his session with Alice
_PROTOBUF: Final = {1: protobuf.BYTES, 2: protobuf.VARINT, 3: protobuf.VARINT, 200: protobuf.BYTES}
_PQ_SECRET: Final = sha256(b"fuzz")


def decode_protobuf(data: bytes) -> object:
    """What is accepted reads the same when it is written anew."""
    fields = protobuf.decode(data, _PROTOBUF)
    values = {**fields.numbers, **fields.strings}
    again = protobuf.decode(protobuf.encode(sorted(values.items())), _PROTOBUF)
    assert {**again.numbers, **again.strings} == values
    return fields


class _General(messages.SignalMessage):
    """Read by the general decoder alone."""

    __slots__ = ()

    def _read_usual(self, body: bytes, end: int) -> bool:
        return False


def decode_signal_message(data: bytes) -> object:
    """The short way for the usual layout and the general decoder read the same, or both refuse."""
    try:
        general = _General(data)
    except RemoteError as refusal:
        try:
            messages.SignalMessage(data)
        except RemoteError:
            raise refusal from None
        raise AssertionError("the short way reads what the general decoder refuses") from None
    message = messages.SignalMessage(data)
    assert message.authenticated + message.mac == data
    for field in messages.SignalMessage.__slots__:
        assert getattr(message, field) == getattr(general, field), field
    return message


def decode_prekey_message(data: bytes) -> object:
    message = messages.decode_prekey_message(data)
    assert messages.decode_prekey_message(message.encode()) == message
    messages.inspect_prekey_message(data)
    return message


@cache
def pq_states() -> tuple[spqr.Spqr, ...]:
    """A side of a conversation in each of the Braid's states, in a fixed order."""
    entropy = SeededEntropy("fuzz")
    found: dict[str, spqr.Spqr] = {}
    for lost in (0, 1):  # loss in one direction brings about the states that order alone never reaches
        sides = [spqr.start(_PQ_SECRET, initiator) for initiator in (True, False)]
        for turn in range(300):
            who = turn % 2
            sides[who], data, _ = spqr.send(sides[who], entropy)
            if who != lost or turn % 6 == lost:
                sides[1 - who], _ = spqr.receive(sides[1 - who], data, Work())
            for side in sides:
                found.setdefault(type(side.braid.state).__name__, side)
    return tuple(state for _, state in sorted(found.items()))


def receive_pq(data: bytes) -> object:
    """A post-quantum ratchet message, taken by the Braid in the state that the first byte names."""
    states = pq_states()
    state = states[data[0] % len(states) if data else 0]
    before, work = _pq_bytes(state), Work()
    with counted() as found:
        try:
            return spqr.receive(state, data[1:], work)
        finally:
            assert _pq_bytes(state) == before, "a post-quantum step changed the state it was given"
            assert work.chain_steps == found.chain_steps <= CHAIN_STEPS_MAX // 2
            assert found.derivations <= DERIVATIONS_MAX


def _pq_bytes(state: spqr.Spqr) -> tuple[object, ...]:
    """Encoded anew: the bytes that ``Stored`` keeps would hide a change."""
    fresh = type(state.braid)(state.braid.state)
    return (fresh.data, state.next_chunk, state.root, state.initiator, state.links)


def decode_record(data: bytes) -> object:
    """A record from storage: what decodes is stored as it was, and using it raises errors of ours alone."""
    record = SessionRecord.decode(data)
    assert record.encode() == data, "a session record has a second encoding"
    device = bob()
    outcome: object = record
    if record.current is not None:
        assert record.current.ratchet[0].own.public  # else sending would note it down
    before = record.encode()
    try:
        pairwise.encrypt(record, device.local, b"x", device.now_ms, device.entropy)
    except LokketError as error:
        outcome = error
    try:
        watched(device, SessionRecord.decode(data), record.remote, _late_message())
    except LokketError as error:
        outcome = error
    assert record.encode() == before, "an encrypt changed the record it was given"
    return outcome


@cache
def bob() -> Device:
    """Who is talked to: his keys follow from his name, only his record is a file."""
    device = Device("fuzz bob")
    device.bundle()
    device.bundle(one_time=False)
    return device


@cache
def bob_in_session() -> Device:
    device = bob()
    device.records[Device("fuzz alice").address] = BOBS_RECORD.read_bytes()
    return device


@cache
def _late_message() -> Ciphertext:
    """A whisper message far ahead in both ratchets, of a ratchet key that no record knows."""
    alice, bob = talking()
    body = alice.send(bob.address, b"far ahead").body
    pq_ratchet = b"\x01\x01" + lenient.varint(1_999) + b"\x00"
    changed = lenient.replaced(body[1:-8], {1: b"\x05\x09" + bytes(31), 2: 1_999, 5: pq_ratchet})
    return Ciphertext(MessageKind.WHISPER, b"\x44" + changed + body[-8:])


def watched(
    device: Device, record: SessionRecord | None, remote: Address, ciphertext: Ciphertext
) -> Decrypted:
    """One decrypt, its work within the bounds, the record and the prekeys as they were."""
    before = None if record is None else record.encode()
    prekeys = [dict(kind) for kind in (device.store.signed, device.store.one_time, device.store.kem)]
    work = Work()
    with counted() as found:
        try:
            return pairwise.decrypt(
                record,
                device.local,
                remote,
                ciphertext,
                device.store,
                device.now_ms,
                device.entropy,
                work=work,
            )
        finally:
            found.check(work)
            after = None if record is None else record.encode()
            assert after == before, "a decrypt changed the record it was given"
            assert prekeys == [device.store.signed, device.store.one_time, device.store.kem]


def decrypt(data: bytes) -> object:
    """A whole message, its kind in the first byte, to Bob in his session and to Bob who knows nobody."""
    kind = MessageKind.PREKEY if data[:1] == b"\x03" else MessageKind.WHISPER
    alice, ciphertext = Device("fuzz alice").address, Ciphertext(kind, data[1:])
    device = bob_in_session()
    refusal: RemoteError | None = None
    decrypted = None
    for stored in (device.records[alice], None):
        record = None if stored is None else SessionRecord.decode(stored)
        try:
            decrypted = watched(device, record, alice, ciphertext)
        except RemoteError as error:
            refusal = error
    if decrypted is None:
        assert refusal is not None
        raise refusal
    assert SessionRecord.decode(decrypted.record.encode()).remote == alice
    return decrypted


TARGETS: Final[dict[str, Callable[[bytes], object]]] = {
    "protobuf": decode_protobuf,
    "signal-message": decode_signal_message,
    "prekey-message": decode_prekey_message,
    "pq-ratchet": receive_pq,
    "session-record": decode_record,
    "decrypt": decrypt,
}


def protobuf_values() -> Iterator[bytes]:
    yield lenient.write([(1, b"bytes"), (2, 300), (3, 2**32 - 1), (200, b"")])
    yield lenient.write([(3, 0), (7, b"unknown"), (1, b"")]) + bytes((9 << 3 | 5, 1, 2, 3, 4))


def signal_messages() -> Iterator[bytes]:
    alice, bob = talking()
    yield alice.send(bob.address, b"a message").body
    alice.begin(bob.bundle())
    inner = lenient.value(alice.send(bob.address, b"with addresses").body[1:], 4)
    assert isinstance(inner, bytes)
    yield inner


def prekey_messages() -> Iterator[bytes]:
    for one_time in (True, False):
        alice, bob = Device("alice"), Device("bob")
        alice.begin(bob.bundle(one_time=one_time))
        yield alice.send(bob.address, b"first").body


def pq_messages() -> Iterator[bytes]:
    """To every state of the Braid: what the other states send, that is, mostly another epoch or payload."""
    entropy = SeededEntropy("fuzz")
    sent = [spqr.send(state, entropy)[1] for state in pq_states()]
    for place in range(len(sent)):
        yield bytes((place,)) + sent[place - 1]
        yield bytes((place,)) + sent[place - 4]
    yield b"\x00\x01\x01\x05\x00"
    yield b"\x00\x01\x01\x02\x05\xff\xff\x03" + bytes(32)


def session_records() -> Iterator[bytes]:
    """One record in each state of the Braid, some with skipped keys, some with archived sessions."""
    alice, bob = talking()
    seen = set()
    for number in range(200):
        for sender, receiver in ((alice, bob), (bob, alice)):
            if number % 40 == 7:
                sender.send(receiver.address, b"skipped")
            receiver.receive(sender.address, sender.send(receiver.address, b"x"))
            record = receiver.record(sender.address)
            assert record is not None
            assert record.current is not None
            state = type(record.current.ratchet[1].braid.state)
            if state not in seen:
                seen.add(state)
                yield receiver.records[sender.address]
    late = alice.send(bob.address, b"late")
    alice.begin(bob.bundle())
    bob.receive(alice.address, alice.send(bob.address, b"again"))
    yield bob.records[alice.address]
    yield alice.records[bob.address]
    bob.receive(alice.address, late)
    yield bob.records[alice.address]


def messages_to_bob() -> Iterator[bytes]:
    """Renews Bob's record too: its session was made with a KEM secret that no seed repeats."""
    alice, bob = Device("fuzz alice"), Device("fuzz bob")
    bundle, without_one_time = bob.bundle(), bob.bundle(one_time=False)
    alice.begin(bundle)
    first = alice.send(bob.address, b"first")
    yield bytes((first.kind,)) + first.body
    bob.receive(alice.address, first)
    alice.receive(bob.address, bob.send(alice.address, b"answer"))
    lost = alice.send(bob.address, b"lost")
    late = alice.send(bob.address, b"late")
    bob.receive(alice.address, late)
    BOBS_RECORD.parent.mkdir(exist_ok=True)
    BOBS_RECORD.write_bytes(bob.records[alice.address])
    for message in (lost, late, alice.send(bob.address, b"next")):
        yield bytes((MessageKind.WHISPER,)) + message.body
    alice.begin(without_one_time)
    anew = alice.send(bob.address, b"anew")
    yield bytes((anew.kind,)) + anew.body


SEEDS: Final[dict[str, Callable[[], Iterator[bytes]]]] = {
    "protobuf": protobuf_values,
    "signal-message": signal_messages,
    "prekey-message": prekey_messages,
    "pq-ratchet": pq_messages,
    "session-record": session_records,
    "decrypt": messages_to_bob,
}
