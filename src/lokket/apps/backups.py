"""backup, export, import: what a person has, outside the vault and back again."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer

from lokket.apps import output
from lokket.apps.command import command, default_command
from lokket.apps.options import Timeout
from lokket.apps.output import Output, clock
from lokket.apps.session import Session, read_passphrase, text_argument
from lokket.apps.typed import new_secret, secret
from lokket.client import backup, relay_backups
from lokket.client import export as exports
from lokket.client.backup import ArchiveFile, Made, Restored
from lokket.client.client import Client
from lokket.client.happenings import NotReached
from lokket.client.rehearsal import verify as rehearse
from lokket.client.vault import DATABASE
from lokket.engine import backups, events
from lokket.engine.records import BackupState
from lokket.errors import LocalError
from lokket.protocol.backup import read_backup_code, unlock
from lokket.system import SystemEntropy, now_ms

T = TypeVar("T")

_SETTLE_S: Final = 10.0
_FETCH_S: Final = 60.0

File = Annotated[
    Path | None, typer.Argument(metavar="[FILE]", help="The backup; none with --relay.", show_default=False)
]
AtRelay = Annotated[bool, typer.Option("--relay", help="The place is your relay, and no file.")]
Code = Annotated[str, typer.Option(help="The backup's code; '-' reads it from standard input.")]
ByPassphrase = Annotated[
    bool, typer.Option("--backup-passphrase", help="Open it by its passphrase, typed, not by its code.")
]
PassphraseFd = Annotated[
    int | None,
    typer.Option("--backup-passphrase-fd", help="Read the backup's passphrase from this descriptor."),
]


def register(app: typer.Typer, backup_app: typer.Typer) -> None:
    default_command(backup_app, None)
    command(backup_app, "create")(create)
    command(backup_app, "verify")(verify)
    command(backup_app, "restore")(restore)
    command(backup_app, "auto")(auto)
    command(app, "export")(export)
    command(app, "import")(take_in)


# --- out ---


async def create(
    session: Session,
    target: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE|FOLDER]", help="Where it is to be.", show_default=False),
    ] = None,
    *,
    at_relay: AtRelay = False,
    by_passphrase: Annotated[
        bool,
        typer.Option("--backup-passphrase", help="A passphrase opens it, too: weaker than the code alone."),
    ] = False,
    backup_fd: PassphraseFd = None,
    new_key: Annotated[
        bool, typer.Option("--new-key", help="A new code from here on; the old one opens the old backups.")
    ] = False,
    timeout: Timeout = 60.0,
) -> int:
    """Write an encrypted backup: messages and contacts, never the keys of sessions or of the account."""
    _one_place(target, at_relay)
    passphrase = _new_passphrase(backup_fd) if by_passphrase or backup_fd is not None else ""
    async with await session.open(online=at_relay) as client:
        chosen = await backup.choose_key(client, client.entropy, passphrase=passphrase, fresh=new_key)
        _show_code(session.out, chosen.code)
        if passphrase:
            session.out.aside(
                "The passphrase opens this backup as well. A thief of the file can try passphrases for as "
                "long as they like; nobody can try codes."
            )
        if target is not None:
            made = await backup.create(client, target.expanduser(), client.entropy)
        else:
            progress = _Progress(session.out, "sent")
            made = await relay_backups.store(client, session.folder, now_ms() // 1000, progress, timeout)
    _say_made(session.out, made, chosen.code, at_relay=at_relay)
    return output.OK


async def auto(
    session: Session,
    folder: Annotated[
        str, typer.Argument(metavar="[FOLDER]", help="Where daily backups go; none: make one if it is due.")
    ] = "",
    *,
    at_relay: AtRelay = False,
    off: Annotated[bool, typer.Option("--off", help="No more automatic backups.")] = False,
) -> int:
    """A backup every day, the last three kept: while lokket listens, and whenever this command is run."""
    if sum((bool(folder), at_relay, off)) > 1:
        raise LocalError("give one of them: a folder, --relay, or --off")
    out = session.out
    async with await session.open(online=False) as client:
        code = ""
        if off:
            await client.perform(events.BackupDaily(""))
        elif folder or at_relay:
            place = str(Path(folder).expanduser().absolute()) if folder else ""
            if place and not Path(place).is_dir():
                raise LocalError(f"there is no folder {place}: make it first")
            code = (await backup.choose_key(client, client.entropy)).code
            _show_code(out, code)
            await client.perform(events.BackupDaily(place, at_relay=at_relay))
        made, known = await _daily(client, session.folder)
    at_relay = known is not None and known.at_relay
    if made is not None:
        _say_made(out, made, code, at_relay=at_relay)
    elif known is None or not (known.folder or at_relay):
        out.record("backup-auto", folder=None, relay=False)
        out.say("There are no automatic backups: lokket backup auto FOLDER, or --relay")
    else:
        out.record("backup-auto", folder=known.folder or None, relay=at_relay, written_s=known.written_s)
        where = known.folder or "your relay"
        out.say(f"Not due: the last one was written {clock(known.written_s * 1000)} to {where}.")
    return output.OK


async def _daily(client: Client, folder: Path) -> tuple[Made | None, BackupState | None]:
    """Where the person wants them; what is known of backups afterwards."""
    now_s = now_ms() // 1000
    known = client.read(backups.state)
    if known is not None and known.at_relay:
        client.go_online(client.me().origin)
        made = await relay_backups.daily(client, folder, now_s)
    else:
        made = await backup.daily(client, client.entropy, now_s)
    return made, client.read(backups.state)


def _one_place(path: Path | None, at_relay: bool) -> None:
    if (path is None) != at_relay:
        raise LocalError("name a file, or say --relay: one of them")


class _Progress:
    """Of a file on its way: a line for every tenth of it."""

    def __init__(self, out: Output, verb: str) -> None:
        self._out = out
        self._verb = verb
        self._tenth = -1

    def __call__(self, done: int, size: int) -> None:
        tenth = done * 10 // max(size, 1)
        if tenth != self._tenth:
            self._tenth = tenth
            self._out.record("transfer", done_bytes=done, size_bytes=size)
            self._out.aside(f"{done / 1024:.0f} of {size / 1024:.0f} KiB {self._verb}")


def _show_code(out: Output, code: str) -> None:
    if not code:
        return
    groups = code.split("-")
    out.say()
    out.say("The code of your backups, shown this once. It stays in this vault, and nowhere else:")
    for start in range(0, len(groups), 7):
        out.say("    " + "-".join(groups[start : start + 7]), "bold")
    out.say("Write it on paper: without it no backup can be opened. It is not your recovery code.")
    out.say()


def _say_made(out: Output, made: Made, code: str, *, at_relay: bool = False) -> None:
    out.record(
        "backup",
        path=None if at_relay else str(made.path),
        relay=at_relay,
        counter=made.counter,
        contacts=made.contacts,
        messages=made.messages,
        size_bytes=made.size_bytes,
        code=code or None,
    )
    where, place = ("at your relay", "--relay") if at_relay else (f"in {made.path}", str(made.path))
    out.say(
        f"{made.messages} messages and {made.contacts} contacts {where} "
        f"({made.size_bytes / 1024:.0f} KiB). Is it good? lokket backup verify {place}"
    )


# --- in ---


async def verify(
    session: Session,
    path: File = None,
    *,
    at_relay: AtRelay = False,
    code: Code = "",
    by_passphrase: ByPassphrase = False,
    backup_fd: PassphraseFd = None,
    timeout: Timeout = 60.0,
) -> int:
    """Restore a backup for real, into a vault that is thrown away, and count what came back."""
    _one_place(path, at_relay)
    out = session.out
    if path is None:
        async with await session.open() as client:
            file = await _fetched(session, client, timeout)
    else:
        file = ArchiveFile(path.expanduser())
    key = await _key(session, file, code, by_passphrase=by_passphrase, backup_fd=backup_fd)
    out.aside(_about(file))
    verified = await _used_up(at_relay, file, rehearse(file, key, SystemEntropy()))
    out.record(
        "backup-verified",
        path=None if at_relay else str(path),
        relay=at_relay,
        counter=file.header.counter,
        created_s=file.header.created_s,
        genesis_hash=file.header.genesis_hash,
        contacts=verified.contacts,
        messages=verified.messages,
    )
    out.say(f"✓ {verified.messages} messages and {verified.contacts} contacts came back.", "green")
    return output.OK


async def _fetched(session: Session, client: Client, timeout_s: float) -> ArchiveFile:
    return await relay_backups.fetch(client, session.folder, _Progress(session.out, "fetched"), timeout_s)


async def _used_up(at_relay: bool, file: ArchiveFile, work: Coroutine[Any, Any, T]) -> T:
    """What was fetched for this goes when it was used; when it did not hold, it must be fetched anew."""
    try:
        return await work
    finally:
        if at_relay:
            file.path.unlink(missing_ok=True)


async def restore(
    session: Session,
    path: File = None,
    *,
    at_relay: AtRelay = False,
    code: Code = "",
    by_passphrase: ByPassphrase = False,
    backup_fd: PassphraseFd = None,
    older: Annotated[
        bool, typer.Option("--older", help="Take it although a newer one of this account is known.")
    ] = False,
    other_account: Annotated[
        bool, typer.Option("--other-account", help="Take another account's messages into this one.")
    ] = False,
    timeout: Timeout = 15.0,
) -> int:
    """Merge a backup into this vault. The account itself comes back by 'lokket recover', or by linking."""
    _one_place(path, at_relay)
    out = session.out
    async with await session.open() as client:
        if path is None:
            file = await _fetched(session, client, max(timeout, _FETCH_S))
        else:
            file = ArchiveFile(path.expanduser())
        key = await _key(session, file, code, by_passphrase=by_passphrase, backup_fd=backup_fd, client=client)
        out.aside(_about(file))
        online = await _is_online(client, timeout)
        work = backup.restore(client, file, key, older=older, other_account=other_account)
        done = await _used_up(at_relay, file, work)
        if online:
            await client.settle(min(timeout, _SETTLE_S))
    _say_restored(out, done, counter=file.header.counter, created_s=file.header.created_s)
    return output.OK


async def _is_online(client: Client, timeout_s: float) -> bool:
    """It is worth a little waiting: what contacts' lists became meanwhile is then known at once."""
    try:
        await client.wait_online(timeout_s)
    except (NotReached, LocalError):
        return False
    return True


def _about(file: ArchiveFile) -> str:
    header = file.header
    made = clock(header.created_s * 1000)
    return f"A backup of account {header.genesis_hash.hex()[:16]}…, made {made}, number {header.counter}."


def _say_restored(out: Output, done: Restored, **fields: object) -> None:
    out.record(
        "restored",
        contacts=done.contacts,
        messages=done.messages,
        known=done.known,
        refused=done.refused,
        **fields,
    )
    out.say(f"{done.messages} messages and {done.contacts} contacts are new here; {done.known} were known.")
    if done.refused:
        out.say(f"{done.refused} did not hold and were left out.", "yellow")
    if done.contacts:
        out.aside("Nobody is verified through a backup: compare the numbers again, lokket verify PETNAME")


async def _key(
    session: Session,
    file: ArchiveFile,
    code: str,
    *,
    by_passphrase: bool,
    backup_fd: int | None,
    client: Client | None = None,
) -> bytes:
    """By code or passphrase if one is given, else this vault's own key, else typed. LocalError: none fits."""
    if code:
        return read_backup_code(text_argument(code))
    if backup_fd is not None:
        return await asyncio.to_thread(unlock, file.header, read_passphrase(backup_fd))
    if by_passphrase:
        return await asyncio.to_thread(unlock, file.header, secret("The backup's passphrase: "))
    own = await _own_key(session, client)
    if own and file.opens_with(own):
        return own
    if not sys.stdin.isatty():
        raise LocalError("the key of this backup is not in this vault: give --code, or its passphrase")
    return read_backup_code(secret("The backup's code: "))


async def _own_key(session: Session, client: Client | None) -> bytes:
    """The key of this vault's backups; empty: there is no such vault, or it made none."""
    if client is None:
        if not (session.folder / DATABASE).exists():
            return b""
        async with await session.open(online=False) as opened:
            known = opened.read(backups.state)
    else:
        known = client.read(backups.state)
    return known.key if known is not None else b""


def _new_passphrase(descriptor: int | None) -> str:
    if descriptor is not None:
        return read_passphrase(descriptor)
    return new_secret("A passphrase for the backups: ")


# --- plain text ---


async def export(
    session: Session,
    path: Annotated[Path, typer.Argument(metavar="FILE.jsonl")],
    contact: Annotated[str, typer.Option(help="Only what was said with this contact.")] = "",
) -> int:
    """Write everything in plain text, one JSON object per line, for your own tools."""
    async with await session.open(online=False) as client:
        done = await exports.export(client, path.expanduser(), now_ms() // 1000, petname=contact)
    out = session.out
    out.record("exported", path=str(path), contacts=done.contacts, messages=done.messages, chain=done.chain)
    out.say(f"{done.messages} messages and {done.contacts} contacts in {path}, readable by whoever has it.")
    out.say(f"Its last chain, which tells it from every other: {done.chain.hex()}", "dim")
    return output.OK


async def take_in(
    session: Session, path: Annotated[Path, typer.Argument(metavar="FILE.jsonl")], timeout: Timeout = 15.0
) -> int:
    """Merge an export into this vault, if no line of it was cut out or changed."""
    async with await session.open() as client:
        online = await _is_online(client, timeout)
        done, judged = await exports.take_in_export(client, path.expanduser())
        if online:
            await client.settle(min(timeout, _SETTLE_S))
    session.out.aside(f"The export holds together; its last chain: {judged.chain.hex()}")
    _say_restored(session.out, done, chain=judged.chain)
    return output.OK
