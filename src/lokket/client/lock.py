"""One process per vault: a lock of the operating system, which a crash releases."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path
from typing import Final

from lokket.errors import LocalError

_POLL_S: Final = 0.05


class VaultLock:
    """Held from construction to ``release``. The file names the holder, for whoever is refused."""

    def __init__(self, path: Path, *, wait_s: float = 0.0) -> None:
        """LocalError: another process holds it, still after ``wait_s``."""
        self._file: int | None = None
        file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        give_up_s = time.monotonic() + wait_s
        while not _try(file):
            if time.monotonic() >= give_up_s:
                holder = _holder(file)
                os.close(file)
                raise LocalError(
                    f"another lokket{holder} is using this vault: end it first, or choose another --profile"
                )
            time.sleep(_POLL_S)
        os.ftruncate(file, 0)
        os.pwrite(file, str(os.getpid()).encode(), 0)
        self._file = file

    def release(self) -> None:
        """Closing gives the lock back. The file stays: to delete it would race with the next holder."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.close(self._file)
            self._file = None  # the number may soon be another file's


def _holder(file: int) -> str:
    text = os.pread(file, 20, 0)
    return f" (process {text.decode()})" if text.isdigit() else ""


if sys.platform == "win32":
    import msvcrt

    _BYTE = 1 << 30  # far behind the text, so that others can read it

    def _try(file: int) -> bool:
        try:
            os.lseek(file, _BYTE, os.SEEK_SET)
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try(file: int) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True
