"""What a backup's records and an export's lines hold: contacts and messages, as any vault can take them in.

Source: docs/backup.md. msgpack arrays, to which later versions may append. Everything here is as hostile as
a peer's content: whoever has the key of an archive can write one.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from lokket import limits
from lokket.errors import DecodeError
from lokket.wire.api import Hash, Id16

CONTACT: Final = 1
MESSAGE: Final = 2

Number = Annotated[int, Meta(ge=0, le=2**62)]
State: TypeAlias = Literal["queued", "sent", "delivered", "failed", "received"]
Level: TypeAlias = Literal["unverified", "invited", "verified"]


class Frozen(Struct, frozen=True, array_like=True):
    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"


class Contact(Frozen, frozen=True):
    """``state``: identity.AccountState, to be checked by its signatures. ``level``: as it was."""

    genesis_hash: Hash
    petname: Annotated[str, Meta(max_length=128)]
    chosen: bool  # by the person
    state: Annotated[bytes, Meta(max_length=limits.BACKUP_RECORD_MAX_BYTES)]
    status: Literal["accepted", "request"]
    level: Level
    name: Annotated[str, Meta(max_length=limits.NAME_MAX_CHARS)] | None = None
    barred: bool = False
    added_ms: Number = 0
    read_ms: Number = 0  # the person read up to a message of this time


class Message(Frozen, frozen=True):
    """``outgoing``: by whichever device of the account that the archive is of."""

    mid: Id16
    peer_genesis: Hash
    outgoing: bool
    sender_device: Hash
    seq: Number
    time_ms: Number
    text: Annotated[str, Meta(max_length=limits.TEXT_MAX_BYTES)]
    state: State


Record: TypeAlias = Contact | Message

_encoder = msgspec.msgpack.Encoder()
_contacts = msgspec.msgpack.Decoder(Contact)
_messages = msgspec.msgpack.Decoder(Message)


def encode(record: Record) -> tuple[int, bytes]:
    """Kind and body."""
    kind = CONTACT if isinstance(record, Contact) else MESSAGE
    return kind, _encoder.encode(record)


def decode(kind: int, body: bytes) -> Record | None:
    """None: a kind of a later version. DecodeError: not what its kind says."""
    try:
        if kind == CONTACT:
            return _contacts.decode(body)
        return _messages.decode(body) if kind == MESSAGE else None
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise DecodeError("a record is not what its kind describes") from None
