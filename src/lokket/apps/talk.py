"""send, listen, history: messages out, messages in, messages kept. ``chat`` is in its own module."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated, Any, Final

import typer

from lokket.apps import chat, output
from lokket.apps.output import Output, message_lines
from lokket.apps.people import Petname
from lokket.apps.session import Session, command, text_argument
from lokket.apps.visible import visible
from lokket.client.client import Client, NotReached
from lokket.client.driver import Happening, HungUp, Offline
from lokket.engine import events
from lokket.errors import LocalError

_SENT_WAIT_S: Final = 10.0
_DELIVERED_WAIT_S: Final = 3.0
_LINES_PER_FLUSH: Final = 64
MARKS: Final = {"queued": "  · queued", "sent": "  ✓", "delivered": "  ✓✓", "failed": "  ✗ not sent"}


def register(app: typer.Typer) -> None:
    command(app, "send")(send)
    command(app, "listen")(listen)
    command(app, "chat")(chat.chat)
    command(app, "history")(history)


async def send(
    session: Session,
    petname: Petname,
    words: Annotated[
        list[str], typer.Argument(metavar="TEXT…", help="The message; '-' reads it from standard input.")
    ],
    wait: Annotated[
        str, typer.Option(help="'sent': the relay has it on disk. 'delivered': their device has it.")
    ] = "",
    timeout: Annotated[float, typer.Option(min=0.0, help="Seconds to wait; 0: as long as is usual.")] = 0.0,
) -> int:
    """Send a message and say what became of it."""
    if wait not in ("", "sent", "delivered"):
        raise LocalError("--wait is 'sent' or 'delivered'")
    text = text_argument(" ".join(words))
    async with await session.open() as client:
        if petname not in {contact.petname for contact in client.contacts()}:
            await client.catch_up(timeout or _SENT_WAIT_S)  # who took our invite may wait at the relay
        mid = await client.send(petname, text)
        state = await client.wait_state(mid, "sent", timeout_s=timeout or _SENT_WAIT_S)
        if state == "sent" and wait != "sent":
            state = await client.wait_state(mid, "delivered", timeout_s=timeout or _DELIVERED_WAIT_S)
        await client.settle(1.0)
        trouble = "" if state != "queued" else await _trouble(client)
    session.out.record("message", id=mid, petname=petname, state=state)
    who = visible(petname)
    match state:
        case "delivered":
            session.out.say("✓ delivered", "green")
        case "sent":
            session.out.say("✓ sent", "green")
            if wait != "sent":
                session.out.aside(f"The relay has it on disk; {who}'s device has not confirmed it yet.")
        case "failed":
            raise LocalError("the message could not be sent: 'lokket doctor' says more")
        case _:
            raise NotReached(
                f"queued in the vault, not sent: {trouble or 'the relay did not answer in time'}; "
                "it goes out with the next command that reaches the relay, such as 'lokket listen'"
            )
    return output.OK if wait != "delivered" or state == "delivered" else output.NOT_REACHED


async def _trouble(client: Client) -> str:
    """Why the relay is not there, in its own words."""
    try:
        await client.wait_online(0.5)
    except LocalError as error:
        return str(error)
    return ""


async def listen(
    session: Session,
    count: Annotated[int, typer.Option(min=0, help="End after so many messages; 0: never.")] = 0,
    once: Annotated[bool, typer.Option("--once", help="Print what waits, then end.")] = False,
    timeout: Annotated[float, typer.Option(min=0.0, help="End after so many seconds; 0: never.")] = 0.0,
) -> int:
    """Print each message once, from the moment it is on this machine's disk.

    A message counts as read only when its line was handed to the system, so a crash in between prints it
    again rather than never; its id tells.
    """
    async with await session.open() as client:
        printer = _Printer(session.out, client, count)
        try:
            async with asyncio.timeout(timeout or None):
                await printer.run(once=once)
        except TimeoutError:
            return output.OK if not count else output.NOT_REACHED
    return output.OK


class _Printer:
    """Prints what waited, then what comes, and tells the vault what was printed."""

    def __init__(self, out: Output, client: Client, count: int) -> None:
        self._out = out
        self._client = client
        self._left = count or -1
        self._printed = 0  # the order of the last one

    async def run(self, *, once: bool) -> None:
        stream = self._client.events()
        coming: asyncio.Queue[Happening] = asyncio.Queue()

        async def pump() -> None:
            async for happening in stream:
                coming.put_nowait(happening)

        pumping = asyncio.create_task(pump())
        try:
            await asyncio.sleep(0)  # from here on nothing is missed
            await self._print(list(self._client.unhandled()))
            if once:
                await self._client.catch_up(_SENT_WAIT_S)
                await self._print(list(self._client.unhandled()))
                return
            while self._left:
                getting = asyncio.ensure_future(coming.get())
                await asyncio.wait({getting, pumping}, return_when=asyncio.FIRST_COMPLETED)
                if not getting.done():
                    getting.cancel()
                    await pumping  # raises what ended it
                    return
                batch = [getting.result()]
                while not coming.empty() and len(batch) < _LINES_PER_FLUSH:
                    batch.append(coming.get_nowait())
                await self._print(batch)
        finally:
            pumping.cancel()

    async def _print(self, batch: list[Any]) -> None:
        """Lines first, then the flush, then the vault learns of it."""
        lines: list[str] = []
        last = self._printed
        for happening in batch:
            if isinstance(happening, events.MessageShown):
                if happening.order <= last or not self._left:
                    continue
                last = happening.order
                self._left -= 1
            line = _line(self._out, happening)
            if line is not None:
                lines.append(line)
        if lines:
            await asyncio.to_thread(_write, "\n".join(lines) + "\n")
        if last > self._printed:
            self._printed = last
            await self._client.handled(last)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _line(out: Output, happening: Happening) -> str | None:
    match happening:
        case events.MessageShown():
            if out.as_json:
                return out.encoded("message", **_message_fields(happening))
            mark = "  (a stranger: lokket contacts accept NAME)" if happening.request else ""
            who = f"you to {happening.petname}" if happening.outgoing else happening.petname
            return message_lines(who, happening.text, happening.time_ms, mark)
        case events.TrustNotice():
            if out.as_json:
                return out.encoded(
                    "trust", kind=happening.kind, petname=happening.petname, sentence=happening.sentence
                )
            return f"  ! {visible(happening.petname)}: {visible(happening.sentence)}".replace(" : ", " ")
        case events.ContactAdded():
            if out.as_json:
                return out.encoded(
                    "contact",
                    petname=happening.petname,
                    genesis_hash=happening.genesis_hash,
                    level=happening.level,
                    safety_number=happening.safety_number,
                )
            return f"  + {visible(happening.petname)} is a contact ({happening.level})"
        case events.HistoryProgress():
            return _progress(out, happening)
        case events.MessageState() if out.as_json:
            return out.encoded("state", id=happening.mid, petname=happening.petname, state=happening.state)
        case events.Online():
            return _connection(out, "online", "connected")
        case Offline(sentence=sentence):
            return _connection(out, "offline", sentence)
        case HungUp(sentence=sentence):
            return _connection(out, "offline", sentence)
    return None


def _progress(out: Output, step: events.HistoryProgress) -> str:
    if out.as_json:
        return out.encoded("history", received=step.received, total=step.total, done=step.done)
    return f"  {step.received} of {step.total} messages came from another of your devices"


def _connection(out: Output, state: str, sentence: str) -> str | None:
    if out.as_json:
        return out.encoded("connection", state=state, sentence=sentence)
    out.aside(f"({visible(sentence)})")
    return None


def _message_fields(message: events.MessageShown) -> dict[str, object]:
    return {
        "id": message.mid,
        "petname": message.petname,
        "text": message.text,
        "time_ms": message.time_ms,
        "outgoing": message.outgoing,
        "request": message.request,
        "device": message.sender_device,
        "seq": message.seq,
        "order": message.order,
    }


async def history(
    session: Session,
    petname: Petname,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, help="How many, from the last one back.")
    ] = 50,
) -> int:
    """What was said, oldest first, with what became of your own."""
    async with await session.open(online=False) as client:
        messages = client.history(petname, limit)
        if messages:
            await client.perform(events.MarkRead(petname))
    for message in messages:
        session.out.record(
            "message",
            id=message.mid,
            petname=message.petname,
            outgoing=message.outgoing,
            text=message.text,
            time_ms=message.time_ms,
            state=message.state,
            device=message.sender_device,
            seq=message.seq,
        )
        who = "you" if message.outgoing else message.petname
        session.out.say(message_lines(who, message.text, message.time_ms, MARKS.get(message.state, "")))
    if not messages:
        session.out.aside(f"Nothing was said with {visible(petname)} yet.")
    return output.OK
