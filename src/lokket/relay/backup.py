"""A relay's backup: one file with its data and its key, made beside a running relay; and back again.

SQLite's online backup (sqlite.org/backup.html) from a connection of our own: one snapshot, and the relay
goes on writing. The file is as private as the data directory: whoever has it can be this relay.

A restored relay has forgotten what came later. Its clients notice at their login: they send again what
nobody confirmed, publish fresh prekeys, and put back lists, names and invites.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import apsw

from lokket.errors import LocalError
from lokket.relay.explain import DATA_FILE
from lokket.relay.storage.base import Counts
from lokket.relay.storage.jobs import COUNTS
from lokket.relay.storage.lock import FileLock
from lokket.relay.storage.schema import APPLICATION_ID, MIGRATIONS, pragma
from lokket.relay.storage.sqlite import SQLiteReader, require_version

KEY_FILE: Final = "relay.key"
LOCK_FILE: Final = DATA_FILE + ".lock"
REPLACED: Final = ".replaced"
_PAGES_AT_ONCE: Final = 1_000
_SEED_BYTES: Final = 32
_BROKEN_FILE: Final = "is damaged, or no backup of a relay"


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup holds, beside the relay's key."""

    made_s: int
    counts: Counts
    size_bytes: int
    schema: int


def create(data: Path, file: Path, now_s: int) -> Backup:
    """Whole or not at all: ``file`` gets its name when everything is on the disk. LocalError."""
    require_version()
    if file.exists():
        raise LocalError(f"{file} exists already; a backup replaces nothing")
    seed = _read_seed(data)
    draft = file.with_name(file.name + ".draft")
    try:
        draft.unlink(missing_ok=True)
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        _copy(data, draft)
        _seal(draft, seed, now_s)
        made = inspect(draft)
        _sync(draft)
        draft.replace(file)
        _sync(file.parent)
    except OSError as error:
        raise LocalError(f"{file} cannot be written: {error.strerror}") from None
    except (apsw.FullError, apsw.IOError):
        raise LocalError(f"{file} cannot be written: the disk is full, or it failed") from None
    finally:
        for leftover in file.parent.glob(draft.name + "*"):
            leftover.unlink(missing_ok=True)
    return made


def _read_seed(data: Path) -> bytes:
    try:
        seed = (data / KEY_FILE).read_bytes()
    except OSError:
        raise LocalError(f"there is no relay's key in {data}; name its data directory") from None
    if len(seed) != _SEED_BYTES:
        raise LocalError(f"{KEY_FILE} is damaged: a backup with it would be of no use")
    return seed


def _copy(data: Path, draft: Path) -> None:
    reader = SQLiteReader(data / DATA_FILE)  # refuses other schemas and other programs' files
    try:
        with contextlib.closing(apsw.Connection(str(draft))) as target, reader.snapshot() as source:
            _copy_pages(source, target)
    finally:
        reader.close_now()


def _copy_pages(source: apsw.Connection, target: apsw.Connection) -> None:
    with target.backup("main", source, "main") as copying:
        while not copying.done:
            copying.step(_PAGES_AT_ONCE)


def _seal(draft: Path, seed: bytes, now_s: int) -> None:
    """The key goes along: without it, a restored relay would be a stranger to its members."""
    with contextlib.closing(apsw.Connection(str(draft))) as db:
        db.pragma("journal_mode", "DELETE")  # one file, no log beside it
        db.pragma("secure_delete", True)
        db.execute("BEGIN IMMEDIATE")
        db.execute("CREATE TABLE backup (made_s INTEGER NOT NULL, seed BLOB NOT NULL) STRICT")
        db.execute("INSERT INTO backup (made_s, seed) VALUES (?, ?)", (now_s, seed))
        db.execute("COMMIT")


def inspect(file: Path) -> Backup:
    """Read all of it. LocalError: it is none, it is damaged, or a newer lokket made it."""
    with _opened(file) as db:
        ((made_s,),) = db.execute("SELECT made_s FROM backup").fetchall()
        (sums,) = db.execute(COUNTS).fetchall()
        counts = Counts(*(int(str(number)) for number in sums))
        return Backup(int(str(made_s)), counts, file.stat().st_size, pragma(db, "user_version"))


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[apsw.Connection]:
    if not file.is_file():
        raise LocalError(f"there is no file {file}")
    db = None
    try:
        db = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)
        if pragma(db, "application_id") != APPLICATION_ID:
            raise LocalError(f"{file} {_BROKEN_FILE}")
        if pragma(db, "user_version") > len(MIGRATIONS):
            raise LocalError(f"{file} was made by a newer lokket; restore it with that version")
        if db.pragma("integrity_check") != "ok":
            raise LocalError(f"{file} {_BROKEN_FILE}")
        rows = db.execute("SELECT seed FROM backup").fetchall()
        if len(rows) != 1 or not isinstance(rows[0][0], bytes) or len(rows[0][0]) != _SEED_BYTES:
            raise LocalError(f"{file} {_BROKEN_FILE}")
        yield db
    except apsw.Error:
        raise LocalError(f"{file} {_BROKEN_FILE}") from None
    finally:
        if db is not None:
            db.close()


def restore(file: Path, data: Path, *, replace: bool = False) -> Backup:
    """Into a data directory on which no relay runs. What is there is refused, or by ``replace`` moved aside.

    A crash in the middle leaves either the old data or none, never half: restore again. LocalError.
    """
    require_version()
    held = inspect(file)
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        data.chmod(0o700)
        lock = FileLock(data / LOCK_FILE)
    except OSError as error:
        raise LocalError(f"{data} cannot be used: {error.strerror}") from None
    try:
        present = [name for name in (DATA_FILE, KEY_FILE) if (data / name).exists()]
        if present and not replace:
            raise LocalError(f"there is a relay's data in {data}: give --replace to move it aside")
        seed = _write_fresh(file, data)
        _put_in_place(data, seed)
    except OSError as error:
        raise LocalError(f"{data} cannot be written: {error.strerror}") from None
    except (apsw.FullError, apsw.IOError):
        raise LocalError(f"{data} cannot be written: the disk is full, or it failed") from None
    finally:
        lock.release()
    return held


def _write_fresh(file: Path, data: Path) -> bytes:
    """The data under another name, without the key in it; returns that."""
    fresh = _fresh(data)
    fresh.unlink(missing_ok=True)
    os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with _opened(file) as source, contextlib.closing(apsw.Connection(str(fresh))) as target:
        _copy_pages(source, target)
        target.pragma("secure_delete", True)
        seed = target.execute("SELECT seed FROM backup").fetchall()[0][0]
        assert isinstance(seed, bytes)  # ``_opened`` saw it
        target.execute("DROP TABLE backup")
    _sync(fresh)
    return seed


def _fresh(data: Path) -> Path:
    return data / (DATA_FILE + ".restoring")


def _put_in_place(data: Path, seed: bytes) -> None:
    """The old data's log must not meet the new file: it is folded into its own, and moved before that."""
    if (data / DATA_FILE).exists():
        with (
            contextlib.suppress(apsw.Error),  # damaged: it is moved as it is
            contextlib.closing(apsw.Connection(str(data / DATA_FILE))) as old_data,
        ):
            old_data.pragma("wal_checkpoint", "TRUNCATE")
    aside = _unused(data / (DATA_FILE + REPLACED))
    for suffix in ("-wal", "-shm", "", ".suspect"):
        old = data / (DATA_FILE + suffix)
        if old.exists():
            old.replace(aside.with_name(aside.name + suffix))
    key, new_key = data / KEY_FILE, data / (KEY_FILE + ".restoring")
    with open(os.open(new_key, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as out:
        out.write(seed)
        out.flush()
        os.fsync(out.fileno())
    if key.exists() and key.read_bytes() != seed:
        key.replace(_unused(data / (KEY_FILE + REPLACED)))
    new_key.replace(key)
    _fresh(data).replace(data / DATA_FILE)
    _sync(data)


def _unused(path: Path) -> Path:
    """``path``, or with a number behind it: an attempt that was cut off has moved something there."""
    number = 1
    found = path
    while found.exists():
        number += 1
        found = path.with_name(f"{path.name}-{number}")
    return found


def require_whole(data: Path) -> None:
    """LocalError: a restore was cut off after the old data was moved and before the new was in place."""
    if _fresh(data).exists() and not (data / DATA_FILE).exists():
        raise LocalError("a restore of this relay was cut off: run 'lokket relay restore' once more")


def _sync(path: Path) -> None:
    if os.name != "posix" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
