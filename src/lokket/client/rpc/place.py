"""Where the daemon's socket is, and who is at its other end.

The folder is its owner's alone (0700), the socket too (0600), and both ends compare user ids where the
system tells them: who may open the socket has what who may open the vault has. No port is ever opened.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import sys
from pathlib import Path
from typing import Final

from lokket import limits
from lokket.errors import LocalError

SOCKET: Final = "daemon.sock"
_PATH_MAX_BYTES: Final = 103  # sun_path: 108 with Linux, 104 with macOS and the BSDs, a zero at the end
NO_SOCKETS: Final = (
    "this system's Python has no Unix sockets: there is no daemon here, every command opens the vault itself"
)


def has_sockets() -> bool:
    """asyncio has none on Windows."""
    return hasattr(socket, "AF_UNIX") and sys.platform != "win32"


def socket_path(folder: Path) -> Path:
    return folder / SOCKET


def fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= _PATH_MAX_BYTES


def listen(folder: Path) -> socket.socket:
    """A listening socket for its owner alone. Whoever calls this holds the vault: what is there is stale.

    LocalError: no such sockets here, or too long a path.
    """
    if not has_sockets():
        raise LocalError(NO_SOCKETS)
    path = socket_path(folder)
    if not fits(path):
        raise LocalError(f"the path {path} is too long for a socket: choose a shorter --home")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)  # from the first moment on 0600
    try:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        listener.bind(str(path))
        listener.listen(64)
    except OSError as error:
        listener.close()
        raise LocalError(f"cannot make the socket {path}: {error.strerror}") from None
    finally:
        os.umask(mask)
    listener.setblocking(False)
    return listener


def connect(folder: Path, wait_s: float) -> socket.socket | None:
    """None: nobody of ours listens there."""
    path = socket_path(folder)
    if not has_sockets() or not fits(path) or not is_own_socket(path):
        return None
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.settimeout(wait_s)
    try:
        made.connect(str(path))
    except OSError:  # the daemon was killed
        made.close()
        return None
    if not is_own_peer(made):
        made.close()
        return None
    return made


def is_served(folder: Path) -> bool:
    """Somebody of ours listens there."""
    connection = connect(folder, limits.RPC_HELLO_WAIT_S)
    if connection is not None:
        connection.close()
    return connection is not None


def is_own_socket(path: Path) -> bool:
    """A socket that this user made: nobody else's is spoken to."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISSOCK(found.st_mode) and found.st_uid == os.geteuid()


def is_own_peer(connection: socket.socket) -> bool:
    """Whether the other end is this user's. Where the system does not tell, the file's mode has decided."""
    user = peer_user(connection)
    return user is None or user == os.geteuid()


def peer_user(connection: socket.socket) -> int | None:
    """Its user id. None: the system does not tell."""
    try:
        if sys.platform.startswith("linux"):
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            return int(struct.unpack("iII", credentials)[1])  # struct ucred: pid, uid, gid
        if sys.platform == "darwin":
            credentials = connection.getsockopt(0, 1, 76)  # SOL_LOCAL, LOCAL_PEERCRED: struct xucred
            return int(struct.unpack_from("II", credentials)[1])  # version, uid
    except OSError:
        return -1  # asked and not told: nobody
    return None
