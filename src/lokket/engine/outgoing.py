"""The road out: from a queued row to the relay's word that it is on disk.

1. ``advance`` walks the outbox in order. A row without an envelope is encrypted, if its device has a
   session that may send; else the device's bundle is asked for and its later rows wait behind it.
2. Rows with an envelope go out in batches, once the transaction that stored them is committed. A retry
   sends the same bytes.
3. ``sent`` sorts the relay's answers: on disk, to be tried again, or refused for good.
4. ``bundle_arrived`` opens the session and lets ``advance`` run again.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from lokket import limits
from lokket.engine import book, challenges, invites, outbox, sessions
from lokket.engine.records import Account, Healing, OutboxRow, Stream, load, rows, save
from lokket.engine.step import RETRY_MAX_MS, Step, account_of, local_device, own_state, require_account
from lokket.engine.store import AWAITING, AWAITING_ID, HEALING, OUTBOX, STREAM
from lokket.errors import RemoteError
from lokket.protocol import pairwise
from lokket.wire import api, content

_BATCH_BYTES = 256 * 1024
_BACKOFF_MS = 500
_BACKOFF_MAX_MS = 60_000
_ENVELOPE_FORMAT = 1
_DAY_MS = limits.DAY_S * 1000
_RETRY = {
    api.RATE_LIMITED,
    api.UNAVAILABLE,
    api.STORAGE_FULL,
    api.MAILBOX_FULL,
    api.STALE_LIST,
    api.UNKNOWN,
    api.NOT_LOGGED_IN,
}
_WAITS_FOR = {  # what a person who waits is told
    api.RATE_LIMITED: "the relay takes no more of this account's mail for the moment",
    api.UNAVAILABLE: "the relay takes no mail for the moment",
    api.STORAGE_FULL: "the relay's disk is full",
    api.MAILBOX_FULL: "the recipient's mailbox at the relay is full",
}


def advance(step: Step) -> None:
    """Encrypt what can be encrypted, send what can be sent."""
    account = account_of(step.tx)
    if account is None or not account.state:
        return
    on_their_way = step.link.in_flight()
    names_head = _head_check(step)
    held: set[bytes] = set()  # devices with an earlier row that cannot leave yet
    ready: list[api.Envelope] = []
    for key, row in rows(step.tx, OUTBOX, OutboxRow):
        if step.link.clock_agrees and step.now_ms - row.created_ms > limits.OUTBOX_DAYS * _DAY_MS:
            _fail(step, key, row, "it could not be delivered within 14 days")
        elif row.device_hash in held:
            continue
        elif row.envelope_id in on_their_way:
            if row.attempts or not names_head(row):  # it may be refused: no later one overtakes it
                held.add(row.device_hash)
        elif challenges.is_needless(step.tx, row):
            step.tx.delete(OUTBOX, key)
        elif not step.due(row.retry_ms, RETRY_MAX_MS + _BACKOFF_MS):
            held.add(row.device_hash)
        else:
            envelope = _envelope(step, account, key, row)
            if envelope is None:
                held.add(row.device_hash)
            elif step.link.heard:
                ready.append(envelope)
    _dispatch(step, ready)


def _head_check(step: Step) -> Callable[[OutboxRow], bool]:
    """Whether a row's envelope names the list that we know now. Decodes neither list nor envelope per row."""
    heads: dict[bytes, bytes] = {}

    def names_head(row: OutboxRow) -> bool:
        if row.genesis_hash not in heads:
            state = book.known_state(step, row.genesis_hash)
            heads[row.genesis_hash] = b"" if state is None else state.head
        return heads[row.genesis_hash] in row.envelope

    return names_head


def _envelope(step: Step, account: Account, key: bytes, row: OutboxRow) -> api.Envelope | None:
    """The row's envelope, made now if need be. None: it has to wait."""
    state = book.known_state(step, row.genesis_hash)
    if state is None or not _may_send(step, account, row):
        return None
    if state.device(row.device_hash) is None:
        step.tx.delete(OUTBOX, key)
        return None
    if row.envelope:
        envelope = api.decode_envelope(row.envelope)
        if envelope.recipient_head == state.head:
            return envelope
        # The list moved on and still names the device: the same ciphertext under the new head.
        envelope = msgspec.structs.replace(envelope, recipient_head=state.head)
    else:
        body = _encrypt(step, account, row)
        if body is None:
            return None
        envelope = api.Envelope(
            format=_ENVELOPE_FORMAT,
            kind=int(body.kind),
            envelope_id=step.entropy.draw(16),
            recipient=row.genesis_hash,
            device_hash=row.device_hash,
            recipient_head=state.head,
            deposit=api.DEPOSIT_LOGIN,
            deposit_data=b"",
            sender=api.Sender(account.genesis_hash, account.device_hash),
            body=body.body,
        )
    stored = msgspec.structs.replace(
        row, envelope_id=envelope.envelope_id, envelope=api.encode(envelope), fresh=False
    )
    save(step.tx, OUTBOX, key, stored)
    return envelope


def _may_send(step: Step, account: Account, row: OutboxRow) -> bool:
    if row.genesis_hash == account.genesis_hash:
        return True
    contact = book.of(step.tx, row.genesis_hash)
    return contact is not None and not contact.blocked and not contact.barred


def _encrypt(step: Step, account: Account, row: OutboxRow) -> pairwise.Ciphertext | None:
    record = sessions.record_of(step.tx, row.device_hash)
    if record is None or row.fresh or not record.can_send(step.now_ms):
        request = api.FetchBundle(row.genesis_hash, row.device_hash)
        step.call(f"bundle:{row.device_hash.hex()}", request)
        return None
    session_id = sessions.session_id_of(step.tx, row.device_hash)
    if row.kind == content.CHALLENGE:
        body = challenges.make(step, row)
    else:
        body = invites.prove(step, row, session_id) or row.body
    plaintext = content.encode_content(
        content.Content(_header(step, account, row, session_id if record.unacknowledged else None), body)
    )
    record, ciphertext = pairwise.encrypt(record, local_device(account), plaintext, step.now_ms, step.entropy)
    sessions.store(step, row.device_hash, record, session_id)
    return ciphertext


def _header(step: Step, account: Account, row: OutboxRow, session_id: bytes | None) -> content.Header:
    state = book.known_state(step, row.genesis_hash)
    assert state is not None
    stream = load(step.tx, STREAM, row.conversation + row.device_hash, Stream)
    heard = () if stream is None else tuple(seq for seq, _ in stream.recent)
    return content.Header(
        format=content.FORMAT,
        kind=row.kind,
        conversation=row.conversation,
        sender_genesis=account.genesis_hash,
        sender_device=account.device_hash,
        recipient_genesis=row.genesis_hash,
        recipient_device=row.device_hash,
        mid=row.mid,
        incarnation=row.incarnation,
        seq=row.seq,
        previous=row.previous,
        acknowledged=tuple(sorted(heard[-limits.ACKNOWLEDGED_SEQS_MAX :])),
        sender_head=own_state(account).head,
        recipient_head=state.head,
        time_ms=row.time_ms,
        session_id=session_id or None,
    )


def _dispatch(step: Step, ready: list[api.Envelope]) -> None:
    batch: list[api.Envelope] = []
    size = 0
    for envelope in ready:
        if batch and (len(batch) == limits.SEND_BATCH_MAX or size + len(envelope.body) > _BATCH_BYTES):
            _send(step, batch)
            batch, size = [], 0
        batch.append(envelope)
        size += len(envelope.body)
    if batch:
        _send(step, batch)


def _send(step: Step, batch: list[api.Envelope]) -> None:
    name = f"send:{batch[0].envelope_id.hex()}"
    if step.call(name, api.Send(tuple(batch))):
        step.link.sending[name] = tuple(envelope.envelope_id for envelope in batch)


def sent(step: Step, name: str, reply: api.Reply) -> None:
    """The relay's answer to one batch, envelope by envelope."""
    envelope_ids = step.link.sending.pop(name, ())
    match reply:
        case api.Sent(results=results):
            # Ids are random: one that is taken there is this very envelope, under an older list head.
            codes = {
                result.envelope_id: ("" if result.code == api.CONFLICT else result.code, 0)
                for result in results
            }
        case api.Refused(code=code, retry_after_ms=retry_after_ms):
            codes = dict.fromkeys(envelope_ids, (code, retry_after_ms))
        case _:
            codes = dict.fromkeys(envelope_ids, (api.UNAVAILABLE, 0))
    accepted: set[bytes] = set()
    queued: set[bytes] = set()
    for key, row in rows(step.tx, OUTBOX, OutboxRow):
        code, retry_after_ms = codes.get(row.envelope_id, ("not-asked", 0))
        if row.kind == content.TEXT:
            (queued if code else accepted).add(row.mid)
        if code == "not-asked":
            continue
        if not code:
            _accepted(step, key, row)
        elif code in _RETRY:
            _later(step, key, row, code, retry_after_ms)
        else:
            _fail(step, key, row, f"the relay refused it ({code})")
    for mid in sorted(accepted - queued):  # not in a set's order, which differs by process
        outbox.message_state(step, mid, "sent")


def _accepted(step: Step, key: bytes, row: OutboxRow) -> None:
    """On the relay's disk. The row waits for the receipt, or for a request to send it again."""
    step.tx.delete(OUTBOX, key)
    if row.kind in (content.CHALLENGE, content.CHALLENGE_RESPONSE):
        return  # of this session alone; asked again if it was lost
    save(step.tx, AWAITING, row.envelope_id, msgspec.structs.replace(row, retry_ms=step.now_ms))
    step.tx.put(AWAITING_ID, row.mid + row.device_hash, row.envelope_id)


def offer_again(step: Step) -> None:
    """What was accepted a day ago and is not receipted goes out again, as the same bytes.

    A relay that was restored from a backup has lost it, and nobody else would notice. One that has it,
    or a device that has seen it, makes nothing of it.
    """
    for envelope_id, row in rows(step.tx, AWAITING, OutboxRow):
        if content.is_counted(row.kind) and step.now_ms - row.retry_ms > _DAY_MS:
            outbox.offer(step, envelope_id, row)


def _later(step: Step, key: bytes, row: OutboxRow, code: str, retry_after_ms: int) -> None:
    if code in (api.STALE_LIST, api.UNKNOWN):
        book.fetch(step, row.genesis_hash)
    backoff = min(_BACKOFF_MAX_MS, _BACKOFF_MS << min(row.attempts, 16))
    wait_ms = min(max(retry_after_ms, backoff), RETRY_MAX_MS)
    retry_ms = step.now_ms + wait_ms + step.jitter(_BACKOFF_MS)
    save(step.tx, OUTBOX, key, msgspec.structs.replace(row, attempts=row.attempts + 1, retry_ms=retry_ms))
    if row.kind == content.TEXT and row.envelope and code in _WAITS_FOR:
        outbox.still_queued(step, row.mid, _WAITS_FOR[code])


def _fail(step: Step, key: bytes, row: OutboxRow, sentence: str) -> None:
    step.tx.delete(OUTBOX, key)
    if row.kind == content.TEXT:
        outbox.message_state(step, row.mid, "failed", sentence)


def bundle_arrived(step: Step, device_hash: bytes, reply: api.Reply) -> None:
    """Keys for one device, or none: open the session, or let its rows wait and ask again later."""
    account = require_account(step.tx)
    waiting = [(key, row) for key, row in rows(step.tx, OUTBOX, OutboxRow) if row.device_hash == device_hash]
    if not waiting:
        return
    state = book.known_state(step, waiting[0][1].genesis_hash)
    if state is None:
        return
    try:
        match reply:
            case api.Bundle(bundle=served):
                if _needs_session(step, device_hash, waiting):
                    leave_pair = _heals_again(step, device_hash, waiting)
                    sessions.begin(step, account, state, device_hash, served, leave_pair=leave_pair)
                    _settle_fresh(step, waiting)
            case api.Refused(code=code, retry_after_ms=retry_after_ms):
                _postpone(step, waiting, code, retry_after_ms)
    except RemoteError as error:
        _postpone(step, waiting, api.INVALID, 0)
        book.fail(step, "keys", f"the relay served keys that do not verify ({error.code})")


def _needs_session(step: Step, device_hash: bytes, waiting: list[tuple[bytes, OutboxRow]]) -> bool:
    """The peer may have opened one meanwhile."""
    record = sessions.record_of(step.tx, device_hash)
    fresh = any(row.fresh for _, row in waiting)
    return record is None or fresh or not record.can_send(step.now_ms)


def _heals_again(step: Step, device_hash: bytes, waiting: list[tuple[bytes, OutboxRow]]) -> bool:
    """The second request of a day relies on no pair: the relay may hand out one that was used, every time."""
    healing = load(step.tx, HEALING, device_hash, Healing)
    asked = healing.asked if healing is not None and healing.day == step.today else 0
    return asked > 1 and any(row.fresh for _, row in waiting)


def _settle_fresh(step: Step, waiting: list[tuple[bytes, OutboxRow]]) -> None:
    for key, row in waiting:
        if row.fresh:
            save(step.tx, OUTBOX, key, msgspec.structs.replace(row, fresh=False))


def _postpone(step: Step, waiting: list[tuple[bytes, OutboxRow]], code: str, retry_after_ms: int) -> None:
    for key, row in waiting:
        if not row.envelope:
            _later(step, key, row, code, retry_after_ms)
