"""Storage in one SQLite file: WAL, ``synchronous=FULL``, one writer thread with group commit.

Reads use a second connection in the caller's thread and see what is committed, nothing else. Traps:
SQLite before 3.51.3 can corrupt a WAL database (sqlite.org/wal.html#walresetbug); ``NORMAL`` loses
acknowledged rows in a power cut; after a failed fsync the cache shows what is not on the disk
(``lokket.disk``).
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import apsw

from lokket import limits
from lokket.disk import PLAIN_VFS, write_log_anew
from lokket.errors import LocalError
from lokket.relay.storage import blobs, jobs
from lokket.relay.storage.base import (
    AccountRow,
    BlobRow,
    Counts,
    DeviceRow,
    Held,
    InviteRow,
    ListChange,
    Mail,
    NameRow,
    NewAccount,
    Quota,
    Ruling,
    StorageBroken,
    StorageDamaged,
    Taken,
    UserRow,
    Waiting,
)
from lokket.relay.storage.lock import FileLock
from lokket.relay.storage.schema import migrate, pragma, require_current
from lokket.relay.storage.writer import DISK_ERRORS, Writer

VERSION_MIN: Final = (3, 51, 3)
_PAGE_BYTES: Final = 4096
_DAMAGED: Final = (
    "the relay's data is damaged; keep a copy of its directory, and restore a backup ('lokket relay restore "
    "FILE --replace'): the members' devices bring back what happened since"
)
_NO_ACCESS: Final = "the relay's data cannot be read or written; look at the disk and the rights"
_NO_DATABASE: Final = (
    "{} is no database, or its beginning is damaged; name another data directory, or restore a backup"
)
_BROKEN: Final = "the relay's disk fails; nothing is read until it works again"
_PRAGMAS: Final = (
    f"PRAGMA page_size = {_PAGE_BYTES}",
    "PRAGMA synchronous = FULL",
    "PRAGMA secure_delete = ON",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA wal_autocheckpoint = 4000",
    "PRAGMA journal_size_limit = 33554432",
    "PRAGMA temp_store = MEMORY",
)


def require_version(version: str = "") -> None:
    """LocalError unless SQLite is new enough."""
    version = version or apsw.sqlite_lib_version()
    if tuple(int(part) for part in version.split(".")[:3]) < VERSION_MIN:
        raise LocalError(
            f"SQLite {version} can corrupt this database; 3.51.3 or newer is needed: "
            "reinstall the package apsw-sqlite3mc"
        )


class SQLiteReader:
    """The reading verbs of ``Storage``, also beside a running relay: sees what is committed."""

    def __init__(self, path: Path, *, vfs: str | None = None) -> None:
        if not path.exists():
            raise LocalError(f"there is no relay's data at {path}; name its data directory")
        self._reader = _open(path, vfs)
        try:
            require_current(self._reader)
            self._reader.pragma("query_only", True)
        except BaseException:
            self._reader.close()
            raise

    def _read(self, sql: str, bindings: tuple[Any, ...]) -> Iterable[tuple[Any, ...]]:
        return self._reader.execute(sql, bindings)

    def _one(self, sql: str, *bindings: Any) -> tuple[Any, ...] | None:
        rows = list(self._read(sql, bindings))
        return rows[0] if rows else None

    async def account(self, genesis_hash: bytes) -> AccountRow | None:
        row = self._one("SELECT * FROM accounts WHERE genesis_hash = ?", genesis_hash)
        return AccountRow(*row) if row else None

    async def ruling(self, genesis_hash: bytes) -> Ruling:
        row = self._one(jobs.RULING, genesis_hash)
        return Ruling(row[0], bool(row[1]), *row[2:]) if row else Ruling(genesis_hash)

    async def users(self, after: bytes, limit: int) -> tuple[UserRow, ...]:
        return tuple(
            UserRow(*row[:5], Ruling(row[0], bool(row[7]), *row[8:]), row[5], row[6])  # type: ignore[call-arg]
            for row in self._read(jobs.USERS, (after, limit))
        )

    async def find(self, prefix: bytes, limit: int) -> tuple[bytes, ...]:
        rows = self._read(
            "SELECT genesis_hash FROM accounts WHERE substr(genesis_hash, 1, ?) = ? "
            "ORDER BY genesis_hash LIMIT ?",
            (len(prefix), prefix, limit),
        )
        return tuple(row[0] for row in rows)

    async def device(self, device_hash: bytes) -> DeviceRow | None:
        row = self._one(jobs.DEVICE, device_hash)
        return DeviceRow(*row) if row else None

    async def name(self, name: str) -> NameRow | None:
        row = self._one(
            "SELECT name, genesis_hash, claim FROM names WHERE name = ? AND freed_s IS NULL", name
        )
        return NameRow(*row) if row else None

    async def token_open(self, token_hash: bytes, genesis_hash: bytes, now_s: int) -> bool:
        return self._one(jobs.INVITE_OPEN, token_hash, now_s, genesis_hash) is not None

    async def waiting(
        self, device_hash: bytes, after: int, limit: int, max_bytes: int
    ) -> tuple[Waiting, ...]:
        found: list[Waiting] = []
        size = 0
        for row in self._read(jobs.WAITING, (device_hash, after, limit)):
            size += len(row[2])
            if found and size > max_bytes:
                break
            found.append(Waiting(*row))
        return tuple(found)

    async def blobs(self, genesis_hash: bytes) -> tuple[BlobRow, ...]:
        return tuple(blobs.of(row) for row in self._read(blobs.LIST, (genesis_hash,)))

    async def blob_part(self, genesis_hash: bytes, blob_id: bytes, offset: int) -> bytes:
        row = self._one(blobs.PART, genesis_hash, blob_id, offset)
        return bytes(row[1][offset - row[0] :]) if row is not None else b""

    async def counts(self) -> Counts:
        row = self._one(jobs.COUNTS)
        assert row is not None
        return Counts(*row)

    async def held(self, genesis_hash: bytes) -> tuple[Held, ...]:
        return jobs.held(self._reader, genesis_hash)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[apsw.Connection]:
        """One state of the data while the block lasts, whoever writes meanwhile."""
        self._reader.execute("BEGIN")
        try:
            self._reader.execute("SELECT count(*) FROM sqlite_schema").fetchall()  # BEGIN alone takes none
            yield self._reader
        finally:
            self._reader.execute("ROLLBACK")

    def close_now(self) -> None:
        self._reader.close()

    async def close(self) -> None:
        self.close_now()


class SQLiteStorage(SQLiteReader):
    """``Storage``, for one process at a time. ``vfs`` is for tests that make a disk fail."""

    def __init__(self, path: Path, *, max_bytes: int = 0, vfs: str | None = None) -> None:
        require_version()
        self._path = path
        self._suspect = path.with_name(path.name + ".suspect")
        self._vfs = vfs
        self._max_bytes = max_bytes
        self._lock = FileLock(path.with_name(path.name + ".lock"))
        try:
            with _in_sentences():
                self._connection = self._opened()
                super().__init__(path, vfs=vfs)
        except BaseException:
            self._lock.release()
            raise
        self._writer = Writer(self._connection, self._has_room, self._mended)

    def _opened(self) -> apsw.Connection:
        if not self._path.exists():
            os.close(os.open(self._path, os.O_CREAT | os.O_WRONLY, 0o600))
        write_log_anew(self._path, self._vfs or PLAIN_VFS)
        connection = _open(self._path, self._vfs)
        try:
            self._check(connection)
            migrate(connection)
            if self._max_bytes:
                connection.pragma("max_page_count", max(self._max_bytes // _PAGE_BYTES, 1))
            self._mail_ids = jobs.MailIds(connection)
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check(self, connection: apsw.Connection) -> None:
        """Read everything where that is soon done, or where a disk failure went before. StorageDamaged."""
        suspect = self._suspect.exists()
        if suspect or self._path.stat().st_size <= limits.START_CHECK_MAX_BYTES:
            if connection.pragma("integrity_check" if suspect else "quick_check") != "ok":
                raise StorageDamaged(_DAMAGED)
            self._suspect.unlink(missing_ok=True)

    def _mended(self) -> apsw.Connection:
        """In the disk's thread, while all else is refused.

        What the cache shows behind the last commit may not be on the disk. This connection knows where that
        commit ended and writes over what is behind it. If it cannot, the files are opened anew, which makes
        all that the log shows durable before it is believed.
        """
        with contextlib.suppress(OSError):  # on the disk that failed; the check is then left out
            self._suspect.touch(mode=0o600)
        try:
            _write_over(self._connection)
            self._reader.execute(jobs.COUNTS).fetchall()
        except DISK_ERRORS:
            with contextlib.suppress(apsw.Error):
                self._reader.close()
            with contextlib.suppress(apsw.Error):
                self._connection.close()
            with _in_sentences():
                self._connection = self._opened()
                SQLiteReader.__init__(self, self._path, vfs=self._vfs)
        else:
            if self._path.stat().st_size <= limits.START_CHECK_MAX_BYTES:  # else at the next start
                with _in_sentences():
                    self._check(self._connection)
        return self._connection

    def _read(self, sql: str, bindings: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
        with self._reading() as reader:
            yield from reader.execute(sql, bindings)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[apsw.Connection]:
        if self._writer.broken:
            raise StorageBroken(_BROKEN)
        try:
            yield self._reader
        except DISK_ERRORS:
            self._writer.fail()
            raise StorageBroken(_BROKEN) from None

    async def held(self, genesis_hash: bytes) -> tuple[Held, ...]:
        with self._reading() as reader:
            return jobs.held(reader, genesis_hash)

    @property
    def broken(self) -> bool:
        return self._writer.broken

    @property
    def damaged(self) -> bool:
        return self._writer.damaged

    def when_mended(self, callback: Callable[[], None]) -> None:
        self._writer.on_mended.append(callback)

    @property
    def transactions(self) -> int:
        """Commits since the start."""
        return self._writer.transactions

    def _has_room(self) -> bool:
        return shutil.disk_usage(self._path.parent).free > limits.DISK_RESERVE_BYTES

    # --- accounts ---

    async def register(self, new: NewAccount, token_hash: bytes | None, now_s: int) -> str:
        return await self._writer.run(lambda db: jobs.register(db, new, token_hash, now_s), grows=True)

    async def put_list(self, change: ListChange) -> bool:
        return await self._writer.run(lambda db: jobs.put_list(db, change), grows=True)

    async def delete_account(self, genesis_hash: bytes, now_s: int) -> None:
        await self._writer.run(lambda db: jobs.delete_account(db, genesis_hash, now_s), grows=False)

    async def rule(self, ruling: Ruling) -> bool:
        return await self._writer.run(lambda db: jobs.rule(db, ruling), grows=False)

    # --- devices and their prekeys ---

    async def login(self, device_hash: bytes, client_nonce: bytes) -> DeviceRow | None:
        return await self._writer.run(lambda db: jobs.login(db, device_hash, client_nonce), grows=False)

    async def publish(self, device_hash: bytes, number: int, batch: bytes, slots: bytes) -> bool:
        return await self._writer.run(
            lambda db: jobs.publish(db, device_hash, number, batch, slots), grows=True
        )

    async def take_pair(self, genesis_hash: bytes, device_hash: bytes, pick: int | None) -> Taken | None:
        return await self._writer.run(
            lambda db: jobs.take_pair(db, genesis_hash, device_hash, pick), grows=False
        )

    # --- names and invites ---

    async def claim_name(self, row: NameRow, now_s: int) -> bool:
        return await self._writer.run(lambda db: jobs.claim_name(db, row, now_s), grows=True)

    async def put_invite(self, row: InviteRow, open_max: int, now_s: int) -> str:
        return await self._writer.run(lambda db: jobs.put_invite(db, row, open_max, now_s), grows=True)

    # --- mailboxes ---

    async def append(self, mail: tuple[Mail, ...], quota: Quota) -> tuple[str, ...]:
        if not mail:
            return ()
        return await self._writer.run(lambda db: jobs.append(db, mail, quota, self._mail_ids), grows=True)

    async def acknowledge(self, device_hash: bytes, envelope_ids: tuple[bytes, ...]) -> tuple[bytes, ...]:
        return await self._writer.run(lambda db: jobs.acknowledge(db, device_hash, envelope_ids), grows=False)

    # --- blobs ---

    async def begin_blob(self, genesis_hash: bytes, row: BlobRow, quota: Quota) -> str:
        return await self._writer.run(lambda db: blobs.begin(db, genesis_hash, row, quota), grows=True)

    async def put_part(self, genesis_hash: bytes, blob_id: bytes, offset: int, part: bytes) -> BlobRow | None:
        return await self._writer.run(
            lambda db: blobs.put_part(db, genesis_hash, blob_id, offset, part), grows=True
        )

    async def commit_blob(self, genesis_hash: bytes, blob_id: bytes, expires_h: int) -> BlobRow | None:
        return await self._writer.run(
            lambda db: blobs.commit(db, genesis_hash, blob_id, expires_h), grows=False
        )

    async def delete_blob(self, genesis_hash: bytes, blob_id: bytes) -> None:
        await self._writer.run(lambda db: blobs.delete(db, genesis_hash, blob_id), grows=False)

    # --- upkeep ---

    async def expire(self, now_s: int, limit: int) -> int:
        if not any(self._one(sql, *bindings) for sql, bindings in jobs.due(now_s)):
            return 0
        return await self._writer.run(lambda db: jobs.expire(db, now_s, limit), grows=False)

    async def close(self) -> None:
        """After what was asked for is written. The log is folded into the file, deleted mail with it."""
        await self._writer.close()
        with contextlib.suppress(*DISK_ERRORS):
            await super().close()
            self._connection.close()
        self._lock.release()


def _open(path: Path, vfs: str | None) -> apsw.Connection:
    try:
        connection = apsw.Connection(str(path), vfs=vfs)
        # Whatever is found to be wrong: the file and its log stay as they are.
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.set_busy_timeout(2_000)
        for setting in _PRAGMAS:
            connection.execute(setting).fetchall()
        mode = connection.pragma("journal_mode", "wal")
    except apsw.NotADBError:
        raise LocalError(_NO_DATABASE.format(path.name)) from None
    if mode != "wal":
        connection.close()
        raise LocalError("the data directory's file system cannot keep a write-ahead log; use a local disk")
    return connection


def _write_over(connection: apsw.Connection) -> None:
    """A transaction that changes nothing, but is written and synced."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.pragma("user_version", pragma(connection, "user_version"))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            with contextlib.suppress(apsw.Error):
                connection.execute("ROLLBACK")
        raise
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


@contextlib.contextmanager
def _in_sentences() -> Iterator[None]:
    """SQLite's failures at opening, as sentences."""
    try:
        yield
    except apsw.CorruptError:
        raise StorageDamaged(_DAMAGED) from None
    except (apsw.IOError, apsw.CantOpenError, apsw.ReadOnlyError, apsw.FullError, OSError):
        raise LocalError(_NO_ACCESS) from None
