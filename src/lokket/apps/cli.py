"""The command line: which commands there are. What they do is in the modules beside."""

from __future__ import annotations

import sys

import typer

from lokket.apps import account, backups, devices, doctor, keys, operator, people, relay, talk
from lokket.apps.session import Session, command, default_command

app = typer.Typer(
    name="lokket",
    help="End-to-end encrypted, post-quantum messages, on a relay you own.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
contacts_app = typer.Typer(help="Who you talk to.", rich_markup_mode=None)
device_app = typer.Typer(help="Your own devices.", rich_markup_mode=None)
backup_app = typer.Typer(help="Encrypted backups.", rich_markup_mode=None, no_args_is_help=True)
passphrase_app = typer.Typer(help="What guards the vault.", rich_markup_mode=None, no_args_is_help=True)
key_app = typer.Typer(help="This device's keys.", rich_markup_mode=None, no_args_is_help=True)
account_app = typer.Typer(help="The account itself.", rich_markup_mode=None, no_args_is_help=True)
relay_app = typer.Typer(help="For who runs a relay.", rich_markup_mode=None, no_args_is_help=True)


default_command(app, None)
default_command(relay_app, None)


@command(app, "demo")
async def demo(session: Session) -> int:
    """A relay, two people and a first message on this machine, step by step; then you type."""
    from lokket.apps.demo import show  # noqa: PLC0415 (brings a relay along)

    return await show(session)


relay.register(app, relay_app)
operator.register(relay_app)
account.register(app)
people.register(app, contacts_app)
devices.register(app, device_app)
talk.register(app)
backups.register(app, backup_app)
keys.register(passphrase_app, key_app, account_app)
doctor.register(app)
app.add_typer(contacts_app, name="contacts")
app.add_typer(device_app, name="device")
app.add_typer(backup_app, name="backup")
app.add_typer(passphrase_app, name="passphrase")
app.add_typer(key_app, name="key")
app.add_typer(account_app, name="account")
app.add_typer(relay_app, name="relay")


def run(arguments: list[str]) -> int:
    """The exit code. Usage errors are typer's: one sentence, code 2."""
    try:
        app(arguments, prog_name="lokket")
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else 1
    finally:
        sys.stdout.flush()
    return 0
