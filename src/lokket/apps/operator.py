"""relay users, invite, quota, ban, purge, stats, backup, restore: what an operator does to a relay."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lokket.apps import output
from lokket.apps.command import command
from lokket.apps.relay import ConfigFile, Data, configured
from lokket.apps.session import Session
from lokket.apps.visible import visible
from lokket.errors import LocalError
from lokket.relay import orders
from lokket.system import now_ms

Who = Annotated[str, typer.Argument(metavar="NAME", help="A name, or 8 or more hex digits of an account.")]
_HOUR_S = 3_600


def register(relay_app: typer.Typer) -> None:
    for function in (users, invite, quota, ban, purge, stats, backup, restore):
        command(relay_app, function.__name__)(function)


async def users(session: Session, data: Data = None, config: ConfigFile = None) -> int:
    """Every account: its name, devices, and what waits for it."""
    after = b""
    out = session.out
    while True:
        page = await _order(session, orders.ListUsers(after), data, config)
        if not after:
            out.say(
                f"{'account':18}{'name':34}{'devices':>8}{'mail':>8}{'bytes':>12}{'backups':>9}{'bytes':>12}",
                "bold",
            )
        for user in page["users"]:
            out.record("user", **user)
            out.say(
                f"{user['genesis_hash'][:16]:18}{visible(user['name'] or '-'):34}{user['devices']:8}"
                f"{user['mail']:8}{user['mail_bytes']:12}{user['blobs']:9}{user['blob_bytes']:12}{_ruling(user)}"
            )
        if not page["more"]:
            return output.OK
        after = bytes.fromhex(page["users"][-1]["genesis_hash"])


async def invite(
    session: Session,
    hours: Annotated[int, typer.Option(min=1, max=720, help="How long the link is good.")] = 24,
    data: Data = None,
    config: ConfigFile = None,
) -> int:
    """A link for one new member, from the relay itself: it brings no contact along."""
    made = await _order(session, orders.MakeInvite(hours * _HOUR_S), data, config)
    session.out.record("invite", **made)
    session.out.qr(made["link"])
    session.out.say(made["link"])
    return output.OK


async def quota(
    session: Session,
    name: Who,
    *,
    messages: Annotated[int | None, typer.Option(min=0, help="Waiting for one of its devices.")] = None,
    size: Annotated[
        int | None, typer.Option("--bytes", min=0, help="Waiting for one of its devices.")
    ] = None,
    backups: Annotated[
        int | None, typer.Option("--backup-bytes", min=0, help="Of its backups here, together.")
    ] = None,
    data: Data = None,
    config: ConfigFile = None,
) -> int:
    """What may wait for an account's devices, and be kept for it; without numbers: as for everyone."""
    done = await _order(session, orders.SetQuota(name, messages, size, backups), data, config)
    session.out.record("ruling", **done)
    session.out.say(f"{visible(name)}:{_ruling(done) or '  as for everyone'}")
    return output.OK


async def ban(
    session: Session,
    name: Who,
    *,
    lift: Annotated[bool, typer.Option("--lift", help="Let it in again.")] = False,
    data: Data = None,
    config: ConfigFile = None,
) -> int:
    """Let an account in no more. What it has stays, and mail to it waits as for anyone who is away."""
    done = await _order(session, orders.SetBan(name, not lift), data, config)
    session.out.record("ruling", **done)
    session.out.say(f"{visible(name)} is {'let in again' if lift else 'banned'}")
    return output.OK


async def purge(
    session: Session,
    name: Who,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="There is no way back.")] = False,
    data: Data = None,
    config: ConfigFile = None,
) -> int:
    """Delete an account with its devices, prekeys and waiting mail. Its name rests for a year."""
    if not yes:
        raise LocalError("a purged account cannot come back: give --yes if that is meant")
    done = await _order(session, orders.Purge(name), data, config)
    session.out.record("purged", **done)
    session.out.say(f"{visible(name)} is gone from this relay")
    return output.OK


async def stats(session: Session, data: Data = None, config: ConfigFile = None) -> int:
    """Sums over everything, and how the machine is."""
    found = await _order(session, orders.Stats(), data, config)
    session.out.record("stats", **found)
    for name, value in found.items():
        if name != "counters":
            session.out.say(f"    {name.replace('_', ' '):20}{visible(str(value))}")
    for name, value in found["counters"].items():
        session.out.say(f"    {visible(name):40}{value}")
    return output.OK


async def backup(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that is not there yet.")],
    data: Data = None,
    config: ConfigFile = None,
) -> int:
    """The relay's data and key in one file, while it runs. Keep it as safe as the relay itself."""
    from lokket.relay import backup as backups  # noqa: PLC0415

    made = backups.create(_folder(session, data, config), file.expanduser().absolute(), now_ms() // 1000)
    _say_backup(session, "backup", made)
    return output.OK


async def restore(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What 'relay backup' made.")],
    *,
    replace: Annotated[bool, typer.Option("--replace", help="Move the data that is there aside.")] = False,
    data: Data = None,
    config: ConfigFile = None,
) -> int:
    """Put a backup in place, with the relay stopped. Members send again what came after it."""
    from lokket.relay import backup as backups  # noqa: PLC0415

    folder = _folder(session, data, config)
    _say_backup(session, "restored", backups.restore(file.expanduser().absolute(), folder, replace=replace))
    session.out.aside("Start the relay: as its members connect, they bring back what it lost.")
    return output.OK


def _say_backup(session: Session, kind: str, made: Any) -> None:
    counts = made.counts
    session.out.record(
        kind,
        made_s=made.made_s,
        accounts=counts.accounts,
        devices=counts.devices,
        mail=counts.mail,
        bytes=made.size_bytes,
        schema=made.schema,
    )
    held = f"{counts.accounts} accounts, {counts.devices} devices, {counts.mail} envelopes"
    session.out.say(f"{held}; {made.size_bytes} bytes")


def _folder(session: Session, data: Path | None, config: Path | None) -> Path:
    chosen = configured(session, config, {"data": data}).data
    assert chosen is not None
    return chosen


async def _order(
    session: Session, order: orders.Order, data: Path | None, config: Path | None
) -> dict[str, Any]:
    from lokket.relay import app as relay_app  # noqa: PLC0415 (a web server: slow to load)

    return await relay_app.order(configured(session, config, {"data": data}), order)


def _ruling(row: dict[str, Any]) -> str:
    parts = ["banned"] if row["banned"] else []
    if row["count_max"] is not None:
        parts.append(f"at most {row['count_max']} messages waiting")
    if row["max_bytes"] is not None:
        parts.append(f"at most {row['max_bytes']} bytes waiting")
    if row["blobs_max_bytes"] is not None:
        parts.append(f"at most {row['blobs_max_bytes']} bytes of backups")
    return f"  {', '.join(parts)}" if parts else ""
