"""The relay's interface: frames, requests, replies, pushes (msgspec msgpack, arrays).

A client frame is ``[number, request]``, a relay frame ``[number, reply]``; number 0 is a push. Signed
objects travel as the bytes that were signed (``lokket.protocol.identity``, ``.prekeys``); the relay
never re-encodes them. Account references are 32-byte genesis hashes, device references 32-byte device
hashes, time is in milliseconds unless a name says ``_s``.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias, TypeVar

import msgspec
from msgspec import Meta, Struct

from lokket import limits
from lokket.errors import DecodeError

T = TypeVar("T")

PROTOCOL_VERSION: Final = 1
PROTOCOL_VERSIONS: Final = (1,)  # accepted at hello, newest last

Hash = Annotated[bytes, Meta(min_length=32, max_length=32)]
Id16 = Annotated[bytes, Meta(min_length=16, max_length=16)]
Blob = Annotated[bytes, Meta(max_length=limits.FRAME_MAX_BYTES)]
Name = Annotated[str, Meta(min_length=1, max_length=limits.NAME_MAX_CHARS)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Frozen(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of everything here: an immutable array."""


# --- envelopes (docs/identity.md, "Envelopes") ---

KIND_WHISPER: Final = 2  # a SignalMessage
KIND_PREKEY: Final = 3  # a PreKeySignalMessage
KIND_SEALED: Final = 16  # reserved: sealed mail carries no sender

DEPOSIT_LOGIN: Final = 0  # the depositor is the logged-in device named as sender
DEPOSIT_TOKEN: Final = 1  # reserved: a blinded single-use token
DEPOSIT_INVITE: Final = 2  # reserved: an invite's deposit right


class Sender(Frozen, frozen=True):
    genesis_hash: Hash
    device_hash: Hash


class Envelope(Struct, frozen=True, array_like=True):
    """One ciphertext for one device. Later fields are dropped, unknown kinds stored as they are."""

    format: Annotated[int, Meta(ge=1, le=255)]
    kind: Annotated[int, Meta(ge=0, le=255)]
    envelope_id: Id16
    recipient: Hash  # genesis hash
    device_hash: Hash
    recipient_head: Hash  # the recipient's list head as the sender knows it
    deposit: Annotated[int, Meta(ge=0, le=255)]
    deposit_data: Annotated[bytes, Meta(max_length=4096)]  # empty for DEPOSIT_LOGIN
    sender: Sender | None
    body: Annotated[bytes, Meta(max_length=limits.ENVELOPE_BODY_MAX_BYTES)]


# --- requests ---


class Login(Frozen, frozen=True, tag="login"):
    """Signed by the device's auth key over the greeting's nonce (``identity.LoginStatement``)."""

    genesis_hash: Hash
    device_hash: Hash
    client_nonce: Hash
    time_s: Count
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]


class Register(Frozen, frozen=True, tag="register"):
    """A new account with its first device. Idempotent: the same genesis and token answer the same."""

    token: bytes  # 32 bytes; empty on an open relay
    genesis: Blob
    link: Blob  # SignedLink, version 1
    body: Blob  # ListBody
    devices: Annotated[tuple[Blob, ...], Meta(min_length=1, max_length=1)]
    proof: Blob  # RegisterProof: every key signs this relay, this token and this nonce
    name_claim: Blob | None


class FetchChain(Frozen, frozen=True, tag="chain"):
    """Before the login, by who recovers an account and knows its hash: the whole chain."""

    genesis_hash: Hash


class Recover(Frozen, frozen=True, tag="recover"):
    """A rotation and the first list of its epoch, then the login of the device that the list brings.

    Before the login. Idempotent: a list that the relay has already is simply logged in to.
    """

    rotation: Blob  # SignedRotation
    link: Blob  # SignedLink
    body: Blob  # ListBody
    device: Blob  # the new admin device
    login: Login


class Meet(Frozen, frozen=True, tag="meet"):
    """Open a meeting for a new device, or look whether it came: SHA-256 of the token in its code."""

    token_hash: Hash


class Knock(Frozen, frozen=True, tag="knock"):
    """Before the login, by a new device that has the code: leave a sealed word for who opened the meeting."""

    token: Hash
    sealed: Annotated[bytes, Meta(min_length=1, max_length=limits.KNOCK_MAX_BYTES)]


class Publish(Frozen, frozen=True, tag="publish"):
    """A fresh prekey batch of the calling device: replaces what the relay still holds of older ones."""

    batch: Blob  # prekeys.PublicBatch


class FetchAccount(Frozen, frozen=True, tag="account"):
    """Genesis and everything after (epoch, version); ``known_version`` 0 asks for all."""

    genesis_hash: Hash
    known_epoch: Count
    known_version: Count


class FetchBundle(Frozen, frozen=True, tag="bundle"):
    genesis_hash: Hash
    device_hash: Hash


class PutList(Frozen, frozen=True, tag="list"):
    """Compare-and-set: accepted only when the link's ``previous`` is the stored head."""

    rotation: Blob | None  # SignedRotation, when the link opens a new key epoch
    link: Blob
    body: Blob
    devices: Annotated[tuple[Blob, ...], Meta(max_length=limits.DEVICES_MAX)]  # those the relay lacks


class PutChain(Frozen, frozen=True, tag="chain-put"):
    """A whole chain for a relay that holds less of it, because it was restored from a backup.

    Nothing in it is secret, and every device of the account may bring it.
    """

    chain: Blob  # identity.AccountUpdate


class Readmit(Frozen, frozen=True, tag="readmit"):
    """Before the login: ``PutChain`` by an admin device whom the relay does not know any more, and its login.

    An account that is gone as a whole needs a token, like a new one.
    """

    token: bytes  # 32 bytes; empty: none
    chain: Blob
    proof: Blob  # RegisterProof, over the token as it is
    name_claim: Blob | None


class ClaimName(Frozen, frozen=True, tag="claim"):
    claim: Blob  # identity.SignedNameClaim


class LookupName(Frozen, frozen=True, tag="name"):
    name: Name


class PutInvite(Frozen, frozen=True, tag="invite"):
    token_hash: Hash  # SHA-256 of the 32-byte token
    expires_s: Count


class Send(Frozen, frozen=True, tag="send"):
    envelopes: Annotated[tuple[Envelope, ...], Meta(min_length=1, max_length=limits.SEND_BATCH_MAX)]


class Acknowledge(Frozen, frozen=True, tag="ack"):
    envelope_ids: Annotated[tuple[Id16, ...], Meta(min_length=1, max_length=limits.ACK_BATCH_MAX)]


class DeleteAccount(Frozen, frozen=True, tag="delete"):
    """Signed by the account key over the greeting's nonce (``identity.DeleteStatement``): nothing is kept
    but the name, which rests."""

    signature: Blob  # identity.HybridSignature


class BeginBlob(Frozen, frozen=True, tag="blob"):
    """Announce an opaque file of this account, or ask how much of it is there. Answer: ``BlobHeld``."""

    blob_id: Id16
    size_bytes: Annotated[int, Meta(ge=1, le=2**40)]


class PutBlobPart(Frozen, frozen=True, tag="blob-part"):
    """Answer: ``BlobHeld``, with where the next part goes; one that went elsewhere has changed nothing."""

    blob_id: Id16
    offset: Count
    part: Annotated[bytes, Meta(min_length=1, max_length=limits.BLOB_PART_MAX_BYTES)]


class CommitBlob(Frozen, frozen=True, tag="blob-end"):
    """All parts are there: from here on it is kept, and listed."""

    blob_id: Id16


class ListBlobs(Frozen, frozen=True, tag="blobs"):
    pass


class FetchBlobPart(Frozen, frozen=True, tag="blob-read"):
    """Some bytes from ``offset`` on; the next request begins behind them."""

    blob_id: Id16
    offset: Count


class DeleteBlob(Frozen, frozen=True, tag="blob-delete"):
    """Also one that is not there: the answer is the same."""

    blob_id: Id16


class Ping(Frozen, frozen=True, tag="ping"):
    pass


Request: TypeAlias = (
    Login
    | Register
    | FetchChain
    | Recover
    | Meet
    | Knock
    | Publish
    | FetchAccount
    | FetchBundle
    | PutList
    | PutChain
    | Readmit
    | ClaimName
    | LookupName
    | PutInvite
    | Send
    | Acknowledge
    | DeleteAccount
    | BeginBlob
    | PutBlobPart
    | CommitBlob
    | ListBlobs
    | FetchBlobPart
    | DeleteBlob
    | Ping
)

# --- replies ---


class Ok(Frozen, frozen=True, tag="ok"):
    pass


class LoggedIn(Frozen, frozen=True, tag="logged-in"):
    """Answer to Login and Register. ``last_nonce``: the client nonce of the last login whose answer came.

    That it came shows in the next request, so a device that has nothing else to ask sends a ``Ping``.
    """

    last_nonce: Hash | None
    head: Hash  # the account's list head as the relay holds it
    key_epoch: Count
    version: Count
    manifest_number: Count  # 0: none published
    pairs_left: Count
    mailbox: Count  # envelopes waiting


class Account(Frozen, frozen=True, tag="account"):
    chain: Blob  # identity.ChainUpdate


class Bundle(Frozen, frozen=True, tag="bundle"):
    bundle: Blob  # prekeys.ServedBundle


class Met(Frozen, frozen=True, tag="met"):
    """What was left by ``Knock``; empty: nobody came yet."""

    sealed: Blob


class NameRecord(Frozen, frozen=True, tag="name"):
    genesis_hash: Hash
    claim: Blob


class Deposited(Frozen, frozen=True):
    """What became of one envelope: ``code`` is "" when it is on disk, else an error code."""

    envelope_id: Id16
    code: str


class Sent(Frozen, frozen=True, tag="sent"):
    results: tuple[Deposited, ...]


class BlobHeld(Frozen, frozen=True, tag="blob"):
    """``received`` bytes of ``size_bytes``; ``expires_s``: when it is deleted, as things are."""

    blob_id: Id16
    size_bytes: Count
    received: Count
    committed: bool
    expires_s: Count


class Blobs(Frozen, frozen=True, tag="blobs"):
    """The account's, oldest first."""

    held: tuple[BlobHeld, ...]


class BlobPart(Frozen, frozen=True, tag="blob-part"):
    part: Annotated[bytes, Meta(min_length=1, max_length=limits.BLOB_PART_MAX_BYTES)]


class Refused(Frozen, frozen=True, tag="refused"):
    """A typed refusal. ``retry_after_ms`` is set where trying again later can help."""

    code: str
    sentence: str
    retry_after_ms: Count = 0


# --- pushes ---


class Hello(Frozen, frozen=True, tag="hello"):
    """First frame on every connection."""

    versions: tuple[int, ...]
    origin: str
    relay_key: Hash  # Ed25519
    nonce: Hash
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]  # relay key over identity.RelayHello
    time_ms: Count
    open: bool  # registration without a token


class Deliver(Frozen, frozen=True, tag="deliver"):
    """Waiting envelopes, oldest first, as the bytes of ``Envelope``; repeated until acknowledged."""

    envelopes: tuple[bytes, ...]


class PairsLow(Frozen, frozen=True, tag="pairs-low"):
    left: Count


class Closing(Frozen, frozen=True, tag="closing"):
    code: str
    sentence: str


Reply: TypeAlias = (
    Ok | LoggedIn | Account | Bundle | Met | NameRecord | Sent | BlobHeld | Blobs | BlobPart | Refused
)
Push: TypeAlias = Hello | Deliver | PairsLow | Closing


class ClientFrame(Frozen, frozen=True):
    number: Annotated[int, Meta(ge=1, le=2**32 - 1)]
    request: Request


class RelayFrame(Frozen, frozen=True):
    number: Annotated[int, Meta(ge=0, le=2**32 - 1)]
    message: (
        Ok
        | LoggedIn
        | Account
        | Bundle
        | Met
        | NameRecord
        | Sent
        | BlobHeld
        | Blobs
        | BlobPart
        | Refused
        | Hello
        | Deliver
        | PairsLow
        | Closing
    )


# --- refusal codes: stable words, the whole list ---

NOT_LOGGED_IN: Final = "not-logged-in"
LOGIN_REFUSED: Final = "login-refused"
MALFORMED: Final = "malformed"
TOO_LARGE: Final = "too-large"
RATE_LIMITED: Final = "rate-limited"
UNKNOWN: Final = "unknown"  # account, device, name or id: one answer for all
TOKEN_REFUSED: Final = "token-refused"  # noqa: S105
CONFLICT: Final = "conflict"  # compare-and-set lost, name taken, number fallen
INVALID: Final = "invalid"  # a signed object that does not verify
STALE_LIST: Final = "stale-list"  # the recipient's list moved on: fetch it, then send anew
MAILBOX_FULL: Final = "mailbox-full"
STORAGE_FULL: Final = "storage-full"
QUOTA_FULL: Final = "quota-full"  # of one account's blobs
UNAVAILABLE: Final = "unavailable"
VERSION: Final = "version"
BUSY: Final = frozenset({RATE_LIMITED, STORAGE_FULL, UNAVAILABLE})  # the same request may do later
CODES: Final = frozenset(
    {
        NOT_LOGGED_IN,
        LOGIN_REFUSED,
        MALFORMED,
        TOO_LARGE,
        RATE_LIMITED,
        UNKNOWN,
        TOKEN_REFUSED,
        CONFLICT,
        INVALID,
        STALE_LIST,
        MAILBOX_FULL,
        STORAGE_FULL,
        QUOTA_FULL,
        UNAVAILABLE,
        VERSION,
    }
)

_encoder = msgspec.msgpack.Encoder()
_client_frames = msgspec.msgpack.Decoder(ClientFrame)
_relay_frames = msgspec.msgpack.Decoder(RelayFrame)
_envelopes = msgspec.msgpack.Decoder(Envelope)


class _Numbered(Struct, frozen=True, array_like=True):
    number: Annotated[int, Meta(ge=1, le=2**32 - 1)]


_numbered = msgspec.msgpack.Decoder(_Numbered)


def encode(value: Struct) -> bytes:
    return _encoder.encode(value)


def decode_client_frame(data: bytes) -> ClientFrame:
    """DecodeError: not a client frame."""
    return _decode(_client_frames, data)


def frame_number(data: bytes) -> int | None:
    """The number of a client frame whose request ``decode_client_frame`` does not know, to refuse it by."""
    try:
        return _numbered.decode(data).number
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None


def decode_relay_frame(data: bytes) -> RelayFrame:
    """DecodeError: not a relay frame."""
    return _decode(_relay_frames, data)


def decode_envelope(data: bytes) -> Envelope:
    """DecodeError: not an envelope."""
    return _decode(_envelopes, data)


def _decode(decoder: msgspec.msgpack.Decoder[T], data: bytes) -> T:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise DecodeError("a frame is not what the interface describes") from None
