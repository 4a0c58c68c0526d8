"""What only the SQLite storage promises: durability, privacy of the file, and refusing what it cannot use."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import apsw
import pytest

from lokket import limits
from lokket.errors import LocalError
from lokket.relay.storage import sqlite
from lokket.relay.storage.base import InviteRow, NameRow, StorageBroken, StorageFull
from lokket.relay.storage.schema import APPLICATION_ID, MIGRATIONS
from lokket.relay.storage.sqlite import SQLiteReader, SQLiteStorage, require_version
from lokket.wire import api
from tests.support.rows import NOW_S, ROOMY, device, h, mail, new_account

ROOT = Path(__file__).parent.parent.parent
EVERYTHING = 1_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "relay.db"


async def opened(path: Path, *, max_bytes: int = 0, vfs: str | None = None) -> SQLiteStorage:
    storage = SQLiteStorage(path, max_bytes=max_bytes, vfs=vfs)
    await storage.register(new_account("alice", name="alice"), None, NOW_S)
    return storage


async def mailbox(storage: SQLiteReader) -> list[bytes]:
    return [item.envelope for item in await storage.waiting(device("alice"), 0, 100_000, 10**9)]


# --- durable ---


@pytest.mark.attack(39)
async def test_every_connection_syncs_fully(path: Path) -> None:
    storage = await opened(path)
    for connection in (storage._connection, storage._reader):
        assert connection.pragma("synchronous") == 2, "FULL"
        assert connection.pragma("journal_mode") == "wal"
        assert connection.pragma("secure_delete") == 1
    await storage.close()


async def test_everything_is_there_after_reopening(path: Path) -> None:
    storage = await opened(path)
    await storage.append((mail("alice", "one"), mail("alice", "two")), ROOMY)
    await storage.login(device("alice"), h("nonce"))
    await storage.close()
    again = SQLiteStorage(path)
    assert await mailbox(again) == [b"one", b"two"]
    assert await again.name("alice") == NameRow("alice", h("alice"), b"alice claims alice")
    row = await again.device(device("alice"))
    assert row is not None
    assert row.last_nonce == h("nonce")
    (first, *_) = await again.waiting(device("alice"), 0, 1, EVERYTHING)
    await again.append((mail("alice", "three"),), ROOMY)
    assert [item.envelope for item in await again.waiting(device("alice"), first.order, 9, EVERYTHING)] == [
        b"two",
        b"three",
    ]
    await again.close()


async def test_requests_in_flight_together_share_commits(path: Path) -> None:
    storage = await opened(path)
    before = storage.transactions
    await asyncio.gather(*(storage.append((mail("alice", str(n)),), ROOMY) for n in range(200)))
    assert len(await mailbox(storage)) == 200
    assert storage.transactions - before < 50
    await storage.close()


async def test_a_caller_that_goes_away_takes_nothing_back(path: Path) -> None:
    storage = await opened(path)
    tasks = [asyncio.create_task(storage.append((mail("alice", str(n)),), ROOMY)) for n in range(10)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert answers[1::2] == [("",)] * 5
    assert sorted(await mailbox(storage)) == sorted(str(n).encode() for n in range(10))
    await storage.close()


async def test_nothing_is_answered_before_its_commit_returned(path: Path) -> None:
    storage = await opened(path)
    writer = storage._writer
    on_disk, order = writer._on_disk, []

    async def slow(sql: str) -> None:
        order.append("commit begins")
        await asyncio.sleep(0.02)
        await on_disk(sql)
        order.append("commit returned")

    writer._on_disk = slow  # type: ignore[method-assign]

    async def send(number: int) -> None:
        await storage.append((mail("alice", str(number)),), ROOMY)
        order.append("answered")

    first = asyncio.create_task(send(1))
    await asyncio.sleep(0.01)
    assert await mailbox(storage) == [], "and nobody sees it before"
    await asyncio.gather(first, send(2), send(3))
    returned = [order[:at].count("commit returned") for at, what in enumerate(order) if what == "answered"]
    assert returned == [1, 2, 2]
    assert order.count("commit begins") == 2, "the second and third share one"
    await storage.close()


@pytest.mark.attack(38)
@pytest.mark.parametrize("seed", range(3))
def test_kill_nine_loses_nothing_that_was_acknowledged(path: Path, seed: int) -> None:
    """A process appends and acknowledges, and says so only after the answer; it is killed in the middle."""
    script = textwrap.dedent(
        """
        import asyncio, sys
        from pathlib import Path
        from lokket.relay.storage.sqlite import SQLiteStorage
        from tests.support.rows import NOW_S, ROOMY, device, mail, new_account

        async def work(storage, lane):
            for number in range(100_000):
                letter = mail("alice", f"{lane}-{number}")
                assert await storage.append((letter,), ROOMY) == ("",)
                print(f"+{lane}-{number}", flush=True)
                if number % 3 == 0:
                    await storage.acknowledge(device("alice"), (letter.envelope_id,))
                    print(f"-{lane}-{number}", flush=True)

        async def main():
            storage = SQLiteStorage(Path(sys.argv[1]))
            await storage.register(new_account("alice"), None, NOW_S)
            await asyncio.gather(*(work(storage, lane) for lane in range(4)))

        asyncio.run(main())
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    said = [process.stdout.readline().strip() for _ in range(60 + 37 * seed)]
    process.kill()
    said += [line.strip() for line in process.stdout.readlines() if line.endswith("\n")]
    process.wait()
    storage = SQLiteStorage(path)
    try:
        there = {text.decode() for text in asyncio.run(mailbox(storage))}
        stored = {line[1:] for line in said if line.startswith("+")}
        gone = {line[1:] for line in said if line.startswith("-")}
        assert len(stored) >= 30
        # An acknowledgement may be durable and not yet said: only those that can be, one per lane.
        unsaid = stored - gone - there
        assert all(int(text.split("-")[1]) % 3 == 0 for text in unsaid), f"lost: {unsaid}"
        assert len(unsaid) <= 4, f"lost: {unsaid}"
        assert not gone & there, "what was answered as deleted stays deleted"
        counted = asyncio.run(storage.counts())
        assert counted.mail == len(there)
    finally:
        asyncio.run(storage.close())


# --- a disk that fails ---


class FailingFile(apsw.VFSFile):
    """Its syncs fail while ``FailingDisk.broken``."""

    def __init__(self, disk: FailingDisk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._disk = disk
        super().__init__(disk.base, name, flags)

    def xSync(self, flags: int) -> None:
        if self._disk.broken:
            raise apsw.IOError("the test's disk does not sync")
        super().xSync(flags)


class FailingDisk(apsw.VFS):
    base = "unix"

    def __init__(self, name: str) -> None:
        self.name = name
        self.broken = False
        super().__init__(name, self.base)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> FailingFile:
        return FailingFile(self, name, flags)


@pytest.mark.attack(41)
async def test_after_a_failed_sync_nothing_is_accepted_and_nothing_falsely_acknowledged(path: Path) -> None:
    disk = FailingDisk("failing-disk")
    storage = await opened(path, vfs=disk.name)
    await storage.append((mail("alice", "kept"),), ROOMY)
    disk.broken = True
    with pytest.raises(StorageBroken):
        await storage.append((mail("alice", "refused"),), ROOMY)
    disk.broken = False
    assert storage.broken
    for attempt in (
        storage.append((mail("alice", "too late"),), ROOMY),
        storage.acknowledge(device("alice"), (mail("alice", "kept").envelope_id,)),
        storage.login(device("alice"), bytes(32)),
    ):
        with pytest.raises(StorageBroken):
            await attempt
    await storage.close()
    again = SQLiteStorage(path)
    assert not again.broken
    found = await mailbox(again)
    assert b"kept" in found
    assert b"too late" not in found
    assert not path.with_name("relay.db.suspect").exists(), "checked, and found whole"
    await again.close()


async def test_a_damaged_file_is_not_used_after_a_disk_failure(path: Path) -> None:
    storage = await opened(path)
    await storage.append(tuple(mail("alice", str(n), body=bytes(500)) for n in range(200)), ROOMY)
    await storage.close()
    path.with_name("relay.db.suspect").touch()
    with path.open("r+b") as file:
        for page in range(8, path.stat().st_size // 4096, 2):
            file.seek(page * 4096)
            file.write(os.urandom(4096))
    with pytest.raises(LocalError, match="restore a backup"):
        SQLiteStorage(path)


@pytest.mark.attack(42)
async def test_a_full_disk_refuses_the_new_and_recovers_unaided(path: Path) -> None:
    storage = await opened(path, max_bytes=400 * 1024)
    stored = []
    for number in range(1_000):
        letter = mail("alice", f"letter {number}", body=bytes([number % 256]) * 2_000)
        try:
            assert await storage.append((letter,), ROOMY) == ("",)
        except StorageFull:
            break
        stored.append(letter)
    assert 20 < len(stored) < 1_000
    with pytest.raises(StorageFull):
        await storage.register(new_account("bob" * 2_000), None, NOW_S)
    assert len(await mailbox(storage)) == len(stored), "nothing old went for the new"
    half = tuple(letter.envelope_id for letter in stored[::2])
    assert len(await storage.acknowledge(device("alice"), half)) == len(half), "deleting goes on"
    assert await storage.login(device("alice"), bytes(32)) is not None
    assert await storage.append((letter,), ROOMY) == ("",), "there is room again"
    assert not storage.broken
    await storage.close()


@pytest.mark.attack(42)
async def test_growth_stops_before_the_disk_is_full(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = await opened(path)
    kept = mail("alice", "kept")
    await storage.append((kept,), ROOMY)

    class Usage:
        free = limits.DISK_RESERVE_BYTES

    with monkeypatch.context() as patched:
        patched.setattr(sqlite.shutil, "disk_usage", lambda place: Usage)
        with pytest.raises(StorageFull):
            await storage.append((mail("alice", "new"),), ROOMY)
        with pytest.raises(StorageFull):
            await storage.publish(device("alice"), 1, b"batch", b"\x00")
        together = await asyncio.gather(
            storage.append((mail("alice", "new"),), ROOMY),
            storage.acknowledge(device("alice"), (kept.envelope_id,)),
            return_exceptions=True,
        )
        assert isinstance(together[0], StorageFull)
        assert together[1] == (kept.envelope_id,), "also in the same transaction"
    assert await storage.append((mail("alice", "new"),), ROOMY) == ("",)
    await storage.close()


async def test_one_job_too_many_does_not_spoil_its_neighbours(path: Path) -> None:
    storage = await opened(path, max_bytes=400 * 1024)
    huge = mail("alice", "huge", body=bytes(800 * 1024))
    small = [storage.append((mail("alice", f"small {number}"),), ROOMY) for number in range(5)]
    answers = await asyncio.gather(storage.append((huge,), ROOMY), *small, return_exceptions=True)
    assert isinstance(answers[0], StorageFull)
    assert answers[1:] == [("",)] * 5
    assert len(await mailbox(storage)) == 5
    await storage.close()


# --- private ---


async def test_files_are_for_their_owner_alone(path: Path) -> None:
    os.umask(os.umask(0))
    before = os.umask(0)
    try:
        storage = await opened(path)
        await storage.append((mail("alice", "one"),), ROOMY)
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        await storage.close()
    finally:
        os.umask(before)
    assert {"relay.db", "relay.db-wal", "relay.db-shm", "relay.db.lock"} <= modes.keys()
    assert set(modes.values()) == {0o600}


async def test_delivered_mail_leaves_no_bytes_behind(path: Path) -> None:
    storage = await opened(path)
    canaries = [os.urandom(40) for _ in range(20)]
    letters = [mail("alice", canary.hex(), body=canary * 20) for canary in canaries]
    await storage.append(tuple(letters), ROOMY)
    assert any(canaries[0] in file.read_bytes() for file in path.parent.iterdir())
    await storage.acknowledge(device("alice"), tuple(letter.envelope_id for letter in letters))
    await storage.close()
    files = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert not [canary for canary in canaries if canary in files]
    assert not [letter for letter in letters if letter.envelope_id in files]


async def test_the_log_is_emptied_when_nothing_happens(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lokket.relay.storage.writer.IDLE_S", 0.01)
    storage = await opened(path)
    canary = os.urandom(40)
    letter = mail("alice", "letter", body=canary)
    await storage.append((letter,), ROOMY)
    await storage.acknowledge(device("alice"), (letter.envelope_id,))
    log = path.with_name("relay.db-wal")
    async with asyncio.timeout(10):
        while log.stat().st_size:
            await asyncio.sleep(0.01)
    assert canary not in path.read_bytes()
    await storage.close()


# --- refused ---


@pytest.mark.attack(40)
@pytest.mark.parametrize("version", ["3.40.1", "3.51.2", "3.7.0"])
def test_an_old_sqlite_is_refused(version: str) -> None:
    with pytest.raises(LocalError, match=r"3\.51\.3 or newer"):
        require_version(version)


@pytest.mark.parametrize("version", ["3.51.3", "3.54.0", "4.0.0"])
def test_a_newer_sqlite_is_taken(version: str) -> None:
    require_version(version)


async def test_a_second_process_is_refused(path: Path) -> None:
    storage = await opened(path)
    with pytest.raises(LocalError, match="another relay runs"):
        SQLiteStorage(path)
    await storage.close()
    again = SQLiteStorage(path)
    await again.close()


async def test_reading_beside_a_running_relay(path: Path) -> None:
    storage = await opened(path)
    await storage.append((mail("alice", "one"),), ROOMY)
    reader = SQLiteReader(path)
    assert await mailbox(reader) == [b"one"]
    await storage.append((mail("alice", "two"),), ROOMY)
    assert await mailbox(reader) == [b"one", b"two"]
    with pytest.raises(apsw.ReadOnlyError):
        reader._reader.execute("DELETE FROM mail")
    await reader.close()
    await storage.close()


def test_reading_where_nothing_is(path: Path) -> None:
    with pytest.raises(LocalError, match="no relay's data"):
        SQLiteReader(path)
    assert not path.exists()


def test_reading_data_of_another_version(path: Path) -> None:
    apsw.Connection(str(path)).execute("CREATE TABLE accounts (text)")
    with pytest.raises(LocalError, match="not of this version"):
        SQLiteReader(path)


def test_a_file_of_something_else_is_refused_and_left_alone(path: Path) -> None:
    path.write_bytes(b"not a database, but somebody's notes" * 200)
    before = path.read_bytes()
    with pytest.raises(LocalError, match="no database"):
        SQLiteStorage(path)
    assert path.read_bytes() == before


def test_another_programs_database_is_refused(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE notes (text); PRAGMA user_version = 1")
    connection.close()
    with pytest.raises(LocalError, match="not a lokket relay's"):
        SQLiteStorage(path)


@pytest.mark.attack(117)
async def test_a_newer_schema_is_refused_with_its_data_intact(path: Path) -> None:
    storage = await opened(path)
    await storage.close()
    connection = apsw.Connection(str(path))
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    with pytest.raises(LocalError, match="written by a newer version"):
        SQLiteStorage(path)
    connection = apsw.Connection(str(path))
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    assert connection.pragma("application_id") == APPLICATION_ID
    connection.close()
    again = SQLiteStorage(path)
    assert await again.account(h("alice")) is not None
    await again.close()


@pytest.mark.attack(117)
async def test_a_migration_happens_whole_or_not_at_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = await opened(path)
    await storage.close()
    halfway = "ALTER TABLE accounts ADD COLUMN colour TEXT; INSERT INTO no_such_table VALUES (1);"
    monkeypatch.setattr("lokket.relay.storage.schema.MIGRATIONS", (*MIGRATIONS, halfway))
    with pytest.raises(apsw.SQLError):
        SQLiteStorage(path)
    monkeypatch.undo()
    again = SQLiteStorage(path)
    assert await again.account(h("alice")) is not None
    await again.close()


async def test_a_verb_that_fails_changes_nothing(path: Path) -> None:
    storage = await opened(path)
    too_large = InviteRow(h("token"), h("alice"), 2**70)
    with pytest.raises(OverflowError):
        await storage.put_invite(too_large, 5, NOW_S)
    assert await storage.put_invite(InviteRow(h("token"), h("bob"), NOW_S + 60), 5, NOW_S) == ""
    assert await storage.register(new_account("carol"), h("other"), NOW_S) == api.TOKEN_REFUSED
    await storage.close()
