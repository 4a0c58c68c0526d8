"""What every command shares: its options, the vault it opens, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lokket import limits
from lokket.apps import output
from lokket.apps.output import Output, VaultTrouble
from lokket.apps.typed import interruptible, new_secret, secret
from lokket.client.client import Client
from lokket.client.happenings import NotReached
from lokket.client.late import late
from lokket.client.rpc import remote
from lokket.errors import LocalError, LokketError

if TYPE_CHECKING:
    from lokket.apps import background
    from lokket.client import direct, transport, vault, vault_key
else:
    background = late("lokket.apps.background")
    direct, transport = late("lokket.client.direct"), late("lokket.client.transport")
    vault, vault_key = late("lokket.client.vault"), late("lokket.client.vault_key")

DEFAULT_PROFILE: Final = "default"
_PROFILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LOCK_WAIT_S: Final = 3.0  # a short command may be on its way out
_AUTO_IDLE_S: Final = 900.0  # a daemon that nobody asked for by name ends so long after its last caller


@dataclass(frozen=True, slots=True)
class Session:
    """One run of one command."""

    out: Output
    home: Path
    profile: str
    passphrase_fd: int | None
    allow_plaintext: bool
    ca: Path | None = None
    daemon: str = ""  # LOKKET_DAEMON: auto starts one, off uses none

    @property
    def folder(self) -> Path:
        """LocalError: no name for a profile."""
        if not _PROFILE.fullmatch(self.profile):
            raise LocalError("a profile's name has letters, digits, dots, dashes and underscores")
        return self.home / "profiles" / self.profile

    async def open(self, *, online: bool = True) -> Client:
        """The profile's client: through its daemon, else with the vault itself. VaultTrouble: neither."""
        try:
            if self.daemon == "auto":
                background.start(self.as_profile(), self.ask_passphrase, _AUTO_IDLE_S)
            return self.attached() or await self._vault_or_late_daemon(online=online)
        except LocalError as error:
            raise VaultTrouble(str(error)) from None

    async def _vault_or_late_daemon(self, *, online: bool) -> Client:
        try:
            return await self.open_vault(online=online)
        except LocalError:
            attached = self.attached()  # to one that was starting, and has the vault now
            if attached is None:
                raise
            return attached

    def attached(self) -> Client | None:
        """Through the daemon; None: there is none, or none is wanted."""
        return None if self.daemon == "off" else remote.attach(self.folder)

    def as_profile(self) -> background.Profile:
        return background.Profile(self.home, self.profile, self.folder, self.allow_plaintext, self.ca)

    async def open_vault(self, *, online: bool = True) -> direct.DirectClient:
        """The vault itself. LocalError: it cannot be opened."""
        key = vault_key.load_key(self.folder, self.ask_passphrase)
        return await direct.DirectClient.begin(
            self.folder,
            key,
            online=online,
            allow_plaintext=self.allow_plaintext,
            ca=self.ca,
            wait_s=_LOCK_WAIT_S,
            generation=vault_key.generation_of(self.folder),
        )

    async def create(self, protection: vault_key.Protection) -> direct.DirectClient:
        """A new vault in the profile's folder. VaultTrouble: there is one already."""
        if (self.folder / vault.DATABASE).exists():
            raise VaultTrouble(
                f"the profile {self.profile!r} has an account already: choose another --profile for a new one"
            )
        if self.ca is not None:
            transport.trusting(self.ca)  # before anything is made
        from lokket.system import SystemEntropy  # noqa: PLC0415 (loads every primitive)

        key = vault_key.make_key(self.folder, protection, SystemEntropy())
        return await direct.DirectClient.begin(
            self.folder, key, create=True, online=False, allow_plaintext=self.allow_plaintext, ca=self.ca
        )

    def discard(self) -> None:
        """Remove a vault whose account did not come about."""
        vault_key.forget_key(self.folder)
        for pattern in ("vault.*", "daemon.*"):
            for path in self.folder.glob(pattern):
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def ask_passphrase(self) -> str:
        """From --passphrase-fd, else typed. LocalError: neither is possible."""
        if self.passphrase_fd is not None:
            return read_passphrase(self.passphrase_fd)
        if not sys.stdin.isatty():
            raise LocalError(
                "this vault has a passphrase, and nobody to type it is here: give --passphrase-fd N"
            )
        return secret("Passphrase: ")

    def new_passphrase(self) -> str:
        """Typed twice, or from --passphrase-fd."""
        if self.passphrase_fd is not None:
            return read_passphrase(self.passphrase_fd)
        return self.type_passphrase()

    def type_passphrase(self) -> str:
        """A new one for the vault, twice. LocalError: they differ."""
        return new_secret("A passphrase for the vault on this machine: ")


def session_of(
    *,
    as_json: bool = False,
    home: Path | None = None,
    profile: str = "",
    passphrase_fd: int | None = None,
    allow_plaintext: bool = False,
    ca: Path | None = None,
) -> Session:
    """Of the options that all commands have."""
    return Session(
        out=Output(as_json=as_json),
        home=(home or default_home()).expanduser().absolute(),
        profile=profile or DEFAULT_PROFILE,
        passphrase_fd=passphrase_fd,
        allow_plaintext=allow_plaintext,
        ca=ca.expanduser().absolute() if ca else None,
        daemon=os.environ.get("LOKKET_DAEMON", ""),
    )


def default_home() -> Path:
    import platformdirs  # noqa: PLC0415

    return Path(platformdirs.user_data_dir("lokket", appauthor=False))


def perform(session: Session, work: Callable[[], Coroutine[Any, Any, int | None]]) -> int:
    """Run it to its exit code. Whatever goes wrong ends in one sentence, never in a traceback."""
    no_core_dumps()
    try:
        return asyncio.run(_until_told_to_stop(work)) or output.OK
    except (KeyboardInterrupt, asyncio.CancelledError):
        return output.INTERRUPTED
    except BrokenPipeError:
        # Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return output.NO_READER
    except NotReached as error:
        return _end(session, str(error), output.NOT_REACHED)
    except VaultTrouble as error:
        return _end(session, str(error), output.NO_VAULT)
    except LokketError as error:
        of_the_vault = isinstance(error, vault.VaultDamaged | vault.VaultFailing)
        return _end(session, str(error), output.NO_VAULT if of_the_vault else output.FAILED)
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        return _end(session, f"the system refused{where}: {error.strerror}", output.FAILED)


def _end(session: Session, sentence: str, code: int) -> int:
    session.out.problem(sentence, code)
    return code


async def _until_told_to_stop(work: Callable[[], Coroutine[Any, Any, int | None]]) -> int | None:
    """SIGTERM ends as an interrupt does: the vault is closed."""
    task = asyncio.current_task()
    assert task is not None
    with contextlib.suppress(NotImplementedError):  # Windows
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await work()


def no_core_dumps() -> None:
    """A core file would hold keys."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource  # noqa: PLC0415

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def read_passphrase(descriptor: int) -> str:
    """The first line of an open descriptor. LocalError: it cannot be read, or is no text."""
    try:
        with interruptible(), os.fdopen(descriptor, "rb", closefd=False) as stream:
            line = stream.readline(limits.PASSPHRASE_MAX_BYTES + 1)
        text = line.rstrip(b"\r\n").decode()
    except OSError:
        raise LocalError(f"descriptor {descriptor} cannot be read: open it, as in 'N< file'") from None
    except UnicodeDecodeError:
        raise LocalError("the passphrase is not UTF-8 text") from None
    if len(line) > limits.PASSPHRASE_MAX_BYTES:
        raise LocalError(f"the passphrase has more than {limits.PASSPHRASE_MAX_BYTES} bytes")
    return text


def text_argument(words: str) -> str:
    """``-`` means standard input, whole. LocalError: it is not text, too long, or nothing."""
    if words == "-":
        words = _standard_input()
    elif not words.strip():
        raise LocalError("an argument is empty: is a variable of the shell not set?")
    return words


def _standard_input() -> str:
    """What a program before us in a pipe failed to write is no message, and no code that was scanned."""
    with interruptible():
        given = sys.stdin.buffer.read(limits.CONTENT_MAX_BYTES + 1)
    if len(given) > limits.CONTENT_MAX_BYTES:
        raise LocalError(f"standard input has more than {limits.CONTENT_MAX_BYTES} bytes")
    try:
        text = given.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise LocalError("standard input is not UTF-8 text") from None
    if not text.strip():
        raise LocalError("standard input is empty")
    return text
