"""Upgrades of the relay's data and of a vault: killed at any statement or disk write, the next start resumes.

Each case forks: the child is the program that is killed, by ``os._exit`` in the middle.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pytest

from lokket.client import vault, vault_schema
from lokket.client.vault import open_vault
from lokket.errors import LocalError
from lokket.relay.storage import schema
from lokket.relay.storage.base import InviteRow, Ruling
from lokket.relay.storage.sqlite import SQLiteReader, SQLiteStorage
from tests.support.rows import NOW_S, ROOMY, device, h, mail, new_account

pytestmark = [
    pytest.mark.attack(117),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a process to kill it"),
]
KEY = bytes(range(32))
KILLED = 9
DONE = 0
# What a later lokket may do: new tables, a column, every row rewritten.
LATER = (
    "CREATE TABLE colours (name TEXT NOT NULL UNIQUE) STRICT; INSERT INTO colours VALUES ('red');",
    "ALTER TABLE invites ADD COLUMN colour TEXT; UPDATE mail SET expires_h = expires_h + 1;"
    "CREATE INDEX mail_by_hour ON mail (expires_h, device);",
)


def killed_child(work: Callable[[], None]) -> int:
    """The exit code of a child that does the work: KILLED when something in it called ``os._exit``."""
    child = os.fork()
    if child == 0:
        code = 7
        try:
            work()
            code = DONE
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Fuse:
    """Kills the process when it has been touched ``left`` times."""

    def __init__(self, left: int) -> None:
        self.left = left

    def touch(self, *ignored: Any) -> bool:
        if self.left == 0:
            os._exit(KILLED)
        self.left -= 1
        return True


class FusedVFS(apsw.VFS):
    """A disk whose writes, syncs and deletions burn the fuse down."""

    def __init__(self, fuse: Fuse) -> None:
        self.fuse = fuse
        super().__init__("fused", "")

    def xOpen(self, name: Any, flags: Any) -> FusedFile:
        return FusedFile(self.fuse, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        self.fuse.touch()
        super().xDelete(filename, syncdir)


class FusedFile(apsw.VFSFile):
    def __init__(self, fuse: Fuse, name: Any, flags: Any) -> None:
        self.fuse = fuse
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        if self.fuse.left == 0:
            super().xWrite(data[: len(data) // 2], offset)  # it was under way
        self.fuse.touch()
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        self.fuse.touch()
        super().xSync(flags)

    def xTruncate(self, newsize: int) -> None:
        self.fuse.touch()
        super().xTruncate(newsize)


# --- the relay ---


@pytest.fixture
def first_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Data as the first version wrote it, with something of everything."""
    path = tmp_path / "relay.db"
    now = schema.MIGRATIONS

    async def fill() -> None:
        storage = SQLiteStorage(path)
        await storage.register(new_account("alice", name="alice"), None, NOW_S)
        await storage.append((mail("alice", "one"), mail("alice", "two", body=bytes(9_000))), ROOMY)
        await storage.publish(device("alice"), 3, b"batch", b"\x01\x02")
        await storage.put_invite(InviteRow(h("token"), h("alice"), NOW_S + 60), 5, NOW_S)
        await storage.close()

    asyncio.run(fill())
    connection = apsw.Connection(str(path))
    connection.execute("DROP TABLE rulings; DROP TABLE blobs; DROP TABLE blob_parts; PRAGMA user_version = 1")
    connection.close()
    monkeypatch.setattr(schema, "MIGRATIONS", (*now, *LATER))
    return path


async def read_all(path: Path) -> None:
    """Migrated as far as there is to go, and nothing is lost."""
    storage = SQLiteStorage(path)
    assert storage._connection.pragma("user_version") == len(schema.MIGRATIONS)
    assert storage._connection.pragma("integrity_check") == "ok"
    texts = [item.envelope for item in await storage.waiting(device("alice"), 0, 10, 10**6)]
    assert texts == [b"one", bytes(9_000)]
    row = await storage.device(device("alice"))
    assert row is not None
    assert (row.manifest_number, row.pairs_left, row.mail_count) == (3, 2, 2)
    assert await storage.name("alice") is not None
    assert await storage.token_open(h("token"), h("bob"), NOW_S)
    assert await storage.rule(Ruling(h("alice"), banned=True))
    (hours,) = storage._connection.execute("SELECT DISTINCT expires_h FROM mail").fetchall()
    assert hours == (mail("alice", "x").expires_h + 1,), "each step was done once"
    await storage.close()


def attempts(start: Path, folder: Path, work: Callable[[Path, Fuse], None]) -> int:
    """Kill at the n-th touch, for all n, on a copy each; then a start that may finish. How many touches."""
    for number in itertools.count():
        copy = folder / f"copy-{number}"
        copy.mkdir()
        for file in start.parent.glob(start.name + "*"):
            shutil.copy(file, copy / file.name)
        code = killed_child(partial(work, copy / start.name, Fuse(number)))
        assert code in (KILLED, DONE)
        asyncio.run(read_all(copy / start.name))
        shutil.rmtree(copy)
        if code == DONE:
            return number
    raise AssertionError


def test_a_relays_upgrade_is_killed_at_every_statement(first_schema: Path, tmp_path: Path) -> None:
    def start(path: Path, fuse: Fuse) -> None:
        apsw.connection_hooks.append(lambda connection: connection.set_exec_trace(fuse.touch))
        SQLiteStorage(path)

    assert attempts(first_schema, tmp_path, start) > 20


def test_a_relays_upgrade_is_killed_at_every_write(first_schema: Path, tmp_path: Path) -> None:
    def start(path: Path, fuse: Fuse) -> None:
        disk = FusedVFS(fuse)
        storage = SQLiteStorage(path, vfs="fused")
        asyncio.run(storage.close())
        del disk

    assert attempts(first_schema, tmp_path, start) > 20


def test_a_relays_upgrade_that_is_killed_again_and_again_ends(first_schema: Path) -> None:
    """One data file, killed a little later each time: what was done stays done."""
    reached = []
    for number in range(200):
        fuse = Fuse(number)

        def start(fuse: Fuse = fuse) -> None:
            disk = FusedVFS(fuse)
            asyncio.run(SQLiteStorage(first_schema, vfs="fused").close())
            del disk

        code = killed_child(start)
        connection = apsw.Connection(str(first_schema))
        reached.append(int(str(connection.pragma("user_version"))))
        connection.close()
        if code == DONE:
            break
    assert reached == sorted(reached)
    assert reached[-1] == len(schema.MIGRATIONS)
    assert set(reached) > {1, len(schema.MIGRATIONS)}, "it was killed between two versions, too"
    asyncio.run(read_all(first_schema))


def test_reading_beside_an_upgrade_that_was_cut_off_is_refused(first_schema: Path) -> None:
    with pytest.raises(LocalError, match="start the relay once"):
        SQLiteReader(first_schema)


def test_the_relay_of_before_refuses_what_was_upgraded(
    first_schema: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(read_all(first_schema))
    before = first_schema.read_bytes()
    monkeypatch.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:2])
    with pytest.raises(LocalError, match="newer version; install that version again"):
        SQLiteStorage(first_schema)
    assert first_schema.read_bytes() == before


# --- the vault ---


class Traced:
    """A connection whose every statement burns the fuse down, before it runs and when it has run."""

    def __init__(self, connection: apsw.Connection, fuse: Fuse) -> None:
        self._connection = connection
        self._fuse = fuse

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, sql: str, *bindings: Any) -> Any:
        self._fuse.touch()
        done = self._connection.execute(sql, *bindings)
        self._fuse.touch()
        return done


def upgrade(folder: Path, fuse: Fuse) -> None:
    def traced(connection: apsw.Connection) -> None:
        vault_schema.migrate(Traced(connection, fuse))  # type: ignore[arg-type]

    vault.migrate = traced  # type: ignore[attr-defined]
    open_vault(folder, KEY)


def test_a_vaults_upgrade_is_killed_at_every_statement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_vault(tmp_path / "vault", KEY, create=True)
    with opened.transaction() as tx:
        tx.put("seen", b"key", b"value")
    opened.close()
    tables = (*vault_schema.TABLES, ("colour", "shade"), ("hue",))
    monkeypatch.setattr(vault_schema, "TABLES", tables)
    monkeypatch.setattr(vault_schema, "SCHEMA", len(tables))
    reached = set()
    for number in range(200):
        folder = tmp_path / f"copy-{number}"
        shutil.copytree(tmp_path / "vault", folder)

        code = killed_child(partial(upgrade, folder, Fuse(number)))
        assert code in (KILLED, DONE)
        connection = apsw.Connection(str(folder / "vault.db"))
        vault.unlock(connection, KEY)
        reached.add(connection.pragma("user_version"))
        connection.close()
        again = open_vault(folder, KEY)
        assert again.faults() == ()
        assert again._connection.pragma("user_version") == len(tables)
        names = {row[0] for row in again._connection.execute("SELECT name FROM sqlite_schema")}
        assert {"colour", "shade", "hue"} <= names
        with again.transaction() as tx:
            assert tx.get("seen", b"key") == b"value"
        again.close()
        shutil.rmtree(folder)
        if code == DONE:
            break
    else:
        pytest.fail("it never came to an end")
    assert reached == set(range(len(tables) - 2, len(tables) + 1))


def test_the_vault_of_before_refuses_what_was_upgraded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "vault"
    with monkeypatch.context() as later:
        later.setattr(vault_schema, "TABLES", (*vault_schema.TABLES, ("colour",)))
        later.setattr(vault_schema, "SCHEMA", vault_schema.SCHEMA + 1)
        open_vault(folder, KEY, create=True).close()
    before = (folder / "vault.db").read_bytes()
    with pytest.raises(LocalError, match="install that version again"):
        open_vault(folder, KEY)
    assert (folder / "vault.db").read_bytes() == before
