"""on: what happens to each message that comes, by whatever program the person names.

1. Messages come in order, from a cursor of this handler's own. 2. The handler is given one. 3. It worked:
only now the cursor moves. 4. It did not: again, a few times, ever later; then it becomes a dead letter, which
'lokket doctor' tells of, and the next has its turn.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from typing import Annotated, Final

import typer

from lokket import limits
from lokket.apps import output
from lokket.apps.command import command, default_command
from lokket.apps.handlers import Command, Handler, Lines, Webhook
from lokket.apps.output import Output, clock, message_fields
from lokket.apps.session import Session, text_argument
from lokket.apps.visible import visible
from lokket.client.client import Client
from lokket.client.rpc.remote import DaemonEnded
from lokket.engine import events
from lokket.errors import LocalError

_BACK_WAIT_S: Final = 60.0  # for a daemon that is being started anew
_BACK_LOOK_S: Final = 0.5

Name = Annotated[str, typer.Argument(metavar="NAME", help="As 'lokket on list' shows it.")]


def register(on_app: typer.Typer) -> None:
    default_command(on_app, None)
    command(on_app, "message")(message)
    command(on_app, "list")(list_cursors)
    command(on_app, "dead")(dead)
    command(on_app, "close")(close)


async def message(
    session: Session,
    *,
    run: Annotated[
        str, typer.Option("--exec", metavar="COMMAND", help="Run it, with the message on standard input.")
    ] = "",
    webhook: Annotated[
        str, typer.Option(metavar="URL", help="POST the message there ('-': read the address from input).")
    ] = "",
    jsonl: Annotated[str, typer.Option(metavar="FILE", help="Append a line ('-': standard output).")] = "",
    cursor: Annotated[
        str, typer.Option(metavar="NAME", help="The handler's place; else one is made of what it does.")
    ] = "",
    oldest: Annotated[bool, typer.Option("--oldest", help="Begin with the oldest message kept.")] = False,
    anew: Annotated[bool, typer.Option("--anew", help="Begin again after it was away too long.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Also strangers' requests, and what you sent from other devices.")
    ] = False,
    tries: Annotated[
        int, typer.Option(min=1, max=100, help="How often, before a message is given up.")
    ] = limits.HANDLER_TRIES_MAX,
    wait: Annotated[
        float, typer.Option("--timeout", min=0.1, help="Seconds for the handler to finish.")
    ] = float(limits.HANDLER_WAIT_S),
) -> int:
    """Hand each message to a command, a web address or a file, at least once, until it is stopped."""
    chosen = [bool(run), bool(webhook), bool(jsonl)]
    if sum(chosen) != 1:
        raise LocalError("give one of --exec COMMAND, --webhook URL and --jsonl FILE")
    handler: Handler
    if run:
        handler, target = Command(run, wait), run
    elif webhook:
        target = text_argument(webhook).strip()
        handler = Webhook(target, wait, allow_plaintext=session.allow_plaintext)
    else:
        handler, target = Lines(jsonl), jsonl
    name = cursor or f"{handler.name}-{hashlib.sha256(target.encode()).hexdigest()[:8]}"
    worker = _Worker(session.out, handler, name, tries, everything=everything)
    session.out.aside(f"Messages are handled at {visible(name)!r}, until this is stopped.")
    client = await session.open()
    while True:
        try:
            async with client:
                await worker.run(client, oldest=oldest, anew=anew)
        except DaemonEnded:
            session.out.aside("The daemon ended; waiting for the next one, or else for the vault.")
            client, anew = await _opened_again(session), False


async def _opened_again(session: Session) -> Client:
    """Through the daemon that is started anew: who takes the vault at once would keep it from starting.

    After a while it will not be, and this process has the vault itself. VaultTrouble: somebody else has.
    """
    give_up_s = asyncio.get_running_loop().time() + _BACK_WAIT_S
    while asyncio.get_running_loop().time() < give_up_s:
        client = session.attached()
        if client is not None:
            return client
        await asyncio.sleep(_BACK_LOOK_S)
    return await session.open()


class _Worker:
    def __init__(self, out: Output, handler: Handler, cursor: str, tries: int, *, everything: bool) -> None:
        self._out = out
        self._handler = handler
        self._cursor = cursor
        self._tries = tries
        self._everything = everything

    async def run(self, client: Client, *, oldest: bool, anew: bool) -> None:
        async for shown in client.messages(self._cursor, oldest=oldest, anew=anew):
            if not self._everything and (shown.outgoing or shown.request):
                await client.handled(shown.order, self._cursor)
                continue
            trouble = await self._try(shown)
            if trouble:
                await client.perform(events.GiveUpNotice(self._cursor, shown.order, self._tries, trouble))
                self._say("given-up", shown, f"given up: {trouble}")
            else:
                await client.handled(shown.order, self._cursor)
                self._say("handled", shown, "handled")

    async def _try(self, shown: events.MessageShown) -> str:
        """Why it did not work, however often; "": it did."""
        line = self._out.encoded("message", **message_fields(shown), cursor=self._cursor).encode()
        wait_s = float(limits.HANDLER_RETRY_FIRST_S)
        for left in reversed(range(self._tries)):
            trouble = await self._handler.handle(line, f"{shown.mid.hex()}-{shown.sender_device.hex()[:16]}")
            if not trouble or not left:
                break
            self._say("retry", shown, f"{trouble}; again in {wait_s:g} s")
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, limits.HANDLER_RETRY_LAST_S)
        return trouble

    def _say(self, kind: str, shown: events.MessageShown, sentence: str) -> None:
        """About a message, nothing of it. Beside the output, which may be the handler's."""
        if self._out.as_json:
            print(
                self._out.encoded(kind, id=shown.mid, order=shown.order, sentence=sentence), file=sys.stderr
            )
        else:
            self._out.aside(f"{shown.mid.hex()[:8]}: {sentence}")


async def list_cursors(session: Session) -> int:
    """The handlers that have a place, and how many messages wait for each."""
    async with await session.open(online=False) as client:
        cursors = client.cursors()
    for view in cursors:
        session.out.record(
            "cursor", name=view.name, behind=view.behind, expired=view.expired, used_ms=view.used_ms
        )
        about = "expired" if view.expired else f"{view.behind} wait"
        session.out.say(f"{visible(view.name):32}  {about}, last used {clock(view.used_ms)}")
    if not cursors:
        session.out.aside("No handler has a place yet: lokket on message --exec COMMAND")
    return output.OK


async def dead(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Only of this handler.")] = "",
    forget: Annotated[bool, typer.Option("--forget", help="They were dealt with: drop them.")] = False,
) -> int:
    """Messages that a handler gave up, and why."""
    async with await session.open(online=False) as client:
        letters = [letter for letter in client.dead_letters() if name in ("", letter.cursor)]
        for letter in letters if forget else ():
            await client.perform(events.ForgetDeadLetter(letter.cursor, letter.message.order))
    for letter in letters:
        fields = message_fields(letter.message)
        session.out.record(
            "dead-letter", cursor=letter.cursor, tries=letter.tries, sentence=letter.sentence, **fields
        )
        who, when = visible(letter.message.petname), clock(letter.message.time_ms)
        session.out.say(
            f"{visible(letter.cursor)}: a message of {who}, {when}: {visible(letter.sentence)} "
            f"({letter.tries} tries)"
        )
    if not letters:
        session.out.aside("No message was given up.")
    return output.OK


async def close(session: Session, name: Name) -> int:
    """Forget a handler's place: nothing is kept for it any more."""
    async with await session.open(online=False) as client:
        await client.perform(events.CloseCursor(name))
    session.out.record("cursor-closed", name=name)
    session.out.say(f"{visible(name)} is forgotten.")
    return output.OK
