"""Files at the relay: sent and fetched in parts, by offset, so that either goes on where it was cut.

The relay may alter, swap, hold back and invent: what is in a file must prove itself.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from lokket import limits
from lokket.client.files import in_sentences
from lokket.errors import LocalError
from lokket.wire import api

T = TypeVar("T")

Progress = Callable[[int, int], None]  # bytes that are over, of how many
_STALLED_MAX = 3  # answers in a row that bring nothing forward


class Relay(Protocol):
    async def exchange(self, request: api.Request, timeout_s: float) -> api.Reply:
        """As ``Client.exchange``."""


async def upload(
    relay: Relay, path: Path, blob_id: bytes, on_progress: Progress, timeout_s: float
) -> api.BlobHeld:
    """Until the relay keeps the whole file. LocalError: it will not. ``timeout_s``: for each answer."""
    with in_sentences(path):
        size_bytes = path.stat().st_size
    held = await _ask(relay, api.BeginBlob(blob_id, size_bytes), timeout_s, api.BlobHeld)
    stalled = 0
    with in_sentences(path), path.open("rb") as file:
        while not held.committed and held.received < size_bytes:
            on_progress(held.received, size_bytes)
            file.seek(held.received)
            part = file.read(limits.BLOB_PART_MAX_BYTES)
            put = api.PutBlobPart(blob_id, held.received, part)
            now = await _ask(relay, put, timeout_s, api.BlobHeld)
            stalled = 0 if now.received > held.received else stalled + 1
            if stalled == _STALLED_MAX:
                raise LocalError("the relay does not take the file's parts")
            held = now
    on_progress(size_bytes, size_bytes)
    return await _ask(relay, api.CommitBlob(blob_id), timeout_s, api.BlobHeld)


async def listed(relay: Relay, timeout_s: float) -> tuple[api.BlobHeld, ...]:
    """Those that are whole, oldest first, as the relay says."""
    held = (await _ask(relay, api.ListBlobs(), timeout_s, api.Blobs)).held
    return tuple(blob for blob in held if blob.committed)


async def beginning(relay: Relay, blob: api.BlobHeld, timeout_s: float) -> bytes:
    """The first bytes of a file, at most a part."""
    return (await _ask(relay, api.FetchBlobPart(blob.blob_id, 0), timeout_s, api.BlobPart)).part


async def download(
    relay: Relay, blob: api.BlobHeld, path: Path, on_progress: Progress, timeout_s: float
) -> None:
    """Into ``path``, behind what is there of it already. LocalError: the disk, or the relay has it not."""
    with in_sentences(path):
        have = path.stat().st_size if path.exists() else 0
        if have > blob.size_bytes:
            path.unlink()
            have = 0
        if blob.size_bytes - have > shutil.disk_usage(path.parent).free:
            raise LocalError(f"the disk has no room for a file of {blob.size_bytes} bytes")
        with os.fdopen(os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600), "ab") as file:
            while have < blob.size_bytes:
                on_progress(have, blob.size_bytes)
                read = api.FetchBlobPart(blob.blob_id, have)
                part = (await _ask(relay, read, timeout_s, api.BlobPart)).part[: blob.size_bytes - have]
                file.write(part)
                have += len(part)
    on_progress(have, blob.size_bytes)


async def delete(relay: Relay, blob_id: bytes, timeout_s: float) -> None:
    await _ask(relay, api.DeleteBlob(blob_id), timeout_s, api.Ok)


async def _ask(relay: Relay, request: api.Request, timeout_s: float, kind: type[T]) -> T:
    reply = await relay.exchange(request, timeout_s)
    if isinstance(reply, kind):
        return reply
    match reply:
        case api.Refused(code=api.MALFORMED):
            raise LocalError("this relay keeps no files for its members: its lokket is an older one")
        case api.Refused(sentence=sentence):
            raise LocalError(f"the relay refused: {sentence}")
    raise LocalError("the relay answered something else than was asked")
