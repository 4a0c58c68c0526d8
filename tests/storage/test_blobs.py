"""Blobs, in every storage of the relay: parts by offset, room by quota, and never another account's."""

from __future__ import annotations

import pytest

from lokket import limits
from lokket.relay.storage.base import BlobRow, Quota, Ruling, Storage
from lokket.relay.storage.sqlite import SQLiteReader
from lokket.wire import api
from tests.support.rows import NOW_H, NOW_S, h, new_account

ID = h("a blob")[:16]
OTHER = h("another blob")[:16]
ROOM = Quota(3, 100)


def row(size_bytes: int, blob_id: bytes = ID, expires_h: int = NOW_H + 24) -> BlobRow:
    return BlobRow(blob_id, size_bytes, 0, committed=False, expires_h=expires_h)


async def put(storage: Storage, who: str, data: bytes, blob_id: bytes = ID, *, part_bytes: int = 4) -> None:
    """Whole, in parts."""
    assert await storage.begin_blob(h(who), row(len(data), blob_id), ROOM) == ""
    for at in range(0, len(data), part_bytes):
        await storage.put_part(h(who), blob_id, at, data[at : at + part_bytes])
    assert await storage.commit_blob(h(who), blob_id, NOW_H + 99) is not None


async def got(storage: Storage, who: str, blob_id: bytes = ID) -> bytes:
    found = b""
    while part := await storage.blob_part(h(who), blob_id, len(found)):
        found += part
    return found


async def test_a_blob_goes_in_and_comes_out_in_parts(storage: Storage) -> None:
    await storage.register(new_account("alice"), None, NOW_S)
    await put(storage, "alice", b"0123456789")
    assert await storage.blobs(h("alice")) == (BlobRow(ID, 10, 10, committed=True, expires_h=NOW_H + 99),)
    assert await got(storage, "alice") == b"0123456789"
    assert await storage.blob_part(h("alice"), ID, 6) == b"67"  # from the middle of a part to its end
    for beyond in (10, 11, 2**40):
        assert await storage.blob_part(h("alice"), ID, beyond) == b""


async def test_a_part_elsewhere_than_at_the_end_changes_nothing(storage: Storage) -> None:
    await storage.register(new_account("alice"), None, NOW_S)
    await storage.begin_blob(h("alice"), row(6), ROOM)
    for offset, part, received in (
        (0, b"abc", 3), (0, b"XYZ", 3), (1, b"X", 3), (4, b"X", 3),
        (3, b"defg", 3), (3, b"def", 6), (6, b"g", 6),
    ):  # fmt: skip
        held = await storage.put_part(h("alice"), ID, offset, part)
        assert held is not None
        assert held.received == received
    assert await storage.blob_part(h("alice"), ID, 0) == b""  # nobody reads what is not committed
    await storage.commit_blob(h("alice"), ID, NOW_H + 1)
    assert await got(storage, "alice") == b"abcdef"
    held = await storage.put_part(h("alice"), ID, 6, b"more")
    assert held is not None
    assert (held.received, held.committed) == (6, True)


@pytest.mark.attack(99)
async def test_a_blob_is_committed_once_and_whole(storage: Storage) -> None:
    await storage.register(new_account("alice"), None, NOW_S)
    await storage.begin_blob(h("alice"), row(4), ROOM)
    await storage.put_part(h("alice"), ID, 0, b"ab")
    half = await storage.commit_blob(h("alice"), ID, NOW_H + 50)
    assert half == BlobRow(ID, 4, 2, committed=False, expires_h=NOW_H + 24)
    await storage.put_part(h("alice"), ID, 2, b"cd")
    for later in (50, 60):  # the second time is the first one's echo
        held = await storage.commit_blob(h("alice"), ID, NOW_H + later)
        assert held == BlobRow(ID, 4, 4, committed=True, expires_h=NOW_H + 50)


async def test_begun_again_it_is_the_same_and_of_another_size_refused(storage: Storage) -> None:
    await storage.register(new_account("alice"), None, NOW_S)
    await storage.begin_blob(h("alice"), row(6), ROOM)
    await storage.put_part(h("alice"), ID, 0, b"abc")
    assert await storage.begin_blob(h("alice"), row(6, expires_h=NOW_H + 99), ROOM) == ""
    assert await storage.blobs(h("alice")) == (BlobRow(ID, 6, 3, committed=False, expires_h=NOW_H + 24),)
    assert await storage.begin_blob(h("alice"), row(7), ROOM) == api.CONFLICT


@pytest.mark.attack(99)
async def test_another_accounts_blobs_are_not_there(storage: Storage) -> None:
    """Not to be read, added to, ended or deleted; the same id is each account's own."""
    for who in ("alice", "bob"):
        await storage.register(new_account(who), None, NOW_S)
    await put(storage, "alice", b"of alice")
    await storage.begin_blob(h("alice"), row(2, OTHER), ROOM)
    for blob_id in (ID, OTHER):
        assert await storage.blob_part(h("bob"), blob_id, 0) == b""
        assert await storage.put_part(h("bob"), blob_id, 0, b"x") is None
        assert await storage.commit_blob(h("bob"), blob_id, NOW_H) is None
        await storage.delete_blob(h("bob"), blob_id)
    assert await storage.blobs(h("bob")) == ()
    await put(storage, "bob", b"of bob")
    assert (await got(storage, "alice"), await got(storage, "bob")) == (b"of alice", b"of bob")
    assert len(await storage.blobs(h("alice"))) == 2
    assert await storage.begin_blob(h("nobody"), row(1), ROOM) == api.UNKNOWN


@pytest.mark.attack(108)
async def test_room_is_reserved_when_it_begins_and_free_again_when_it_is_gone(storage: Storage) -> None:
    await storage.register(new_account("alice"), None, NOW_S)
    names = [bytes((number,)) * 16 for number in range(5)]
    assert await storage.begin_blob(h("alice"), row(60, names[0]), ROOM) == ""
    assert await storage.begin_blob(h("alice"), row(41, names[1]), ROOM) == api.QUOTA_FULL
    assert await storage.begin_blob(h("alice"), row(39, names[1]), ROOM) == ""
    assert await storage.begin_blob(h("alice"), row(1, names[2]), ROOM) == ""
    assert await storage.begin_blob(h("alice"), row(1, names[3]), Quota(3, 1_000)) == api.QUOTA_FULL
    await storage.delete_blob(h("alice"), names[0])
    assert await storage.begin_blob(h("alice"), row(60, names[3]), ROOM) == ""
    await storage.rule(Ruling(h("alice"), blobs_max_bytes=0))
    assert await storage.begin_blob(h("alice"), row(1, names[4]), Quota(9, 1_000)) == api.QUOTA_FULL
    await storage.rule(Ruling(h("alice"), blobs_max_bytes=500))
    assert await storage.begin_blob(h("alice"), row(400, names[4]), Quota(9, 100)) == ""


@pytest.mark.attack(108)
async def test_uploads_that_do_not_end_and_old_blobs_expire(storage: Storage) -> None:
    """A few at a time; each with its parts."""
    await storage.register(new_account("alice"), None, NOW_S)
    await put(storage, "alice", b"kept")
    orphans = [bytes((number,)) * 16 for number in range(limits.EXPIRE_BLOBS_PER_UPKEEP + 1)]
    for blob_id in orphans:
        await storage.begin_blob(h("alice"), row(4, blob_id), Quota(100, 1_000))
        await storage.put_part(h("alice"), blob_id, 0, b"ab")
    assert await storage.expire((NOW_H + 24) * 3600 - 1, 100) == 0
    assert await storage.expire((NOW_H + 24) * 3600, 100) == limits.EXPIRE_BLOBS_PER_UPKEEP
    assert await storage.expire((NOW_H + 24) * 3600, 100) == 1
    assert await storage.expire((NOW_H + 24) * 3600, 100) == 0
    counts = await storage.counts()
    assert (counts.blobs, counts.blob_bytes) == (1, 4)
    assert await got(storage, "alice") == b"kept"
    assert await storage.expire((NOW_H + 99) * 3600, 100) == 1
    assert await storage.blobs(h("alice")) == ()
    assert parts_left(storage) == 0


async def test_blobs_are_counted_explained_and_go_with_their_account(storage: Storage) -> None:
    for who in ("alice", "bob"):
        await storage.register(new_account(who), None, NOW_S)
    await put(storage, "alice", b"0123456789")
    await storage.begin_blob(h("alice"), row(5, OTHER), ROOM)
    await storage.put_part(h("alice"), OTHER, 0, b"abc")
    await put(storage, "bob", b"of bob")
    counts = await storage.counts()
    assert (counts.blobs, counts.blob_bytes) == (3, 19)
    users = {user.genesis_hash: (user.blobs, user.blob_bytes) for user in await storage.users(b"", 9)}
    assert users == {h("alice"): (2, 13), h("bob"): (1, 6)}
    held = [dict(each.columns) for each in await storage.held(h("alice")) if each.table == "blobs"]
    assert [(each["blob_id"], each["size_bytes"], each["received"]) for each in held] == [
        (ID, 10, 10), (OTHER, 5, 3),
    ]  # fmt: skip
    await storage.delete_account(h("alice"), NOW_S)
    counts = await storage.counts()
    assert (counts.blobs, counts.blob_bytes) == (1, 6)
    assert await storage.blobs(h("alice")) == ()
    assert await got(storage, "bob") == b"of bob"
    assert parts_left(storage) in (0, 2)


def parts_left(storage: Storage) -> int:
    """Rows in SQLite's own table of parts; a memory storage has them in its blobs."""
    if not isinstance(storage, SQLiteReader):
        return 0
    found = storage._one("SELECT count(*) FROM blob_parts")
    assert found is not None
    return int(found[0])
