"""This device's backups: their key, their numbers, where the automatic ones go.

A number is in the vault before its archive is begun, so that no two archives of a vault share one. It also
is not below the time in seconds: archives of a later vault of the account come after those of this one.
"""

from __future__ import annotations

import msgspec

from lokket import limits
from lokket.engine.events import (
    BackupBegun,
    BackupBlobs,
    BackupDaily,
    BackupWritten,
    BeginBackup,
    OpenedBackup,
    UseBackupKey,
)
from lokket.engine.records import BackupState, load, save
from lokket.engine.step import Step, require_account
from lokket.engine.store import ACCOUNT, Transaction
from lokket.errors import LocalError

_KEY = b"backup"


def state(tx: Transaction) -> BackupState | None:
    """None: no backup was made or opened here yet."""
    return load(tx, ACCOUNT, _KEY, BackupState)


def due(known: BackupState, now_s: int) -> bool:
    """Whether the next automatic one is. A clock that was set back makes none wait."""
    return not (known.written_s and 0 <= now_s - known.written_s < limits.BACKUP_EVERY_S)


def _require(step: Step) -> BackupState:
    known = state(step.tx)
    if known is None:
        raise LocalError("there is no backup key yet: 'lokket backup create' makes one")
    return known


def use_key(step: Step, command: UseBackupKey) -> None:
    known = state(step.tx) or BackupState(b"")
    _save(step, msgspec.structs.replace(known, key=command.key, wrapped=command.wrapped))


def begin(step: Step, command: BeginBackup) -> None:
    known = _require(step)
    counter = max(known.counter + 1, step.now_s)
    _save(step, msgspec.structs.replace(known, counter=counter))
    step.emit(BackupBegun(counter, step.now_s, require_account(step.tx).genesis_hash))


def written(step: Step, command: BackupWritten) -> None:
    known = _require(step)
    if command.counter == known.counter:
        _save(step, msgspec.structs.replace(known, written_s=step.now_s))


def daily(step: Step, command: BackupDaily) -> None:
    known = _require(step)
    # Another place has no backup yet: the first is due at once.
    same = (command.folder, command.at_relay) == (known.folder, known.at_relay)
    changed = msgspec.structs.replace(known, folder=command.folder, at_relay=command.at_relay)
    _save(step, msgspec.structs.replace(changed, written_s=known.written_s if same else 0))


def at_relay(step: Step, command: BackupBlobs) -> None:
    _save(step, msgspec.structs.replace(_require(step), blobs=command.blobs))


def opened(step: Step, command: OpenedBackup) -> None:
    """LocalError: a newer archive of this account is known here, and the person did not insist."""
    known = state(step.tx) or BackupState(command.key, command.wrapped)
    if command.counter < known.counter and not command.older:
        raise LocalError(
            "this backup is older than the last one known here: somebody may have put an old one in its "
            "place; --older takes it nevertheless"
        )
    _save(step, msgspec.structs.replace(known, counter=max(known.counter, command.counter)))


def _save(step: Step, known: BackupState) -> None:
    save(step.tx, ACCOUNT, _KEY, known)
