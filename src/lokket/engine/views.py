"""Questions about the vault that change nothing: what the apps show."""

from __future__ import annotations

import uuid
from collections import Counter

from lokket import limits
from lokket.engine import alarms, backups, book, cursors, devices, reading, sessions, siblings
from lokket.engine import history as history_room
from lokket.engine.answers import ContactView, DeviceView, Health, Me, MessageView, TransferView
from lokket.engine.records import Contact, HeldEnvelope, Message, OutboxRow, load, rows
from lokket.engine.step import account_of, own_state, require_account
from lokket.engine.store import AWAITING, INBOX, MESSAGE, MESSAGE_ID, OUTBOX, PETNAME, PREKEY, Transaction
from lokket.errors import LocalError
from lokket.protocol import identity
from lokket.protocol.linking import AccountCode
from lokket.wire import content

unhandled = cursors.unhandled

_BLOCKED = {
    "rotated": "a new account key waits for your consent",
    "forked": "the relay showed two versions of this account",
}


def whoami(tx: Transaction) -> Me | None:
    """None: no account in this vault yet."""
    account = account_of(tx)
    if account is None:
        return None
    listed = own_state(account).listed if account.state else ()
    admin = own_state(account).body.admin_device if account.state else 0
    return Me(
        genesis_hash=account.genesis_hash,
        account_id=str(uuid.UUID(bytes=identity.account_id(account.genesis_hash))),
        name=account.name,
        device_hash=account.device_hash,
        device_number=account.number,
        admin=bool(account.state) and devices.is_admin(account),
        origin=account.origin,
        relay_key=account.relay_key,
        registered=account.status == "active",
        devices=tuple(
            DeviceView(
                number=device.device,
                device_hash=device_hash,
                own=device_hash == account.device_hash,
                admin=device.device == admin,
                name=siblings.name_of(account, device_hash),
            )
            for device_hash, device in sorted(listed, key=lambda entry: entry[1].device)
        ),
    )


def contacts(tx: Transaction) -> tuple[ContactView, ...]:
    views = (_contact_view(tx, found.petname) for found in book.everyone(tx))
    return tuple(sorted(views, key=lambda view: view.petname))


def contact(tx: Transaction, petname: str) -> ContactView:
    """LocalError: nobody goes by this petname."""
    return _contact_view(tx, petname)


def is_contact(tx: Transaction, petname: str) -> bool:
    return tx.get(PETNAME, petname.encode()) is not None


def _contact_view(tx: Transaction, petname: str) -> ContactView:
    found = book.named(tx, petname)
    return ContactView(
        petname=found.petname,
        genesis_hash=found.genesis_hash,
        name=found.name,
        level=book.shown_level(found),
        blocked=_BLOCKED.get(found.blocked, ""),
        devices=len(book.state_of(found).listed),
        unread=reading.unread(tx, found),
        sender_authentication=_sender_authentication(tx, found),
    )


def _sender_authentication(tx: Transaction, found: Contact) -> str:
    """The weakest of all current sessions with their devices."""
    known = {sessions.authentication(tx, device_hash) for device_hash, _ in book.state_of(found).listed}
    return next((label for label in ("classical", "post-quantum") if label in known), "none")


def history(tx: Transaction, petname: str, limit: int = 50) -> tuple[MessageView, ...]:
    """The last ``limit`` messages with a contact, oldest first."""
    account = require_account(tx)
    found = book.named(tx, petname)
    conversation = identity.direct_conversation(account.genesis_hash, found.genesis_hash)
    views: list[MessageView] = []
    for key, _ in tx.scan(MESSAGE, conversation, reverse=True):
        if len(views) == limit:
            break
        message = load(tx, MESSAGE, key, Message)
        assert message is not None
        views.append(_message_view(message, petname, account.genesis_hash))
    return tuple(reversed(views))


def _message_view(message: Message, petname: str, own_genesis_hash: bytes) -> MessageView:
    return MessageView(
        mid=message.mid,
        petname=petname,
        outgoing=message.sender_genesis == own_genesis_hash,
        text=message.text,
        time_ms=message.time_ms,
        state=message.state,
        sender_device=message.sender_device,
        seq=message.seq,
    )


def message_state(tx: Transaction, mid: bytes) -> str:
    """LocalError: this device sent no such message."""
    account = require_account(tx)
    key = tx.get(MESSAGE_ID, mid + account.device_hash)
    message = None if key is None else load(tx, MESSAGE, key, Message)
    if message is None:
        raise LocalError("this device sent no such message")
    return message.state


def safety_number(tx: Transaction, petname: str) -> str:
    """60 digits, the same on both sides."""
    return identity.safety_number(own_state(require_account(tx)), book.state_of(book.named(tx, petname)))


def verify_code(tx: Transaction, petname: str) -> str:
    """What the contact scans: tag V."""
    own = own_state(require_account(tx))
    return identity.VerifyCode.of(own, book.state_of(book.named(tx, petname))).encode()


def transfer(tx: Transaction) -> TransferView | None:
    """None: no other device has offered any."""
    known = history_room.transfer_of(tx)
    return None if known is None else TransferView(known.received, known.total, known.done)


def account_code(tx: Transaction) -> str:
    """What is written down with the recovery code: tag A, no secret."""
    account = require_account(tx)
    return AccountCode(account.origin, account.relay_key, account.genesis_hash).encode()


def health(tx: Transaction, now_ms: int) -> Health:
    account = require_account(tx)
    held = Counter(row.code for _, row in rows(tx, INBOX, HeldEnvelope))
    expires_s = own_state(account).link.not_after_s if account.state else 0
    warnings = []
    if account.state and own_state(account).expired(now_ms // 1000):
        warnings.append("your device list has expired: connect the admin device to the relay")
    if account.status != "active":
        warnings.append("the relay has not accepted this device yet")
    if account.pending_list:
        warnings.append("a change of the device list waits for the relay")
    kept = backups.state(tx)
    automatic = kept is not None and (kept.folder or kept.at_relay)
    if kept is not None and automatic and now_ms // 1000 - kept.written_s > limits.BACKUP_LATE_S:
        where = f"is {kept.folder} there?" if kept.folder else "'lokket backup auto' says why"
        warnings.append(f"no automatic backup was written for days: {where}")
    for found in book.everyone(tx):
        if found.blocked:
            warnings.append(f"{found.petname}: {_BLOCKED[found.blocked]}")
    warnings += cursors.warnings(tx)
    return Health(
        queued=len(list(tx.scan(OUTBOX))),
        awaiting_receipt=sum(
            1 for _, row in rows(tx, AWAITING, OutboxRow) if row.kind in (content.TEXT, content.SYNC)
        ),
        held=tuple(sorted(held.items())),
        prekey_pairs=len(list(tx.scan(PREKEY, b"o"))),
        list_expires_s=expires_s,
        warnings=tuple(warnings),
        alarms=alarms.known(tx, now_ms),
    )
