"""Starting and ending the daemon from another process. Knows nothing of commands."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lokket.apps.output import NO_VAULT, VaultTrouble
from lokket.client.late import late
from lokket.client.rpc import place, remote
from lokket.errors import LocalError

if TYPE_CHECKING:
    from lokket.client import lock, vault, vault_key
else:
    lock, vault = late("lokket.client.lock"), late("lokket.client.vault")
    vault_key = late("lokket.client.vault_key")

LOG: Final = "daemon.log"
_START_WAIT_S: Final = 30.0
_STOP_WAIT_S: Final = 15.0
_LOOK_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Profile:
    """Whose daemon, and its way to the relay."""

    home: Path
    name: str
    folder: Path
    allow_plaintext: bool
    ca: Path | None

    @property
    def command(self) -> list[str]:
        """This program, for this profile."""
        line = [sys.executable, "-m", "lokket.apps.entry", "--home", str(self.home), "--profile", self.name]
        if self.allow_plaintext:
            line.append("--allow-plaintext")
        if self.ca is not None:
            line += ["--ca", str(self.ca)]
        return line


def start(profile: Profile, ask_passphrase: Callable[[], str], idle_s: float) -> bool:
    """There is a daemon when this returns; whether it was started now. VaultTrouble, LocalError: it ended.

    What it says goes to a log beside the vault; the passphrase, where there is one, through a pipe.
    """
    if not place.has_sockets():
        raise LocalError(place.NO_SOCKETS)
    if place.is_served(profile.folder):
        return False
    arguments = [*profile.command, "daemon", "run", "--idle", str(idle_s)]
    passphrase_fd = _passphrase(profile.folder, ask_passphrase)
    if passphrase_fd is not None:
        arguments += ["--passphrase-fd", str(passphrase_fd)]
    try:
        child = _spawn(arguments, profile.folder, passphrase_fd)
    finally:
        if passphrase_fd is not None:
            os.close(passphrase_fd)
    give_up_s = time.monotonic() + _START_WAIT_S
    while not place.is_served(profile.folder):
        if child.poll() is not None:
            kind = VaultTrouble if child.returncode == NO_VAULT else LocalError
            raise kind(_last_line(profile.folder / LOG))
        if time.monotonic() > give_up_s:
            child.terminate()
            raise LocalError(f"the daemon did not start in {_START_WAIT_S:.0f} s: see {profile.folder / LOG}")
        time.sleep(_LOOK_S)
    return True


def _passphrase(folder: Path, ask: Callable[[], str]) -> int | None:
    """A descriptor that gives it once. A pipe holds as much as a passphrase may have."""
    if vault_key.kind_of(folder) != "passphrase":
        return None
    text = ask()
    reading, writing = os.pipe()
    os.write(writing, text.encode() + b"\n")
    os.close(writing)
    return reading


def _spawn(arguments: list[str], folder: Path, passphrase_fd: int | None) -> subprocess.Popen[bytes]:
    log = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        return subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=() if passphrase_fd is None else (passphrase_fd,),
            start_new_session=True,
            cwd=folder,
        )
    finally:
        os.close(log)


def _last_line(log_path: Path) -> str:
    lines = log_path.read_text(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("lokket: ") if lines else "the daemon ended without a word"


def stop(folder: Path) -> int | None:
    """Until it has let go of the vault; its process id. None: there was none. LocalError: it goes on."""
    attached = remote.attach(folder)
    if attached is None:
        return None
    try:
        attached.stop_daemon()
    except remote.DaemonEnded:
        pass
    finally:
        attached.disconnect()
    lock.VaultLock(folder / vault.LOCK, wait_s=_STOP_WAIT_S).release()
    return attached.pid
