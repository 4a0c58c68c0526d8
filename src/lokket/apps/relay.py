"""serve, relay check-config and relay explain: running a relay, and reading what it holds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lokket.apps import output
from lokket.apps.command import command, default_command
from lokket.apps.session import Session
from lokket.apps.visible import visible
from lokket.errors import LocalError
from lokket.relay.config import RelayConfig
from lokket.relay.settings import SETTINGS, load, shown
from lokket.system import now_ms

if TYPE_CHECKING:
    from lokket.relay.app import Running
    from lokket.relay.explain import Explanation

Data = Annotated[
    Path | None, typer.Option("--data", help="The relay's folder; by default 'relay' in lokket's home.")
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="Settings in TOML; LOKKET_RELAY_CONFIG names one, too.")
]


def register(app: typer.Typer, relay_app: typer.Typer) -> None:
    default_command(relay_app, None)
    command(app, "serve")(serve)
    command(relay_app, "check-config")(check_config)
    command(relay_app, "explain")(explain)


async def serve(
    session: Session,
    *,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="On 127.0.0.1; 0: any that is free.")
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Where it listens; off this machine with TLS alone."),
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", help="Certificate chain, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="Its key, PEM.")] = None,
    behind_proxy: Annotated[
        bool | None,
        typer.Option("--behind-proxy", help="A proxy with TLS stands in front; believe its X-Forwarded-For."),
    ] = None,
    data: Data = None,
    origin: Annotated[
        str | None, typer.Option(help="The address that clients use, such as wss://relay.example.org.")
    ] = None,
    config: ConfigFile = None,
) -> int:
    """Run a relay until it is interrupted."""
    from lokket.relay import app as relay_app_module  # noqa: PLC0415 (a web server: slow to load)

    if port is not None and listen is not None:
        raise LocalError("--port and --listen say the same thing: give one of them")
    given = {
        "listen": f"127.0.0.1:{port}" if port is not None else listen,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "behind_proxy": behind_proxy,
        "data": data,
        "origin": origin,
    }
    chosen = configured(session, config, given)

    def ready(running: Running) -> None:
        link = None if running.invite is None else running.invite.link()
        out = session.out
        out.record("relay", origin=running.origin, port=running.port, data=str(chosen.data), invite=link)
        out.say(f"A relay at {running.origin}, its data in {chosen.data}", "bold")
        if link is None:
            out.say("It has members; each of them can invite others: lokket invite")
        else:
            out.say("It has no member yet. The first one joins with this link, once, within a day:")
            out.say(f"    lokket join '{link}' --name YOU")
        out.aside("It keeps ciphertext only, until it is delivered. Ctrl-C stops it.")

    await relay_app_module.serve(chosen, ready)
    return output.OK


def configured(session: Session, file: Path | None, given: Mapping[str, object]) -> RelayConfig:
    """File, environment and command line together; the data folder has a default. LocalError."""
    settings = load(file, os.environ).with_given(given)
    found = settings.config(RelayConfig(data=session.home / "relay"))
    assert found.data is not None
    return replace(found, data=found.data.expanduser().absolute())


async def check_config(session: Session, config: ConfigFile = None) -> int:
    """Read the settings as 'serve' would, and say what is wrong with them."""
    from lokket.relay.checkup import checkup  # noqa: PLC0415

    settings = load(config, os.environ)
    chosen = configured(session, config, {})
    out = session.out
    for name, value in shown(chosen).items():
        source = settings.sources.get(name, "default")
        out.record("setting", name=name, value=value, source=source, about=SETTINGS[name].about)
        out.say(f"    {name:30}{visible(value):34}{'' if source == 'default' else visible(source)}")
    worst = output.OK
    for finding in checkup(chosen, now_ms() // 1000):
        out.record("finding", fatal=finding.fatal, sentence=finding.sentence)
        out.say(f"{'wrong' if finding.fatal else 'note'}: {visible(finding.sentence)}")
        worst = output.FAILED if finding.fatal else worst
    if worst == output.OK:
        out.say("A relay can be started with these settings.")
    return worst


async def explain(
    session: Session,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A name, or 8 or more hex digits of an account.")
    ],
    data: Data = None,
    config: ConfigFile = None,
) -> int:
    """Every row that the relay holds on an account, and what it does not hold."""
    from lokket.relay.explain import explain_data  # noqa: PLC0415

    chosen = configured(session, config, {"data": data})
    assert chosen.data is not None
    found = await explain_data(chosen.data, name)
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
