"""A relay's backup: made while it writes, whole or not at all, and restored whatever happens on the way."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from lokket.errors import LocalError
from lokket.relay import backup
from lokket.relay.app import build
from lokket.relay.config import RelayConfig
from lokket.relay.storage.base import Counts
from lokket.relay.storage.schema import MIGRATIONS
from lokket.relay.storage.sqlite import SQLiteStorage
from tests.support.rows import NOW_S, ROOMY, device, mail, new_account

SEED = bytes(range(32))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "relay.key").write_bytes(SEED)
    return folder


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "relay.backup"


async def fill(data: Path, *texts: str) -> None:
    storage = SQLiteStorage(data / "relay.db")
    await storage.register(new_account("alice", name="alice"), None, NOW_S)
    await storage.append(tuple(mail("alice", text) for text in texts), ROOMY)
    await storage.close()


async def texts(data: Path) -> list[bytes]:
    storage = SQLiteStorage(data / "relay.db")
    found = await storage.waiting(device("alice"), 0, 100_000, 10**9)
    await storage.close()
    return [item.envelope for item in found]


@pytest.mark.attack(118)
async def test_there_and_back(data: Path, file: Path, tmp_path: Path) -> None:
    await fill(data, "one", "two")
    made = backup.create(data, file, NOW_S)
    assert (made.made_s, made.counts, made.schema) == (NOW_S, Counts(1, 1, 2, 6), len(MIGRATIONS))
    assert made.size_bytes == file.stat().st_size
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "relay.backup"], "and nothing beside"
    elsewhere = tmp_path / "elsewhere" / "data"
    assert backup.restore(file, elsewhere).counts == made.counts
    assert await texts(elsewhere) == [b"one", b"two"]
    assert (elsewhere / "relay.key").read_bytes() == SEED
    assert SEED not in (elsewhere / "relay.db").read_bytes(), "the key is where keys are, and nowhere else"
    assert {stat.S_IMODE(path.stat().st_mode) for path in elsewhere.iterdir()} == {0o600}
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o700


@pytest.mark.attack(118)
async def test_a_relay_goes_on_writing_while_it_is_backed_up(
    data: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was acknowledged before the backup began is in it, and what is in it is one state."""
    monkeypatch.setattr(backup, "_PAGES_AT_ONCE", 1)
    storage = SQLiteStorage(data / "relay.db")
    await storage.register(new_account("alice"), None, NOW_S)
    written = 0
    stop = False

    async def write() -> None:
        nonlocal written
        while not stop:
            await storage.append((mail("alice", str(written), body=bytes(2_000)),), ROOMY)
            written += 1

    async def until(count: int) -> None:
        while written < count:
            await asyncio.sleep(0.001)

    writing = asyncio.create_task(write())
    await until(50)
    before = written
    made = await asyncio.to_thread(backup.create, data, file, NOW_S)
    await until(before + 20)
    stop = True
    await writing
    await storage.close()
    assert before <= made.counts.mail <= written
    backup.restore(file, tmp_path / "restored")
    assert len(await texts(tmp_path / "restored")) == made.counts.mail


async def test_a_backup_replaces_nothing_and_needs_a_relay(data: Path, file: Path, tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="no relay's data"):
        backup.create(data, file, NOW_S)
    await fill(data, "one")
    file.write_bytes(b"precious")
    with pytest.raises(LocalError, match="exists already"):
        backup.create(data, file, NOW_S)
    assert file.read_bytes() == b"precious"
    with pytest.raises(LocalError, match="cannot be written"):
        backup.create(data, tmp_path / "missing" / "file", NOW_S)
    (data / "relay.key").write_bytes(b"short")
    with pytest.raises(LocalError, match="damaged"):
        backup.create(data, tmp_path / "other", NOW_S)
    (data / "relay.key").unlink()
    with pytest.raises(LocalError, match="key"):
        backup.create(data, tmp_path / "other", NOW_S)


async def test_restoring_onto_data_asks_first_and_moves_it_aside(
    data: Path, file: Path, tmp_path: Path
) -> None:
    await fill(data, "old")
    backup.create(data, file, NOW_S)
    target = tmp_path / "target"
    target.mkdir()
    (target / "relay.key").write_bytes(bytes(32))
    await fill(target, "precious")
    with pytest.raises(LocalError, match="--replace"):
        backup.restore(file, target)
    assert await texts(target) == [b"precious"]
    backup.restore(file, target, replace=True)
    assert await texts(target) == [b"old"]
    assert (target / "relay.key").read_bytes() == SEED
    assert (target / "relay.key.replaced").read_bytes() == bytes(32)
    (target / "relay.db.replaced").replace(target / "relay.db")
    assert await texts(target) == [b"precious"]


async def test_a_running_relay_is_not_restored_over(data: Path, file: Path) -> None:
    await fill(data, "one")
    backup.create(data, file, NOW_S)
    storage = SQLiteStorage(data / "relay.db")
    with pytest.raises(LocalError, match="another relay runs"):
        backup.restore(file, data, replace=True)
    await storage.close()


@pytest.fixture
def log_left_behind(data: Path, tmp_path: Path) -> Iterator[Path]:
    """Data of a relay that was killed: what it wrote last is in the log alone."""

    async def write() -> SQLiteStorage:
        storage = SQLiteStorage(data / "relay.db")
        await storage.register(new_account("alice"), None, NOW_S)
        await storage.append((mail("alice", "in the log"),), ROOMY)
        return storage

    storage = asyncio.run(write())
    killed = tmp_path / "killed"
    shutil.copytree(data, killed)
    yield killed
    asyncio.run(storage.close())


async def test_the_old_datas_log_is_not_lost_and_never_meets_the_new(
    log_left_behind: Path, file: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "relay.key").write_bytes(SEED)
    await fill(other, "restored")
    backup.create(other, file, NOW_S)
    assert (log_left_behind / "relay.db-wal").stat().st_size > 0
    backup.restore(file, log_left_behind, replace=True)
    assert await texts(log_left_behind) == [b"restored"]
    for name in ("relay.db", "relay.db-wal", "relay.db-shm"):
        (log_left_behind / name).unlink(missing_ok=True)
    (log_left_behind / "relay.db.replaced").replace(log_left_behind / "relay.db")
    assert await texts(log_left_behind) == [b"in the log"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "no backup", "another program's", "newer"])
async def test_what_is_no_good_backup_changes_nothing(
    data: Path, file: Path, tmp_path: Path, damage: str
) -> None:
    await fill(data, *(str(number) for number in range(200)))
    backup.create(data, file, NOW_S)
    content = bytearray(file.read_bytes())
    match damage:
        case "cut":
            file.write_bytes(content[: len(content) // 2])
        case "flipped":
            for at in range(4096, len(content), 4096):
                content[at : at + 8] = bytes(8)
            file.write_bytes(content)
        case "text":
            file.write_text("not a database")
        case "no backup":
            shutil.copy(data / "relay.db", file)
        case "another program's":
            file.unlink()
            apsw.Connection(str(file)).execute("CREATE TABLE a (b); PRAGMA application_id = 7")
        case "newer":
            apsw.Connection(str(file)).execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    with pytest.raises(LocalError, match=r"damaged, or no backup|newer lokket"):
        backup.inspect(file)
    with pytest.raises(LocalError, match=r"damaged, or no backup|newer lokket"):
        backup.restore(file, data, replace=True)
    assert len(await texts(data)) == 200


class Stop(Exception):
    """The process was killed here."""


@pytest.mark.parametrize("step", range(8))
async def test_a_restore_that_is_cut_off_can_be_done_again(
    data: Path, file: Path, tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before the n-th file moves or is on the disk: never half, and the next attempt completes it."""
    await fill(data, "restored")
    backup.create(data, file, NOW_S)
    target = tmp_path / "target"
    target.mkdir()
    (target / "relay.key").write_bytes(bytes(32))
    await fill(target, "precious")
    left = step
    with monkeypatch.context() as patch:

        def killing(act):  # type: ignore[no-untyped-def]
            def instead(*arguments, **more):  # type: ignore[no-untyped-def]
                nonlocal left
                if left == 0:
                    raise Stop
                left -= 1
                return act(*arguments, **more)

            return instead

        patch.setattr(Path, "replace", killing(Path.replace))
        patch.setattr(os, "fsync", killing(os.fsync))
        try:
            backup.restore(file, target, replace=True)
            complete = True
        except Stop:
            complete = False
    assert complete == (step == 7), "the steps reach to the end"
    if (target / "relay.db").exists():
        assert await texts(target) in ([b"precious"], [b"restored"])
    else:
        with pytest.raises(LocalError, match="cut off"):
            build(RelayConfig(origin="wss://relay.test", data=target))
    backup.restore(file, target, replace=True)
    assert await texts(target) == [b"restored"]
    assert (target / "relay.key").read_bytes() == SEED
    (target / "relay.db.replaced").replace(target / "relay.db")
    assert await texts(target) == [b"precious"], "a second attempt does not overwrite what the first moved"


@pytest.mark.parametrize("step", range(3))
async def test_a_backup_that_is_cut_off_leaves_no_file(
    data: Path, file: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(data, "one")
    name = ("_copy", "_seal", "_sync")[step]

    def stop(*arguments: object) -> None:
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(backup, name, stop)
        with pytest.raises(Stop):
            backup.create(data, file, NOW_S)
    assert not file.exists()
    file.with_name(file.name + ".draft").write_bytes(b"of a process that was killed")
    assert backup.create(data, file, NOW_S).counts.mail == 1
