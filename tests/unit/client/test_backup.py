"""Backups and exports on a disk: whole or not at all, judged before a row is written, restored for real."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lokket import limits
from lokket.client import backup, export
from lokket.client.backup import ArchiveFile
from lokket.client.client import Client, NotReached
from lokket.client.files import NewFile
from lokket.client.rehearsal import verify
from lokket.crypto import passphrase as passphrases
from lokket.crypto.passphrase import Costs
from lokket.engine import archive, backups, events
from lokket.errors import LocalError
from lokket.protocol.backup import read_backup_code, unlock
from lokket.system import SystemEntropy
from lokket.wire.archive import Message, encode
from tests.support.client import Town, town

ENTROPY = SystemEntropy()


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a guess costs is tested elsewhere."""
    monkeypatch.setattr(passphrases, "USUAL", Costs(limits.BACKUP_MEMORY_MIN_KIB, 1, 1))


def run(root: Path, story: Callable[[Town], object]) -> None:
    async def play() -> None:
        async with town(root) as made:
            await asyncio.wait_for(story(made), 60)  # type: ignore[arg-type]

    asyncio.run(play())


async def friends(made: Town, messages: int = 3) -> tuple[Client, Client]:
    """Alice knows Bob, and both said something."""
    alice, bob = await made.join("alice"), await made.join("bob")
    link = (await bob.invite()).link
    await alice.add_contact("bob", link=link)
    await bob.wait_contact(alice.me().genesis_hash, 10)
    for number in range(messages):
        mid = await alice.send("bob", f"to bob {number}")
        assert await alice.wait_state(mid, "delivered", timeout_s=10) == "delivered"
    return alice, bob


async def many(client: Client, petname: str, count: int) -> None:
    """A long history at once."""
    peer = client.contact(petname).genesis_hash
    for start in range(0, count, 500):
        records = tuple(
            encode(
                Message(
                    mid=number.to_bytes(16, "big"),
                    peer_genesis=peer,
                    outgoing=False,
                    sender_device=b"d" * 32,
                    seq=number + 1,
                    time_ms=1_000 + number,
                    text=f"message {number} " + "x" * (number % 700),
                    state="received",
                )
            )
            for number in range(start, min(start + 500, count))
        )
        await client.perform(events.ImportRecords(records))


def texts(client: Client, petname: str) -> list[str]:
    return [message.text for message in client.history(petname, 100_000)]


def test_create_verify_restore(tmp_path: Path) -> None:
    async def story(made: Town) -> None:
        alice, _ = await friends(made)
        await many(alice, "bob", 1_200)
        code = (await backup.choose_key(alice, ENTROPY)).code
        done = await backup.create(alice, tmp_path / "a.backup", ENTROPY)
        assert (done.contacts, done.messages) == (1, 1_203)
        assert done.size_bytes == done.path.stat().st_size
        assert done.path.stat().st_mode & 0o077 == 0
        key = read_backup_code(code)
        file = ArchiveFile(done.path)
        assert file.header.genesis_hash == alice.me().genesis_hash
        assert file.opens_with(key)
        counted = await verify(file, key, ENTROPY)
        assert (counted.contacts, counted.messages) == (1, 1_203)
        heir = await made.join("heir")
        with pytest.raises(LocalError, match="another account"):
            await backup.restore(heir, file, key)
        restored = await backup.restore(heir, file, key, other_account=True)
        assert (restored.contacts, restored.messages, restored.refused) == (1, 1_203, 0)
        assert texts(heir, "bob") == texts(alice, "bob")
        again = await backup.restore(heir, file, key, other_account=True)
        assert (again.contacts, again.messages, again.known) == (0, 0, 1_204)
        assert heir.contact("bob").level == "was invited"
        assert heir.unhandled() == ()

    run(tmp_path, story)


def test_the_code_is_shown_once_and_a_fresh_key_replaces_it(tmp_path: Path) -> None:
    async def story(made: Town) -> None:
        alice = await made.join("alice")
        first = (await backup.choose_key(alice, ENTROPY)).code
        assert (await backup.choose_key(alice, ENTROPY)).code == ""
        one = await backup.create(alice, tmp_path / "one.backup", ENTROPY)
        second = (await backup.choose_key(alice, ENTROPY, fresh=True)).code
        two = await backup.create(alice, tmp_path / "two.backup", ENTROPY)
        assert ArchiveFile(one.path).opens_with(read_backup_code(first))
        assert ArchiveFile(two.path).opens_with(read_backup_code(second))
        assert not ArchiveFile(two.path).opens_with(read_backup_code(first))
        with pytest.raises(LocalError, match="does not open"):
            await verify(ArchiveFile(two.path), read_backup_code(first), ENTROPY)
        assert two.counter > one.counter

    run(tmp_path, story)


@pytest.mark.attack(101)
def test_a_passphrase_opens_it_as_well_if_one_was_wanted(tmp_path: Path) -> None:
    async def story(made: Town) -> None:
        alice, _ = await friends(made, 1)
        code = (await backup.choose_key(alice, ENTROPY, passphrase="correct horse")).code
        done = await backup.create(alice, tmp_path / "p.backup", ENTROPY)
        file = ArchiveFile(done.path)
        key = unlock(file.header, "correct horse")
        assert key == read_backup_code(code)
        assert (await verify(file, key, ENTROPY)).messages == 1
        with pytest.raises(LocalError, match="not the right one"):
            unlock(file.header, "battery staple")
        assert (await backup.choose_key(alice, ENTROPY, passphrase="another")).code == ""
        again = ArchiveFile((await backup.create(alice, tmp_path / "p.backup", ENTROPY)).path)
        assert unlock(again.header, "another") == key

    run(tmp_path, story)


@pytest.mark.attack(99)
def test_an_older_archive_is_refused_unless_it_is_wanted(tmp_path: Path) -> None:
    async def story(made: Town) -> None:
        alice, _ = await friends(made, 1)
        code = (await backup.choose_key(alice, ENTROPY)).code
        old = await backup.create(alice, tmp_path / "old.backup", ENTROPY)
        await backup.create(alice, tmp_path / "new.backup", ENTROPY)
        file, key = ArchiveFile(old.path), read_backup_code(code)
        with pytest.raises(LocalError, match="older"):
            await backup.restore(alice, file, key)
        await backup.restore(alice, file, key, older=True)
        await backup.restore(alice, ArchiveFile(tmp_path / "new.backup"), key)

    run(tmp_path, story)


@pytest.mark.attack(102, 103)
def test_a_damaged_archive_brings_nothing_in(tmp_path: Path) -> None:
    """The damage is at the very end: what stands before it would open."""

    async def story(made: Town) -> None:
        alice, _ = await friends(made, 1)
        await many(alice, "bob", 1_000)
        key = read_backup_code((await backup.choose_key(alice, ENTROPY)).code)
        done = await backup.create(alice, tmp_path / "a.backup", ENTROPY)
        whole = done.path.read_bytes()
        heir = await made.join("heir")
        before = heir.read(archive.count)
        for data in (
            whole[:-1] + bytes((whole[-1] ^ 1,)),
            whole[:-5],
            whole + b"\x00",
            whole[: len(whole) // 2],
        ):
            done.path.write_bytes(data)
            with pytest.raises(LocalError):
                await backup.restore(heir, ArchiveFile(done.path), key, other_account=True)
            assert heir.read(archive.count) == before
        for data in (b"", whole[:20], b"x" * 100):
            done.path.write_bytes(data)
            with pytest.raises(LocalError):
                ArchiveFile(done.path)
        with pytest.raises(LocalError):
            ArchiveFile(tmp_path / "nowhere")

    run(tmp_path, story)


def test_a_disk_that_fails_and_a_kill_leave_the_old_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(made: Town) -> None:
        alice, _ = await friends(made, 1)
        key = read_backup_code((await backup.choose_key(alice, ENTROPY)).code)
        target = tmp_path / "a.backup"
        await backup.create(alice, target, ENTROPY)
        before = target.read_bytes()
        for broken in ("write", "fsync", "replace"):
            with monkeypatch.context() as patch:
                fail(patch, broken)
                with pytest.raises(LocalError, match=r"a\.backup"):
                    await backup.create(alice, target, ENTROPY)
            assert target.read_bytes() == before
            assert sorted(path.name for path in tmp_path.glob("*a.backup*")) == ["a.backup"]
        draft = tmp_path / ".a.backup.partial"
        draft.write_bytes(b"of a process that was killed")
        await backup.create(alice, target, ENTROPY)
        assert not draft.exists()
        assert (await verify(ArchiveFile(target), key, ENTROPY)).messages == 1

    run(tmp_path, story)


def fail(patch: pytest.MonkeyPatch, what: str) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    if what == "write":
        patch.setattr(NewFile, "write", lambda self, data: _refusing(self, refuse))
    elif what == "fsync":
        patch.setattr(os, "fsync", refuse)
    else:
        patch.setattr(Path, "replace", refuse)


def _refusing(file: NewFile, refuse: Callable[[], None]) -> None:
    from lokket.client.files import in_sentences

    with in_sentences(file._path):
        refuse()


def test_daily_backups_keep_three_and_touch_nothing_else(tmp_path: Path) -> None:
    async def story(made: Town) -> None:
        alice, _ = await friends(made, 1)
        folder = tmp_path / "backups"
        folder.mkdir()
        (folder / "lokket-00000000-1-000000000001.backup").write_bytes(b"of another account")
        (folder / "letter.txt").write_bytes(b"not ours")
        assert await backup.daily(alice, ENTROPY, 10) is None
        await backup.choose_key(alice, ENTROPY)
        await alice.perform(events.BackupDaily(str(folder)))
        for _ in range(5):
            await alice.perform(events.BackupDaily(""))
            await alice.perform(events.BackupDaily(str(folder)))
            made_now = await backup.daily(alice, ENTROPY, 10)
            assert made_now is not None
        known = alice.read(backups.state)
        assert known is not None
        assert await backup.daily(alice, ENTROPY, known.written_s + limits.BACKUP_EVERY_S - 1) is None
        names = sorted(path.name for path in folder.iterdir())
        assert len(names) == 2 + limits.BACKUPS_KEPT
        assert made_now.path.name in names
        assert await backup.daily(alice, ENTROPY, known.written_s + limits.BACKUP_EVERY_S) is not None
        assert await backup.daily(alice, ENTROPY, 5) is not None  # the clock was set back
        (folder / "letter.txt").unlink()

    run(tmp_path, story)


def test_a_folder_that_is_gone_is_a_sentence(tmp_path: Path) -> None:
    async def story(made: Town) -> None:
        alice = await made.join("alice")
        await backup.choose_key(alice, ENTROPY)
        await alice.perform(events.BackupDaily(str(tmp_path / "gone")))
        with pytest.raises(LocalError, match="gone"):
            await backup.daily(alice, ENTROPY, 10)

    run(tmp_path, story)


# --- export ---


def test_export_and_import(tmp_path: Path) -> None:
    async def story(made: Town) -> None:
        alice, _ = await friends(made)
        await many(alice, "bob", 700)
        path = tmp_path / "all.jsonl"
        done = await export.export(alice, path, 1_790_000_000)
        assert (done.contacts, done.messages) == (1, 703)
        lines = path.read_text().splitlines()
        assert len(lines) == 706
        assert json.loads(lines[-1])["chain"] == done.chain.hex()
        assert json.loads(lines[2])["text"].startswith("message 0")
        assert export.judge(path) == done
        heir = await made.join("heir")
        restored, judged = await export.take_in_export(heir, path)
        assert (restored.contacts, restored.messages, judged) == (1, 703, done)
        assert texts(heir, "bob") == texts(alice, "bob")
        only = await export.export(alice, tmp_path / "bob.jsonl", 1_790_000_000, petname="bob")
        assert (only.contacts, only.messages) == (1, 703)
        with pytest.raises(LocalError):
            await export.export(alice, tmp_path / "nobody.jsonl", 1, petname="nobody")
        assert not (tmp_path / "nobody.jsonl").exists()

    run(tmp_path, story)


@pytest.mark.attack(102)
def test_a_cut_moved_or_edited_line_is_found(tmp_path: Path) -> None:
    async def story(made: Town) -> None:
        alice, _ = await friends(made)
        path = tmp_path / "all.jsonl"
        await export.export(alice, path, 1_790_000_000)
        lines = path.read_bytes().splitlines(keepends=True)
        edited = lines[2].replace(b"to bob", b"to eve")
        forged_type = lines[2].replace(b'"type":"message"', b'"type":"contact"')
        for changed in (
            lines[:-1],
            lines[:2] + lines[3:],
            [lines[0], lines[1], lines[3], lines[2], *lines[4:]],
            [*lines, lines[-1]],
            [*lines[:2], edited, *lines[3:]],
            [*lines[:2], forged_type, *lines[3:]],
            [*lines[:2], lines[2], lines[2], *lines[3:]],
            lines[1:],
            [*lines[:-1], lines[-1][:-3]],
            [b"[]\n"],
            [b'{"type":"lokket-export"}\n'],
            [],
            [b"{" + b"x" * (limits.EXPORT_LINE_MAX_BYTES + 5) + b"}\n"],
        ):
            path.write_bytes(b"".join(changed))
            with pytest.raises(LocalError):
                export.judge(path)
        heir = await made.join("heir")
        path.write_bytes(b"".join([*lines[:4], edited, *lines[4:]]))
        with pytest.raises(LocalError, match="line"):
            await export.take_in_export(heir, path)
        assert heir.read(archive.count) == (0, 0)

    run(tmp_path, story)


@pytest.mark.attack(102)
@pytest.mark.parametrize(
    "fields",
    [
        {"id": "00"},
        {"id": 5},
        {"time_ms": -1},
        {"time_ms": 2**80},
        {"seq": "1"},
        {"outgoing": "yes"},
        {"state": "unheard of"},
        {"text": None},
        {"contact": "zz" * 32},
        {"type": "unheard of"},
    ],
)
def test_a_rightly_chained_line_may_be_hostile(tmp_path: Path, fields: dict[str, object]) -> None:
    good = {
        "type": "message", "time": "", "petname": "", "outgoing": False, "text": "t", "state": "received",
        "contact": "00" * 32, "id": "11" * 16, "device": "22" * 32, "seq": 1, "time_ms": 1,
    }  # fmt: skip
    for message, opens in ((good, True), ({**good, **fields}, False)):
        chain = export._Chain()
        path = tmp_path / "hostile.jsonl"
        path.write_bytes(
            chain.line({"type": "lokket-export", "format": 1})
            + chain.line(message)
            + chain.line({"type": "end", "contacts": 0, "messages": 1})
        )
        if opens:
            assert export.judge(path).messages == 1
        else:
            with pytest.raises(LocalError, match="line 2"):
                export.judge(path)


def test_an_open_client_makes_the_days_backup_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BACKUP_FIRST_LOOK_S", 0.05)
    monkeypatch.setattr(limits, "BACKUP_LOOK_S", 0.05)

    async def story(made: Town) -> None:
        folder = tmp_path / "backups"
        alice = await made.join("alice")
        await backup.choose_key(alice, ENTROPY)
        await alice.perform(events.BackupDaily(str(folder)))
        await alice.close()
        alice = await made.open("alice")
        while not alice.read(backups.state).written_s:  # type: ignore[union-attr]
            await asyncio.sleep(0.02)
            folder.mkdir(exist_ok=True)  # it was not there at the first look
        (path,) = folder.iterdir()
        known = alice.read(backups.state)
        assert known is not None
        assert ArchiveFile(path).opens_with(known.key)

    run(tmp_path, story)


# --- the account's end ---


def test_an_account_is_deleted_also_by_an_attempt_that_was_cut_short(tmp_path: Path) -> None:
    async def story(made: Town) -> None:
        alice = await made.join("alice")
        transport = made.transports["alice"]
        transport.up = False
        await transport.cut()
        with pytest.raises(NotReached):
            await alice.delete_account(0.2)
        transport.up = True
        with alice._driver.listening() as queue:
            while not isinstance(await queue.get(), events.AccountDeleted):
                pass
        await alice.delete_account(10)
        await alice.close()
        again = await made.open("alice")
        await again.delete_account(10)
        bob = await made.join("bob")
        with pytest.raises(LocalError):
            await bob.add_contact("alice", name="alice")

    run(tmp_path, story)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with a name")
def test_a_device_or_a_pipe_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    """Whoever is root would lose /dev/null or /dev/stdout by it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for place in (pipe, tmp_path, Path("-")):
        with pytest.raises(LocalError, match="no file"):
            NewFile(place)
    assert list(tmp_path.iterdir()) == [pipe]
    assert pipe.is_fifo()
