"""Receipts: that a message is stored, told to who sent it, a little later and several together.

docs/identity.md, "Content". Only accepted contacts and our own devices learn that something arrived.
"""

from __future__ import annotations

from lokket.engine import outbox
from lokket.engine.records import Contact, Message, OutboxRow, PeerDevice, load, rows
from lokket.engine.step import Step, require_account
from lokket.engine.store import AWAITING, AWAITING_ID, MESSAGE, PEER, RECEIPT
from lokket.protocol import identity
from lokket.wire import content

_WAIT_MS = 40
_JITTER_MS = 160
_AGAIN_MS = 3_600_000


def owe(step: Step, contact: Contact | None, header: content.Header) -> None:
    """For a message of a contact; None: of another device of ours."""
    if contact is not None and contact.status != "accepted":
        return
    due_ms = step.now_ms + _WAIT_MS + step.jitter(_JITTER_MS)
    step.tx.put(RECEIPT, header.sender_device + header.mid, due_ms.to_bytes(8, "big"))
    step.wake(due_ms)


def owe_all(step: Step, contact: Contact) -> None:
    """For everything that came before the contact was accepted."""
    account = require_account(step.tx)
    conversation = identity.direct_conversation(account.genesis_hash, contact.genesis_hash)
    for _, message in rows(step.tx, MESSAGE, Message, conversation):
        if message.sender_genesis == contact.genesis_hash:
            step.tx.put(RECEIPT, message.sender_device + message.mid, step.now_ms.to_bytes(8, "big"))
    step.wake(step.now_ms)


def send(step: Step) -> None:
    """One receipt per device for all that is due."""
    due: dict[bytes, list[bytes]] = {}
    for key, value in list(step.tx.scan(RECEIPT)):
        due_ms = int.from_bytes(value, "big")
        if not step.due(due_ms, _WAIT_MS + _JITTER_MS):
            continue
        mids = due.setdefault(key[:32], [])
        if len(mids) < content.RECEIPT_MIDS_MAX:
            mids.append(key[32:])
            step.tx.delete(RECEIPT, key)
        else:
            step.wake(step.now_ms)
    for device_hash, mids in due.items():
        device = load(step.tx, PEER, device_hash, PeerDevice)
        if device is not None:
            outbox.queue_control(step, device.genesis_hash, device_hash, content.Receipt(tuple(mids)))


def again(step: Step, device_hashes: set[bytes]) -> None:
    """What we have seen came again: if its receipt is old, the relay may have lost it."""
    if not device_hashes:
        return
    for envelope_id, row in rows(step.tx, AWAITING, OutboxRow):
        old = not 0 <= step.now_ms - row.retry_ms < _AGAIN_MS
        if row.kind == content.RECEIPT and row.device_hash in device_hashes and old:
            outbox.offer(step, envelope_id, row)


def arrived(step: Step, device_hash: bytes, mids: tuple[bytes, ...]) -> None:
    """That device has these messages: their rows are done."""
    for mid in mids:
        envelope_id = step.tx.get(AWAITING_ID, mid + device_hash)
        row = None if envelope_id is None else load(step.tx, AWAITING, envelope_id, OutboxRow)
        if row is None:
            row = outbox.take_queued(step, mid, device_hash)
        elif envelope_id is not None:
            outbox.forget_awaiting(step, envelope_id, row)
        if row is not None and row.kind == content.TEXT:
            outbox.message_state(step, mid, "delivered")
