"""How far the person has read in each conversation: told to their own devices, and to nobody else.

A mark is a time in the timeline: everything up to it was seen on one of the devices. It only rises.
"""

from __future__ import annotations

import msgspec

from lokket.engine import book, siblings
from lokket.engine.events import MarkRead
from lokket.engine.records import Contact, Message, NoticeRow, load, unpack
from lokket.engine.step import Step, require_account
from lokket.engine.store import MESSAGE, NOTICE, Transaction
from lokket.protocol import identity
from lokket.wire import content

_KEY_REST_BYTES = 40  # of a key in MESSAGE, after conversation and time


def shown(step: Step, after: int, last: int) -> None:
    """The person was shown the messages of these notices, ``after`` excluded: they count as read."""
    read: dict[bytes, int] = {}
    for key, data in step.tx.scan(NOTICE, after=after.to_bytes(8, "big")):
        if int.from_bytes(key, "big") > last:
            break
        message = load(step.tx, MESSAGE, unpack(NoticeRow, data).message_key, Message)
        if message is not None:
            read[message.genesis_hash] = max(message.time_ms, read.get(message.genesis_hash, 0))
    for genesis_hash, time_ms in read.items():
        _mark(step, book.of(step.tx, genesis_hash), time_ms)


def mark(step: Step, command: MarkRead) -> None:
    """The person looked at the whole conversation."""
    contact = book.named(step.tx, command.petname)
    for key, _ in step.tx.scan(MESSAGE, _conversation(step.tx, contact), reverse=True):
        _mark(step, contact, int.from_bytes(key[32:40], "big"))
        break


def _mark(step: Step, contact: Contact | None, time_ms: int) -> None:
    if contact is not None and _raise(step, contact, time_ms):
        siblings.tell(step, content.Read(contact.genesis_hash, time_ms))


def _raise(step: Step, contact: Contact, time_ms: int) -> bool:
    if time_ms <= contact.read_ms:
        return False
    book.store(step.tx, msgspec.structs.replace(contact, read_ms=time_ms))
    return True


def received(step: Step, told: content.Read) -> None:
    """The person read on another of their devices."""
    contact = book.of(step.tx, told.peer_genesis)
    if contact is not None:
        _raise(step, contact, told.time_ms)


def share(step: Step, device_hash: bytes) -> None:
    """A new device of ours must not take everything for unread."""
    for contact in book.everyone(step.tx):
        if contact.read_ms:
            siblings.tell(step, content.Read(contact.genesis_hash, contact.read_ms), device_hash)


def unread(tx: Transaction, contact: Contact) -> int:
    """How many of their messages no device of ours has shown."""
    after = _conversation(tx, contact) + contact.read_ms.to_bytes(8, "big") + b"\xff" * _KEY_REST_BYTES
    own = require_account(tx).genesis_hash
    return sum(
        1
        for key, _ in tx.scan(MESSAGE, _conversation(tx, contact), after=after)
        if (message := load(tx, MESSAGE, key, Message)) is not None and message.sender_genesis != own
    )


def _conversation(tx: Transaction, contact: Contact) -> bytes:
    return identity.direct_conversation(require_account(tx).genesis_hash, contact.genesis_hash)
