"""What time alone makes necessary: lists renewed, prekeys rotated, memories that may fade."""

from __future__ import annotations

import msgspec

from lokket import limits
from lokket.engine import book, cursors, devices, invites, linking, outbox, outgoing, prekeys
from lokket.engine.records import HeldEnvelope, OutboxRow, PrekeyRow, rows, save
from lokket.engine.step import RETRY_MAX_MS, UPKEEP, Step, account_of, own_state
from lokket.engine.store import ACCOUNT, AWAITING, FIRST_MESSAGE, INBOX, OUTBOX, PREKEY, SEEN
from lokket.protocol import identity
from lokket.wire import content

_EVERY_MS = 3_600_000
_DAY_MS = limits.DAY_S * 1000


def run(step: Step) -> None:
    """Once an hour at most, whatever the number of ticks; never by a clock that may be wrong."""
    if not step.link.clock_agrees:
        return
    last = step.tx.get(ACCOUNT, UPKEEP)
    if last is not None and 0 <= step.now_ms - int.from_bytes(last, "big") < _EVERY_MS:
        step.wake(int.from_bytes(last, "big") + _EVERY_MS)
        return
    step.tx.put(ACCOUNT, UPKEEP, step.now_ms.to_bytes(8, "big"))
    step.wake(step.now_ms + _EVERY_MS)
    _renew_list(step)
    prekeys.rotate(step)
    prekeys.expire(step)
    invites.expire(step)
    cursors.expire(step)
    _mend_stamps(step)
    _forget(step)
    outgoing.offer_again(step)
    _ask_for_lists(step)


def _ask_for_lists(step: Step) -> None:
    """What was not taken for an hour may lie with a device that is no longer listed: did the list move?"""
    unread = {
        row.genesis_hash
        for _, row in rows(step.tx, AWAITING, OutboxRow)
        if content.is_counted(row.kind) and step.now_ms - row.created_ms >= _EVERY_MS
    }
    for genesis_hash in sorted(unread):
        book.fetch(step, genesis_hash)


def _renew_list(step: Step) -> None:
    """A week old, or dated in the future: a new link over the same body, on the admin device."""
    account = account_of(step.tx)
    if account is None or not account.state or not devices.is_admin(account) or account.pending_list:
        return
    if linking.meeting_of(step.tx) is not None:
        return  # its code names the place that the next list has
    state = own_state(account)
    age_s = step.now_s - state.link.issued_s
    young = -limits.CLOCK_SKEW_S <= age_s < limits.LIST_RENEW_DAYS * limits.DAY_S
    if account.status != "active" or young:
        return
    account_key = identity.HybridKeyPair.from_seed(account.account_seed)
    signed = identity.renew(account_key, state, step.now_s, step.entropy)
    devices.offer(step, account, signed, state.body, ())


def _mend_stamps(step: Step) -> None:
    """What a clock that ran ahead had stamped is of now: it would stay for years."""
    latest_ms = step.now_ms + limits.CLOCK_SKEW_S * 1000
    for envelope_id, held in rows(step.tx, INBOX, HeldEnvelope):
        if held.since_ms > latest_ms:
            save(step.tx, INBOX, envelope_id, msgspec.structs.replace(held, since_ms=step.now_ms))
    for table in (OUTBOX, AWAITING):
        for key, row in rows(step.tx, table, OutboxRow):
            if max(row.created_ms, row.retry_ms - RETRY_MAX_MS) > latest_ms:
                save(step.tx, table, key, msgspec.structs.replace(row, created_ms=step.now_ms, retry_ms=0))
    for key, prekey in rows(step.tx, PREKEY, PrekeyRow):
        if prekey.made_ms > latest_ms:
            save(step.tx, PREKEY, key, msgspec.structs.replace(prekey, made_ms=step.now_ms))
    for table in (SEEN, FIRST_MESSAGE):
        for key, day in list(step.tx.scan(table)):
            if int.from_bytes(day, "big") > latest_ms // _DAY_MS:
                step.tx.put(table, key, step.today.to_bytes(4, "big"))


def _forget(step: Step) -> None:
    for table, days in ((SEEN, limits.SEEN_DAYS), (FIRST_MESSAGE, limits.FIRST_MESSAGE_MEMORY_DAYS)):
        for key, day in list(step.tx.scan(table)):
            if step.today - int.from_bytes(day, "big") > days:
                step.tx.delete(table, key)
    for envelope_id, held in rows(step.tx, INBOX, HeldEnvelope):
        if step.now_ms - held.since_ms > limits.MAILBOX_TTL_DAYS * _DAY_MS:
            step.tx.delete(INBOX, envelope_id)
    quarantine = [(held.order, key) for key, held in rows(step.tx, INBOX, HeldEnvelope) if not held.awaits]
    for _, key in sorted(quarantine)[: -limits.QUARANTINE_MAX]:
        step.tx.delete(INBOX, key)
    for envelope_id, row in rows(step.tx, AWAITING, OutboxRow):
        days = limits.RECEIPTS_KEPT_DAYS if row.kind == content.RECEIPT else limits.OUTBOX_DAYS
        if step.now_ms - row.created_ms > days * _DAY_MS:
            outbox.forget_awaiting(step, envelope_id, row)
