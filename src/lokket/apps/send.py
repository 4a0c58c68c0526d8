"""send: one message out. Loads little, so that with a daemon it is done quickly."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Final

from lokket.apps import output
from lokket.apps.session import Session, text_argument
from lokket.apps.visible import visible
from lokket.client.client import Client
from lokket.client.happenings import Happening, NotReached
from lokket.client.late import late
from lokket.errors import LocalError

if TYPE_CHECKING:
    import typer

    from lokket.apps import command, options
else:  # the quick way does without them
    typer, command, options = late("typer"), late("lokket.apps.command"), late("lokket.apps.options")

_SENT_WAIT_S: Final = 10.0
_DELIVERED_WAIT_S: Final = 3.0


def register(app: typer.Typer) -> None:
    command.command(app, "send")(send)


async def send(
    session: Session,
    petname: options.Petname,
    words: Annotated[
        list[str], typer.Argument(metavar="TEXT…", help="The message; '-' reads it from standard input.")
    ],
    *,
    wait: Annotated[
        str,
        typer.Option(
            help="'queued': it is on this disk. 'sent': on the relay's. 'delivered': their device has it."
        ),
    ] = "",
    timeout: Annotated[float, typer.Option(min=0.0, help="Seconds to wait; 0: as long as is usual.")] = 0.0,
    message_id: Annotated[
        str, typer.Option("--id", metavar="HEX", help="Of your own: the same again sends nothing twice.")
    ] = "",
) -> int:
    """Send a message and say what became of it."""
    if wait not in ("", "queued", "sent", "delivered"):
        raise LocalError("--wait is 'queued', 'sent' or 'delivered'")
    mid = _message_id(message_id)
    text = text_argument(" ".join(words))
    async with await session.open() as client:
        if not client.is_contact(petname):
            await client.catch_up(timeout or _SENT_WAIT_S)  # who took our invite may wait at the relay
        mid = await client.send(petname, text, mid=mid)
        state, trouble = "queued", ""
        if wait != "queued":
            state, trouble = await _progress(client, mid, wait, timeout)
        if state == "queued" != wait:
            trouble = trouble or await _trouble(client)
    session.out.record("message", id=mid, petname=petname, state=state)
    who = visible(petname)
    match state:
        case "delivered":
            session.out.say("✓ delivered", "green")
        case "sent":
            session.out.say("✓ sent", "green")
            if wait != "sent":
                session.out.aside(f"The relay has it on disk; {who}'s device has not confirmed it yet.")
        case "queued" if wait == "queued":
            session.out.say("· queued")
        case "failed":
            raise LocalError("the message could not be sent: 'lokket doctor' says more")
        case _:
            raise NotReached(
                f"queued in the vault, not sent: {trouble or 'the relay did not answer in time'}; "
                "it goes out with the next command that reaches the relay, such as 'lokket listen'"
            )
    return output.OK if wait != "delivered" or state == "delivered" else output.NOT_REACHED


async def _progress(client: Client, mid: bytes, wait: str, timeout_s: float) -> tuple[str, str]:
    """How far it came, and what the relay said of it when that was nowhere."""
    async with client.listening() as queue:
        state = await client.wait_state(mid, "sent", timeout_s=timeout_s or _SENT_WAIT_S)
        if state == "sent" and wait != "sent":
            state = await client.wait_state(mid, "delivered", timeout_s=timeout_s or _DELIVERED_WAIT_S)
        await client.finish(1.0)
        return state, _refusal(queue, mid)


def _refusal(queue: asyncio.Queue[Happening], mid: bytes) -> str:
    """The last thing that was said of it."""
    sentence = ""
    while not queue.empty():
        happening = queue.get_nowait()
        if getattr(happening, "mid", b"") == mid:
            sentence = getattr(happening, "sentence", "")
    return sentence


def _message_id(text: str) -> bytes:
    try:
        mid = bytes.fromhex(text)
    except ValueError:
        mid = b"?"
    if len(mid) not in (0, 16):
        raise LocalError("--id is 32 hex digits, made at random")
    return mid


async def _trouble(client: Client) -> str:
    """Why the relay is not there, in its own words."""
    try:
        await client.wait_online(0.5)
    except LocalError as error:
        return str(error)
    return ""
