"""serve and relay explain: running a relay, and reading what it holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lokket.apps import output
from lokket.apps.session import Session, command
from lokket.apps.visible import visible
from lokket.relay.config import DEFAULT_PORT, RelayConfig

if TYPE_CHECKING:
    from lokket.relay.app import Running
    from lokket.relay.explain import Explanation

Data = Annotated[
    Path | None, typer.Option("--data", help="The relay's folder; by default 'relay' in lokket's home.")
]


def register(app: typer.Typer, relay_app: typer.Typer) -> None:
    command(app, "serve")(serve)
    command(relay_app, "explain")(explain)


async def serve(
    session: Session,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = DEFAULT_PORT,
    host: Annotated[
        str, typer.Option(help="An address of this machine; TLS is a proxy's work.")
    ] = "127.0.0.1",
    data: Data = None,
    origin: Annotated[
        str, typer.Option(help="The address that clients use, such as wss://relay.example.org.")
    ] = "",
) -> int:
    """Run a relay on this machine until it is interrupted."""
    from lokket.relay import app as relay_app_module  # noqa: PLC0415 (a web server: slow to load)

    folder = (data or session.home / "relay").expanduser().absolute()
    config = RelayConfig(origin=origin, data=folder, host=host, port=port)

    def ready(running: Running) -> None:
        link = None if running.invite is None else running.invite.link()
        out = session.out
        out.record("relay", origin=running.origin, port=running.port, data=str(folder), invite=link)
        out.say(f"A relay at {running.origin}, its data in {folder}", "bold")
        if link is None:
            out.say("It has members; each of them can invite others: lokket invite")
        else:
            out.say("It has no member yet. The first one joins with this link, once, within a day:")
            out.say(f"    lokket join '{link}' --name YOU")
        out.aside("It keeps ciphertext only, until it is delivered. Ctrl-C stops it.")

    await relay_app_module.serve(config, ready)
    return output.OK


async def explain(
    session: Session,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A name, or 8 or more hex digits of an account.")
    ],
    data: Data = None,
) -> int:
    """Every row that the relay holds on an account, and what it does not hold."""
    from lokket.relay.explain import explain_data  # noqa: PLC0415

    folder = (data or session.home / "relay").expanduser().absolute()
    found = await explain_data(folder, name)
    _print(session, found)
    return output.OK


def _print(session: Session, found: Explanation) -> None:
    out = session.out
    out.record(
        "account",
        name=found.name,
        genesis_hash=found.genesis_hash,
        rows=len(found.rows),
        bytes=found.size_bytes,
    )
    out.say(
        f"{visible(found.name or 'an account without a name')}: "
        f"{len(found.rows)} rows, {found.size_bytes} bytes",
        "bold",
    )
    for table, about in found.tables.items():
        rows = [row for row in found.rows if row.table == table]
        out.say()
        out.say(f"{table}: {about}", "bold")
        for row in rows:
            out.record(
                "row",
                table=table,
                bytes=row.size_bytes,
                columns={column.name: column.shown for column in row.columns},
            )
            for column in row.columns:
                size = f"{column.size_bytes} B" if column.size_bytes else ""
                out.say(f"    {column.name:26}{visible(column.shown):32}{size:>10}")
            if row is not rows[-1]:
                out.say()
    out.say()
    out.say("Not held:", "bold")
    for sentence in found.not_held:
        out.record("not-held", sentence=sentence)
        out.say(f"  - {sentence}")
