"""listen and history: messages in, messages kept. ``send`` and ``chat`` are in modules of their own."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Annotated, Any, Final

import typer

from lokket import limits
from lokket.apps import chat, output
from lokket.apps.command import command
from lokket.apps.options import Petname
from lokket.apps.output import Output, message_fields, message_lines
from lokket.apps.session import Session
from lokket.apps.visible import visible
from lokket.client.client import Client
from lokket.client.happenings import Happening, HungUp, Offline, Stalled, Stopped
from lokket.engine import events
from lokket.engine.answers import ALARM_KINDS
from lokket.errors import LocalError

_CATCH_UP_S: Final = 10.0
_LINES_PER_FLUSH: Final = 64
MARKS: Final = {"queued": "  · queued", "sent": "  ✓", "delivered": "  ✓✓", "failed": "  ✗ not sent"}


def register(app: typer.Typer) -> None:
    command(app, "listen")(listen)
    command(app, "chat")(chat.chat)
    command(app, "history")(history)


async def listen(
    session: Session,
    *,
    count: Annotated[int, typer.Option(min=0, help="End after so many messages; 0: never.")] = 0,
    once: Annotated[bool, typer.Option("--once", help="Print what waits, then end.")] = False,
    timeout: Annotated[float, typer.Option(min=0.0, help="End after so many seconds; 0: never.")] = 0.0,
    cursor: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A place of this reader's own, which no other command moves."),
    ] = None,
    oldest: Annotated[
        bool, typer.Option("--oldest", help="A new cursor begins with the oldest message that is kept.")
    ] = False,
) -> int:
    """Print each message once, from the moment it is on this machine's disk.

    A message counts as read only when its line was handed to the system, so a crash in between prints it
    again rather than never; its id tells.
    """
    async with await session.open() as client, client.listening() as queue:
        if cursor is not None:
            await client.perform(events.OpenCursor(cursor, oldest=oldest))
        printer = _Printer(session.out, client, cursor or "", count)
        try:
            async with asyncio.timeout(timeout or None):
                await printer.run(queue, once=once)
        except TimeoutError:
            return output.OK if not count else output.NOT_REACHED
    return output.OK


class _Printer:
    """Prints what waited, then what comes, and tells the vault what was printed."""

    def __init__(self, out: Output, client: Client, cursor: str, count: int) -> None:
        self._out = out
        self._client = client
        self._cursor = cursor
        self._left = count or -1
        self._printed = 0  # the order of the last one

    async def run(self, queue: asyncio.Queue[Happening], *, once: bool) -> None:
        await self._print_waiting()
        await self._print(await chat.unshown_alarms(self._client))
        if once:
            await self._client.catch_up(_CATCH_UP_S)
            await self._print_waiting()
            await self._print(await chat.unshown_alarms(self._client))
            return
        while self._left:
            batch = [await queue.get()]
            while not queue.empty() and len(batch) < _LINES_PER_FLUSH:
                batch.append(queue.get_nowait())
            await self._print(batch)
            for happening in batch:
                if isinstance(happening, Stopped):
                    raise LocalError(happening.sentence)

    async def _print_waiting(self) -> None:
        while self._left and (
            waiting := await self._client.next_messages(
                self._cursor, after=self._printed, limit=_LINES_PER_FLUSH
            )
        ):
            await self._print(list(waiting))

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
        alarmed = any(isinstance(each, events.TrustNotice) and each.kind in ALARM_KINDS for each in batch)
        await to_its_end(self._hand_on(lines, last, alarmed=alarmed))

    async def _hand_on(self, lines: list[str], last: int, *, alarmed: bool) -> None:
        if lines:
            await asyncio.to_thread(_write, "\n".join(lines) + "\n")
        if last > self._printed:
            self._printed = last
            await self._client.handled(last, self._cursor)
        if alarmed:
            await self._client.perform(events.AlarmsShown())


async def to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Also when the command is told to stop meanwhile: what was printed is not printed again."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _line(out: Output, happening: Happening) -> str | None:
    match happening:
        case events.MessageShown():
            if out.as_json:
                return out.encoded("message", **message_fields(happening))
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
        case HungUp(sentence=sentence) | Stalled(sentence=sentence):
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


async def history(
    session: Session,
    petname: Petname,
    limit: Annotated[
        int,
        typer.Option(
            "--limit",
            "-n",
            min=1,
            max=limits.HISTORY_MAX,
            help="How many, from the last one back; `lokket export` has all.",
        ),
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
