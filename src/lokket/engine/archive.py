"""What goes into a backup or an export, and what of it a vault takes in.

Out: contacts and messages, page by page. Never ratchets, prekeys, the account key or any other secret.
In: merged by message id. An imported contact is at most "was verified"; nothing is sent or shown anew.
"""

from __future__ import annotations

from typing import cast

from lokket.engine import book, outbox, trust
from lokket.engine.events import Imported, ImportRecords
from lokket.engine.records import Contact, Message, load, unpack
from lokket.engine.step import Step, require_account
from lokket.engine.store import CONTACT, MESSAGE, MESSAGE_ID, PETNAME, Transaction
from lokket.errors import RemoteError
from lokket.protocol import identity
from lokket.wire import archive

_START = b""
_CONTACTS, _MESSAGES = b"c", b"m"


# --- out ---


def page(
    tx: Transaction, place: bytes, limit: int, only: bytes = b""
) -> tuple[tuple[archive.Record, ...], bytes]:
    """Up to ``limit`` records after ``place`` and the next place; both ends are empty bytes.

    Contacts come before messages. ``only``: a contact's genesis hash; else everybody.
    """
    account = require_account(tx)
    stage, after = place[:1] or _CONTACTS, place[1:] or None
    found: list[archive.Record] = []
    if stage == _CONTACTS:
        for key, data in tx.scan(CONTACT, only, after=after):
            found.append(_contact(unpack(Contact, data)))
            if len(found) == limit:
                return tuple(found), _CONTACTS + key
        after = None
    prefix = identity.direct_conversation(account.genesis_hash, only) if only else b""
    for key, data in tx.scan(MESSAGE, prefix, after=after):
        if len(found) == limit:
            return tuple(found), _MESSAGES + (after or b"")
        found.append(_message(unpack(Message, data), account.genesis_hash))
        after = key
    return tuple(found), _START


def _contact(contact: Contact) -> archive.Contact:
    level = contact.was if contact.was and contact.level == trust.LEVELS[0] else contact.level
    return archive.Contact(
        genesis_hash=contact.genesis_hash,
        petname=contact.petname,
        chosen=not contact.auto_named,
        state=contact.state,
        status="accepted" if contact.status == "accepted" else "request",
        level=cast(archive.Level, level),
        name=contact.name,
        barred=contact.barred,
        added_ms=contact.added_ms,
        read_ms=contact.read_ms,
    )


def _message(message: Message, own_genesis: bytes) -> archive.Message:
    return archive.Message(
        mid=message.mid,
        peer_genesis=message.genesis_hash,
        outgoing=message.sender_genesis == own_genesis,
        sender_device=message.sender_device,
        seq=message.seq,
        time_ms=message.time_ms,
        text=message.text,
        state=cast(archive.State, message.state),
    )


def count(tx: Transaction) -> tuple[int, int]:
    """Contacts and messages in this vault."""
    return sum(1 for _ in tx.scan(CONTACT)), sum(1 for _ in tx.scan(MESSAGE))


# --- in ---


def take_in(step: Step, command: ImportRecords) -> None:
    """RemoteError: a record is not one, and nothing of these was taken in."""
    contacts = messages = known = refused = 0
    for kind, body in command.records:
        record = archive.decode(kind, body)
        if isinstance(record, archive.Contact):
            if book.of(step.tx, record.genesis_hash) is not None:
                known += 1
            elif _take_contact(step, record):
                contacts += 1
            else:
                refused += 1
        elif isinstance(record, archive.Message):
            if step.tx.get(MESSAGE_ID, record.mid + record.sender_device) is not None:
                known += 1
            elif _take_message(step, record):
                messages += 1
            else:
                refused += 1
        else:
            refused += 1
    step.emit(Imported(contacts, messages, known, refused))


def _take_contact(step: Step, record: archive.Contact) -> bool:
    """What its signatures prove; the list may have moved on meanwhile, which the relay is asked for."""
    account = require_account(step.tx)
    if record.genesis_hash == account.genesis_hash:
        return False
    try:
        state = identity.AccountState.decode(record.state)
        state = identity.recheck(state, record.genesis_hash, max(step.now_s, state.link.issued_s))
    except RemoteError:
        return False
    wish = record.petname if book.is_petname(record.petname) else f"contact-{record.genesis_hash.hex()[:8]}"
    petname = book.free_petname(step.tx, wish, record.genesis_hash)
    if step.tx.get(PETNAME, petname.encode()) is not None:
        return False  # even the name with their hash is somebody else's: no honest archive has that
    contact = Contact(
        petname=petname,
        auto_named=not record.chosen,
        genesis_hash=record.genesis_hash,
        state=state.encode(),
        status=record.status,
        level=trust.LEVELS[0],
        name=record.name if identity.is_name(record.name or "") else None,
        heads=(state.head,),
        added_ms=min(record.added_ms, step.now_ms),
        was="" if record.level == trust.LEVELS[0] else record.level,
        barred=record.barred,
        barred_ms=step.now_ms if record.barred else 0,
        read_ms=record.read_ms,
    )
    book.store(step.tx, contact)
    trust.learn_devices(step, state)
    if not contact.barred:
        book.fetch(step, contact.genesis_hash)
    return True


def _take_message(step: Step, record: archive.Message) -> bool:
    account = require_account(step.tx)
    if book.of(step.tx, record.peer_genesis) is None:
        return False
    state: str = record.state
    if not record.outgoing:
        state = "received"
    elif state not in ("sent", "delivered"):
        state = "failed"  # what was queued there is queued nowhere now
    message = Message(
        mid=record.mid,
        genesis_hash=record.peer_genesis,
        sender_genesis=account.genesis_hash if record.outgoing else record.peer_genesis,
        sender_device=record.sender_device,
        seq=record.seq,
        time_ms=record.time_ms,
        text=record.text,
        state=state,
    )
    conversation = identity.direct_conversation(account.genesis_hash, record.peer_genesis)
    if load(step.tx, MESSAGE, outbox.message_key(conversation, message), Message) is not None:
        return False  # another message in this place: an honest archive has no such pair
    outbox.remember(step, conversation, message)
    return True
