"""Export to JSON lines that anybody's tools can read, and import back (docs/backup.md, "Export").

Every line ends with ``,"chain":"…"}``: SHA-256 of the line before's chain and of all that stands before
that comma. So a line that was cut out, moved or edited is found, and the last chain stands for the whole
file. It is no signature: whoever rewrites everything behind a change is found only by that last chain.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lokket import limits
from lokket.client.backup import Keeper, Restored, pages, take_in
from lokket.client.files import NewFile, in_sentences
from lokket.crypto.primitives import sha256
from lokket.engine import views
from lokket.errors import DecodeError, LocalError
from lokket.wire import archive

FORMAT: Final = 1
_START: Final = sha256(b"lokket export 1")
_CHAIN: Final = re.compile(rb'(\{.*),"chain":"([0-9a-f]{64})"\}\r?\n?', re.DOTALL)
_BATCH: Final = 256


@dataclass(frozen=True, slots=True)
class Exported:
    """``chain``: of the last line, 32 bytes. Who keeps it can tell this file from every other."""

    contacts: int
    messages: int
    chain: bytes


class _Chain:
    def __init__(self) -> None:
        self.last = _START

    def line(self, fields: dict[str, Any]) -> bytes:
        body = json.dumps(fields, separators=(",", ":")).encode()[:-1]
        self.last = sha256(self.last + body)
        return body + b',"chain":"' + self.last.hex().encode() + b'"}\n'

    def check(self, line: bytes) -> dict[str, Any]:
        """DecodeError: not what stood here."""
        match = _CHAIN.fullmatch(line)
        if match is None:
            raise DecodeError("a line is not one of an export")
        self.last = sha256(self.last + match[1])
        if self.last.hex().encode() != match[2]:
            raise DecodeError("a line was changed, or one before it is missing")
        try:
            fields = json.loads(match[1] + b"}")
        except ValueError:
            raise DecodeError("a line is not JSON") from None
        if not isinstance(fields, dict):
            raise DecodeError("a line is not an object")
        return fields


# --- out ---


async def export(keeper: Keeper, path: Path, created_s: int, *, petname: str = "") -> Exported:
    """Everything, or one contact's conversation, in plain text. LocalError: no such contact, or the disk."""
    me = keeper.read(views.whoami)
    if me is None:
        raise LocalError("there is no account in this vault: run 'lokket join LINK' first")
    only = keeper.read(views.contact, petname).genesis_hash if petname else b""
    chain = _Chain()
    petnames: dict[bytes, str] = {}
    contacts = messages = 0
    head = {
        "type": "lokket-export",
        "format": FORMAT,
        "account": me.genesis_hash.hex(),
        "created_s": created_s,
    }
    with NewFile(path) as file:
        file.write(chain.line(head))
        async for page in pages(keeper, only):
            lines = bytearray()
            for record in page:
                if isinstance(record, archive.Contact):
                    contacts += 1
                    petnames[record.genesis_hash] = record.petname
                    lines += chain.line(_contact_fields(record))
                else:
                    messages += 1
                    lines += chain.line(_message_fields(record, petnames.get(record.peer_genesis, "")))
            await asyncio.to_thread(file.write, bytes(lines))
        file.write(chain.line({"type": "end", "contacts": contacts, "messages": messages}))
        await asyncio.to_thread(file.commit)
    return Exported(contacts, messages, chain.last)


def _contact_fields(contact: archive.Contact) -> dict[str, Any]:
    return {
        "type": "contact",
        "contact": contact.genesis_hash.hex(),
        "petname": contact.petname,
        "chosen": contact.chosen,
        "name": contact.name,
        "status": contact.status,
        "level": contact.level,
        "blocked": contact.barred,
        "added_ms": contact.added_ms,
        "read_ms": contact.read_ms,
        "list": base64.b64encode(contact.state).decode(),
    }


def _message_fields(message: archive.Message, petname: str) -> dict[str, Any]:
    return {
        "type": "message",
        "time": _readable(message.time_ms),
        "petname": petname,
        "outgoing": message.outgoing,
        "text": message.text,
        "state": message.state,
        "contact": message.peer_genesis.hex(),
        "id": message.mid.hex(),
        "device": message.sender_device.hex(),
        "seq": message.seq,
        "time_ms": message.time_ms,
    }


def _readable(time_ms: int) -> str:
    """UTC; the number beside it is what counts."""
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time_ms // 1000))
    except (OverflowError, OSError, ValueError):
        return ""


# --- in ---


async def take_in_export(keeper: Keeper, path: Path) -> tuple[Restored, Exported]:
    """Merge an export into the vault, once the whole file has been read and holds together.

    LocalError: it was changed, is cut, or is none.
    """
    judged = await asyncio.to_thread(judge, path)
    return await take_in(keeper, _batches(path)), judged


def judge(path: Path) -> Exported:
    """LocalError, with the number of the line that is wrong."""
    counts = {archive.CONTACT: 0, archive.MESSAGE: 0}
    chain = b""
    for number, (fields, record, chain_now) in enumerate(_lines(path), 1):
        if record is not None:
            counts[record[0]] += 1
        chain = chain_now
        if fields["type"] == "end" and (fields.get("contacts"), fields.get("messages")) != (
            counts[archive.CONTACT],
            counts[archive.MESSAGE],
        ):
            raise LocalError(f"{path}, line {number}: the export does not hold what it says")
    if counts[archive.CONTACT] > limits.BACKUP_CONTACTS_MAX:
        raise LocalError("the export has more contacts than a vault takes")
    return Exported(counts[archive.CONTACT], counts[archive.MESSAGE], chain)


def _batches(path: Path) -> Iterator[list[tuple[int, bytes]]]:
    batch: list[tuple[int, bytes]] = []
    for _, record, _ in _lines(path):
        if record is not None:
            batch.append(record)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    yield batch


def _lines(path: Path) -> Iterator[tuple[dict[str, Any], tuple[int, bytes] | None, bytes]]:
    """Fields, record (None: first and last line) and chain of every line. LocalError: anything is wrong."""
    chain = _Chain()
    ended = False
    number = 0
    with in_sentences(path), path.open("rb") as stream:
        while line := stream.readline(limits.EXPORT_LINE_MAX_BYTES):
            number += 1
            try:
                if ended:
                    raise DecodeError("something stands behind the export's end")
                fields = chain.check(line)
                record = _record(fields, first=number == 1)
            except DecodeError as error:
                raise LocalError(f"{path}, line {number}: {error}") from None
            ended = fields["type"] == "end"
            yield fields, record, chain.last
    if not ended:
        raise LocalError(f"{path} is cut short: its last line is missing")


def _record(fields: dict[str, Any], *, first: bool) -> tuple[int, bytes] | None:
    """DecodeError: not a line of an export."""
    kind = fields.get("type")
    if first != (kind == "lokket-export"):
        raise DecodeError("this is not an export of lokket")
    if first and fields.get("format") != FORMAT:
        raise DecodeError("the export was made by a newer lokket: install that version")
    try:
        match kind:
            case "lokket-export" | "end":
                return None
            case "contact":
                encoded = archive.encode(_contact(fields))
            case "message":
                encoded = archive.encode(_message(fields))
            case _:
                raise DecodeError("a line is of no kind that this version knows")
    except (KeyError, ValueError, TypeError, OverflowError, binascii.Error):
        raise DecodeError("a line is not what its type says") from None
    archive.decode(*encoded)  # encoding checks no bounds
    return encoded


def _contact(fields: dict[str, Any]) -> archive.Contact:
    return archive.Contact(
        genesis_hash=bytes.fromhex(fields["contact"]),
        petname=fields["petname"],
        chosen=fields["chosen"],
        state=base64.b64decode(fields["list"], validate=True),
        status=fields["status"],
        level=fields["level"],
        name=fields["name"],
        barred=fields["blocked"],
        added_ms=fields["added_ms"],
        read_ms=fields["read_ms"],
    )


def _message(fields: dict[str, Any]) -> archive.Message:
    return archive.Message(
        mid=bytes.fromhex(fields["id"]),
        peer_genesis=bytes.fromhex(fields["contact"]),
        outgoing=fields["outgoing"],
        sender_device=bytes.fromhex(fields["device"]),
        seq=fields["seq"],
        time_ms=fields["time_ms"],
        text=fields["text"],
        state=fields["state"],
    )
