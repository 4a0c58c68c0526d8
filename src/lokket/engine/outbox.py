"""What is to leave: one row per content and device, in the order in which it must arrive.

A row is queued here, encrypted and sent by ``outgoing``, and lives until its device's receipt.
"""

from __future__ import annotations

import msgspec

from lokket import limits
from lokket.engine import book
from lokket.engine.events import MessageState, SendText, TrustNotice
from lokket.engine.records import (
    Contact,
    HeldEnvelope,
    Message,
    NoticeRow,
    OutboxRow,
    PeerDevice,
    Stream,
    load,
    rows,
    save,
)
from lokket.engine.step import Step, own_state, require_account
from lokket.engine.store import (
    AWAITING,
    AWAITING_ID,
    HEALING,
    INBOX,
    MESSAGE,
    MESSAGE_ID,
    NOTICE,
    OUTBOX,
    PEER,
    RECEIPT,
    STREAM,
)
from lokket.errors import LocalError
from lokket.protocol import identity
from lokket.wire import content

_NO_HASH = bytes(32)
_RECENT_KEPT = 32


def send_text(step: Step, command: SendText) -> None:
    """Queue one text for every device of the contact and every other device of ours."""
    account = require_account(step.tx)
    petname = command.petname
    if command.mid and _was_sent(step, command):
        return
    contact = _sendable(step, petname)
    own = own_state(account)
    if own.device(account.device_hash) is None:
        raise LocalError("this device was removed from its account: it can send no more")
    if book.state_of(contact).expired(step.now_s):
        sentence = f"{petname}'s device list has expired: it may hide a change"
        step.emit(TrustNotice("expired", petname, sentence))
    if not contact.introduced:
        introduce(step, contact)
    body = content.encode_body(content.Text(command.text))
    if len(body) > limits.TEXT_MAX_BYTES:
        raise LocalError(f"a message has at most {limits.TEXT_MAX_BYTES} bytes: this one has {len(body)}")
    conversation = identity.direct_conversation(account.genesis_hash, contact.genesis_hash)
    stream_key = conversation + account.device_hash
    stream = load(step.tx, STREAM, stream_key, Stream)
    if stream is None or stream.incarnation != account.incarnation:
        stream = Stream(account.incarnation, 0, _NO_HASH, 0 if stream is None else stream.last_time_ms)
    mid = command.mid or step.entropy.draw(16)
    seq = stream.highest + 1
    time_ms = max(step.now_ms, stream.last_time_ms + 1, _latest_time(step, conversation) + 1)
    row = OutboxRow(
        kind=content.TEXT,
        body=body,
        mid=mid,
        incarnation=account.incarnation,
        seq=seq,
        previous=stream.last_hash,
        conversation=conversation,
        time_ms=time_ms,
        genesis_hash=contact.genesis_hash,
        device_hash=b"",
        created_ms=step.stamp_ms,
    )
    for device_hash, _ in book.state_of(contact).listed:
        _enqueue(step, msgspec.structs.replace(row, device_hash=device_hash))
    sync = content.encode_body(content.Sync(contact.genesis_hash, content.TEXT, body))
    for device_hash, _ in own.listed:
        if device_hash != account.device_hash:
            _enqueue(
                step,
                msgspec.structs.replace(
                    row,
                    kind=content.SYNC,
                    body=sync,
                    genesis_hash=account.genesis_hash,
                    device_hash=device_hash,
                ),
            )
    said = content.content_hash(mid, seq, content.TEXT, body)
    recent = (*stream.recent, (seq, mid))[-_RECENT_KEPT:]
    save(step.tx, STREAM, stream_key, Stream(account.incarnation, seq, said, time_ms, recent))
    message = Message(
        mid=mid,
        genesis_hash=contact.genesis_hash,
        sender_genesis=account.genesis_hash,
        sender_device=account.device_hash,
        seq=seq,
        time_ms=time_ms,
        text=command.text,
        state="queued",
    )
    remember(step, conversation, message)
    step.emit(MessageState(petname, mid, "queued"))


def _was_sent(step: Step, command: SendText) -> bool:
    """Whether this is the same command once more. LocalError: its id is no id, or another message's."""
    if len(command.mid) != 16:
        raise LocalError("a message's id has 16 bytes")
    key = step.tx.get(MESSAGE_ID, command.mid + require_account(step.tx).device_hash)
    message = None if key is None else load(step.tx, MESSAGE, key, Message)
    if message is None:
        return False
    contact = book.of(step.tx, message.genesis_hash)
    if contact is None or contact.petname != command.petname or message.text != command.text:
        raise LocalError("another message has this id already: take fresh random bytes")
    step.emit(MessageState(command.petname, command.mid, message.state))
    return True


def _sendable(step: Step, petname: str) -> Contact:
    """LocalError: to this contact nothing may be sent now."""
    contact = book.named(step.tx, petname)
    if contact.barred:
        raise LocalError(f"you blocked {petname}: 'lokket unblock {petname}' first")
    if contact.blocked == "rotated":
        raise LocalError(f"{petname} has a new account key: 'lokket contacts accept {petname}' to go on")
    if contact.blocked:
        raise LocalError(f"there are two versions of {petname}'s device list: sending is stopped")
    if contact.status == "request":
        raise LocalError(f"{petname} is a stranger: 'lokket contacts accept {petname}' first")
    return contact


def introduce(step: Step, contact: Contact, only_device: bytes = b"", invite_id: bytes = b"") -> Contact:
    """Tell a contact what we call ourselves; with an invite, to its creator device alone, with the proof."""
    account = require_account(step.tx)
    contact = msgspec.structs.replace(contact, introduced=True)
    book.store(step.tx, contact)
    body = content.Introduction(account.name, invite_id or None, None)
    for device_hash, _ in book.state_of(contact).listed:
        if only_device in (b"", device_hash):
            queue_control(step, contact.genesis_hash, device_hash, body)
    return contact


def share(step: Step, contact: Contact, only_device: bytes = b"") -> None:
    """Tell our own other devices, or one of them, whom we know and how well."""
    account = require_account(step.tx)
    card = content.Card(
        genesis_hash=contact.genesis_hash,
        petname=contact.petname,
        chosen=not contact.auto_named,
        level=contact.level,
        accepted=contact.status == "accepted",
        barred=contact.barred,
        barred_ms=contact.barred_ms,
        named_ms=contact.named_ms,
    )
    for device_hash, _ in own_state(account).listed:
        if device_hash != account.device_hash and only_device in (b"", device_hash):
            queue_control(step, account.genesis_hash, device_hash, card)


def queue_control(step: Step, genesis_hash: bytes, device_hash: bytes, body: content.Body) -> None:
    """Queue a content that is not numbered and not shown: receipts, introductions, healing."""
    account = require_account(step.tx)
    kind = content.kind_of(body)
    row = OutboxRow(
        kind=kind,
        body=content.encode_body(body),
        mid=step.entropy.draw(16),
        incarnation=account.incarnation,
        seq=0,
        previous=_NO_HASH,
        conversation=identity.direct_conversation(account.genesis_hash, genesis_hash),
        time_ms=step.now_ms,
        genesis_hash=genesis_hash,
        device_hash=device_hash,
        created_ms=step.stamp_ms,
        fresh=kind == content.HEAL,
    )
    _enqueue(step, row)


def requeue(step: Step, row: OutboxRow) -> None:
    """The same content again, to be encrypted anew, behind what already waits."""
    _enqueue(step, msgspec.structs.replace(row, envelope=b"", envelope_id=b"", attempts=0, retry_ms=0))


def _enqueue(step: Step, row: OutboxRow) -> None:
    save(step.tx, OUTBOX, step.next_order().to_bytes(8, "big"), row)


def remember(step: Step, conversation: bytes, message: Message) -> bytes:
    """Enter a message into the timeline. Returns its key there."""
    key = message_key(conversation, message)
    save(step.tx, MESSAGE, key, message)
    step.tx.put(MESSAGE_ID, message.mid + message.sender_device, key)
    return key


def message_key(conversation: bytes, message: Message) -> bytes:
    """The timeline's order: the senders' clocks, each device's numbers in their own order."""
    time, seq = message.time_ms.to_bytes(8, "big"), message.seq.to_bytes(8, "big")
    return conversation + time + message.sender_device + seq


def _latest_time(step: Step, conversation: bytes) -> int:
    """When the conversation last moved, so that an answer sorts after what it answers.

    A clock that runs far ahead is not followed.
    """
    for key, _ in step.tx.scan(MESSAGE, conversation, reverse=True):
        latest = int.from_bytes(key[32:40], "big")
        if latest <= step.now_ms + limits.CLOCK_SKEW_S * 1000:
            return latest
        break
    return 0


def message_state(step: Step, mid: bytes, state: str, sentence: str = "") -> None:
    """Move one of our own messages on: queued, sent, delivered; failed from the first two."""
    account = require_account(step.tx)
    key = step.tx.get(MESSAGE_ID, mid + account.device_hash)
    message = None if key is None else load(step.tx, MESSAGE, key, Message)
    if key is None or message is None:
        return
    order = ("queued", "sent", "delivered")
    if message.state == "delivered" or (state in order[:2] and message.state == state):
        return
    save(step.tx, MESSAGE, key, msgspec.structs.replace(message, state=state))
    contact = book.of(step.tx, message.genesis_hash)
    if contact is not None:
        step.emit(MessageState(contact.petname, mid, state, sentence))


def still_queued(step: Step, mid: bytes, sentence: str) -> None:
    """Tell why one of our own messages waits; nothing of it changes."""
    account = require_account(step.tx)
    key = step.tx.get(MESSAGE_ID, mid + account.device_hash)
    message = None if key is None else load(step.tx, MESSAGE, key, Message)
    contact = None if message is None else book.of(step.tx, message.genesis_hash)
    if message is not None and contact is not None and message.state == "queued":
        step.emit(MessageState(contact.petname, mid, "queued", sentence))


def device_added(step: Step, genesis_hash: bytes, device_hash: bytes, gone: set[bytes]) -> None:
    """A list grew: what the relay has not accepted yet goes to the new device as well.

    So does what lies unread for a device that left with the same change: it may have been the only one.
    """
    waiting = [row for _, row in rows(step.tx, AWAITING, OutboxRow) if row.device_hash in gone]
    waiting = [row for row in waiting if not _delivered(step, row)]
    waiting.sort(key=lambda row: (row.conversation, row.incarnation, row.seq))
    waiting += [row for _, row in rows(step.tx, OUTBOX, OutboxRow) if row.genesis_hash == genesis_hash]
    served = {row.mid for row in waiting if row.device_hash == device_hash}
    for row in waiting:
        if content.is_counted(row.kind) and row.mid not in served:
            served.add(row.mid)
            requeue(step, msgspec.structs.replace(row, device_hash=device_hash))


def _delivered(step: Step, row: OutboxRow) -> bool:
    """Whether another of the person's devices has it: our own message, receipted."""
    key = step.tx.get(MESSAGE_ID, row.mid + require_account(step.tx).device_hash)
    message = None if key is None else load(step.tx, MESSAGE, key, Message)
    return row.kind == content.TEXT and message is not None and message.state == "delivered"


def drop_device(step: Step, device_hash: bytes) -> None:
    """A device is gone from its list: nothing more goes to it."""
    for key, row in rows(step.tx, OUTBOX, OutboxRow):
        if row.device_hash == device_hash:
            step.tx.delete(OUTBOX, key)
    for envelope_id, row in rows(step.tx, AWAITING, OutboxRow):
        if row.device_hash == device_hash:
            forget_awaiting(step, envelope_id, row)


def silence(step: Step, contact: Contact) -> None:
    """The person blocked them: nothing of theirs is shown any more, and nothing answers by itself."""
    peer = contact.genesis_hash
    for key, note_row in rows(step.tx, NOTICE, NoticeRow):
        message = load(step.tx, MESSAGE, note_row.message_key, Message)
        if message is not None and message.sender_genesis == peer:
            step.tx.delete(NOTICE, key)
    for device_hash, device in rows(step.tx, PEER, PeerDevice):
        if device.genesis_hash == peer:
            step.tx.delete(HEALING, device_hash)
            for key, _ in list(step.tx.scan(RECEIPT, device_hash)):
                step.tx.delete(RECEIPT, key)
    for key, row in rows(step.tx, OUTBOX, OutboxRow):
        if row.genesis_hash == peer and not content.is_counted(row.kind):
            step.tx.delete(OUTBOX, key)
    for key, held in rows(step.tx, INBOX, HeldEnvelope):
        if held.sender_genesis == peer:
            step.tx.delete(INBOX, key)


def forget_awaiting(step: Step, envelope_id: bytes, row: OutboxRow) -> None:
    step.tx.delete(AWAITING, envelope_id)
    step.tx.delete(AWAITING_ID, row.mid + row.device_hash)


def offer(step: Step, envelope_id: bytes, row: OutboxRow) -> None:
    """What the relay had accepted goes there once more, as the same bytes."""
    forget_awaiting(step, envelope_id, row)
    _enqueue(step, row)


def note(step: Step, key: bytes, contact: Contact, *, outgoing: bool) -> int:
    """A message to be shown: kept until a caller says that it was. Returns its order."""
    order = step.next_order()
    row = NoticeRow(key, contact.petname, outgoing, contact.status == "request")
    save(step.tx, NOTICE, order.to_bytes(8, "big"), row)
    return order


def take_queued(step: Step, mid: bytes, device_hash: bytes) -> OutboxRow | None:
    """The receipt came before the relay's answer did: the row need not go out again."""
    for key, row in rows(step.tx, OUTBOX, OutboxRow):
        if row.mid == mid and row.device_hash == device_hash and row.envelope:
            step.tx.delete(OUTBOX, key)
            return row
    return None
