"""Healing: what did not open is asked for again, in a fresh session, and answered once and with care.

docs/identity.md, "Heal". The receiver asks at most five times a day per device; the sender re-encrypts
the same content, under the same message id, only to the device that it was first sent to.
"""

from __future__ import annotations

import msgspec

from lokket import limits
from lokket.engine import outbox
from lokket.engine.events import TrustNotice
from lokket.engine.records import Contact, Healing, OutboxRow, PeerDevice, load, rows, save
from lokket.engine.step import Step
from lokket.engine.store import AWAITING, HEALING, PEER
from lokket.wire.content import Heal

_WAIT_MS = 1_000
_JITTER_MS = 2_000
_IDS_MAX = 64
_DAY_MS = limits.DAY_S * 1000


def plan(step: Step, device_hash: bytes, envelope_id: bytes) -> None:
    """An envelope of a listed device did not open: ask for it soon, unless the day's share is used up."""
    known = load(step.tx, HEALING, device_hash, Healing)
    asked = known.asked if known is not None and known.day == step.today else 0
    if asked >= limits.HEAL_REQUESTS_PER_DAY:
        return
    ids = () if known is None else known.envelope_ids
    due_ms = step.now_ms + _WAIT_MS + step.jitter(_JITTER_MS)
    if known is not None and known.envelope_ids:
        due_ms = known.due_ms
    save(step.tx, HEALING, device_hash, Healing(due_ms, step.today, asked, (*ids, envelope_id)[-_IDS_MAX:]))
    step.wake(due_ms)


def run(step: Step) -> None:
    """Ask the devices whose time has come. The request opens a session of its own."""
    for device_hash, healing in rows(step.tx, HEALING, Healing):
        if not healing.envelope_ids:
            continue
        if not step.due(healing.due_ms, _WAIT_MS + _JITTER_MS):
            continue
        device = load(step.tx, PEER, device_hash, PeerDevice)
        if device is not None:
            outbox.queue_control(step, device.genesis_hash, device_hash, Heal(healing.envelope_ids))
        asked = healing.asked + 1 if healing.day == step.today else 1
        save(step.tx, HEALING, device_hash, Healing(0, step.today, asked, ()))


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
        row = load(step.tx, AWAITING, envelope_id, OutboxRow)
        if row is None or row.device_hash != device_hash or row.heals >= limits.HEAL_RESENDS_MAX:
            continue
        if step.now_ms - row.created_ms > limits.OUTBOX_DAYS * _DAY_MS:
            continue
        outbox.forget_awaiting(step, envelope_id, row)
        outbox.requeue(step, msgspec.structs.replace(row, heals=row.heals + 1))
    if contact is not None:
        step.emit(
            TrustNotice("session-reset", contact.petname, f"the session with {contact.petname} was made anew")
        )
