"""Backups at the relay: sent and fetched by offset whatever is cut; believed as far as they prove it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lokket import limits
from lokket.client import backup, relay_backups, relay_files
from lokket.client.client import Client
from lokket.engine import backups, events
from lokket.errors import LocalError
from lokket.relay.storage.memory import MemoryStorage, _Blob
from lokket.system import now_ms
from lokket.wire import api
from tests.support.client import Town, town

Play = Callable[[Callable[[Town], Awaitable[None]]], None]
PART = 2_000


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """With small parts, so that an archive has several."""
    monkeypatch.setattr(limits, "BLOB_PART_MAX_BYTES", PART)

    def run(body: Callable[[Town], Awaitable[None]]) -> None:
        async def whole() -> None:
            async with town(tmp_path) as place, asyncio.timeout(60):
                await body(place)

        asyncio.run(whole())

    return run


async def writer(place: Town) -> Client:
    """Alice, who has a key for her backups and something to lose."""
    alice, bob = await place.join("alice"), await place.join("bob")
    await alice.add_contact("bob", name="bob")
    for number in range(20):
        await alice.send("bob", f"message {number} " + "x" * 300)
    assert bob.me().registered
    await backup.choose_key(alice, alice.entropy)
    return alice


async def store(client: Client) -> backup.Made:
    return await relay_backups.store(client, client.folder, now_ms() // 1000)


def blobs(place: Town, client: Client) -> list[_Blob]:
    storage = place.desk.storage
    assert isinstance(storage, MemoryStorage)
    account = client.me().genesis_hash
    return [blob for (genesis_hash, _), blob in storage._blobs.items() if genesis_hash == account]


def judged(client: Client, file: backup.ArchiveFile) -> tuple[int, int]:
    known = client.read(backups.state)
    assert known is not None
    return file.judge(known.key)


class Watched:
    """What a client asks of a relay for its files; ``cut_at``: the connection breaks before that answer."""

    def __init__(self, place: Town, who: str, kind: type) -> None:
        self.asked: list[Any] = []
        self.cut_at: set[int] = set()
        relay = place.desk.relay
        inner = relay.handle

        async def handle(caller: Any, request: Any, now: int, entropy: Any) -> api.Reply:
            reply = await inner(caller, request, now, entropy)
            if isinstance(request, kind):
                self.asked.append(request)
                if len(self.asked) in self.cut_at:
                    await place.transports[who].cut()
            return reply

        relay.handle = handle  # type: ignore[method-assign]


def test_an_archive_goes_to_the_relay_and_comes_back(play: Play) -> None:
    async def body(place: Town) -> None:
        alice = await writer(place)
        made = await store(alice)
        (blob,) = blobs(place, alice)
        assert blob.row.committed
        assert blob.row.size_bytes == made.size_bytes > 3 * PART
        assert b"message 1" not in b"".join(blob.parts.values())
        file = await relay_backups.fetch(alice, alice.folder)
        assert judged(alice, file) == (made.contacts, made.messages) == (1, 20)
        assert file.header.counter == made.counter
        known = alice.read(backups.state)
        assert known is not None
        assert known.written_s
        assert not (alice.folder / relay_backups.UPLOAD).exists()
        assert file.path.stat().st_mode & 0o077 == 0

    play(body)


def test_an_upload_that_loses_its_connection_sends_no_part_twice_but_the_lost_one(play: Play) -> None:
    async def body(place: Town) -> None:
        alice = await writer(place)
        watched = Watched(place, "alice", api.PutBlobPart)
        watched.cut_at = {1, 4}
        made = await store(alice)
        parts = -(-made.size_bytes // PART)
        assert len(watched.asked) == parts + 2  # an answer was lost twice
        assert {request.offset for request in watched.asked} == {PART * number for number in range(parts)}
        assert judged(alice, await relay_backups.fetch(alice, alice.folder))[1] == 20

    play(body)


def test_an_upload_goes_on_in_the_next_process(play: Play) -> None:
    async def body(place: Town) -> None:
        alice = await writer(place)
        watched = Watched(place, "alice", api.PutBlobPart)

        def stop(done: int, size: int) -> None:
            if done > 2 * PART:
                raise LocalError("stopped here")

        with pytest.raises(LocalError, match="stopped here"):
            await relay_backups.store(alice, alice.folder, now_ms() // 1000, stop)
        known = alice.read(backups.state)
        assert known is not None
        assert not known.written_s
        before = known.counter
        await alice.close()
        again = await place.open("alice")
        await again.send("bob", "after the archive was made")
        made = await store(again)
        assert (made.counter, made.messages) == (before, 20)
        offsets = [request.offset for request in watched.asked]
        assert len(offsets) == len(set(offsets))
        assert judged(again, await relay_backups.fetch(again, again.folder))[1] == 20

    play(body)


def test_an_upload_of_yesterday_is_given_up_and_leaves_nothing(play: Play) -> None:
    async def body(place: Town) -> None:
        alice = await writer(place)

        def stop(done: int, size: int) -> None:
            if done:
                raise LocalError("stopped here")

        with pytest.raises(LocalError, match="stopped here"):
            await relay_backups.store(alice, alice.folder, now_ms() // 1000, stop)
        assert [blob.row.committed for blob in blobs(place, alice)] == [False]
        tomorrow_s = now_ms() // 1000 + limits.BACKUP_EVERY_S
        made = await relay_backups.store(alice, alice.folder, tomorrow_s)
        assert [blob.row.committed for blob in blobs(place, alice)] == [True]
        assert blobs(place, alice)[0].row.size_bytes == made.size_bytes

    play(body)


def test_a_download_goes_on_where_it_was_cut(play: Play) -> None:
    async def body(place: Town) -> None:
        alice = await writer(place)
        made = await store(alice)
        watched = Watched(place, "alice", api.FetchBlobPart)

        def stop(done: int, size: int) -> None:
            if done > 2 * PART:
                raise LocalError("stopped here")

        with pytest.raises(LocalError, match="stopped here"):
            await relay_backups.fetch(alice, alice.folder, stop)
        watched.cut_at = {len(watched.asked) + 3}
        file = await relay_backups.fetch(alice, alice.folder)
        assert judged(alice, file) == (1, 20)
        parts = -(-made.size_bytes // PART)
        assert len(watched.asked) == parts + 2 + 1  # twice its beginning, once a lost answer

    play(body)


def test_the_last_three_of_a_device_stay(play: Play) -> None:
    async def body(place: Town) -> None:
        alice = await writer(place)
        made = [(await store(alice)).counter for _ in range(limits.BACKUPS_KEPT + 2)]
        assert len(blobs(place, alice)) == limits.BACKUPS_KEPT
        assert (await relay_backups.fetch(alice, alice.folder)).header.counter == made[-1]

    play(body)


def test_daily_backups_go_to_the_relay_when_they_are_due(play: Play) -> None:
    async def body(place: Town) -> None:
        alice = await writer(place)
        now_s = now_ms() // 1000
        assert await relay_backups.daily(alice, alice.folder, now_s) is None
        await alice.perform(events.BackupDaily("", at_relay=True))
        assert await relay_backups.daily(alice, alice.folder, now_s) is not None
        assert await relay_backups.daily(alice, alice.folder, now_s + 60) is None
        assert await relay_backups.daily(alice, alice.folder, now_s + limits.BACKUP_EVERY_S + 60) is not None
        assert await backup.daily(alice, alice.entropy, now_s + 2 * limits.BACKUP_EVERY_S) is None
        assert len(blobs(place, alice)) == 2

    play(body)


# --- a relay that lies ---


@pytest.mark.attack(99)
def test_another_accounts_archive_in_the_place_of_ours_is_not_ours(play: Play) -> None:
    async def body(place: Town) -> None:
        alice = await writer(place)
        bob = place.clients[1]
        await backup.choose_key(bob, bob.entropy)
        await store(bob)
        await store(alice)
        theirs, ours = blobs(place, bob)[0], blobs(place, alice)[0]
        ours.parts, ours.row = theirs.parts, replace(ours.row, size_bytes=theirs.row.size_bytes)
        with pytest.raises(LocalError, match="no backup of this account"):
            await relay_backups.fetch(alice, alice.folder)

    play(body)


@pytest.mark.attack(99)
def test_an_older_archive_in_the_place_of_the_newest_is_refused(play: Play) -> None:
    async def body(place: Town) -> None:
        alice = await writer(place)
        for _ in range(2):
            await store(alice)
        old, new = blobs(place, alice)
        new.parts, new.row = old.parts, replace(new.row, size_bytes=old.row.size_bytes)
        file = await relay_backups.fetch(alice, alice.folder)
        known = alice.read(backups.state)
        assert known is not None
        with pytest.raises(LocalError, match="older than the last one"):
            await backup.restore(alice, file, known.key)

    play(body)


@pytest.mark.attack(99)
@pytest.mark.parametrize("case", ["mixed", "cut", "flipped", "longer", "renumbered"])
def test_an_archive_that_was_changed_is_refused_as_a_whole(play: Play, case: str) -> None:
    async def body(place: Town) -> None:
        alice = await writer(place)
        await store(alice)
        await alice.send("bob", "one more")
        await store(alice)
        old, new = blobs(place, alice)
        last = max(new.parts)
        match case:
            case "mixed":
                new.parts[PART] = old.parts[PART]
            case "cut":
                del new.parts[last]
                new.row = replace(new.row, size_bytes=last)
            case "flipped":
                new.parts[PART] = bytes((new.parts[PART][0] ^ 1,)) + new.parts[PART][1:]
            case "longer":
                new.parts[new.row.size_bytes] = b"more"
                new.row = replace(new.row, size_bytes=new.row.size_bytes + 4)
            case _:  # the counter in the header, which chooses the newest
                start = bytearray(old.parts[0])
                start[46:54] = b"\x7f" + bytes(7)
                old.parts[0] = bytes(start)
        file = await relay_backups.fetch(alice, alice.folder)
        with pytest.raises(LocalError, match=r"damaged|ends in the middle|does not open|changed"):
            judged(alice, file)

    play(body)


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (api.Refused(api.MALFORMED, "no such request"), "its lokket is an older one"),
        (api.Refused(api.QUOTA_FULL, "there is no room"), "refused: there is no room"),
        (api.Ok(), "something else than was asked"),
        (api.BlobHeld(bytes(16), 9, 0, committed=False, expires_s=0), "does not take the file's parts"),
    ],
)
def test_a_relay_that_will_not_ends_in_a_sentence(tmp_path: Path, reply: api.Reply, sentence: str) -> None:
    class Mute:
        async def exchange(self, request: api.Request, timeout_s: float) -> api.Reply:
            return reply

    path = tmp_path / "file"
    path.write_bytes(bytes(9))
    with pytest.raises(LocalError, match=sentence):
        asyncio.run(relay_files.upload(Mute(), path, bytes(16), lambda done, size: None, 1))


def test_a_file_larger_than_the_disk_is_not_begun(tmp_path: Path) -> None:
    class Endless:
        async def exchange(self, request: api.Request, timeout_s: float) -> api.Reply:
            raise AssertionError("nothing is fetched")

    blob = api.BlobHeld(bytes(16), 2**40, 2**40, committed=True, expires_s=0)
    with pytest.raises(LocalError, match="no room"):
        asyncio.run(relay_files.download(Endless(), blob, tmp_path / "f", lambda done, size: None, 1))
