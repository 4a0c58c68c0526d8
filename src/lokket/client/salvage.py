"""Out of a damaged vault: all that can still be read, into a new one. The old one is kept, and never written.

1. The files are copied aside, synced, into ``damaged-N``. 2. Another copy is read, row by row around what
does not open. 3. The rows go into a new vault under the same key, which begins as a restored one does: no
session and no prekey, so no key is used twice. 4. The new file takes the old one's place.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import apsw

from lokket.client.files import sync_folder
from lokket.client.lock import VaultLock
from lokket.client.vault import (
    DATABASE,
    LOCK,
    Vault,
    VaultDamaged,
    make_private_folder,
    open_vault,
    unlock,
)
from lokket.client.vault_mark import MARK
from lokket.client.vault_schema import TABLES_NOW
from lokket.crypto.entropy import Entropy
from lokket.engine import archive, salvage
from lokket.errors import LocalError

_FILES: Final = (DATABASE, DATABASE + "-wal", MARK)
_KEPT: Final = "damaged-"
_WORK: Final = "vault.salvage"
_ROWS_AT_ONCE: Final = 256
_ROW_MIN_BYTES: Final = 64
_ATTEMPTS_MAX: Final = 1_000_000  # a page of numbers that all fail would take long


@dataclass(frozen=True, slots=True)
class Salvaged:
    """``gaps``: places in the file that could not be read; what stood there is not known."""

    kept: Path
    contacts: int
    messages: int
    rows: int
    gaps: int


def salvage_vault(folder: Path, key: bytes, now_ms: int, entropy: Entropy) -> Salvaged:
    """LocalError: the vault is whole, in use, or nothing in it can be read; it is then as it was."""
    lock = VaultLock(folder / LOCK)
    work = folder / _WORK
    try:
        shutil.rmtree(work, ignore_errors=True)
        _copy_files(folder, work / "tried")
        _require_damage(work / "tried", key)
        kept = _set_aside(folder)
        _copy_files(kept, work / "old")
        made = _fill(work, key, now_ms, entropy, kept)
        _put_in_place(work / "new", folder)
        return made
    except OSError as error:
        raise LocalError(f"cannot salvage the vault in {folder}: {error.strerror}") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
        lock.release()


def _require_damage(folder: Path, key: bytes) -> None:
    """LocalError unless it is damaged."""
    try:
        vault = open_vault(folder, key)
    except VaultDamaged:
        return
    try:
        if not vault.faults():
            raise LocalError("this vault is whole: there is nothing to salvage")
    finally:
        vault.close()


def _copy_files(source: Path, target: Path) -> None:
    make_private_folder(target)
    for name in _FILES:
        if (source / name).exists():
            shutil.copyfile(source / name, target / name)
            (target / name).chmod(0o600)


def _set_aside(folder: Path) -> Path:
    number = 1
    while (folder / f"{_KEPT}{number}").exists():
        number += 1
    kept = folder / f"{_KEPT}{number}"
    _copy_files(folder, kept)
    for path in kept.iterdir():
        _sync(path)
    sync_folder(kept)
    sync_folder(folder)
    return kept


def _fill(work: Path, key: bytes, now_ms: int, entropy: Entropy, kept: Path) -> Salvaged:
    try:
        reader = _Reader(work / "old" / DATABASE, key, kept)
    except LocalError:  # perhaps for its log alone, which may be another file's
        (work / "old" / (DATABASE + "-wal")).unlink(missing_ok=True)
        shutil.copyfile(kept / DATABASE, work / "old" / DATABASE)
        reader = _Reader(work / "old" / DATABASE, key, kept)
    vault = open_vault(work / "new", key, create=True)
    try:
        count = 0
        for table in TABLES_NOW:
            if table not in salvage.LEFT_BEHIND:
                count += _copy(vault, table, reader.rows(table))
        if not count:
            raise LocalError(f"nothing in the vault can be read; it is kept in {kept}: restore a backup")
        try:
            with vault.transaction() as tx:
                salvage.begin_anew(tx, now_ms, entropy)
                contacts, messages = archive.count(tx)
        except LocalError:
            raise LocalError(
                f"the account's own keys cannot be read; the vault is kept in {kept}: "
                "'lokket recover' and a backup bring back what they can"
            ) from None
        assert vault.faults() == ()
        return Salvaged(kept, contacts, messages, count, reader.gaps)
    finally:
        vault.close()
        reader.close()


def _copy(vault: Vault, table: str, rows: Iterator[tuple[bytes, bytes]]) -> int:
    count = 0
    while True:
        batch = [row for _, row in zip(range(_ROWS_AT_ONCE), rows, strict=False)]
        if not batch:
            return count
        with vault.transaction() as tx:
            for key, value in batch:
                tx.put(table, key, value)
        count += len(batch)


def _put_in_place(new: Path, folder: Path) -> None:
    """A kill in between leaves a vault that is noticed as damaged, and can be salvaged again."""
    _sync(new / DATABASE)
    (folder / (DATABASE + "-wal")).unlink(missing_ok=True)
    (new / DATABASE).replace(folder / DATABASE)
    (new / MARK).replace(folder / MARK)
    sync_folder(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Reader:
    """Reads around what does not open."""

    def __init__(self, path: Path, key: bytes, kept: Path) -> None:
        self.gaps = 0
        self._size = path.stat().st_size
        self._attempts = 0
        try:
            self._connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
            self._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            self._connection.pragma("locking_mode", "EXCLUSIVE")
            unlock(self._connection, key)
        except (apsw.Error, LocalError):
            self.close()
            raise LocalError(
                f"nothing in the vault can be read: its first page is damaged; it is kept in {kept}: "
                "'lokket recover' and a backup bring back what they can"
            ) from None

    def rows(self, table: str) -> Iterator[tuple[bytes, bytes]]:
        """By row number, halving what fails until the rest has been read."""
        todo = [(1, self._last(table))]
        while todo and self._attempts < _ATTEMPTS_MAX:
            low, high = todo.pop()
            reached = low - 1
            self._attempts += 1
            try:
                sql = f"SELECT rowid, key, value FROM {table} WHERE rowid BETWEEN ? AND ? ORDER BY rowid"  # noqa: S608
                for number, key, value in self._connection.execute(sql, (low, high)):
                    reached = int(str(number))
                    yield bytes(key), bytes(value)
            except apsw.SQLError:
                return  # a table that this vault did not have yet
            except apsw.Error:
                start, middle = reached + 1, (reached + 1 + high) // 2
                if reached >= low:
                    todo.append((start, high))
                elif start < high:
                    todo += [(middle + 1, high), (start, middle)]
                else:
                    self.gaps += 1

    def _last(self, table: str) -> int:
        """From the table, else from its index, else as many as fit the file."""
        for source in (table, f"{table} INDEXED BY sqlite_autoindex_{table}_1"):
            with contextlib.suppress(apsw.Error):
                sql = f"SELECT coalesce(max(rowid), 0) FROM {source}"  # noqa: S608
                ((last,),) = self._connection.execute(sql).fetchall()
                return int(str(last))
        return self._size // _ROW_MIN_BYTES

    def close(self) -> None:
        with contextlib.suppress(apsw.Error):
            self._connection.close()
