"""A disk that loses what was not synced, and fails when it is told to: an apsw VFS.

What a file shows while the program runs is the cache. What would be there after a power cut is the platter:
it takes a write over when the file is synced. A sync that fails leaves its writes out for good, as the
kernel does (Rebello et al., USENIX ATC 2020); the cache then goes on showing them, or not, as file systems
differ.

Under a vault it is named behind ``multipleciphers-``: it sees ciphertext.
"""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import apsw

from lokket.disk import PLAIN_VFS

SECTOR_BYTES: Final = 512
KINDS: Final = ("open", "read", "write", "sync", "truncate", "delete")
IO_ERROR, TORN, FULL, LOST_SYNC, FORGOTTEN_SYNC = "io-error", "torn", "full", "lost-sync", "forgotten-sync"
FAULTS: Final = {
    IO_ERROR: KINDS,
    TORN: ("write",),
    FULL: ("write", "open"),
    LOST_SYNC: ("sync",),  # the cache goes on showing what is not on the platter
    FORGOTTEN_SYNC: ("sync",),  # the cache falls back to the platter
}


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes at an offset; or, with ``size``, a truncation."""

    offset: int
    data: bytes = b""
    size: int | None = None

    def onto(self, content: bytearray) -> None:
        if self.size is not None:
            del content[self.size :]
            content.extend(bytes(self.size - len(content)))
            return
        if len(content) < self.offset:
            content.extend(bytes(self.offset - len(content)))
        content[self.offset : self.offset + len(self.data)] = self.data

    def partly(self, chance: random.Random) -> list[Write]:
        """Some of its sectors, one of them torn."""
        if self.size is not None:
            return []
        kept = []
        for start in range(0, len(self.data), SECTOR_BYTES):
            piece = self.data[start : start + SECTOR_BYTES]
            if chance.random() < 0.5:
                if chance.random() < 0.2:
                    piece = piece[: chance.randrange(len(piece) + 1)]
                kept.append(Write(self.offset + start, piece))
        return kept


@dataclass(slots=True)
class Platter:
    """One file: what is on the disk for certain, and what is on its way there."""

    named: bool  # its name is in the folder for certain
    content: bytearray
    pending: list[Write] = field(default_factory=list)
    gone: bool = False  # deleted, which is not synced yet


class Disk(apsw.VFS):
    """Made by ``disk``. ``operations`` counts what reached it since ``reset``.

    ``cut_at``: the power goes during that operation; everything later fails. ``fault``: asked for each
    operation (its number, kind and file) which of ``FAULTS`` happens to it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.platters: dict[str, Platter] = {}
        self.lock = threading.RLock()
        self.reset()
        super().__init__(name, PLAIN_VFS)

    def reset(self) -> None:
        self.operations = 0
        self.cut_at: int | None = None
        self.dead = False
        self.fault: Callable[[int, str, str], str | None] = lambda number, kind, name: None
        self.happened: list[tuple[int, str, str, str]] = []

    def plug_out(self) -> None:
        self.dead = True

    # --- what SQLite asks for ---

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> DiskFile:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name or ""
        with self.lock:
            self.meet("open", path)
            if path and path not in self.platters:
                there = Path(path).exists()
                self.platters[path] = Platter(there, bytearray(Path(path).read_bytes() if there else b""))
            elif path and self.platters[path].gone:
                self.platters[path].gone = False
                self.platters[path].pending.append(Write(0, size=0))
            return DiskFile(self, path, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        with self.lock:
            self.meet("delete", filename)
            super().xDelete(filename, syncdir)
            if syncdir:
                self.platters.pop(filename, None)
            elif filename in self.platters:
                self.platters[filename].gone = True

    def forget_the_deleted(self) -> None:
        self.platters = {path: each for path, each in self.platters.items() if not each.gone}

    def meet(self, kind: str, path: str) -> str | None:
        """Count; raise what is to be raised; else the fault that the operation itself takes care of."""
        with self.lock:
            self.operations += 1
            if self.dead:
                raise apsw.IOError("the power is off")
            if self.cut_at is not None and self.operations >= self.cut_at:
                self.dead = True
                if kind in ("write", "truncate"):
                    return TORN
                raise apsw.IOError("the power goes")
            fault = self.fault(self.operations, kind, Path(path).name)
            if fault is None or kind not in FAULTS[fault]:
                return None
            self.happened.append((self.operations, kind, Path(path).name, fault))
            if fault == FULL:
                raise apsw.FullError("the test's disk is full")
            if fault == IO_ERROR and kind != "sync":
                raise apsw.IOError("the test's disk fails")
            return fault

    # --- after the power cut ---

    def survivors(self, folder: Path, chance: random.Random) -> None:
        """Write into ``folder`` what of the files is there when the power is back.

        Each write that was not synced is there, or not, or in some sectors; in any order.
        """
        folder.mkdir(parents=True, exist_ok=True)
        likely = chance.choice((0.0, 0.3, 0.7, 0.95, 1.0))
        for path, platter in self.platters.items():
            content = bytearray(platter.content)
            for write in platter.pending:
                luck = chance.random()
                if luck < likely:
                    write.onto(content)
                elif luck < likely + (1 - likely) / 2:
                    for part in write.partly(chance):
                        part.onto(content)
            if platter.gone and chance.random() < 0.5:
                continue
            if platter.named or (platter.pending and chance.random() < 0.5):
                (folder / Path(path).name).write_bytes(content)


class DiskFile(apsw.VFSFile):
    def __init__(self, disk: Disk, path: str, name: Any, flags: list[int]) -> None:
        self._disk = disk
        self._path = path
        super().__init__(PLAIN_VFS, name, flags)

    @property
    def _platter(self) -> Platter:
        return self._disk.platters.get(self._path) or Platter(False, bytearray())

    def xRead(self, amount: int, offset: int) -> bytes:
        self._disk.meet("read", self._path)
        return bytes(super().xRead(amount, offset))

    def xWrite(self, data: bytes, offset: int) -> None:
        with self._disk.lock:
            fault = self._disk.meet("write", self._path)
            if fault == TORN:
                data = bytes(data)[: len(data) // 2]
            if data:
                super().xWrite(data, offset)
                self._platter.pending.append(Write(offset, bytes(data)))
            if fault == TORN:
                raise apsw.IOError("the write was torn")

    def xTruncate(self, newsize: int) -> None:
        with self._disk.lock:
            if self._disk.meet("truncate", self._path):
                raise apsw.IOError("the power goes")
            super().xTruncate(newsize)
            self._platter.pending.append(Write(0, size=newsize))

    def xSync(self, flags: int) -> None:
        with self._disk.lock:
            fault = self._disk.meet("sync", self._path)
            platter = self._platter
            if fault == FORGOTTEN_SYNC:
                platter.pending.clear()
                super().xTruncate(0)
                for start in range(0, len(platter.content), 65_536):
                    super().xWrite(bytes(platter.content[start : start + 65_536]), start)
            elif fault is not None:
                platter.pending.clear()
            if fault is not None:
                raise apsw.IOError("the test's disk does not sync")
            for write in platter.pending:
                write.onto(platter.content)
            platter.pending.clear()
            if not platter.named:  # SQLite then syncs the folder, and with it what was deleted there
                platter.named = True
                self._disk.forget_the_deleted()


_DISKS: Final[dict[str, Disk]] = {}


def disk(name: str) -> Disk:
    """The disk of that name, empty. One for the process: the cipher's VFS keeps a pointer to it."""
    made = _DISKS.get(name)
    if made is None:
        made = _DISKS[name] = Disk(name)
    made.platters.clear()
    made.reset()
    return made


def copied(source: Path, target: Path) -> Path:
    """A fresh folder with the files of another."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    return target
