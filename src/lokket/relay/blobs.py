"""Opaque files of an account, such as its encrypted backups: put in parts, kept for a time, fetched in parts.

1. ``begin`` reserves the room; asked again it says how much is there: a cut upload goes on from there.
2. ``put_part`` appends; ``commit`` keeps what is whole. What is never committed is deleted after a day.
3. ``listed``, ``fetch_part``, ``delete``: by any device of the account, and by nobody else: of another
   account's id the answer is that of one that does not exist.

The relay cannot open them; who holds the account's devices may delete them.
"""

from __future__ import annotations

from typing import Final

from lokket import limits
from lokket.relay.office import Caller, Moment, Office, Refusal
from lokket.relay.storage.base import BlobRow, Quota
from lokket.wire import api

_UNKNOWN: Final = "this account has no such file here"
_DAY_H: Final = 24
_HOUR_S: Final = 3_600


async def begin(office: Office, caller: Caller, request: api.BeginBlob, moment: Moment) -> api.BlobHeld:
    office.spend("blob", caller.genesis_hash, moment)
    known = await _row(office, caller, request.blob_id)
    if known is None:
        if not office.config.blobs_max_bytes:
            raise Refusal(api.QUOTA_FULL, "this relay keeps no files")
        if office.shortage():
            raise Refusal(api.STORAGE_FULL, "the relay is short of room; its operator must make some")
    expires_h = moment.now_s // _HOUR_S + limits.UPLOAD_VALID_H
    row = BlobRow(request.blob_id, request.size_bytes, 0, committed=False, expires_h=expires_h)
    quota = Quota(limits.BLOBS_MAX, office.config.blobs_max_bytes)
    match await office.storage.begin_blob(caller.genesis_hash, row, quota):
        case api.QUOTA_FULL:
            raise Refusal(api.QUOTA_FULL, "there is no room for more of this account's files here")
        case api.CONFLICT:
            raise Refusal(api.CONFLICT, "a file of this id is here already, and it is another one")
    return _held(await _row(office, caller, request.blob_id))


async def put_part(office: Office, caller: Caller, request: api.PutBlobPart, moment: Moment) -> api.BlobHeld:
    office.spend("blob-bytes", caller.genesis_hash, moment, len(request.part))
    return _held(
        await office.storage.put_part(caller.genesis_hash, request.blob_id, request.offset, request.part)
    )


async def commit(office: Office, caller: Caller, request: api.CommitBlob, moment: Moment) -> api.BlobHeld:
    office.spend("blob", caller.genesis_hash, moment)
    expires_h = moment.now_s // _HOUR_S + office.config.blob_days * _DAY_H
    held = _held(await office.storage.commit_blob(caller.genesis_hash, request.blob_id, expires_h))
    if not held.committed:
        raise Refusal(api.CONFLICT, "the file is not whole yet")
    return held


async def listed(office: Office, caller: Caller, request: api.ListBlobs, moment: Moment) -> api.Blobs:
    office.spend("blob", caller.genesis_hash, moment)
    return api.Blobs(tuple(_held(row) for row in await office.storage.blobs(caller.genesis_hash)))


async def fetch_part(
    office: Office, caller: Caller, request: api.FetchBlobPart, moment: Moment
) -> api.BlobPart:
    office.spend("blob-bytes", caller.genesis_hash, moment, limits.BLOB_PART_MAX_BYTES)
    part = await office.storage.blob_part(caller.genesis_hash, request.blob_id, request.offset)
    if not part:
        raise Refusal(api.UNKNOWN, _UNKNOWN)
    return api.BlobPart(part)


async def delete(office: Office, caller: Caller, request: api.DeleteBlob, moment: Moment) -> api.Ok:
    office.spend("blob", caller.genesis_hash, moment)
    await office.storage.delete_blob(caller.genesis_hash, request.blob_id)
    return api.Ok()


async def _row(office: Office, caller: Caller, blob_id: bytes) -> BlobRow | None:
    rows = await office.storage.blobs(caller.genesis_hash)
    return next((row for row in rows if row.blob_id == blob_id), None)


def _held(row: BlobRow | None) -> api.BlobHeld:
    if row is None:
        raise Refusal(api.UNKNOWN, _UNKNOWN)
    return api.BlobHeld(row.blob_id, row.size_bytes, row.received, row.committed, row.expires_h * _HOUR_S)
