"""Healing: what did not open is asked for again, in a fresh session, and answered once and with care.

docs/identity.md, "Heal". The receiver asks at most five times a day per device; the sender re-encrypts
the same content, under the same message id, only to the device that it was first sent to.
"""

from __future__ import annotations

import msgspec

from lokket import limits
from lokket.engine import outbox
from lokket.engine.events import TrustNotice
from lokket.engine.records import Contact, Healing, HeldEnvelope, OutboxRow, PeerDevice, load, rows, save
from lokket.engine.step import Step
from lokket.engine.store import AWAITING, HEALING, INBOX, OUTBOX, PEER
from lokket.wire.content import Heal

_WAIT_MS = 1_000
_JITTER_MS = 2_000
_IDS_MAX = 64
_DAY_MS = limits.DAY_S * 1000


def plan(step: Step, device_hash: bytes) -> None:
    """Mail of a listed device did not open and is held: ask for it soon, together with what follows."""
    known = load(step.tx, HEALING, device_hash, Healing) or Healing(0, step.today, 0)
    if not known.due_ms:
        due_ms = step.now_ms + _WAIT_MS + step.jitter(_JITTER_MS)
        save(step.tx, HEALING, device_hash, Healing(due_ms, known.day, known.asked))
        step.wake(due_ms)


def run(step: Step) -> None:
    """Ask the devices whose time has come. The request opens a session of its own."""
    for device_hash, healing in rows(step.tx, HEALING, Healing):
        if healing.due_ms and step.due(healing.due_ms, _DAY_MS):
            _ask(step, device_hash, healing.asked if healing.day == step.today else 0)


def _ask(step: Step, device_hash: bytes, asked: int) -> None:
    """One request for the oldest of what is held; the rest, and what is beyond the day's share, later."""
    device = load(step.tx, PEER, device_hash, PeerDevice)
    held = sorted(
        (row.order, envelope_id, row)
        for envelope_id, row in rows(step.tx, INBOX, HeldEnvelope)
        if row.to_heal and row.sender_device == device_hash
    )
    if device is None or not held:
        save(step.tx, HEALING, device_hash, Healing(0, step.today, asked))
        return
    if asked >= limits.HEAL_REQUESTS_PER_DAY:
        due_ms = (step.today + 1) * _DAY_MS
    else:
        asked += 1
        due_ms = step.now_ms + _WAIT_MS if len(held) > _IDS_MAX else 0
        ids = tuple(envelope_id for _, envelope_id, _ in held[:_IDS_MAX])
        outbox.queue_control(step, device.genesis_hash, device_hash, Heal(ids))
        for _, envelope_id, row in held[:_IDS_MAX]:
            save(step.tx, INBOX, envelope_id, msgspec.structs.replace(row, to_heal=False))
    save(step.tx, HEALING, device_hash, Healing(due_ms, step.today, asked))
    if due_ms:
        step.wake(due_ms)


def _sent_row(step: Step, envelope_id: bytes) -> tuple[str, bytes, OutboxRow | None]:
    """Table, key and row: still in the outbox where the relay's word got lost and the request did not."""
    row = load(step.tx, AWAITING, envelope_id, OutboxRow)
    if row is None:
        for key, queued in rows(step.tx, OUTBOX, OutboxRow):
            if queued.envelope_id == envelope_id:
                return OUTBOX, key, queued
    return AWAITING, envelope_id, row


def answer(step: Step, contact: Contact | None, device_hash: bytes, request: Heal) -> None:
    """Send again what this device could not open: its own mail, young, unreceipted, three times at most."""
    device = load(step.tx, PEER, device_hash, PeerDevice)
    if device is None:
        return
    honoured = device.heals_honoured if device.heals_day == step.today else 0
    if honoured >= limits.HEAL_REQUESTS_PER_DAY:
        return
    save(
        step.tx,
        PEER,
        device_hash,
        msgspec.structs.replace(device, heals_day=step.today, heals_honoured=honoured + 1),
    )
    for envelope_id in request.envelope_ids:
        table, key, row = _sent_row(step, envelope_id)
        if row is None or row.device_hash != device_hash or row.heals >= limits.HEAL_RESENDS_MAX:
            continue
        if step.link.clock_agrees and step.now_ms - row.created_ms > limits.OUTBOX_DAYS * _DAY_MS:
            continue
        if table == AWAITING:
            outbox.forget_awaiting(step, envelope_id, row)
        else:
            step.tx.delete(OUTBOX, key)
        outbox.requeue(step, msgspec.structs.replace(row, heals=row.heals + 1))
    if contact is not None:
        step.emit(
            TrustNotice("session-reset", contact.petname, f"the session with {contact.petname} was made anew")
        )
