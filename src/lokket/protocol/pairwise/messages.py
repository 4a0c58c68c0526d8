"""SignalMessage and PreKeySignalMessage, libsignal-client 0.103's bytes (protobuf after a version byte).

The MAC covers the bytes as received, so a decoded message keeps them. Knows no key schedule.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from lokket.codec import protobuf
from lokket.codec.protobuf import BYTES, VARINT, read_varint, varint
from lokket.crypto.keys import MLKEM_1024_PUBLIC_BYTES
from lokket.crypto.primitives import sha256
from lokket.crypto.xeddsa import KEY_TYPE
from lokket.errors import DecodeError, LocalError
from lokket.limits import DEVICE_NUMBER_MAX, PAIRWISE_MESSAGE_MAX_BYTES
from lokket.protocol.pairwise.value import public_value

VERSION_BYTE: Final = b"\x44"  # session version 4, and 4 as the newest its sender knows
MAC_BYTES: Final = 8
EC_KEY_BYTES: Final = 33
KEM_TYPE: Final = b"\x08"  # libsignal's type byte of Kyber-1024
KEM_BYTES: Final = 1 + MLKEM_1024_PUBLIC_BYTES  # of a public key and of a ciphertext, both 08 || 1568
REGISTRATION_MAX: Final = 0x3FFF

_ACI: Final = b"\x00"  # the kind of service id that is an account; we speak to no other
_USUAL_START: Final = b"\x0a\x21\x05"  # field 1, 33 bytes, of which the first is the key's type
_SIGNAL_FIELDS: Final = {1: BYTES, 2: VARINT, 3: VARINT, 4: BYTES, 5: BYTES, 6: BYTES}
_PREKEY_FIELDS: Final = {
    1: VARINT,
    2: BYTES,
    3: BYTES,
    4: BYTES,
    5: VARINT,
    6: VARINT,
    7: VARINT,
    8: BYTES,
}


class MessageKind(IntEnum):
    """libsignal's outer type codes."""

    WHISPER = 2
    PREKEY = 3


@dataclass(frozen=True, slots=True)
class Address:
    """One device of one account: ``service_id`` is the account's UUID, 16 bytes; ``device`` is 1..127."""

    service_id: bytes
    device: int

    def __post_init__(self) -> None:
        if len(self.service_id) != 16 or not 1 <= self.device <= DEVICE_NUMBER_MAX:
            raise LocalError("an address is a 16-byte service id and a device from 1 to 127")

    @property
    def wire(self) -> bytes:
        """Kind, UUID and device, 18 bytes, as in the ``addresses`` field."""
        return _ACI + self.service_id + bytes((self.device,))


@public_value
class Ciphertext:
    """What goes to one device: the outer type and the bytes of that message."""

    kind: MessageKind
    body: bytes


class SignalMessage:
    """One decoded whisper message; ``authenticated`` is what its 8-byte ``mac`` covers."""

    __slots__ = ("addresses", "authenticated", "ciphertext", "counter", "mac", "pq_ratchet", "ratchet_key")

    def __init__(self, body: bytes) -> None:
        """DecodeError: ``body`` is no SignalMessage."""
        if len(body) > PAIRWISE_MESSAGE_MAX_BYTES:
            raise DecodeError("a message is too long", code="too-long")
        if body[:1] != VERSION_BYTE:
            raise DecodeError("a message has another version", code="bad-version")
        if len(body) < 1 + MAC_BYTES:
            raise DecodeError("a message is cut short")
        self.authenticated = body[:-MAC_BYTES]
        self.mac = body[-MAC_BYTES:]
        if self._read_usual(body, len(body) - MAC_BYTES):
            return
        fields = protobuf.decode(self.authenticated[1:], _SIGNAL_FIELDS)
        self.ratchet_key = ec_key(fields.string(1))  # 32 bytes, without the type byte
        self.counter = fields.number(2)
        fields.number(3)  # previous_counter: always written, never needed, as old chains are kept
        self.ciphertext = fields.string(4)
        pq_ratchet = fields.strings.get(5)
        if not pq_ratchet:
            raise DecodeError("a message has no post-quantum ratchet", code="no-pq-ratchet")
        self.pq_ratchet = pq_ratchet
        self.addresses = fields.strings.get(6)

    def _read_usual(self, body: bytes, end: int) -> bool:
        """Fields 1 to 5 once, in order and nothing else, as every sender writes a whisper message.

        False: anything else, valid or not, for the general decoder. DecodeError: a varint is malformed.
        """
        if end < 42 or body[1:4] != _USUAL_START or body[36] != 0x10:
            return False
        counter, place = read_varint(body, 37)
        if place >= end or body[place] != 0x18:
            return False
        previous, place = read_varint(body, place + 1)
        if place >= end or body[place] != 0x22:
            return False
        size, start = read_varint(body, place + 1)
        place = start + size
        if place >= end or body[place] != 0x2A:
            return False
        pq_size, pq_start = read_varint(body, place + 1)
        if pq_start + pq_size != end or not pq_size or counter >> 32 or previous >> 32:
            return False
        self.ratchet_key = body[4:36]
        self.counter = counter
        self.ciphertext = body[start:place]
        self.pq_ratchet = body[pq_start:end]
        self.addresses = None
        return True


def encode_signal_message(
    ratchet_key: bytes,
    counters: tuple[int, int],
    ciphertext: bytes,
    pq_ratchet: bytes,
    addresses: bytes | None,
) -> bytes:
    """Everything but the MAC; ``ratchet_key`` has 32 bytes, ``counters`` are its own and the last chain's."""
    parts = (
        b"\x44\x0a\x21\x05",
        ratchet_key,
        b"\x10",
        varint(counters[0]),
        b"\x18",
        varint(counters[1]),
        b"\x22",
        varint(len(ciphertext)),
        ciphertext,
        b"\x2a",
        varint(len(pq_ratchet)),
        pq_ratchet,
    )
    if addresses is None:
        return b"".join(parts)
    return b"".join((*parts, b"\x32", varint(len(addresses)), addresses))


@public_value
class PreKeyMessage:
    """A decoded PreKeySignalMessage: it has no MAC of its own, ``message`` inside has one."""

    registration_id: int
    one_time_prekey_id: int | None
    signed_prekey_id: int
    kem_prekey_id: int
    base_key: bytes  # 33
    identity_key: bytes  # 33
    kem_ciphertext: bytes  # 1569
    message: bytes

    def encode(self) -> bytes:
        """Fields 1 to 8 in order; the sizes of keys and of the KEM ciphertext are fixed."""
        one_time = self.one_time_prekey_id
        return b"".join(
            (
                VERSION_BYTE,
                b"" if one_time is None else b"\x08" + varint(one_time),
                b"\x12\x21",
                self.base_key,
                b"\x1a\x21",
                self.identity_key,
                b"\x22",
                varint(len(self.message)),
                self.message,
                b"\x28",
                varint(self.registration_id),
                b"\x30",
                varint(self.signed_prekey_id),
                b"\x38",
                varint(self.kem_prekey_id),
                b"\x42\xa1\x0c",
                self.kem_ciphertext,
            )
        )


def decode_prekey_message(body: bytes) -> PreKeyMessage:
    """DecodeError: ``body`` is no PreKeySignalMessage of session version 4."""
    if len(body) > PAIRWISE_MESSAGE_MAX_BYTES:
        raise DecodeError("a message is too long", code="too-long")
    if body[:1] != VERSION_BYTE:
        raise DecodeError("a prekey message has another version", code="bad-version")
    fields = protobuf.decode(body[1:], _PREKEY_FIELDS)
    kem_ciphertext = fields.string(8, KEM_BYTES)
    if kem_ciphertext[:1] != KEM_TYPE:
        raise DecodeError("a KEM ciphertext has another type", code="bad-kem-type")
    registration_id = fields.number(5)
    if registration_id > REGISTRATION_MAX:
        raise DecodeError("a registration id has more than 14 bits")
    base_key, identity_key = fields.string(2), fields.string(3)
    ec_key(base_key)
    ec_key(identity_key)
    return PreKeyMessage(
        registration_id=registration_id,
        one_time_prekey_id=fields.numbers.get(1),
        signed_prekey_id=fields.number(6),
        kem_prekey_id=fields.number(7),
        base_key=base_key,
        identity_key=identity_key,
        kem_ciphertext=kem_ciphertext,
        message=fields.string(4),
    )


@dataclass(frozen=True, slots=True)
class PreKeyMessageInfo:
    """What a prekey message says about itself before anything is verified.

    ``first_message_id`` is that of all prekey messages of one session and of no other: who keeps it takes no
    replay (PQXDH section 4.2) for a new session where no one-time key is needed.
    """

    registration_id: int
    identity_key: bytes  # 33
    base_key: bytes  # 33
    signed_prekey_id: int
    one_time_prekey_id: int | None
    kem_prekey_id: int
    first_message_id: bytes  # SHA-256(identity key || base key || KEM ciphertext), 32


def inspect_prekey_message(body: bytes) -> PreKeyMessageInfo:
    """The public fields of a prekey message, unauthenticated. DecodeError."""
    message = decode_prekey_message(body)
    return PreKeyMessageInfo(
        registration_id=message.registration_id,
        identity_key=message.identity_key,
        base_key=message.base_key,
        signed_prekey_id=message.signed_prekey_id,
        one_time_prekey_id=message.one_time_prekey_id,
        kem_prekey_id=message.kem_prekey_id,
        first_message_id=sha256(message.identity_key + message.base_key + message.kem_ciphertext),
    )


def ec_key(public: bytes) -> bytes:
    """The 32 bytes after libsignal's type byte. DecodeError: not 05 and 32 bytes."""
    if len(public) != EC_KEY_BYTES or public[:1] != KEY_TYPE:
        raise DecodeError("a Curve25519 key is 05 and 32 bytes", code="bad-key-encoding")
    return public[1:]
