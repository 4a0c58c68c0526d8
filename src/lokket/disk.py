"""SQLite's write-ahead log, written out once more as it is, so that all that is read from it is on the disk.

After an fsync that failed, the kernel may call pages clean which never reached the disk, and a later fsync
says "done" of them (Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020).
SQLite reads such frames as committed. When the power goes while they are folded into the database, that is
corrupt: the log that would repair it is not on the disk. Bytes that are written anew are really synced.

Before any connection is open: closing a file gives back every lock that the process holds on it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import apsw

_PIECE_BYTES: Final = 64 * 1024  # SQLite writes no more at once than 128 KiB
PLAIN_VFS: Final = "win32" if sys.platform == "win32" else "unix"  # that which no cipher stands before


def write_log_anew(database: Path, vfs: str = PLAIN_VFS) -> None:
    """Where there is a log. apsw.Error, OSError: the disk fails; nothing in the log has changed."""
    log = database.with_name(database.name + "-wal")
    if not log.exists() or not log.stat().st_size:
        return
    file = apsw.VFSFile(vfs, str(log), [apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_WAL, 0])
    try:
        size = file.xFileSize()
        for start in range(0, size, _PIECE_BYTES):
            file.xWrite(file.xRead(min(_PIECE_BYTES, size - start), start), start)
        file.xSync(apsw.SQLITE_SYNC_FULL)
    finally:
        file.xClose()
