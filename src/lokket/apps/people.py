"""contacts and verify: who one talks to, and how sure one is of it."""

from __future__ import annotations

from typing import Annotated

import typer

from lokket.apps import output
from lokket.apps.account import say_number
from lokket.apps.command import command, default_command
from lokket.apps.options import Petname, Timeout
from lokket.apps.session import Session, text_argument
from lokket.apps.visible import visible
from lokket.engine import events
from lokket.engine.answers import ContactView

_LINK = "lokket:"
_CLASSICAL = "classical"


def register(app: typer.Typer, contacts_app: typer.Typer) -> None:
    default_command(contacts_app, list_contacts)
    command(contacts_app, "list")(list_contacts)
    command(contacts_app, "add")(add)
    command(contacts_app, "accept")(accept)
    command(contacts_app, "rename")(rename)
    command(app, "verify")(verify)
    command(app, "block")(block)
    command(app, "unblock")(unblock)


async def list_contacts(session: Session) -> int:
    """All of them, with how sure you can be of each."""
    async with await session.open(online=False) as client:
        contacts = client.contacts()
    for contact in contacts:
        session.out.record("contact", **_fields(contact))
        about = (
            "" if contact.name in (None, contact.petname) else f"  calls themselves {visible(contact.name)}"
        )
        unproven = "  classical sender authentication" if contact.sender_authentication == _CLASSICAL else ""
        blocked = f"  BLOCKED: {contact.blocked}" if contact.blocked else ""
        session.out.say(f"{visible(contact.petname):20}  {contact.level:10}{about}{unproven}{blocked}")
    if not contacts:
        session.out.aside(
            "No contacts yet: 'lokket invite' makes a link, 'lokket contacts add NAME' looks one up."
        )
    return output.OK


async def add(
    session: Session,
    petname: Petname,
    who: Annotated[
        str | None,
        typer.Argument(
            metavar="[LINK|NAME]", help="An invite ('-': standard input), or their name at the relay."
        ),
    ] = None,
    timeout: Timeout = 15.0,
) -> int:
    """Add somebody by invite, or by the name they took at your relay."""
    who = petname if who is None else text_argument(who).strip()
    by_link = who.startswith(_LINK)
    async with await session.open() as client:
        await client.wait_online(timeout)
        added = await client.add_contact(
            petname, link=who if by_link else "", name="" if by_link else who, timeout_s=timeout
        )
        await client.settle(timeout)
        contact = client.contact(added.petname)
    session.out.record("contact", **_fields(contact), safety_number=added.safety_number)
    session.out.say(f"{visible(petname)} is a contact now. Your safety number with {visible(petname)}:")
    say_number(session.out, added.safety_number)
    if not by_link:
        session.out.say(
            f"The relay said whose name this is. Compare the number with theirs, then: "
            f"lokket verify {visible(petname)} --confirm"
        )
    return output.OK


async def accept(session: Session, petname: Petname) -> int:
    """Take a stranger's request, or go on with a contact who has a new account key."""
    async with await session.open(online=False) as client:
        await client.accept(petname)
        contact = client.contact(petname)
    session.out.record("contact", **_fields(contact))
    session.out.say(f"{visible(petname)} is accepted. To be sure who it is: lokket verify {visible(petname)}")
    return output.OK


async def block(session: Session, petname: Petname) -> int:
    """Hear nothing more from somebody: their mail is dropped unshown, and they are told nothing."""
    return await _set_blocked(session, petname, blocked=True)


async def unblock(session: Session, petname: Petname) -> int:
    """Hear from them again; what was dropped meanwhile stays dropped."""
    return await _set_blocked(session, petname, blocked=False)


async def _set_blocked(session: Session, petname: str, *, blocked: bool) -> int:
    async with await session.open(online=False) as client:
        await client.perform(events.BlockContact(petname) if blocked else events.UnblockContact(petname))
        contact = client.contact(petname)
    session.out.record("contact", **_fields(contact))
    session.out.say(f"{visible(petname)} is {'' if blocked else 'no longer '}blocked.")
    return output.OK


async def rename(
    session: Session, petname: Petname, new: Annotated[str, typer.Argument(metavar="NEW_PETNAME")]
) -> int:
    """Call somebody otherwise; nobody else sees petnames."""
    async with await session.open(online=False) as client:
        await client.rename(petname, new)
        contact = client.contact(new)
    session.out.record("contact", **_fields(contact))
    session.out.say(f"{visible(petname)} is {visible(new)} now.")
    return output.OK


async def verify(
    session: Session,
    petname: Petname,
    code: Annotated[
        str | None, typer.Option(help="What their screen shows, scanned ('-': standard input).")
    ] = None,
    confirm: Annotated[
        bool, typer.Option("--confirm", help="The numbers are the same: I compared them.")
    ] = False,
) -> int:
    """Show the safety number and the code to scan; with --code or --confirm, mark them verified."""
    out = session.out
    async with await session.open(online=False) as client:
        if code is not None or confirm:
            await client.verify(petname, None if code is None else text_argument(code).strip())
        contact = client.contact(petname)
        number, own_code = client.safety_number(petname), client.verify_code(petname)
    out.record("contact", **_fields(contact), safety_number=number, code=own_code)
    who = visible(petname)
    if code is not None or confirm:
        out.say(f"{who} is verified.", "green")
        _say_authentication(out, contact)
        return output.OK
    out.say(f"Your safety number with {who} ({contact.level}):")
    say_number(out, number)
    out.say(
        f"Read it to each other, in person or by voice. The same on both sides? lokket verify {who} --confirm"
    )
    _say_authentication(out, contact)
    out.qr(own_code)
    out.say(f"Or let {who} scan this code: lokket verify YOU --code CODE", "dim")
    out.say(own_code, "dim")
    return output.OK


def _say_authentication(out: output.Output, contact: ContactView) -> None:
    """In plain words, whether a quantum computer could be behind what arrives."""
    who = visible(contact.petname)
    if contact.sender_authentication == _CLASSICAL:
        out.say(
            f"Classical sender authentication: {who}'s device has not proven itself yet. Until it does, "
            f"which takes nobody's help, somebody with a quantum computer could pose as {who}."
        )
    elif contact.sender_authentication == "post-quantum":
        out.say(
            f"A quantum computer does not help to pose as {who}: {who}'s device has proven itself.", "dim"
        )


def _fields(contact: ContactView) -> dict[str, object]:
    return {
        "petname": contact.petname,
        "name": contact.name,
        "genesis_hash": contact.genesis_hash,
        "level": contact.level,
        "blocked": contact.blocked,
        "devices": contact.devices,
        "unread": contact.unread,
        "sender_authentication": contact.sender_authentication,
    }
