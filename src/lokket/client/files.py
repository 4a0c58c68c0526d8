"""Files that hold a person's data outside the vault: there whole or not at all, and for their owner alone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from lokket.errors import LocalError

_PIECE_BYTES = 256 * 1024


class NewFile:
    """Written beside ``path`` and renamed onto it by ``commit``; what was there stays until then.

    A context manager: left without ``commit``, or killed, it has changed nothing.
    LocalError: the disk refuses, or there is a device or a pipe, which the renaming would take away.
    """

    def __init__(self, path: Path) -> None:
        with in_sentences(path):
            if str(path) == "-" or (path.exists() and not path.is_file()):
                raise LocalError(f"{path} is no file: name one; this is not written into anything else")
        self._path = path
        self._draft = path.with_name(f".{path.name}.partial")
        with in_sentences(path):
            self._draft.unlink(missing_ok=True)  # of one that was killed
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_CLOEXEC", 0)
            self._stream = os.fdopen(os.open(self._draft, flags, 0o600), "wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._stream.close()
        with contextlib.suppress(OSError):
            self._draft.unlink(missing_ok=True)

    def write(self, data: bytes) -> None:
        with in_sentences(self._path):
            self._stream.write(data)

    def commit(self) -> int:
        """On the disk, under its name. Returns its size in bytes."""
        with in_sentences(self._path):
            self._stream.flush()
            os.fsync(self._stream.fileno())
            size = self._stream.tell()
            self._stream.close()
            self._draft.replace(self._path)
            sync_folder(self._path.parent)
        return size


def pieces(path: Path, start: int = 0) -> Iterator[bytes]:
    """The bytes of a file from ``start`` on. LocalError: it cannot be read."""
    with in_sentences(path), path.open("rb") as stream:
        stream.seek(start)
        while piece := stream.read(_PIECE_BYTES):
            yield piece


def sync_folder(folder: Path) -> None:
    """So that a new name survives a power cut, where the system can promise it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def in_sentences(path: Path) -> Iterator[None]:
    """OSError as LocalError that names the file."""
    try:
        yield
    except OSError as error:
        raise LocalError(f"{path}: {error.strerror or type(error).__name__}") from None
