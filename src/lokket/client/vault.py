"""The vault: one encrypted SQLite file that holds everything the engine remembers.

SQLite3 Multiple Ciphers, ChaCha20-Poly1305 per page, raw 32-byte key. A transaction is the engine's whole
step; ``synchronous=FULL`` makes what COMMIT returned from survive a power cut. Knows no message format.

A disk that fails or is full fails the transaction, and the next one tries it anew: nothing here gives up.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import apsw

from lokket.client.files import sync_folder
from lokket.client.lock import VaultLock
from lokket.client.vault_mark import MARK, Mark
from lokket.client.vault_schema import COUNT_ON, COUNTED, TABLES_NOW, migrate
from lokket.disk import PLAIN_VFS, write_log_anew
from lokket.errors import LocalError

SQLITE_NEEDED: Final = (3, 51, 3)  # the first without the WAL-reset corruption
_PLAIN_HEADER: Final = b"SQLite format 3\x00"
_RAW_KEY: Final = re.compile(r"[0-9a-f]{64}")
_ROWS_AT_ONCE: Final = 256

DATABASE: Final = "vault.db"
LOCK: Final = "vault.lock"
_DRAFT: Final = "vault.draft"
_PAGE_MIN_BYTES: Final = 512

_BUSY: Final = "another program holds the vault's file open: close it first"
_NO_ACCESS: Final = "the vault's file cannot be read or written: check the disk and the rights"
_FULL: Final = "the disk is full: nothing was lost, and nothing new is kept until there is room"
WRONG_KEY: Final = "this key does not open the vault (or the first page of its file is damaged)"
_DAMAGED: Final = (
    "the vault's file is damaged: 'lokket doctor --salvage' keeps it as it is, "
    "and makes a new one of what can be read"
)
_LOST: Final = (
    "the vault lacks its last changes: its log (vault.db-wal) is damaged or missing, or an older file is "
    "in its place; 'lokket doctor --salvage' keeps it as it is, and makes a new one that uses no key twice"
)
_CIPHER_VFS: Final = "multipleciphers-"
_SYNCHRONOUS: Final = "FULL"  # NORMAL loses what was committed when the power goes


class VaultFull(LocalError):
    """The transaction did not happen. The next one does, when there is room."""


class VaultFailing(LocalError):
    """The disk refused to read or write; whether a COMMIT happened is open. The next one tries anew."""


class VaultDamaged(LocalError):
    """What is in the file is not what was written there."""


class Transaction:
    """``lokket.engine.store.Transaction`` over one SQLite transaction."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._execute = connection.execute

    def get(self, table: str, key: bytes) -> bytes | None:
        row = self._execute(_SQL[table].get, (key,)).fetchone()
        return None if row is None else bytes(row[0])

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self._execute(_SQL[table].put, (key, value))

    def delete(self, table: str, key: bytes) -> None:
        self._execute(_SQL[table].delete, (key,))

    def scan(
        self, table: str, prefix: bytes = b"", *, after: bytes | None = None, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Read in pages, so that no cursor stays open over a write or a COMMIT."""
        sql = _SQL[table]
        low, high = prefix, _successor(prefix)
        if after is not None and reverse:
            high = after if high is None else min(high, after)
        elif after is not None:
            low = max(low, after + b"\x00")  # the next possible key
        while True:
            bounds = (low,) if high is None else (low, high)
            statement = sql.scan(bounded=high is not None, reverse=reverse)
            page: list[tuple[bytes, bytes]] = self._execute(statement, bounds).fetchall()  # type: ignore[assignment]
            yield from page
            if len(page) < _ROWS_AT_ONCE:
                return
            last = page[-1][0]
            low, high = (low, last) if reverse else (last + b"\x00", high)


class _Statements:
    """The SQL of one table, made once, so that apsw's statement cache finds it again."""

    def __init__(self, table: str) -> None:
        self.get = f"SELECT value FROM {table} WHERE key = ?"  # noqa: S608 (names from our own schema)
        self.put = (
            f"INSERT INTO {table} (key, value) VALUES (?, ?) "  # noqa: S608
            "ON CONFLICT (key) DO UPDATE SET value = excluded.value"
        )
        self.delete = f"DELETE FROM {table} WHERE key = ?"  # noqa: S608
        self._scans = {
            (bounded, reverse): (
                f"SELECT key, value FROM {table} WHERE key >= ? {'AND key < ?' if bounded else ''} "  # noqa: S608
                f"ORDER BY key {'DESC' if reverse else ''} LIMIT {_ROWS_AT_ONCE}"
            )
            for bounded in (False, True)
            for reverse in (False, True)
        }

    def scan(self, *, bounded: bool, reverse: bool) -> str:
        return self._scans[bounded, reverse]


_SQL: Final = {table: _Statements(table) for table in TABLES_NOW}


class Vault:
    """Made by ``open_vault``. Used from one thread at a time."""

    def __init__(
        self, connect: Callable[[], apsw.Connection], lock: VaultLock, path: Path, mark: Mark
    ) -> None:
        self._connect = connect
        self._connection = connect()
        self._lock = lock
        self._mark = mark
        self._failing = False
        self._closed = False
        self.path = path

    def __repr__(self) -> str:
        return f"Vault({str(self.path)!r})"

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """COMMIT at the end, ROLLBACK on any exception.

        VaultFull, VaultFailing: nothing is lost, and the next transaction tries the disk anew; after a failed
        COMMIT the change may turn up all the same. VaultDamaged.
        """
        with self._noting_failures():
            self._mend()
            connection = self._connection
            connection.execute("BEGIN IMMEDIATE")
            try:
                before = connection.total_changes()
                yield Transaction(connection)
                count = self._count() if connection.total_changes() != before else 0
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    with contextlib.suppress(apsw.Error):
                        connection.execute("ROLLBACK")
                raise
            if count:
                self._mark.write(count)

    def probe(self) -> None:
        """Write something, really. VaultFull, VaultFailing, VaultDamaged: the disk does not take it."""
        with self.transaction():
            self._count()

    def tidy(self) -> None:
        """Move the log into the database and cut it: what was deleted is then in neither file."""
        with self._noting_failures():
            self._mend()
            self._connection.pragma("wal_checkpoint", "TRUNCATE")

    def faults(self) -> tuple[str, ...]:
        """Read every page, which checks its authentication tag, and every index. Empty: nothing wrong."""
        try:
            found = [str(row[0]) for row in self._connection.execute("PRAGMA integrity_check(20)")]
        except apsw.Error as error:
            return (type(error).__name__,)
        return () if found == ["ok"] else tuple(found)

    def close(self) -> None:
        """Cut the log, close, give the lock back. Twice is once; whoever comes later is refused."""
        with contextlib.suppress(apsw.Error, LocalError):
            self.tidy()
        with contextlib.suppress(apsw.Error):
            self._connection.close()
        self._closed = True
        self._mark.close()
        self._lock.release()

    @contextlib.contextmanager
    def _noting_failures(self) -> Iterator[None]:
        try:
            with _in_sentences():
                yield
        except VaultFailing:
            self._failing = True
            raise

    def _mend(self) -> None:
        """After a failure: what the cache shows behind the last commit may not be on the disk.

        This connection still knows where the last commit ended and writes over what is behind it. If it
        cannot, the file is opened anew, which makes all that the log shows durable before it is believed.
        """
        if self._closed:
            raise LocalError("the vault was closed")
        if not self._failing:
            return
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            count = self._count()
            self._connection.execute("COMMIT")
            self._connection.pragma("wal_checkpoint", "TRUNCATE")
        except apsw.FullError:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        except apsw.Error:
            with contextlib.suppress(apsw.Error):
                self._connection.close()
            self._connection = self._connect()
        else:
            self._mark.write(count)
        self._failing = False

    def _count(self) -> int:
        """One more transaction: its number."""
        ((count,),) = self._connection.execute(COUNT_ON).fetchall()
        return int(str(count))


def open_vault(
    folder: Path, key: bytes, *, create: bool = False, wait_s: float = 0.0, vfs: str = PLAIN_VFS
) -> Vault:
    """The vault in ``folder`` under the raw 32-byte ``key``; with ``create`` a new one.

    LocalError, with a sentence: the wrong SQLite, another process, a plaintext file, the wrong key, a schema
    of a newer lokket, no vault there (or one already, with ``create``). VaultDamaged: nothing was written.
    ``vfs``: for tests that make a disk fail.
    """
    require_cipher_sqlite(apsw.sqlite_lib_version(), getattr(apsw, "mc_version", ""))
    path = folder / DATABASE
    if create:
        make_private_folder(folder)
    elif not path.exists():
        raise LocalError(f"there is no vault in {folder}: run 'lokket join LINK' first")
    lock = VaultLock(folder / LOCK, wait_s=wait_s)
    try:
        if create:
            _make(path, key, vfs)
        mark = Mark(folder / MARK, key)
        try:
            return Vault(lambda: _connect(path, key, vfs, mark), lock, path, mark)
        except BaseException:
            mark.close()
            raise
    except BaseException:
        lock.release()
        raise


def require_cipher_sqlite(version: str, multiple_ciphers: str) -> None:
    """LocalError: this SQLite cannot encrypt, or corrupts its log (before 3.51.3)."""
    if not multiple_ciphers:
        raise LocalError(
            "the installed 'apsw' cannot encrypt: uninstall it, then reinstall 'apsw-sqlite3mc', "
            "which shares its name"
        )
    if tuple(int(part) for part in version.split(".")[:3]) < SQLITE_NEEDED:
        raise LocalError(f"SQLite {version} can corrupt its log: install 'apsw-sqlite3mc' 3.51.3 or newer")


def make_private_folder(folder: Path) -> None:
    """Mode 0700, whatever the umask says."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_mode & 0o077:
            folder.chmod(0o700)
    except OSError as error:
        raise LocalError(f"cannot make the folder {folder}: {error.strerror}") from None


def _make(path: Path, key: bytes, vfs: str) -> None:
    """A vault is there whole or not at all: it gets its name once its schema is on the disk."""
    if path.exists():
        raise LocalError(f"there is a vault in {path.parent} already: choose another --profile")
    draft = path.with_name(_DRAFT)
    for leftover in path.parent.glob(_DRAFT + "*"):
        leftover.unlink()
    try:
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        _connect(draft, key, vfs).close()
        draft.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise LocalError(f"cannot write {path}: {error.strerror}") from None


def _connect(path: Path, key: bytes, vfs: str, mark: Mark | None = None) -> apsw.Connection:
    """Without a ``mark``: an empty file becomes a vault."""
    try:
        if mark is not None and path.stat().st_size < _PAGE_MIN_BYTES:
            raise VaultDamaged(_DAMAGED)  # SQLite would take it for a new and empty database
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
        refuse_plaintext(path)
    except OSError:
        raise VaultFailing(_NO_ACCESS) from None
    with _in_sentences():
        write_log_anew(path, vfs)
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE, vfs=_CIPHER_VFS + vfs)
    try:
        # Whatever is found to be wrong: the file and its log stay as they are.
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        # One process: the log's index stays in memory. Before the first read, or it has a file already.
        connection.pragma("locking_mode", "EXCLUSIVE")
        unlock(connection, key)
        with _in_sentences():
            connection.pragma("journal_mode", "WAL")
            connection.pragma("synchronous", _SYNCHRONOUS)
            connection.pragma("secure_delete", "ON")
            connection.pragma("temp_store", "MEMORY")
            if mark is not None and connection.pragma("user_version") == 0:
                raise VaultDamaged(_DAMAGED)
            migrate(connection)
            _require_last_commit(connection, mark)
            with contextlib.suppress(apsw.FullError):  # reading needs no room
                connection.pragma("wal_checkpoint", "TRUNCATE")
        refuse_plaintext(path, empty_too=True)
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
    except BaseException:
        connection.close()
        raise
    return connection


def _require_last_commit(connection: apsw.Connection, mark: Mark | None) -> None:
    """VaultDamaged: more was committed than is here."""
    ((count,),) = connection.execute(COUNTED).fetchall()
    if mark is not None and int(str(count)) < mark.read():
        raise VaultDamaged(_LOST)


def unlock(connection: apsw.Connection, key: bytes) -> None:
    """Set cipher and key, and read a page with them.

    SQLite3MC answers ``ok`` to a malformed raw key and takes it for a passphrase, so its form is checked
    here. A trace set by a hook of the host program would be shown the key: there is none while it is set.
    """
    text = key.hex()
    if not _RAW_KEY.fullmatch(text):
        raise LocalError("a vault's key has 32 bytes")
    connection.exec_trace = None
    connection.trace_v2(0)
    if (
        connection.pragma("cipher", "chacha20") != "chacha20"
        or connection.pragma("key", f"raw:{text}") != "ok"
    ):
        raise LocalError("this SQLite does not know the vault's cipher: reinstall 'apsw-sqlite3mc'")
    try:
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    except apsw.NotADBError:
        raise VaultDamaged(WRONG_KEY) from None
    except apsw.BusyError:
        raise LocalError(_BUSY) from None
    except (apsw.IOError, apsw.CantOpenError):
        raise VaultFailing(_NO_ACCESS) from None
    except apsw.Error:
        raise VaultDamaged(_DAMAGED) from None


def refuse_plaintext(path: Path, *, empty_too: bool = False) -> None:
    """LocalError: page 1 on the disk is readable by anyone. A mistyped pragma would leave it so."""
    with path.open("rb") as file:
        start = file.read(len(_PLAIN_HEADER))
    if start == _PLAIN_HEADER or (empty_too and len(start) < len(_PLAIN_HEADER)):
        raise LocalError(f"{path} is not encrypted: this is no vault; move it away")


@contextlib.contextmanager
def _in_sentences() -> Iterator[None]:
    """SQLite's failures as sentences; their own texts could quote a statement."""
    try:
        yield
    except apsw.FullError:
        raise VaultFull(_FULL) from None
    except (apsw.CorruptError, apsw.NotADBError):
        raise VaultDamaged(_DAMAGED) from None
    except apsw.BusyError:
        raise LocalError(_BUSY) from None
    except (
        apsw.IOError,
        apsw.CantOpenError,
        apsw.ReadOnlyError,
        apsw.PermissionsError,
        apsw.ConnectionClosedError,
    ):
        raise VaultFailing(_NO_ACCESS) from None


def _successor(prefix: bytes) -> bytes | None:
    """The smallest key above all that begin with ``prefix``; None: there is none."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes((stripped[-1] + 1,)) if stripped else None
