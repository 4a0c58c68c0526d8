"""join, invite, whoami: one's own account."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Annotated

import typer

from lokket.apps import output
from lokket.apps.command import command
from lokket.apps.options import Timeout
from lokket.apps.output import Output
from lokket.apps.session import Session, text_argument
from lokket.apps.visible import visible
from lokket.client import vault_key
from lokket.client.direct import DirectClient
from lokket.client.happenings import NotReached
from lokket.engine import views
from lokket.errors import LocalError, LokketError
from lokket.protocol.identity import Invite, grouped

_SETTLE_S = 10.0


def register(app: typer.Typer) -> None:
    command(app, "join")(join)
    command(app, "invite")(invite)
    command(app, "whoami")(whoami)


async def join(
    session: Session,
    link: Annotated[str, typer.Argument(metavar="LINK", help="An invite; '-' reads it from standard input.")],
    *,
    name: Annotated[str | None, typer.Option(help="What others may find you by on this relay.")] = None,
    inviter: Annotated[str, typer.Option(metavar="PETNAME", help="Your own name for who invited you.")] = "",
    ask_passphrase: Annotated[
        bool, typer.Option("--passphrase", help="Guard the vault by a passphrase, not the keyring.")
    ] = False,
    bare: Annotated[
        bool,
        typer.Option("--insecure-no-passphrase", help="Keep the vault's key in a plain file beside it."),
    ] = False,
    timeout: Timeout = 30.0,
) -> int:
    """Create an account and its vault through an invite."""
    out = session.out
    link = text_argument(link).strip()
    parsed = Invite.parse(link)
    guard = protection(session, ask_passphrase=ask_passphrase, bare=bare)
    client = await session.create(guard)
    codes: list[str] = []
    keep = False
    try:
        try:
            created = await client.create_account(link, name, on_code=codes.append, timeout_s=timeout)
        except (NotReached, asyncio.CancelledError) as error:
            if codes:  # the vault has the account from here on, and its code nowhere
                keep = True
                show_code(out, codes[0])
                out.record("account", registered=False, recovery_code=codes[0], sentence=str(error))
                out.aside(
                    "The account is made, but the relay has not answered: it registers with the next command."
                )
            raise
        keep = True
        return await _joined(
            session, client, parsed, created.recovery_code, wanted=(name, inviter), timeout_s=timeout
        )
    except (LokketError, asyncio.CancelledError):
        if not keep:
            await client.close()
            session.discard()
        raise
    finally:
        await client.close()


async def _joined(
    session: Session,
    client: DirectClient,
    invite: Invite,
    code: str,
    *,
    wanted: tuple[str | None, str],
    timeout_s: float,
) -> int:
    """``wanted``: the name of the account, and the petname of the inviter."""
    out, me = session.out, client.me()
    where = client.read(views.account_code)
    if not out.as_json:
        out.say(f"Welcome{f', {me.name}' if me.name else ''}. Your account is {me.account_id}.", "bold")
        show_code(out, code)
        out.say("To use it you need this line as well; it is no secret, and 'lokket whoami' shows it again:")
        out.say(f"    {where}")
        out.say()
    name, petname = wanted
    if name is not None and me.name is None:
        out.aside(f"The name {visible(name)} is taken; your account has no name.", "yellow")
    inviter = shown = None
    try:
        if invite.genesis_hash is not None:
            inviter = await client.wait_contact(invite.genesis_hash, timeout_s)
            if petname:
                try:
                    await client.rename(inviter.petname, petname)
                    inviter = client.contact(petname)
                except LocalError as error:  # a bad petname is no reason to hide the code
                    out.aside(str(error), "yellow")
        await client.settle(min(timeout_s, _SETTLE_S))
        number = "" if inviter is None else client.safety_number(inviter.petname)
        if inviter is not None:
            shown = {"petname": inviter.petname, "level": inviter.level, "safety_number": number}
    finally:  # a program, too, is shown the code, whatever comes in between
        out.record(
            "account",
            registered=True,
            account=me.account_id,
            genesis_hash=me.genesis_hash,
            name=me.name,
            relay=me.origin,
            recovery_code=code,
            code=where,
            inviter=shown,
        )
    if inviter is not None:
        who = visible(inviter.petname)
        out.say(f"{who} invited you and is your first contact. Your safety number with {who}:")
        say_number(out, number)
        out.say(f'It should be the same on their side. Write to them: lokket send {who} "hi"')
    elif not out.as_json:
        out.say("Invite somebody: lokket invite")
    return output.OK


def show_code(out: Output, code: str) -> None:
    """The one time that a recovery code is seen."""
    groups = code.split("-")
    out.say()
    out.say("Your recovery code, shown this once and stored nowhere:")
    for start in range(0, len(groups), 7):
        out.say("    " + "-".join(groups[start : start + 7]), "bold")
    out.say("Write it on paper: it is the only way to keep this account if you lose this device.")
    out.say()


def say_number(out: Output, number: str) -> None:
    groups = grouped(number).split()
    for start in range(0, len(groups), 4):
        out.say("    " + " ".join(groups[start : start + 4]), "bold cyan")


def protection(session: Session, *, ask_passphrase: bool, bare: bool) -> vault_key.Protection:
    """What guards the vault's key, decided before anything is made. LocalError: nothing can."""
    if bare:
        return vault_key.InPlainFile()
    if ask_passphrase or session.passphrase_fd is not None:
        if session.passphrase_fd is None and not sys.stdin.isatty():
            raise LocalError("nobody is here to type a passphrase: give --passphrase-fd N")
        return vault_key.UnderPassphrase(session.new_passphrase())
    if vault_key.keyring_works():
        return vault_key.InKeyring()
    if sys.stdin.isatty():
        session.out.aside("There is no keyring on this machine, so a passphrase guards your vault.")
        return vault_key.UnderPassphrase(session.new_passphrase())
    raise LocalError(
        "there is no keyring here and nobody to type a passphrase: "
        "give --passphrase-fd N, or --insecure-no-passphrase to do without"
    )


async def invite(
    session: Session,
    qr: Annotated[bool, typer.Option("--qr/--no-qr", help="Draw the code on a terminal.")] = True,
    timeout: Timeout = 15.0,
) -> int:
    """Make a link for one person, good for a day. Whoever opens it becomes your contact."""
    async with await session.open() as client:
        made = await client.invite(timeout)
    until = time.strftime("%Y-%m-%d %H:%M", time.localtime(made.expires_s))
    session.out.record("invite", link=made.link, expires_s=made.expires_s)
    session.out.say(made.link)
    if qr:
        session.out.qr(made.link)
    session.out.aside(
        f"For one person, until {until}. Send it over a channel you trust: who has it can be your contact. "
        "They run: lokket join 'LINK'  (or, with an account: lokket contacts add NAME 'LINK')"
    )
    return output.OK


async def whoami(session: Session) -> int:
    """Your account and this device."""
    async with await session.open(online=False) as client:
        me, code = client.me(), client.read(views.account_code)
    out = session.out
    out.record(
        "whoami",
        code=code,
        account=me.account_id,
        genesis_hash=me.genesis_hash,
        name=me.name,
        relay=me.origin,
        relay_key=me.relay_key,
        registered=me.registered,
        admin=me.admin,
        device=me.device_number,
        devices=[
            {"number": device.number, "hash": device.device_hash.hex(), "name": device.name or None}
            for device in me.devices
        ],
    )
    out.say(f"name      {visible(me.name) if me.name else '(none)'}")
    out.say(f"account   {me.account_id}")
    out.say(f"hash      {me.genesis_hash.hex()}", "dim")
    role = "holds the account key" if me.admin else "does not hold the account key"
    out.say(f"device    {me.device_number} of {len(me.devices)}, {role}")
    out.say(f"relay     {visible(me.origin)}{'' if me.registered else '  (not registered there yet)'}")
    out.say(f"vault     {session.folder}", "dim")
    out.say(f"recovery  {code}", "dim")
    return output.OK
