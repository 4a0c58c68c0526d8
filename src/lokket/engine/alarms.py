"""What must not scroll by: alarms are kept until somebody was shown them, and for two weeks after.

Also how an older copy of this vault is noticed before it has spoken to anyone: each opening has a number,
which the caller keeps outside the vault, too (docs/identity.md, "Restored or cloned vault").
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from lokket import limits
from lokket.engine.account import vault_restored
from lokket.engine.answers import ALARM_KINDS, AlarmView
from lokket.engine.events import AlarmsShown, TrustNotice, VaultGeneration, VaultOpened
from lokket.engine.records import Alarm, save, unpack
from lokket.engine.step import Step, account_of
from lokket.engine.store import ACCOUNT, Transaction

_ALARM: Final = b"alarm "
_GENERATION: Final = b"generation"


def keep(step: Step) -> None:
    """Of the step's notices those that are alarms; the same one again is new."""
    for effect in list(step.effects):
        if isinstance(effect, TrustNotice) and effect.kind in ALARM_KINDS:
            key = _ALARM + effect.kind.encode() + b" " + effect.petname.encode()
            save(step.tx, ACCOUNT, key, Alarm(effect.kind, effect.petname, effect.sentence, step.now_ms))


def known(tx: Transaction, now_ms: int) -> tuple[AlarmView, ...]:
    """Those of the last two weeks, and all that nobody was shown; oldest first."""
    since_ms = now_ms - limits.ALARM_DAYS * limits.DAY_S * 1000
    found = [alarm for _, alarm in _all(tx) if not alarm.shown or alarm.time_ms >= since_ms]
    return tuple(
        AlarmView(alarm.kind, alarm.petname, alarm.sentence, alarm.time_ms, alarm.shown)
        for alarm in sorted(found, key=lambda alarm: alarm.time_ms)
    )


def shown(step: Step, command: AlarmsShown) -> None:
    for key, alarm in list(_all(step.tx)):
        if not alarm.shown:
            save(step.tx, ACCOUNT, key, msgspec.structs.replace(alarm, shown=True))


def _all(tx: Transaction) -> Iterator[tuple[bytes, Alarm]]:
    for key, data in tx.scan(ACCOUNT, _ALARM):
        yield key, unpack(Alarm, data)


def opened(step: Step, command: VaultOpened) -> None:
    """``floor`` above our own number: the vault was open since, and this is a copy of before.

    The number rises here first and outside later: a crash in between leaves it lower there: no alarm.
    """
    stored = step.tx.get(ACCOUNT, _GENERATION)
    own = 0 if stored is None else int.from_bytes(stored, "big")
    account = account_of(step.tx)
    if command.floor > own and account is not None and account.status == "active":
        vault_restored(step, account)
    number = max(own, command.floor) + 1
    step.tx.put(ACCOUNT, _GENERATION, number.to_bytes(8, "big"))
    step.emit(VaultGeneration(number))
