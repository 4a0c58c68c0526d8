"""Backups on a disk: made from an open vault, judged whole, merged into another (docs/backup.md).

1. Out: a number from the vault, then page by page through the archive's cipher into a new file.
2. In: the whole archive is opened and decoded once before the first record goes into the vault; then again,
   in batches of one transaction each. What is there already stays, so a restore that was cut is run again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, Protocol, TypeVar

from lokket import limits
from lokket.client import files
from lokket.client.files import NewFile
from lokket.codec import tls
from lokket.crypto.entropy import Entropy
from lokket.crypto.passphrase import WrappedKey, wrap_key
from lokket.engine import archive as records
from lokket.engine import backups, events, views
from lokket.engine.store import Transaction
from lokket.errors import DecodeError, LocalError, RemoteError
from lokket.protocol import backup
from lokket.wire import archive

T = TypeVar("T")
N = TypeVar("N")
P = ParamSpec("P")

SUFFIX: Final = ".backup"
_PAGE: Final = 256
_WRITE_BYTES: Final = 256 * 1024


class Keeper(Protocol):
    """Whoever holds the vault: a ``Client``."""

    async def perform(self, command: events.Command) -> list[events.Notice]: ...

    def read(
        self, question: Callable[Concatenate[Transaction, P], T], *arguments: P.args, **named: P.kwargs
    ) -> T: ...


@dataclass(frozen=True, slots=True)
class Made:
    path: Path
    counter: int
    contacts: int
    messages: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Restored:
    """``refused``: records that did not hold, or of kinds that this version does not know."""

    contacts: int
    messages: int
    known: int
    refused: int


@dataclass(frozen=True, slots=True)
class Key:
    """``code`` is "" unless the key is new: it is shown once."""

    code: str = field(repr=False)


class ArchiveFile:
    """An archive's header, read and not yet authentic. RemoteErrors become sentences for a person."""

    def __init__(self, path: Path) -> None:
        """LocalError: no such file, or not an archive."""
        self.path = path
        start = b""
        with _in_sentences():
            for piece in files.pieces(path):
                start += piece
                read = backup.read_start(start)
                if read is not None:
                    self.header, self._start = read
                    return
        raise LocalError(f"{path} is cut short: take another copy")

    def batches(self, key: bytes) -> Iterator[list[tuple[int, bytes]]]:
        """Kinds and bodies, authentic. LocalError: another key, or a damaged archive."""
        with _in_sentences():
            reader = backup.ArchiveReader(key, self._start)
            for piece in files.pieces(self.path, len(self._start)):
                yield reader.feed(piece)
            yield reader.finish()

    def judge(self, key: bytes) -> tuple[int, int]:
        """Open and decode everything: contacts and messages in it. LocalError: something does not hold."""
        contacts = messages = 0
        with _in_sentences():
            for batch in self.batches(key):
                for kind, body in batch:
                    record = archive.decode(kind, body)
                    contacts += isinstance(record, archive.Contact)
                    messages += isinstance(record, archive.Message)
                if contacts > limits.BACKUP_CONTACTS_MAX:
                    raise LocalError("the backup has more contacts than a vault takes")
        return contacts, messages

    def opens_with(self, key: bytes) -> bool:
        """Whether the key is the archive's; says nothing of the rest."""
        reader = backup.ArchiveReader(key, self._start)
        try:
            for piece in files.pieces(self.path, len(self._start)):
                reader.feed(piece)
                break
        except RemoteError as error:
            return error.code != "wrong-key"
        return True


@contextlib.contextmanager
def _in_sentences() -> Iterator[None]:
    try:
        yield
    except RemoteError as error:
        if error.code == "wrong-key":
            raise LocalError("this key does not open the backup: it is another backup's code") from None
        if error.code == "version" or isinstance(error, DecodeError):
            raise LocalError(str(error)) from None
        raise LocalError(f"the backup is damaged or was changed ({error.code}): take another copy") from None


# --- out ---


async def choose_key(keeper: Keeper, entropy: Entropy, *, passphrase: str = "", fresh: bool = False) -> Key:
    """See to it that there is a key; ``fresh`` makes another, ``passphrase`` also guards it by that."""
    known = keeper.read(backups.state)
    if known is not None and not fresh and not passphrase:
        return Key("")
    is_new = known is None or fresh
    key = backup.new_key(entropy) if known is None or fresh else known.key
    wrapped = b""
    if passphrase:
        wrapped = tls.encode(await asyncio.to_thread(wrap_key, key, passphrase, entropy))
    await keeper.perform(events.UseBackupKey(key, wrapped))
    return Key(backup.backup_code(key) if is_new else "")


async def create(keeper: Keeper, target: Path, entropy: Entropy) -> Made:
    """Into the file ``target``, or a new file in the folder ``target``. LocalError: no key, or the disk."""
    made = await write(keeper, target, entropy)
    await keeper.perform(events.BackupWritten(made.counter))
    return made


async def write(keeper: Keeper, target: Path, entropy: Entropy) -> Made:
    """``create``, for an archive that is not yet where it is to be kept."""
    notices = await keeper.perform(events.BeginBackup())
    begun = _only(events.BackupBegun, notices)
    known = keeper.read(backups.state)
    assert known is not None
    if target.is_dir():
        target = target / f"{_prefix(keeper)}{begun.counter:012}{SUFFIX}"
    wrapped = tls.decode(WrappedKey, known.wrapped) if known.wrapped else None
    header = backup.Header(backup.FORMAT, begun.genesis_hash, begun.counter, begun.created_s, wrapped)
    writer = backup.ArchiveWriter(known.key, header, entropy)
    counts = {archive.CONTACT: 0, archive.MESSAGE: 0}
    with NewFile(target) as file:
        waiting = bytearray(writer.start)
        async for page in pages(keeper):
            for record in page:
                kind, body = archive.encode(record)
                counts[kind] += 1
                waiting += writer.add(kind, body)
            if len(waiting) >= _WRITE_BYTES:
                await asyncio.to_thread(file.write, bytes(waiting))
                waiting.clear()
        await asyncio.to_thread(file.write, bytes(waiting) + writer.finish())
        size_bytes = await asyncio.to_thread(file.commit)
    return Made(target, begun.counter, counts[archive.CONTACT], counts[archive.MESSAGE], size_bytes)


async def pages(keeper: Keeper, only: bytes = b"") -> AsyncIterator[tuple[archive.Record, ...]]:
    """Every record, some at a time, so that mail goes on meanwhile. ``only``: of one contact."""
    place = b""
    while True:
        page, place = keeper.read(records.page, place, _PAGE, only)
        yield page
        if not place:
            return
        await asyncio.sleep(0)


# --- every day ---


async def daily(keeper: Keeper, entropy: Entropy, now_s: int) -> Made | None:
    """The day's automatic backup if it is due; the last three in its folder are kept."""
    known = keeper.read(backups.state)
    if known is None or not known.folder or not backups.due(known, now_s):
        return None
    folder = Path(known.folder)
    if not folder.is_dir():
        raise LocalError(f"the folder of automatic backups is not there: {folder}")
    made = await create(keeper, folder, entropy)
    old = sorted(folder.glob(f"{_prefix(keeper)}*{SUFFIX}"))[: -limits.BACKUPS_KEPT]
    for path in old:
        with files.in_sentences(path):
            path.unlink()
    return made


def _prefix(keeper: Keeper) -> str:
    """Of this device's archives: other devices, accounts and files in the folder are not ours to delete."""
    me = keeper.read(views.whoami)
    assert me is not None
    return f"lokket-{me.genesis_hash.hex()[:8]}-{me.device_number}-"


# --- in ---


async def restore(
    keeper: Keeper, file: ArchiveFile, key: bytes, *, older: bool = False, other_account: bool = False
) -> Restored:
    """Merge an archive into the vault. LocalError: it does not hold, is another account's, or is older."""
    me = keeper.read(views.whoami)
    same = me is not None and me.genesis_hash == file.header.genesis_hash
    if not same and not other_account:
        raise LocalError(
            "this backup is of another account: restore it into that account's vault, "
            "or say --other-account to take its contacts and messages into this one"
        )
    await asyncio.to_thread(file.judge, key)
    if same:
        wrapped = file.header.wrapped
        await keeper.perform(
            events.OpenedBackup(
                file.header.counter, key, tls.encode(wrapped) if wrapped else b"", older=older
            )
        )
    return await take_in(keeper, file.batches(key))


async def take_in(keeper: Keeper, batches: Iterator[list[tuple[int, bytes]]]) -> Restored:
    """Records that were judged, some at a time in one transaction each."""
    contacts = messages = known = refused = 0
    for batch in batches:
        for part in _parts(batch):
            command = events.ImportRecords(part)
            done = _only(events.Imported, await keeper.perform(command))
            contacts += done.contacts
            messages += done.messages
            known += done.known
            refused += done.refused
    return Restored(contacts, messages, known, refused)


def _parts(batch: list[tuple[int, bytes]]) -> Iterator[tuple[tuple[int, bytes], ...]]:
    """As many as share one transaction, in number and in bytes."""
    part: list[tuple[int, bytes]] = []
    size = 0
    for record in batch:
        if part and (len(part) == limits.IMPORT_BATCH or size + len(record[1]) > limits.IMPORT_BATCH_BYTES):
            yield tuple(part)
            part, size = [], 0
        part.append(record)
        size += len(record[1])
    if part:
        yield tuple(part)


def _only(kind: type[N], notices: list[events.Notice]) -> N:
    return next(notice for notice in notices if isinstance(notice, kind))
