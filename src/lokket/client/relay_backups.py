"""Backups that are kept at the relay (docs/backup.md): it has ciphertext, their size and when they came.

1. Out: an archive as for a disk, in the vault's folder; then its parts go to the relay, which keeps it. One
   that was cut, at whatever point, goes on with the next call. The last three of this device stay.
2. In: the newest one of the account, fetched into the vault's folder; it has to prove itself as any other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, Protocol, TypeVar

from lokket import limits
from lokket.client import backup, files, relay_files
from lokket.client.backup import ArchiveFile, Made
from lokket.client.relay_files import Progress
from lokket.crypto.entropy import Entropy
from lokket.crypto.primitives import sha256
from lokket.engine import backups, events, views
from lokket.engine.store import Transaction
from lokket.errors import LocalError, RemoteError
from lokket.protocol.backup import read_start
from lokket.wire import api

T = TypeVar("T")
P = ParamSpec("P")

UPLOAD: Final = "vault.upload"
DOWNLOAD: Final = "vault.download"
_ANSWER_S: Final = 60.0
# Header, salt and commitment: no two archives share them.
_NAMED_BY_BYTES: Final = limits.BACKUP_HEADER_MAX_BYTES


class Client(Protocol):
    """What is needed of ``lokket.client.client.Client``."""

    async def perform(self, command: events.Command) -> list[events.Notice]: ...

    def read(
        self, question: Callable[Concatenate[Transaction, P], T], *arguments: P.args, **named: P.kwargs
    ) -> T: ...

    async def exchange(self, request: api.Request, timeout_s: float) -> api.Reply: ...

    @property
    def entropy(self) -> Entropy: ...


def _quietly(done: int, size: int) -> None:
    pass


async def store(
    client: Client, folder: Path, now_s: int, on_progress: Progress = _quietly, timeout_s: float = _ANSWER_S
) -> Made:
    """A new archive to the relay, or the one of today that had been cut. LocalError: no key, refused."""
    path = folder / UPLOAD
    made = _cut(client, path, now_s)
    if made is None:
        await _abandon(client, path, timeout_s)
        made = await backup.write(client, path, client.entropy)
    blob_id = _blob_id(path)
    await relay_files.upload(client, path, blob_id, on_progress, timeout_s)
    known = client.read(backups.state)
    assert known is not None
    kept = (*(each for each in known.blobs if each != blob_id), blob_id)
    await client.perform(events.BackupBlobs(kept))
    await client.perform(events.BackupWritten(made.counter))
    with files.in_sentences(path):
        path.unlink()
    for old in kept[: -limits.BACKUPS_KEPT]:
        await relay_files.delete(client, old, timeout_s)
    await client.perform(events.BackupBlobs(kept[-limits.BACKUPS_KEPT :]))
    return made


async def daily(client: Client, folder: Path, now_s: int) -> Made | None:
    """The day's automatic backup to the relay, if it is due."""
    known = client.read(backups.state)
    if known is None or not known.at_relay or not backups.due(known, now_s):
        return None
    return await store(client, folder, now_s)


def _cut(client: Client, path: Path, now_s: int) -> Made | None:
    """This vault's last archive, if it lies here whole, is of today and still has to go to the relay."""
    known = client.read(backups.state)
    if known is None or not path.exists():
        return None
    try:
        file = ArchiveFile(path)
        fits = file.header.counter == known.counter and file.opens_with(known.key)
        if not fits or not 0 <= now_s - file.header.created_s < limits.BACKUP_EVERY_S:
            return None
        contacts, messages = file.judge(known.key)
    except LocalError:
        return None
    return Made(path, file.header.counter, contacts, messages, path.stat().st_size)


async def _abandon(client: Client, path: Path, timeout_s: float) -> None:
    """What is at the relay of an upload that is given up would go by itself in a day: it need not stay."""
    if path.exists():
        await relay_files.delete(client, _blob_id(path), timeout_s)
        with files.in_sentences(path):
            path.unlink()


def _blob_id(path: Path) -> bytes:
    with files.in_sentences(path), path.open("rb") as file:
        return sha256(file.read(_NAMED_BY_BYTES))[:16]


async def fetch(
    client: Client, folder: Path, on_progress: Progress = _quietly, timeout_s: float = _ANSWER_S
) -> ArchiveFile:
    """The newest of this account that the relay shows, in the vault's folder. LocalError: it has none.

    Newest by what the archives say of themselves, which is true once they have opened. A relay can hold back
    the newest: the archive's time is there to be shown to the person, and a vault that knows of a later one
    refuses it.
    """
    me = client.read(views.whoami)
    newest: tuple[int, api.BlobHeld] | None = None
    for blob in await relay_files.listed(client, timeout_s):
        with contextlib.suppress(RemoteError):
            read = read_start(await relay_files.beginning(client, blob, timeout_s))
            if read is None or me is None or read[0].genesis_hash != me.genesis_hash:
                continue
            if newest is None or read[0].counter > newest[0]:
                newest = read[0].counter, blob
    if newest is None:
        raise LocalError("the relay has no backup of this account")
    blob = newest[1]
    path = folder / f"{DOWNLOAD}.{blob.blob_id.hex()}"
    for other in folder.glob(f"{DOWNLOAD}.*"):
        if other != path:
            other.unlink(missing_ok=True)
    await relay_files.download(client, blob, path, on_progress, timeout_s)
    try:
        return ArchiveFile(path)
    except LocalError:
        path.unlink(missing_ok=True)
        raise
