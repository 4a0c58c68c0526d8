"""Every decoder as a function of bytes: it returns, or raises ``RemoteError``, and nothing else.

A new decoder adds one line to ``TARGETS`` and its starting values to ``seeds.py``. ``run.py`` drives one
target under atheris; ``tests/unit/test_fuzz_corpus.py`` replays ``corpus/NAME`` and mutations of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final

from fuzz import archives, frames, identity
from lokket.codec import protobuf, tls
from lokket.crypto.primitives import sha256
from lokket.errors import LokketError, RemoteError
from lokket.protocol import fingerprint, pairwise
from lokket.protocol.pairwise import Ciphertext, MessageKind, messages, spqr
from tests.support.entropy import SeededEntropy
from tests.support.pairwise import Device

Target = Callable[[bytes], object]


class Colour(IntEnum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass(frozen=True, slots=True)
class Leaf:
    number: tls.U16
    name: Annotated[bytes, tls.OpaqueV(40)]


@dataclasses.dataclass(frozen=True, slots=True)
class Everything:
    """One field of every type that the presentation language has."""

    small: tls.U8
    large: tls.U64
    flag: bool
    fixed: tls.Bytes16
    opaque: tls.Opaque
    leaves: tuple[Leaf, ...]
    sorted: Annotated[tuple[Leaf, ...], tls.Vector(3, ascending=True)]
    maybe: tls.U32 | None
    colour: Annotated[Colour, tls.Uint(1)]
    choice: Annotated[Leaf | int, tls.Select(tls.Uint(1), {1: Leaf})]


def canonical(kind: type[Any]) -> Target:
    """A decoder of ``codec.tls``: what it accepts has no other encoding."""

    def target(data: bytes) -> object:
        value = tls.decode(kind, data)
        assert tls.encode(value) == data, f"{kind.__name__} accepts a second encoding"
        return value

    return target


# --- pairwise sessions ---

BOBS_RECORD: Final = Path(__file__).parent / "fixtures" / "record"  # of his session with Alice
OWN_FINGERPRINT: Final = fingerprint.scannable(
    2, b"own", b"\x05" + bytes(32), b"their", b"\x05" + bytes(32), 1
)
_PROTOBUF: Final = {1: protobuf.BYTES, 2: protobuf.VARINT, 3: protobuf.VARINT, 200: protobuf.BYTES}
_PQ_SECRET: Final = sha256(b"fuzz")


def decode_protobuf(data: bytes) -> object:
    """What is accepted reads the same when it is written anew."""
    fields = protobuf.decode(data, _PROTOBUF)
    values = {**fields.numbers, **fields.strings}
    again = protobuf.decode(protobuf.encode(sorted(values.items())), _PROTOBUF)
    assert {**again.numbers, **again.strings} == values
    return fields


def decode_prekey_message(data: bytes) -> object:
    message = messages.decode_prekey_message(data)
    assert messages.decode_prekey_message(message.encode()) == message
    messages.inspect_prekey_message(data)
    return message


@cache
def pq_states() -> tuple[spqr.Spqr, ...]:
    """A side of a conversation in each of the Braid's eleven states, in a fixed order."""
    entropy = SeededEntropy("fuzz")
    found: dict[str, spqr.Spqr] = {}
    for lost in (0, 1):  # loss in one direction brings about the states that order alone never reaches
        sides = [spqr.start(_PQ_SECRET, initiator) for initiator in (True, False)]
        for turn in range(300):
            who = turn % 2
            sides[who], data, _ = spqr.send(sides[who], entropy)
            if who != lost or turn % 6 == lost:
                sides[1 - who], _ = spqr.receive(sides[1 - who], data, pairwise.Work())
            for side in sides:
                found.setdefault(type(side.braid.value.state).__name__, side)
    return tuple(state for _, state in sorted(found.items()))


def receive_pq(data: bytes) -> object:
    """A post-quantum ratchet message, taken by the Braid in the state that the first byte names."""
    states = pq_states()
    state = states[data[0] % len(states) if data else 0]
    return spqr.receive(state, data[1:], pairwise.Work())


def decode_record(data: bytes) -> object:
    """A record from storage: what decodes is stored as it was, and using it raises errors of ours alone."""
    record = pairwise.SessionRecord.decode(data)
    assert record.encode() == data, "a session record has a second encoding"
    device = bob()
    try:
        pairwise.encrypt(record, device.local, b"x", device.now_ms, device.entropy)
    except LokketError as error:
        return error
    return record


@cache
def bob() -> Device:
    """Who is talked to: his keys follow from his name, only his record is a file."""
    device = Device("fuzz bob")
    device.bundle()
    device.bundle(one_time=False)
    return device


@cache
def _bob_in_session() -> Device:
    device = bob()
    device.records[Device("fuzz alice").address] = BOBS_RECORD.read_bytes()
    return device


def decrypt(data: bytes) -> object:
    """A whole message, its kind in the first byte, to Bob in his session and to Bob who knows nobody."""
    kind = MessageKind.PREKEY if data[:1] == b"\x03" else MessageKind.WHISPER
    alice, ciphertext = Device("fuzz alice").address, Ciphertext(kind, data[1:])
    device = _bob_in_session()
    record = device.record(alice)
    assert record is not None
    refusal: RemoteError | None = None
    decrypted = None
    for known in (record, None):
        try:
            decrypted = pairwise.decrypt(
                known, device.local, alice, ciphertext, device.store, device.now_ms, device.entropy
            )
        except RemoteError as error:
            refusal = error
    assert record.encode() == device.records[alice], "a decrypt changed the record it was given"
    if decrypted is None:
        assert refusal is not None
        raise refusal
    return decrypted


TARGETS: Final[dict[str, Target]] = {
    "tls": canonical(Everything),
    "protobuf": decode_protobuf,
    "signal-message": messages.SignalMessage,
    "prekey-message": decode_prekey_message,
    "pq-ratchet": receive_pq,
    "session-record": decode_record,
    "decrypt": decrypt,
    "fingerprint": lambda data: fingerprint.compare_scannable(OWN_FINGERPRINT, data),
    **identity.TARGETS,
    **frames.TARGETS,
    **archives.TARGETS,
}
