"""The command line: which commands there are. What they do is in the modules beside, loaded as needed."""

from __future__ import annotations

import importlib
from typing import Any, Final

import typer

from lokket.apps.command import command, default_command
from lokket.apps.session import Session

# Module: the commands it has at the top, and the groups.
_ROOMS: Final = {
    "demo": ("demo",),
    "relay": ("serve", "relay"),
    "operator": ("relay",),
    "account": ("join", "invite", "whoami"),
    "people": ("contacts", "verify", "block", "unblock"),
    "devices": ("device", "recover"),
    "send": ("send",),
    "talk": ("listen", "chat", "history"),
    "on": ("on",),
    "daemon": ("daemon",),
    "backups": ("backup", "export", "import"),
    "keys": ("passphrase", "key", "account"),
    "doctor": ("doctor",),
}
_GROUPS: Final = {
    "contacts": "Who you talk to.",
    "device": "Your own devices.",
    "backup": "Encrypted backups.",
    "on": "What happens to messages that come.",
    "daemon": "One process that keeps the vault open, for all the others to use.",
    "passphrase": "What guards the vault.",
    "key": "This device's keys.",
    "account": "The account itself.",
    "relay": "For who runs a relay.",
}
_BARE: Final = frozenset({"contacts", "device", "daemon"})  # groups whose bare name does something
# What each module's ``register`` is given beside the app.
_GIVEN: Final = {
    "relay": ("", "relay"),
    "operator": ("relay",),
    "people": ("", "contacts"),
    "devices": ("", "device"),
    "on": ("on",),
    "daemon": ("daemon",),
    "backups": ("", "backup"),
    "keys": ("passphrase", "key", "account"),
}


def build(wanted: str = "") -> typer.Typer:
    """The whole application, or as much of it as the command ``wanted`` needs."""
    app = typer.Typer(
        name="lokket",
        help="End-to-end encrypted, post-quantum messages, on a relay you own.",
        epilog="'lokket --version' says which one this is.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    default_command(app, None)
    rooms = [room for room, commands in _ROOMS.items() if wanted in commands] or list(_ROOMS)
    groups: dict[str, typer.Typer] = {"": app}
    for room in rooms:
        for name in _GIVEN.get(room, ("",)):
            if name not in groups:
                groups[name] = _group(name)
        if room == "demo":
            command(app, "demo")(demo)
            continue
        register: Any = importlib.import_module(f"lokket.apps.{room}").register
        register(*(groups[name] for name in _GIVEN.get(room, ("",))))
    for name, group in groups.items():
        if name:
            app.add_typer(group, name=name)
    return app


async def demo(session: Session) -> int:
    """A relay, two people and a first message on this machine, step by step; then you type."""
    from lokket.apps.demo import show  # noqa: PLC0415 (brings a relay along)

    return await show(session)


def _group(name: str) -> typer.Typer:
    return typer.Typer(help=_GROUPS[name], rich_markup_mode=None, no_args_is_help=name not in _BARE)


def run(arguments: list[str]) -> int:
    """The exit code. Usage errors are typer's: one sentence, code 2."""
    try:
        build(arguments[0] if arguments else "")(arguments, prog_name="lokket")
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else 1
    return 0
