"""How many transactions a vault has certainly seen: a number beside it, written after each COMMIT.

A log that was deleted or damaged takes its last transactions with it, and SQLite opens what is left without a
word; keys would then be used twice. The vault counts its transactions inside; fewer than the mark says, and
something is gone. The mark is never synced: after a power cut it may be an older one, never a later one than
the vault's. It says nothing against who can write it, or puts back the whole folder: the relay's last
login nonce does (docs/identity.md, "Restored or cloned vault").
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from lokket.crypto.primitives import equal, hmac_sha256

MARK: Final = "vault.mark"
_LABEL: Final = b"lokket vault mark"
_NUMBER_BYTES: Final = 8
_BYTES: Final = _NUMBER_BYTES + 32  # the number and its tag under the vault's key: it is another's, or torn


class Mark:
    """Nothing here fails: without a mark the vault is believed."""

    def __init__(self, path: Path, key: bytes) -> None:
        self._key = key
        self._file: int | None = None
        with contextlib.suppress(OSError):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)

    def __repr__(self) -> str:
        return "Mark(…)"

    def read(self) -> int:
        """0: there is none that holds."""
        if self._file is None:
            return 0
        with contextlib.suppress(OSError):
            os.lseek(self._file, 0, os.SEEK_SET)
            data = os.read(self._file, _BYTES)
            if len(data) == _BYTES and equal(data[_NUMBER_BYTES:], self._tag(data[:_NUMBER_BYTES])):
                return int.from_bytes(data[:_NUMBER_BYTES], "big")
        return 0

    def write(self, number: int) -> None:
        if self._file is None:
            return
        data = number.to_bytes(_NUMBER_BYTES, "big")
        with contextlib.suppress(OSError):
            os.lseek(self._file, 0, os.SEEK_SET)
            os.write(self._file, data + self._tag(data))

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _tag(self, number: bytes) -> bytes:
        return hmac_sha256(self._key, _LABEL + number)
