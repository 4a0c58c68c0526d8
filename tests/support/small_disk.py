"""A disk of a few megabytes that really gets full: a tmpfs, where this process may mount one."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_PIECE = bytes(1024 * 1024)


class SmallDisk:
    """``folder`` is the whole of it. What fills it is one file, of which pieces can be taken away again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    @property
    def free(self) -> int:
        return shutil.disk_usage(self.folder).free

    def fill(self, leave_bytes: int = 0) -> None:
        """Until so many bytes are free, to the page; 0: until the system says that there is no room."""
        with self._filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while (surplus := self.free - leave_bytes) > 0:
                file.write(_PIECE[:surplus])

    def empty(self) -> None:
        self._filler.unlink()


@contextlib.contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[SmallDisk]:
    """Skips the test where nothing can be mounted. End every process that has files on it first."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("only root may mount a small disk, on Linux")
    folder.mkdir(parents=True)
    arguments = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=0700", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(arguments, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no command 'mount' here")
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
