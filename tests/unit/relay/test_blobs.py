"""Files of accounts at the relay: begun, put, committed, fetched, deleted; room, time, and whose they are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lokket import limits
from lokket.relay.admission import Readings
from lokket.relay.config import RelayConfig
from lokket.wire import api
from tests.support.relay import ORIGIN, Desk, Member

ID = bytes(range(16))


def code(reply: api.Reply) -> str:
    assert isinstance(reply, api.Refused), reply
    return reply.code


def held(reply: api.Reply) -> api.BlobHeld:
    assert isinstance(reply, api.BlobHeld), reply
    return reply


async def put(member: Member, data: bytes, blob_id: bytes = ID) -> api.BlobHeld:
    await member.ask(api.BeginBlob(blob_id, len(data)))
    for at in range(0, len(data), 1_000):
        held(await member.ask(api.PutBlobPart(blob_id, at, data[at : at + 1_000])))
    return held(await member.ask(api.CommitBlob(blob_id)))


async def got(member: Member, blob_id: bytes = ID) -> bytes:
    found = b""
    while isinstance(part := await member.ask(api.FetchBlobPart(blob_id, len(found))), api.BlobPart):
        found += part.part
    return found


async def test_a_file_goes_in_and_comes_back_to_every_device_of_the_account(desk: Desk) -> None:
    alice = await desk.join("alice")
    data = bytes(range(256)) * 10
    kept = await put(alice, data)
    assert (kept.received, kept.committed) == (len(data), True)
    assert kept.expires_s // 3600 == desk.now_ms // 3_600_000 + limits.BLOB_DAYS * 24
    assert await alice.ask(api.ListBlobs()) == api.Blobs((kept,))
    assert await got(alice) == data
    tablet = alice.second_device(2)
    await alice.ask(alice.next_list(add=(tablet.device,))[0])
    await tablet.log_in()
    assert await got(tablet) == data
    assert await tablet.ask(api.DeleteBlob(ID)) == api.Ok()
    assert await alice.ask(api.DeleteBlob(ID)) == api.Ok()  # it is gone already: the same answer
    assert await alice.ask(api.ListBlobs()) == api.Blobs(())


async def test_begun_again_it_says_where_to_go_on(desk: Desk) -> None:
    alice = await desk.join("alice")
    assert held(await alice.ask(api.BeginBlob(ID, 6))).received == 0
    assert code(await alice.ask(api.CommitBlob(ID))) == api.CONFLICT
    await alice.ask(api.PutBlobPart(ID, 0, b"abc"))
    assert held(await alice.ask(api.PutBlobPart(ID, 0, b"abc"))).received == 3  # its answer was lost
    assert held(await alice.ask(api.BeginBlob(ID, 6))).received == 3
    assert code(await alice.ask(api.BeginBlob(ID, 7))) == api.CONFLICT
    assert code(await alice.ask(api.FetchBlobPart(ID, 0))) == api.UNKNOWN  # not whole yet
    await alice.ask(api.PutBlobPart(ID, 3, b"def"))
    assert held(await alice.ask(api.CommitBlob(ID))).committed
    assert held(await alice.ask(api.CommitBlob(ID))).committed


@pytest.mark.attack(99)
async def test_of_another_accounts_file_the_answer_is_that_of_none(desk: Desk) -> None:
    alice, bob = await desk.join("alice"), await desk.join("bob")
    await put(alice, b"of alice")
    missing = bytes(16)
    for blob_id in (ID, missing):
        assert code(await bob.ask(api.PutBlobPart(blob_id, 0, b"x"))) == api.UNKNOWN
        assert code(await bob.ask(api.CommitBlob(blob_id))) == api.UNKNOWN
        assert code(await bob.ask(api.FetchBlobPart(blob_id, 0))) == api.UNKNOWN
        assert await bob.ask(api.DeleteBlob(blob_id)) == api.Ok()
    assert await bob.ask(api.FetchBlobPart(ID, 0)) == await bob.ask(api.FetchBlobPart(missing, 0))
    assert await bob.ask(api.ListBlobs()) == api.Blobs(())
    assert await got(alice) == b"of alice"


@pytest.mark.attack(108)
async def test_room_is_bounded_by_account_machine_and_setting() -> None:
    small = RelayConfig(origin=ORIGIN, open=True, blobs_max_bytes=1_000)
    alice = await Desk(config=small).join("alice")
    assert code(await alice.ask(api.BeginBlob(ID, 1_001))) == api.QUOTA_FULL
    assert held(await alice.ask(api.BeginBlob(ID, 1_000))).received == 0
    assert code(await alice.ask(api.BeginBlob(bytes(16), 1))) == api.QUOTA_FULL
    none = await Desk(config=replace(small, blobs_max_bytes=0)).join("alice")
    assert code(await none.ask(api.BeginBlob(ID, 1))) == api.QUOTA_FULL


@pytest.mark.attack(108)
async def test_no_file_is_begun_while_the_machine_is_short_of_room(desk: Desk) -> None:
    alice = await desk.join("alice")
    await alice.ask(api.BeginBlob(ID, 2))
    desk.relay._office.read_machine = lambda: Readings(disk_bytes=1)
    assert code(await alice.ask(api.BeginBlob(bytes(16), 1))) == api.STORAGE_FULL
    assert held(await alice.ask(api.BeginBlob(ID, 2))).received == 0  # what has begun may end


@pytest.mark.attack(108)
async def test_what_is_never_committed_is_gone_after_a_day_and_the_rest_in_its_time(desk: Desk) -> None:
    """By the relay's own upkeep, on a clock that runs evenly."""
    alice = await desk.join("alice")
    await put(alice, b"kept")
    await alice.ask(api.BeginBlob(bytes(16), 4))
    await alice.ask(api.PutBlobPart(bytes(16), 0, b"ab"))
    left: dict[int, int] = {}
    start_ms = desk.now_ms
    for day in (0, 2, limits.BLOB_DAYS - 1, limits.BLOB_DAYS):
        desk.now_ms = start_ms + day * limits.DAY_S * 1000
        await desk.upkeep()
        left[day] = (await desk.relay.storage.counts()).blobs
    assert left[0] == 2
    assert left[2] == 1
    assert left[limits.BLOB_DAYS - 1] == 1
    assert left[limits.BLOB_DAYS] == 0


async def test_a_purged_account_takes_its_files_along(desk: Desk) -> None:
    alice = await desk.join("alice")
    await put(alice, b"kept")
    await desk.relay.forget(alice.genesis_hash, desk.now_ms)
    assert (await desk.relay.storage.counts()).blobs == 0
