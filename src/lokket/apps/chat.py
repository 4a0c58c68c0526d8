"""chat: one conversation, typed and read in one place."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any, Final

from lokket.apps import output
from lokket.apps.options import Petname
from lokket.apps.output import Output, message_lines
from lokket.apps.session import Session
from lokket.apps.typed import TypedLines
from lokket.apps.visible import visible
from lokket.client.client import Client
from lokket.client.happenings import Happening, HungUp, Offline, Stalled, Stopped
from lokket.engine import events
from lokket.engine.answers import ALARM_KINDS
from lokket.errors import LocalError

_EARLIER: Final = 20
_SETTLE_S: Final = 10.0
_RECEIPTS_WAIT_S: Final = 2.0
_LAST_WORD_S: Final = 0.5
_PROMPT: Final = "> "
_STATES: Final = {"delivered": "✓ delivered", "sent": "✓ sent", "failed": "✗ not sent"}


async def chat(session: Session, petname: Petname) -> int:
    """Talk to one contact. Each line is a message; /quit or the end of input leaves."""
    async with await session.open() as client, client.listening() as queue:
        client.contact(petname)
        screen = _Screen(session.out)
        for message in client.history(petname, _EARLIER) if session.out.is_terminal else ():
            who = "you" if message.outgoing else petname
            screen.show(message_lines(who, message.text, message.time_ms))
        await _first_to_end(_type(session, client, petname, screen), _watch(client, queue, screen))
    return output.OK


async def _type(session: Session, client: Client, petname: str, screen: _Screen) -> None:
    await asyncio.sleep(0)
    screen.prompting = session.out.is_terminal
    async for line in TypedLines(_PROMPT if session.out.is_terminal else ""):
        if line.strip() == "/quit":
            break
        if line.strip():
            screen.sent(await client.send(petname, line))
    await client.settle(_SETTLE_S)
    if not session.out.is_terminal:
        await screen.all_delivered(_RECEIPTS_WAIT_S)


async def _first_to_end(typing: Coroutine[Any, Any, None], watching: Coroutine[Any, Any, None]) -> None:
    """Also in the middle of a line: who types on without a daemon would type to nobody.

    A line on its way knows better what became of it than who watches: its word counts, if it comes.
    """
    tasks = [asyncio.create_task(typing), asyncio.create_task(watching)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait(tasks[:1], timeout=_LAST_WORD_S if tasks[1].done() else None)
    finally:
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome


class _Screen:
    """Lines above the prompt; what is being typed is drawn again below them."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self.prompting = False  # before, a prompt below a line would be there twice
        self._own: dict[bytes, str] = {}
        self._said = ""  # why the last one waits: once, not at every try

    def show(self, text: str, style: str = "") -> None:
        if not self.prompting:
            self._out.say(text, style)
            return
        sys.stdout.write("\r\x1b[K")
        self._out.say(text, style)
        sys.stdout.write(_PROMPT + _typed_so_far())
        sys.stdout.flush()

    def message(self, shown: events.MessageShown) -> None:
        self._out.record(
            "message",
            id=shown.mid,
            petname=shown.petname,
            text=shown.text,
            time_ms=shown.time_ms,
            outgoing=shown.outgoing,
        )
        who = f"you to {shown.petname}" if shown.outgoing else shown.petname
        self.show(message_lines(who, shown.text, shown.time_ms), "" if shown.outgoing else "cyan")

    def notice(self, notice: events.TrustNotice) -> None:
        self._out.record("trust", kind=notice.kind, petname=notice.petname, sentence=notice.sentence)
        self.show(f"  ! {visible(notice.sentence)}", "yellow")

    def sent(self, mid: bytes) -> None:
        self._own.setdefault(mid, "queued")

    def state(self, happening: events.MessageState) -> None:
        if happening.mid in self._own or happening.state == "queued":
            self._own[happening.mid] = happening.state
        self._out.record("state", id=happening.mid, petname=happening.petname, state=happening.state)
        if happening.state == "queued" and happening.sentence not in ("", self._said):
            self.show(f"  · queued: {visible(happening.sentence)}", "yellow")
        self._said = happening.sentence
        if happening.state in _STATES:
            self.show(f"  {_STATES[happening.state]}", "green" if happening.state != "failed" else "red")

    async def all_delivered(self, timeout_s: float) -> None:
        give_up_s = asyncio.get_running_loop().time() + timeout_s
        while any(state in ("queued", "sent") for state in self._own.values()):
            if asyncio.get_running_loop().time() >= give_up_s:
                return
            await asyncio.sleep(0.05)


async def _watch(client: Client, queue: asyncio.Queue[Happening], screen: _Screen) -> None:
    """Every message that arrives is shown here, others' conversations too: so none is lost."""
    last = 0
    for waiting in client.unhandled():
        screen.message(waiting)
        last = waiting.order
    if last:
        await client.handled(last)
    for alarm in await unshown_alarms(client):
        screen.notice(alarm)
    while True:
        match await queue.get():
            case events.MessageShown(order=order) as shown if order > last:
                screen.message(shown)
                last = order
                await client.handled(order)
            case events.MessageState() as state:
                screen.state(state)
            case Stopped(sentence=sentence):
                raise LocalError(sentence)
            case events.TrustNotice() as notice:
                screen.notice(notice)
                if notice.kind in ALARM_KINDS:
                    await client.perform(events.AlarmsShown())
            case HungUp(sentence=sentence) | Stalled(sentence=sentence):
                screen.show(f"  ! {visible(sentence)}", "yellow")
            case Offline(sentence=sentence):
                screen.show(f"  ({visible(sentence)})", "dim")


async def unshown_alarms(client: Client) -> list[events.TrustNotice]:
    """What was noticed while nobody looked; it counts as shown from here on."""
    waiting = [alarm for alarm in client.health().alarms if not alarm.shown]
    if waiting:
        await client.perform(events.AlarmsShown())
    return [events.TrustNotice(alarm.kind, alarm.petname, alarm.sentence) for alarm in waiting]


def _typed_so_far() -> str:
    try:
        import readline  # noqa: PLC0415
    except ImportError:
        return ""
    return readline.get_line_buffer()
