"""Message content: what one device says to another inside a pairwise session.

Source: docs/identity.md, "Content". A content is an authenticated header and the msgpack of its kind's
struct, padded before encryption. Kinds that this version does not know stay bytes; fields that a later
version appends are dropped. Whether a header is true is the engine's to check against the session.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta, Struct

from lokket import limits
from lokket.codec import tls
from lokket.codec.tls import U8, U64, Bytes16, Opaque
from lokket.errors import DecodeError, LocalError
from lokket.protocol.identity import CHALLENGE_BYTES, hash_labelled
from lokket.wire.api import Hash, Id16

FORMAT: Final = 1
NO_HASH: Final = bytes(32)  # ``previous`` of the first content, and of contents that are not counted

# Kinds. 1 to 15 and from 128 on are counted: numbered, chained, acknowledged. The rest is control.
TEXT: Final = 1
SYNC: Final = 2
RECEIPT: Final = 16
INTRODUCTION: Final = 17
INVITE_ANSWER: Final = 18
HEAL: Final = 19
CARD: Final = 20
DEVICE_NAME: Final = 21
READ: Final = 22
HISTORY: Final = 23
HISTORY_ASK: Final = 24
HISTORY_PAGE: Final = 25
HANDOVER: Final = 26
CHALLENGE: Final = 27
CHALLENGE_RESPONSE: Final = 28
OWN_ONLY: Final = frozenset(
    {SYNC, CARD, DEVICE_NAME, READ, HISTORY, HISTORY_ASK, HISTORY_PAGE, HANDOVER}
)  # from our own devices alone

RECEIPT_MIDS_MAX: Final = limits.CONTENT_IDS_SMALL  # as we send them: in the smallest bucket
SMALLEST_BUCKET_BYTES: Final = 2 * limits.PADDING_BLOCK_BYTES - 1  # a header alone fills one block
LARGEST_BUCKET_BYTES: Final = limits.CONTENT_MAX_BYTES - 1

U32Int = Annotated[int, Meta(ge=0, le=2**32 - 1)]
U64Int = Annotated[int, Meta(ge=0, le=2**63 - 1)]  # as far as msgpack and SQLite agree
Ids = Annotated[tuple[Id16, ...], Meta(min_length=1, max_length=limits.CONTENT_IDS_MAX)]


class Frozen(Struct, frozen=True, array_like=True):
    """Base of everything here: an immutable array, to which later versions may append."""


class Header(Frozen, frozen=True):
    format: Annotated[int, Meta(ge=FORMAT, le=FORMAT)]
    kind: Annotated[int, Meta(ge=1, le=255)]
    conversation: Hash
    sender_genesis: Hash
    sender_device: Hash
    recipient_genesis: Hash
    recipient_device: Hash
    mid: Id16
    incarnation: U32Int
    seq: U64Int  # from 1; 0 in control kinds
    previous: Hash  # content_hash of the counted content before it
    acknowledged: Annotated[tuple[U64Int, ...], Meta(max_length=limits.ACKNOWLEDGED_SEQS_MAX)]
    sender_head: Hash
    recipient_head: Hash
    time_ms: U64Int
    session_id: Hash | None = None  # in every prekey message


class Content(Frozen, frozen=True):
    """``body`` is the msgpack of the kind's struct."""

    header: Header
    body: bytes


# --- bodies ---


class Text(Frozen, frozen=True):
    text: str


class Sync(Frozen, frozen=True):
    """To our own devices: what this device said to ``peer_genesis``."""

    peer_genesis: Hash
    kind: Annotated[int, Meta(ge=1, le=255)]
    body: bytes


class Receipt(Frozen, frozen=True):
    """Delivered and stored. More than RECEIPT_MIDS_MAX would show by their size: split them."""

    mids: Ids


class Introduction(Frozen, frozen=True):
    """A first message to someone who does not know us; with an invite's id and proof if there is one."""

    name: Annotated[str, Meta(max_length=limits.NAME_MAX_CHARS)] | None
    invite_id: Id16 | None = None
    mac: Hash | None = None


class InviteAnswer(Frozen, frozen=True):
    invite_id: Id16
    mac: Hash


class Heal(Frozen, frozen=True):
    """A fresh session, and the envelopes that the old one could not open."""

    envelope_ids: Ids


class Card(Frozen, frozen=True):
    """To our own devices: a contact of this device, so that it is no stranger to the others."""

    genesis_hash: Hash
    petname: Annotated[str, Meta(max_length=64)]
    chosen: bool  # the person chose the petname
    level: str
    accepted: bool = True
    barred: bool = False  # the person wants to hear nothing from them
    barred_ms: U64Int = 0  # when that was last decided: the latest counts
    named_ms: U64Int = 0  # when the person last chose the petname anew: the latest counts


class DeviceName(Frozen, frozen=True):
    """To our own devices: what the person calls one of them. The latest counts."""

    device_hash: Hash
    name: Annotated[str, Meta(max_length=limits.DEVICE_NAME_MAX_CHARS)]
    time_ms: U64Int


class Read(Frozen, frozen=True):
    """To our own devices: the conversation was read up to this message's time."""

    peer_genesis: Hash
    time_ms: U64Int


class History(Frozen, frozen=True):
    """To one of our own devices: it may ask for what this device has, ``total`` messages as of now."""

    total: U64Int


class HistoryAsk(Frozen, frozen=True):
    """The next page, after this place in the other's order; empty: from the start."""

    after: Annotated[bytes, Meta(max_length=limits.HISTORY_PLACE_MAX_BYTES)]


class Remembered(Frozen, frozen=True):
    """One message of a timeline. ``state``: sent, delivered, failed, received."""

    mid: Id16
    peer_genesis: Hash
    sender_genesis: Hash
    sender_device: Hash
    seq: U64Int
    time_ms: U64Int
    text: str
    state: str


class HistoryPage(Frozen, frozen=True):
    """The answer to ``HistoryAsk(after)``. ``next`` is the place to ask for then; empty: this was all."""

    after: Annotated[bytes, Meta(max_length=limits.HISTORY_PLACE_MAX_BYTES)]
    next: Annotated[bytes, Meta(max_length=limits.HISTORY_PLACE_MAX_BYTES)]
    messages: Annotated[tuple[Remembered, ...], Meta(max_length=limits.HISTORY_PAGE_MAX)]


class Handover(Frozen, frozen=True):
    """The admin role moves: ``stage`` is offer, accept, decline, key or held, about the list ``head``.

    ``seed``: the account key's 64 bytes, in stage key alone.
    """

    stage: Annotated[str, Meta(max_length=16)]
    head: Hash
    seed: Annotated[bytes, Meta(max_length=64)] = b""

    def __repr__(self) -> str:
        return f"Handover({self.stage})"


class Challenge(Frozen, frozen=True):
    """To who opened this session: a nonce, sealed to its inbox key for this session."""

    sealed: Annotated[bytes, Meta(min_length=CHALLENGE_BYTES, max_length=CHALLENGE_BYTES)]


class ChallengeResponse(Frozen, frozen=True):
    """A MAC over the session id under the nonce that the challenge held."""

    mac: Hash


Body: TypeAlias = (
    Text
    | Sync
    | Receipt
    | Introduction
    | InviteAnswer
    | Heal
    | Card
    | DeviceName
    | Read
    | History
    | HistoryAsk
    | HistoryPage
    | Handover
    | Challenge
    | ChallengeResponse
)

_KINDS: Final[dict[int, type[Body]]] = {
    TEXT: Text,
    SYNC: Sync,
    RECEIPT: Receipt,
    INTRODUCTION: Introduction,
    INVITE_ANSWER: InviteAnswer,
    HEAL: Heal,
    CARD: Card,
    DEVICE_NAME: DeviceName,
    READ: Read,
    HISTORY: History,
    HISTORY_ASK: HistoryAsk,
    HISTORY_PAGE: HistoryPage,
    HANDOVER: Handover,
    CHALLENGE: Challenge,
    CHALLENGE_RESPONSE: ChallengeResponse,
}
_KIND_OF: Final = {struct: kind for kind, struct in _KINDS.items()}
_encoder = msgspec.msgpack.Encoder()
_contents = msgspec.msgpack.Decoder(Content)
_bodies: Final = {kind: msgspec.msgpack.Decoder(struct) for kind, struct in _KINDS.items()}


def is_counted(kind: int) -> bool:
    """Whether contents of this kind, known or not, are numbered and chained."""
    return not RECEIPT <= kind < 128


def kind_of(body: Body) -> int:
    return _KIND_OF[type(body)]


def encode_body(body: Body) -> bytes:
    """LocalError: its text is not Unicode."""
    try:
        return _encoder.encode(body)
    except UnicodeEncodeError:
        raise LocalError(
            "a message is Unicode text: this one holds bytes that are none; is the terminal's locale UTF-8?"
        ) from None


def decode_body(kind: int, body: bytes) -> Body | None:
    """The struct of a known kind, None for an unknown one. DecodeError: not what its kind says."""
    decoder = _bodies.get(kind)
    if decoder is None:
        return None
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise DecodeError("a content's body is not what its kind describes") from None


def encode_content(content: Content) -> bytes:
    """The padded plaintext: 256 * 2^k - 1 bytes. LocalError: too large, or the header contradicts itself."""
    fault = _fault(content.header)
    if fault:
        raise LocalError(fault)
    return pad(_encoder.encode(content))


def decode_content(plaintext: bytes) -> Content:
    """DecodeError: padding, structure, or a header that contradicts itself. An unknown kind is none."""
    try:
        content = _contents.decode(unpad(plaintext))
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise DecodeError("a content is not what the format describes") from None
    fault = _fault(content.header)
    if fault:
        raise DecodeError(fault)
    return content


def _fault(header: Header) -> str | None:
    """What a header says against itself."""
    if is_counted(header.kind):
        if not header.seq:
            return "a counted content has no number"
        if (header.seq == 1) != (header.previous == NO_HASH):
            return "a content's number and predecessor do not fit"
    elif header.seq or header.previous != NO_HASH:
        return "a control content has a number or a predecessor"
    if header.sender_device == header.recipient_device:
        return "a content is from its recipient"
    if list(header.acknowledged) != sorted(set(header.acknowledged)) or 0 in header.acknowledged:
        return "acknowledged numbers are out of order"
    return None


@dataclass(frozen=True, slots=True)
class _Hashed:
    mid: Bytes16
    seq: U64
    kind: U8
    body: Opaque


def content_hash(mid: bytes, seq: int, kind: int, body: bytes) -> bytes:
    """What ``previous`` of the next content holds, 32 bytes: the same for every recipient.

    For a ``Sync`` give the kind and body that it carries: the copy continues the same chain.
    """
    return hash_labelled("content", tls.encode(_Hashed(mid, seq, kind, body)))


def pad(data: bytes) -> bytes:
    """``data`` 80 00* up to 256 * 2^k - 1 bytes, 511 at least. LocalError: more than 65,534 bytes."""
    if len(data) >= LARGEST_BUCKET_BYTES:
        raise LocalError("a message is too long: send it as a file")
    blocks = -(-(len(data) + 2) // limits.PADDING_BLOCK_BYTES)
    bucket = max(limits.PADDING_BLOCK_BYTES << (blocks - 1).bit_length(), SMALLEST_BUCKET_BYTES + 1) - 1
    return data + b"\x80" + bytes(bucket - len(data) - 1)


def unpad(padded: bytes) -> bytes:
    """DecodeError: not a bucket's size, or no padding. A larger bucket than needed is no error."""
    size = len(padded) + 1
    if size & size - 1 or not SMALLEST_BUCKET_BYTES <= len(padded) <= LARGEST_BUCKET_BYTES:
        raise DecodeError("a content does not fill a bucket")
    data = padded.rstrip(b"\x00")
    if data[-1:] != b"\x80":
        raise DecodeError("a content's padding is wrong")
    return data[:-1]
