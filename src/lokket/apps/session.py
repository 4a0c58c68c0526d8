"""What every command shares: its options, the vault it opens, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import inspect
import os
import re
import signal
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from lokket import limits
from lokket.apps import output
from lokket.apps.output import Output
from lokket.client import vault_key
from lokket.client.client import Client, NotReached
from lokket.client.transport import trusting
from lokket.client.vault import DATABASE
from lokket.errors import LocalError, LokketError
from lokket.system import SystemEntropy

DEFAULT_PROFILE: Final = "default"
_PROFILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LOCK_WAIT_S: Final = 3.0  # a short command may be on its way out

Json = Annotated[bool, typer.Option("--json", help="One JSON object per line.", rich_help_panel="Everywhere")]
Home = Annotated[
    Path | None,
    typer.Option(
        "--home",
        help="Where profiles and the relay's data are.",
        envvar="LOKKET_HOME",
        rich_help_panel="Everywhere",
    ),
]
Profile = Annotated[
    str,
    typer.Option(
        "--profile",
        help="Which account of this machine.",
        envvar="LOKKET_PROFILE",
        rich_help_panel="Everywhere",
    ),
]
PassphraseFd = Annotated[
    int | None,
    typer.Option(
        "--passphrase-fd", help="Read the passphrase from this descriptor.", rich_help_panel="Everywhere"
    ),
]
AllowPlaintext = Annotated[
    bool,
    typer.Option("--allow-plaintext", help="Talk to a relay without TLS.", rich_help_panel="Everywhere"),
]
Ca = Annotated[
    Path | None,
    typer.Option(
        "--ca",
        help="The one authority (PEM) that may vouch for the relay, instead of the system's.",
        envvar="LOKKET_CA",
        rich_help_panel="Everywhere",
    ),
]
_COMMON: Final = (
    ("as_json", Json, False),
    ("home", Home, None),
    ("profile", Profile, ""),
    ("passphrase_fd", PassphraseFd, None),
    ("allow_plaintext", AllowPlaintext, False),
    ("ca", Ca, None),
)


class VaultTrouble(LocalError):
    """The vault could not be opened."""


@dataclass(frozen=True, slots=True)
class Session:
    """One run of one command."""

    out: Output
    home: Path
    profile: str
    passphrase_fd: int | None
    allow_plaintext: bool
    ca: Path | None = None

    @property
    def folder(self) -> Path:
        """LocalError: no name for a profile."""
        if not _PROFILE.fullmatch(self.profile):
            raise LocalError("a profile's name has letters, digits, dots, dashes and underscores")
        return self.home / "profiles" / self.profile

    async def open(self, *, online: bool = True) -> Client:
        """The profile's client. VaultTrouble: it cannot be opened."""
        try:
            key = vault_key.load_key(self.folder, self.ask_passphrase)
            return await Client.open(
                self.folder,
                key,
                online=online,
                allow_plaintext=self.allow_plaintext,
                ca=self.ca,
                wait_s=_LOCK_WAIT_S,
            )
        except LocalError as error:
            raise VaultTrouble(str(error)) from None

    async def create(self, protection: vault_key.Protection) -> Client:
        """A new vault in the profile's folder. VaultTrouble: there is one already."""
        if (self.folder / DATABASE).exists():
            raise VaultTrouble(
                f"the profile {self.profile!r} has an account already: choose another --profile for a new one"
            )
        if self.ca is not None:
            trusting(self.ca)  # before anything is made
        key = vault_key.make_key(self.folder, protection, SystemEntropy())
        return await Client.open(
            self.folder, key, create=True, online=False, allow_plaintext=self.allow_plaintext, ca=self.ca
        )

    def discard(self) -> None:
        """Remove a vault whose account did not come about."""
        vault_key.forget_key(self.folder)
        for path in self.folder.glob("vault.*"):
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
        return getpass.getpass("Passphrase: ")

    def new_passphrase(self) -> str:
        """Typed twice, or from --passphrase-fd."""
        if self.passphrase_fd is not None:
            return read_passphrase(self.passphrase_fd)
        return self.type_passphrase()

    def type_passphrase(self) -> str:
        """A new one for the vault, twice. LocalError: they differ."""
        first = getpass.getpass("A passphrase for the vault on this machine: ")
        if getpass.getpass("The same again: ") != first:
            raise LocalError("the two passphrases differ: try again")
        return first


def default_home() -> Path:
    import platformdirs  # noqa: PLC0415

    return Path(platformdirs.user_data_dir("lokket", appauthor=False))


Command = Callable[..., Coroutine[Any, Any, int | None]]


def command(group: typer.Typer, name: str | None = None, **details: Any) -> Callable[[Command], Command]:
    """Register ``async def f(session, …)``: the common options become the session."""

    def register(function: Command) -> Command:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]

        def run(**given: Any) -> None:
            session = _session(given)
            raise typer.Exit(perform(session, lambda: function(session, **given)))

        run.__name__ = function.__name__
        run.__doc__ = function.__doc__
        run.__signature__ = _signature(own)  # type: ignore[attr-defined]
        group.command(name, **details)(run)
        return function

    return register


def default_command(group: typer.Typer, function: Command | None) -> None:
    """What the group's bare name does; the common options may also stand between group and subcommand."""

    def run(**given: Any) -> None:
        context: typer.Context = given["ctx"]
        if context.invoked_subcommand is None and function is not None:
            session = _session(given)
            raise typer.Exit(perform(session, lambda: function(session)))
        context.obj = _merged(given)

    run.__signature__ = _signature([])  # type: ignore[attr-defined]
    group.callback(invoke_without_command=function is not None)(run)


def _signature(own: list[inspect.Parameter]) -> inspect.Signature:
    """The command's own parameters between the context and the common options."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    context = inspect.Parameter("ctx", keyword, annotation=typer.Context)
    common = [
        inspect.Parameter(option, keyword, default=default, annotation=annotation)
        for option, annotation, default in _COMMON
    ]
    return inspect.Signature([context, *(parameter.replace(kind=keyword) for parameter in own), *common])


def _merged(given: dict[str, Any]) -> dict[str, Any]:
    """The common options as given here, else as given before the command."""
    before = given.pop("ctx").obj or {}
    return {
        option: value if (value := given.pop(option)) != default else before.get(option, default)
        for option, _, default in _COMMON
    }


def _session(given: dict[str, Any]) -> Session:
    chosen = _merged(given)
    return Session(
        out=Output(as_json=chosen["as_json"]),
        home=(chosen["home"] or default_home()).expanduser().absolute(),
        profile=chosen["profile"] or DEFAULT_PROFILE,
        passphrase_fd=chosen["passphrase_fd"],
        allow_plaintext=chosen["allow_plaintext"],
        ca=chosen["ca"].expanduser().absolute() if chosen["ca"] else None,
    )


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
        return _end(session, str(error), output.FAILED)
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
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
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
    """``-`` means standard input, whole. LocalError: it is not text, or nothing."""
    if words != "-":
        return words
    try:
        text = sys.stdin.buffer.read(limits.CONTENT_MAX_BYTES + 2).decode()
    except UnicodeDecodeError:
        raise LocalError("standard input is not UTF-8 text") from None
    return text.removesuffix("\n").removesuffix("\r")
