"""What the relay holds on one account, row by row, and what it does not hold.

Reads the data file beside a running relay; it changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from lokket.errors import DecodeError, LocalError
from lokket.relay.storage.base import Held, NameRow, Value
from lokket.relay.storage.sqlite import SQLiteReader
from lokket.wire import api

DATA_FILE: Final = "relay.db"
_PREFIX_CHARS_MIN: Final = 8

ABOUT: Final = {
    "accounts": "the account: its public keys, its signed device list and the chain of earlier lists",
    "heads": "a hash for each list the account ever had: tells a sender that its copy is old",
    "devices": "a device: when it is known by a hash, its last login's nonce, how much waits for it",
    "batches": "public prekeys that others fetch to begin a conversation",
    "names": "the name that leads to this account",
    "invites": "the hash of an invite's token, made or used by this account",
    "rulings": "what the operator decided: a ban, another quota",
    "blobs": "an encrypted file of the account, such as a backup, with its size: only they can open it",
    "mail": "one encrypted message on its way to a device: deleted when that device has it, or after 30 days",
}
NOT_HELD: Final = (
    "No plaintext: every message is encrypted for its recipient's device before it comes here.",
    "No private key, no recovery code, no passphrase.",
    "No contact list, no group list, no profile, no phone number, no mail address.",
    "No message after its delivery: the row is deleted and overwritten in the file.",
    "No network address and no time of a login or message, except the hour in which waiting mail expires.",
    "What it sees while it works, and keeps nowhere: which device is connected from where, when, "
    "and who sends how much to whom.",
)


class Reader(Protocol):
    """The part of ``Storage`` that explaining needs."""

    async def find(self, prefix: bytes, limit: int) -> tuple[bytes, ...]: ...

    async def name(self, name: str) -> NameRow | None: ...

    async def held(self, genesis_hash: bytes) -> tuple[Held, ...]: ...


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    shown: str  # the value if it is short, else its beginning
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Row:
    table: str
    columns: tuple[Column, ...]

    @property
    def size_bytes(self) -> int:
        return sum(column.size_bytes for column in self.columns)


@dataclass(frozen=True, slots=True)
class Explanation:
    """``tables``: what each table is for, of those with rows here."""

    genesis_hash: bytes
    name: str | None
    rows: tuple[Row, ...]
    tables: dict[str, str]
    not_held: tuple[str, ...] = NOT_HELD

    @property
    def size_bytes(self) -> int:
        return sum(row.size_bytes for row in self.rows)


async def explain(storage: Reader, who: str) -> Explanation:
    """``who``: a name, or at least 8 hex digits of a genesis hash. LocalError: nobody, or not one."""
    genesis_hash = await found(storage, who)
    held = await storage.held(genesis_hash)
    names = [dict(row.columns) for row in held if row.table == "names"]
    return Explanation(
        genesis_hash,
        next((str(name["name"]) for name in names if name["freed_s"] is None), None),
        tuple(Row(row.table, _columns(row)) for row in held),
        {row.table: ABOUT[row.table] for row in held},
    )


async def explain_data(data: Path, who: str) -> Explanation:
    """The same, of a data directory. LocalError: there is none."""
    reader = SQLiteReader(data / DATA_FILE)
    try:
        return await explain(reader, who)
    finally:
        await reader.close()


async def found(storage: Reader, who: str) -> bytes:
    """The genesis hash behind a name, or behind 8 or more hex digits. LocalError: nobody, or not one."""
    row = await storage.name(who)
    if row is not None:
        return row.genesis_hash
    try:
        prefix = bytes.fromhex(who) if len(who) >= _PREFIX_CHARS_MIN else b""
    except ValueError:
        prefix = b""
    matching = await storage.find(prefix, 2) if prefix else ()
    if not matching:
        raise LocalError(
            "the relay knows nobody by that name; give a name, or 8 or more hex digits of an account"
        )
    if len(matching) > 1:
        raise LocalError("more than one account begins with these digits; give more of them")
    return matching[0]


def _columns(held: Held) -> tuple[Column, ...]:
    columns = [Column(name, _shown(value), _size(value)) for name, value in held.columns]
    if held.table == "mail":
        envelope = dict(held.columns)["envelope"]
        assert isinstance(envelope, bytes)
        columns += _envelope_columns(envelope)
    return tuple(columns)


def _envelope_columns(data: bytes) -> list[Column]:
    """What is readable inside of a stored envelope: no more than this."""
    try:
        envelope = api.decode_envelope(data)
    except DecodeError:
        return []
    sender = envelope.sender
    return [
        Column("envelope: sender", _shown(sender.genesis_hash if sender else None), 0),
        Column("envelope: recipient", _shown(envelope.recipient), 0),
        Column("envelope: kind", str(envelope.kind), 0),
        Column("envelope: encrypted bytes", str(len(envelope.body)), 0),
    ]


def _shown(value: Value) -> str:
    if value is None:
        return "-"
    if isinstance(value, bytes):
        return value.hex() if len(value) <= 16 else f"{value[:8].hex()}…"
    return str(value)


def _size(value: Value) -> int:
    match value:
        case None:
            return 0
        case bytes():
            return len(value)
        case str():
            return len(value.encode())
        case int():
            return 8
