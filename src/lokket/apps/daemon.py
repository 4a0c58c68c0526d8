"""daemon: one process that keeps the vault open and the connection up, for all the others to use.

``lokket daemon`` stays in the foreground, as systemd wants it; ``start`` puts it in the background.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from lokket import __version__
from lokket.apps import background, output
from lokket.apps.command import command, default_command
from lokket.apps.output import VaultTrouble
from lokket.apps.session import Session
from lokket.client.late import late
from lokket.client.rpc import place, remote
from lokket.errors import LocalError

if TYPE_CHECKING:
    from lokket.client import vault_key
    from lokket.client.rpc import desk, server
else:
    vault_key = late("lokket.client.vault_key")
    desk, server = late("lokket.client.rpc.desk"), late("lokket.client.rpc.server")

UNIT: Final = """\
[Unit]
Description=lokket, profile {profile}
After=network-online.target

[Service]
ExecStart={command}
Restart=on-failure
RestartSec=5
UMask=0077
NoNewPrivileges=yes
LimitCORE=0

[Install]
WantedBy=default.target
"""

Idle = Annotated[
    float, typer.Option("--idle", min=0.0, metavar="SECONDS", help="End after so long without a caller.")
]


def register(daemon_app: typer.Typer) -> None:
    default_command(daemon_app, _run_for_ever)
    command(daemon_app, "run")(run)
    command(daemon_app, "start")(start)
    command(daemon_app, "stop")(stop)
    command(daemon_app, "status")(status)
    command(daemon_app, "install-unit")(install_unit)


async def _run_for_ever(session: Session) -> int:
    """Keep the vault open and the connection up, and let other commands and programs use them."""
    return await run(session)


async def run(session: Session, idle: Idle = 0.0) -> int:
    """Stay in the foreground until it is told to stop: what 'lokket daemon' does."""
    if not place.has_sockets():
        raise LocalError(place.NO_SOCKETS)
    attached = remote.attach(session.folder)
    if attached is not None:
        await attached.close()
        raise VaultTrouble(f"a daemon serves this profile already (process {attached.pid})")
    try:
        client = await session.open_vault()
    except LocalError as error:
        raise VaultTrouble(str(error)) from None
    async with client:
        client.me()  # a vault without an account has nothing to serve
        service = server.Service(client, desk.About(__version__, time.time_ns() // 1_000_000), idle_s=idle)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, service.stop.set)
        listener = place.listen(session.folder)
        try:
            session.out.record("daemon", pid=os.getpid(), socket=str(place.socket_path(session.folder)))
            session.out.aside(f"Serving the profile {session.profile!r}. Ctrl-C ends it.")
            await service.run(listener)
        finally:
            # Before the vault is let go: from then on the name is the next daemon's.
            place.socket_path(session.folder).unlink(missing_ok=True)
    if service.failure:
        raise VaultTrouble(service.failure)
    return output.OK


async def start(session: Session, idle: Idle = 0.0) -> int:
    """Start the daemon in the background, unless it is there."""
    begun = background.start(session.as_profile(), session.ask_passphrase, idle)
    attached = remote.attach(session.folder)
    if attached is None:
        raise LocalError(f"the daemon ended at once: {session.folder / background.LOG} may say why")
    await attached.close()
    session.out.record("daemon", pid=attached.pid, started=begun)
    word = "runs" if begun else "was running already"
    session.out.say(f"The daemon {word} (process {attached.pid}).")
    return output.OK


async def stop(session: Session) -> int:
    """End the daemon. What waits to be sent stays in the vault; what comes waits at the relay."""
    pid = background.stop(session.folder)
    session.out.record("daemon-stopped", pid=pid)
    session.out.say("No daemon was running." if pid is None else f"The daemon (process {pid}) has ended.")
    return output.OK


async def status(session: Session) -> int:
    """Whether a daemon runs, and what it has to do. Ends with 1 when there is none."""
    attached = remote.attach(session.folder)
    if attached is None:
        session.out.record("daemon-status", running=False)
        session.out.say("No daemon runs for this profile: lokket daemon start")
        return output.FAILED
    async with attached:
        found = attached.status()
    session.out.record("daemon-status", running=True, pid=attached.pid, **found)
    relay = "connected" if found["online"] else "not connected"
    session.out.say(
        f"The daemon runs (process {attached.pid}), {relay}; messages to send: {found['queued']}."
    )
    session.out.say(f"Programs connected, this one included: {found['callers']}.")
    for name, behind in found["cursors"].items():
        session.out.say(f"Messages waiting for {name!r}: {behind}.")
    return output.OK


async def install_unit(
    session: Session,
    show: Annotated[bool, typer.Option("--print", help="Only print it.")] = False,
) -> int:
    """Write a systemd user unit, so that the daemon runs whenever you are logged in."""
    if not sys.platform.startswith("linux"):
        raise LocalError("systemd is Linux's: start 'lokket daemon' by what this system has for that")
    kind = vault_key.kind_of(session.folder)  # LocalError: no vault
    escaped = [_escaped(part) for part in [*session.as_profile().command, "daemon", "run"]]
    unit = UNIT.format(profile=session.profile, command=" ".join(escaped))
    name = f"lokket-{session.profile}.service"
    if show:
        print(unit, end="")
        return output.OK
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    path = Path(base) / "systemd" / "user" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(unit)
    session.out.record("unit", path=str(path))
    session.out.say(f"{path} is written. Start it, now and at each login:")
    session.out.say(f"    systemctl --user daemon-reload && systemctl --user enable --now {name}", "bold")
    if kind == "passphrase":
        session.out.aside(
            "A passphrase guards this vault, and nobody types it for systemd: "
            "'lokket passphrase change --keyring', or 'lokket daemon start' after each login."
        )
    return output.OK


def _escaped(part: str) -> str:
    """For ExecStart=: systemd expands % and $ (systemd.service, "Command lines")."""
    return shlex.quote(part.replace("%", "%%").replace("$", "$$"))
