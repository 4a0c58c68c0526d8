"""Broken engines and drivers: each must make some world fail, else the invariants are decoration."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from lokket.crypto.entropy import Entropy
from lokket.engine import events
from lokket.engine.engine import Engine
from lokket.engine.records import OutboxRow, pack, rows
from lokket.engine.store import AWAITING, MESSAGE, OUTBOX, RECEIPT, SEEN, SESSION, Transaction
from lokket.wire import api

from .world import Trouble

if TYPE_CHECKING:
    from .device import Device


class _Broken(Engine):
    """The real engine, with something done wrong around it."""

    def __init__(self, device: Device) -> None:
        super().__init__(prekey_pairs=device.world.profile.prekey_pairs)
        self.device = device
        self.steps = 0

    def handle(
        self, tx: Transaction, event: events.Event, now_ms: int, entropy: Entropy
    ) -> list[events.Effect]:
        self.steps += 1
        self.before(tx, event)
        return self.after(tx, event, super().handle(tx, event, now_ms, entropy))

    def before(self, tx: Transaction, event: events.Event) -> None:
        pass

    def after(
        self, tx: Transaction, event: events.Event, effects: list[events.Effect]
    ) -> list[events.Effect]:
        return effects


class DropsARow(_Broken):
    """Now and then a row of the outbox is forgotten."""

    def after(
        self, tx: Transaction, event: events.Event, effects: list[events.Effect]
    ) -> list[events.Effect]:
        if isinstance(event, events.Disconnected):
            for key, _ in rows(tx, OUTBOX, OutboxRow):
                tx.delete(OUTBOX, key)
        return effects


class EncryptsAnew(_Broken):
    """A retry makes a new ciphertext."""

    def before(self, tx: Transaction, event: events.Event) -> None:
        if isinstance(event, events.Connected):
            for key, row in rows(tx, OUTBOX, OutboxRow):
                tx.put(OUTBOX, key, pack(msgspec.structs.replace(row, envelope=b"", envelope_id=b"")))


class ShowsTwice(_Broken):
    """A redelivered message is shown again."""

    def after(
        self, tx: Transaction, event: events.Event, effects: list[events.Effect]
    ) -> list[events.Effect]:
        again = [replace(effect, order=effect.order + 1_000) for effect in effects if _shown(effect)]
        return effects + (again if self.steps % 7 == 0 else [])


class AcknowledgesUnread(_Broken):
    """Envelopes are acknowledged that were never taken into the vault."""

    def handle(
        self, tx: Transaction, event: events.Event, now_ms: int, entropy: Entropy
    ) -> list[events.Effect]:
        self.steps += 1
        if isinstance(event, events.Arrived) and self.steps % 5 == 0:
            ids = tuple(api.decode_envelope(envelope).envelope_id for envelope in event.envelopes)
            return [events.Acknowledge(ids)]
        return super().handle(tx, event, now_ms, entropy)


class ForgetsWhatWasSeen(_Broken):
    """It remembers the envelope and loses the message."""

    def after(
        self, tx: Transaction, event: events.Event, effects: list[events.Effect]
    ) -> list[events.Effect]:
        if isinstance(event, events.Arrived) and self.steps % 5 == 0:
            for key, _ in list(tx.scan(MESSAGE)):
                if any(_shown(effect) for effect in effects):
                    tx.delete(MESSAGE, key)
                    break
        return effects


class OwesNothing(_Broken):
    """No receipt is ever sent: the senders wait for ever."""

    def after(
        self, tx: Transaction, event: events.Event, effects: list[events.Effect]
    ) -> list[events.Effect]:
        for key, _ in list(tx.scan(RECEIPT)):
            tx.delete(RECEIPT, key)
        return effects


class GoesBackInTime(_Broken):
    """Ratchets are not saved: the next message is encrypted under a used key."""

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.kept: dict[bytes, bytes] = {}

    def after(
        self, tx: Transaction, event: events.Event, effects: list[events.Effect]
    ) -> list[events.Effect]:
        if isinstance(event, events.SendText):
            for key, value in self.kept.items():
                tx.put(SESSION, key, value)
        else:
            self.kept = dict(tx.scan(SESSION))
        return effects


class NeverLetsGo(_Broken):
    """Receipts do not end the waiting."""

    def before(self, tx: Transaction, event: events.Event) -> None:
        if isinstance(event, events.Arrived):
            self.awaiting = dict(tx.scan(AWAITING))

    def after(
        self, tx: Transaction, event: events.Event, effects: list[events.Effect]
    ) -> list[events.Effect]:
        if isinstance(event, events.Arrived):
            for key, value in self.awaiting.items():
                tx.put(AWAITING, key, value)
        return effects


class ForgetsSeen(_Broken):
    """Nothing is known to have been seen when the acknowledgement leaves."""

    def after(
        self, tx: Transaction, event: events.Event, effects: list[events.Effect]
    ) -> list[events.Effect]:
        for key, _ in list(tx.scan(SEEN)):
            tx.delete(SEEN, key)
        return effects


def _shown(effect: events.Effect) -> bool:
    return isinstance(effect, events.MessageShown)


def _with(kind: type[_Broken]) -> Trouble:
    return Trouble(engine=lambda engine, device: kind(device))


ALL = {
    kind.__name__: _with(kind)
    for kind in (
        DropsARow,
        EncryptsAnew,
        ShowsTwice,
        AcknowledgesUnread,
        ForgetsWhatWasSeen,
        OwesNothing,
        GoesBackInTime,
        NeverLetsGo,
        ForgetsSeen,
    )
} | {"EffectsBeforeCommit": Trouble(effects_before_commit=True)}
