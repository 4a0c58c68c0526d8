"""passphrase change, key refill, account delete: the vault's guard, its keys, its end."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from lokket.apps import background, output
from lokket.apps.command import command, default_command
from lokket.apps.options import Timeout
from lokket.apps.session import Session, read_passphrase
from lokket.apps.typed import typed_line
from lokket.apps.visible import visible
from lokket.client import vault_key
from lokket.client.client import outcome
from lokket.engine import events
from lokket.errors import LocalError
from lokket.system import SystemEntropy

_WORD = "delete"


def register(passphrase_app: typer.Typer, key_app: typer.Typer, account_app: typer.Typer) -> None:
    for group in (passphrase_app, key_app, account_app):
        default_command(group, None)
    command(passphrase_app, "change")(change)
    command(key_app, "refill")(refill)
    command(account_app, "delete")(delete)


async def change(
    session: Session,
    new_fd: Annotated[
        int | None, typer.Option("--new-passphrase-fd", help="Read the new passphrase from this descriptor.")
    ] = None,
    keyring: Annotated[bool, typer.Option("--keyring", help="Keep the key in the keyring instead.")] = False,
    bare: Annotated[
        bool, typer.Option("--insecure-no-passphrase", help="Keep the key in a plain file instead.")
    ] = False,
) -> int:
    """Guard the vault by another passphrase, by the keyring, or by nothing."""
    if keyring + bare + (new_fd is not None) > 1:
        raise LocalError("choose one: --new-passphrase-fd, --keyring or --insecure-no-passphrase")
    old: list[str] = []

    def ask_once() -> str:
        if not old:
            old.append(session.ask_passphrase())
        return old[0]

    vault_key.load_key(session.folder, ask_once)  # the old one first: a wrong one is told at once
    if keyring:
        guard: vault_key.Protection = vault_key.InKeyring()
    elif bare:
        guard = vault_key.InPlainFile()
    elif new_fd is not None:
        guard = vault_key.UnderPassphrase(read_passphrase(new_fd))
    elif sys.stdin.isatty():
        guard = vault_key.UnderPassphrase(session.type_passphrase())
    else:
        raise LocalError("nobody is here to type a passphrase: give --new-passphrase-fd N")
    vault_key.guard_anew(session.folder, ask_once, guard, SystemEntropy())
    kind = vault_key.kind_of(session.folder)
    session.out.record("passphrase", kind=kind)
    session.out.say(
        {
            "passphrase": "The new passphrase opens the vault; the old one no longer does.",
            "keyring": "The keyring opens the vault from now on.",
            "plain": "The key lies in a plain file beside the vault: whoever reads the folder reads it all.",
        }[kind]
    )
    session.out.aside("Copies of the vault's folder that were made before still open as they did then.")
    return output.OK


async def refill(session: Session, timeout: Timeout = 15.0) -> int:
    """Publish a new batch of prekeys: what others open their first message to you with."""
    async with await session.open() as client:
        await client.wait_online(timeout)
        published = await client.ask(
            events.RefillPrekeys(), outcome(events.PrekeysPublished, "prekeys"), timeout
        )
    session.out.record("prekeys", batch=published.number)
    session.out.say("✓ the relay has a new batch of prekeys", "green")
    return output.OK


async def delete(
    session: Session,
    yes: Annotated[
        bool, typer.Option("--yes-delete-everything", help="Do not ask: I know that there is no way back.")
    ] = False,
    only_here: Annotated[
        bool, typer.Option("--only-here", help="Destroy this vault; the relay keeps the account.")
    ] = False,
    timeout: Timeout = 30.0,
) -> int:
    """Delete the account at the relay, then this vault. There is no way back."""
    out = session.out
    async with await session.open(online=not only_here) as client:
        me = client.me()
        name = f" {visible(me.name)}" if me.name else ""
        out.aside(
            f"Account{name} ({me.account_id}), device {me.device_number}, "
            + ("in this vault alone" if only_here else f"at {visible(me.origin)}")
            + ": messages, contacts and keys are destroyed, and nothing brings them back."
        )
        if not yes:
            await _confirm()
        if not only_here:
            await client.delete_account(timeout)
    background.stop(session.folder)
    session.discard()
    out.record("deleted", account=me.account_id, at_relay=not only_here)
    out.say("The account is gone from the relay, and the vault from this machine." if not only_here else
            "The vault is gone from this machine.")  # fmt: skip
    if not only_here and me.name:
        out.aside("Its name rests for a year: nobody else can take it until then.")
    out.aside("Backups and exports lie where you put them. What others received is theirs.")
    return output.OK


async def _confirm() -> None:
    if not sys.stdin.isatty():
        raise LocalError("nobody is here to confirm: --yes-delete-everything, if that is what you want")
    print(f"Type '{_WORD}' to go on: ", end="", file=sys.stderr, flush=True)
    if (await typed_line()).strip() != _WORD:
        raise LocalError("nothing was deleted")
