"""``Client``: one account's messenger in an asyncio program, whoever holds its vault.

async with await Client.open(folder, key) as client:
    mid = await client.send("bob", "hi")
    print(await client.wait_state(mid, "delivered", timeout_s=10))

Two stand behind it: ``direct.DirectClient`` has the vault itself; ``rpc.remote.DaemonClient`` asks the
process that has it. This module loads neither, nor the engine, before it must.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, Self, TypeVar

from lokket.client.happenings import Happening, HungUp, NotReached, Offline, Stalled, Stopped
from lokket.client.late import late
from lokket.errors import LocalError

if TYPE_CHECKING:
    from lokket.client.surroundings import Surroundings
    from lokket.crypto.entropy import Entropy
    from lokket.engine import events
    from lokket.engine.answers import ContactView, Health, Me, MessageView
    from lokket.engine.commands import Command
    from lokket.engine.cursors import CursorView, DeadLetterView
    from lokket.engine.store import Transaction
    from lokket.wire import api
else:
    events = late("lokket.engine.events")

T = TypeVar("T")
P = ParamSpec("P")
Question = Callable[Concatenate["Transaction", P], T]

# The two that stand behind ``Client``; they know it, so it meets them only when it opens one.
_direct, _remote = late("lokket.client.direct"), late("lokket.client.rpc.remote")

STATES: Final = ("queued", "sent", "delivered")
_AT_ONCE: Final = 64  # messages that a subscription fetches together
_LONG_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Created:
    """A new account. ``recovery_code`` is kept nowhere: it must be written down."""

    genesis_hash: bytes
    name: str | None
    recovery_code: str = field(repr=False)


class Client(ABC):
    """Made by ``Client.open``; an asynchronous context manager, used in one event loop."""

    @staticmethod
    async def open(
        folder: Path,
        key: bytes,
        *,
        create: bool = False,
        online: bool = True,
        allow_plaintext: bool = False,
        ca: Path | None = None,
        wait_s: float = 0.0,
        daemon: bool = True,
        surroundings: Surroundings | None = None,
    ) -> Client:
        """Through the daemon that holds the vault in ``folder``, else the vault itself under its raw
        32-byte key; ``create`` makes a new one.

        ``online`` connects as soon as there is an account, and stays connected. ``wait_s``: how long to wait
        for another process to leave the vault. ``ca``: the only authority, in a PEM file, that may vouch for
        the relay; without it the system's may. ``daemon`` False: never through one. With a daemon, the way to
        the relay is the daemon's. LocalError: see ``vault.open_vault``.
        """
        if daemon and not create and surroundings is None:
            attached: Client | None = _remote.attach(folder)
            if attached is not None:
                return attached
        client: Client = await _direct.DirectClient.begin(
            folder,
            key,
            create=create,
            online=online,
            allow_plaintext=allow_plaintext,
            ca=ca,
            wait_s=wait_s,
            surroundings=surroundings,
        )
        return client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # --- what the two do each in their way ---

    @abstractmethod
    async def close(self) -> None:
        """Send what is on its way, hang up, let go of the vault. Twice is once."""

    @abstractmethod
    def go_online(self, origin: str) -> None:
        """Connect in the background, and again whenever the connection is lost. LocalError: no address."""

    @abstractmethod
    async def wait_online(self, timeout_s: float) -> int:
        """Until logged in; how many envelopes wait. NotReached, LocalError: the relay said no for good."""

    @abstractmethod
    async def settle(self, timeout_s: float) -> bool:
        """Until nothing waits to be sent or answered, at most ``timeout_s``; whether it came to that."""

    async def finish(self, timeout_s: float) -> None:
        """What is due before ``close``: ``settle``, where this process is the one that sends."""
        await self.settle(timeout_s)

    @abstractmethod
    async def catch_up(self, timeout_s: float) -> bool:
        """Until all that waited at the relay is in the vault and answered; whether it came to that.

        NotReached: the relay was not there in time.
        """

    @abstractmethod
    async def perform(self, command: Command) -> list[events.Notice]:
        """What the command's own step had to tell. LocalError: it cannot be done."""

    @abstractmethod
    def read(self, question: Question[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """One of ``lokket.engine.views``, ``cursors``, ``backups.state`` or ``archive.page``."""

    @abstractmethod
    def look(self, name: str, *arguments: Any) -> Any:
        """``read``, by the name of one of ``lokket.engine.views``, so that the caller need not load it."""

    @abstractmethod
    def listening(self) -> AbstractAsyncContextManager[asyncio.Queue[Happening]]:
        """A queue of all that happens from now on. Nothing follows a ``Stopped``."""

    @abstractmethod
    async def next_messages(
        self, cursor: str = "", *, after: int = 0, limit: int = _AT_ONCE, wait_s: float = 0.0
    ) -> tuple[events.MessageShown, ...]:
        """Up to ``limit`` not handled at ``cursor`` and beyond order ``after``; none came within ``wait_s``:
        empty. LocalError: no such cursor."""

    @abstractmethod
    async def exchange(self, request: api.Request, timeout_s: float) -> api.Reply:
        """One request past the engine, asked again while the relay is away or busy: parts of files.

        NotReached: no answer in ``timeout_s``. LocalError: there is no use in waiting.
        """

    @abstractmethod
    def vault_faults(self) -> tuple[str, ...]:
        """Reads the whole file. Empty: nothing wrong."""

    @property
    @abstractmethod
    def entropy(self) -> Entropy: ...

    # --- account ---

    async def create_account(
        self,
        link: str = "",
        name: str | None = None,
        *,
        origin: str = "",
        relay_key: bytes = b"",
        on_code: Callable[[str], None] | None = None,
        timeout_s: float = 30.0,
    ) -> Created:
        """Make keys and account and register it at the link's relay, or at an open relay's ``origin``.

        ``on_code`` is given the recovery code as soon as the keys are in the vault. NotReached: the account
        exists and registers when the relay is back. LocalError: a bad link, or the relay refused.
        """
        raise LocalError("a daemon serves this profile, so it has an account: choose another folder")

    async def delete_account(self, timeout_s: float = 30.0) -> None:
        """Until the relay has forgotten the account. LocalError: another device holds the account key.

        NotReached: it is asked again whenever this vault goes online. The vault stays: it is its owner's.
        """
        try:
            await self.ask(events.DeleteAccount(), outcome(events.AccountDeleted, "delete"), timeout_s)
        except LocalError:
            if not self.look("is_deleted"):  # an earlier attempt may have been heard
                raise

    def whoami(self) -> Me | None:
        """None: this vault has no account yet."""
        me: Me | None = self.look("whoami")
        return me

    def me(self) -> Me:
        """LocalError: this vault has no account yet."""
        me = self.whoami()
        if me is None:
            raise LocalError("there is no account in this vault: run 'lokket join LINK' first")
        return me

    @abstractmethod
    def health(self) -> Health: ...

    # --- contacts ---

    async def invite(self, timeout_s: float = 30.0) -> events.InviteMade:
        """A link for one person, good for a day. The relay must be reached for it."""
        await self.wait_online(timeout_s)
        return await self.ask(events.CreateInvite(), outcome(events.InviteMade, "invite"), timeout_s)

    async def add_contact(
        self, petname: str, *, link: str = "", name: str = "", timeout_s: float = 30.0
    ) -> events.ContactAdded:
        """By invite link or by name, looked up this once. NotReached: it goes on when the relay is back."""
        match = outcome(events.ContactAdded, f"contact:{petname}")

        def this_one(seen: Happening) -> events.ContactAdded | None:
            added = match(seen)
            return added if added is not None and added.petname == petname else None

        return await self.ask(events.AddContact(petname, link=link, name=name), this_one, timeout_s)

    async def wait_contact(self, genesis_hash: bytes, timeout_s: float) -> ContactView:
        """Until this account is a contact: whoever invited us is, once the relay has answered. NotReached."""

        def found() -> ContactView | None:
            return next((each for each in self.contacts() if each.genesis_hash == genesis_hash), None)

        async with self.listening() as queue:
            known = found()
            while known is None:
                await first_of(
                    queue, lambda seen: seen if isinstance(seen, events.ContactAdded) else None, timeout_s
                )
                known = found()
        return known

    async def accept(self, petname: str) -> None:
        await self.perform(events.AcceptContact(petname))

    async def rename(self, petname: str, new_petname: str) -> None:
        await self.perform(events.RenameContact(petname, new_petname))

    async def verify(self, petname: str, code: str | None = None) -> None:
        """The numbers were compared, or ``code`` was scanned. LocalError: another pair's, or none."""
        await self.perform(events.MarkVerified(petname, code))

    def contacts(self) -> tuple[ContactView, ...]:
        views: tuple[ContactView, ...] = self.look("contacts")
        return views

    def contact(self, petname: str) -> ContactView:
        view: ContactView = self.look("contact", petname)
        return view

    def is_contact(self, petname: str) -> bool:
        return bool(self.look("is_contact", petname))

    def safety_number(self, petname: str) -> str:
        """60 digits."""
        return str(self.look("safety_number", petname))

    def verify_code(self, petname: str) -> str:
        return str(self.look("verify_code", petname))

    # --- messages ---

    async def send(self, petname: str, text: str, *, mid: bytes = b"") -> bytes:
        """Queue a message in the vault; its 16-byte id. It leaves now, or when the relay is back.

        ``mid``: 16 random bytes of your own. The same call again, whatever became of the first, sends nothing
        twice.
        """
        for notice in await self.perform(events.SendText(petname, text, mid)):
            if isinstance(notice, events.MessageState) and notice.mid and notice.petname == petname:
                return notice.mid
        raise LocalError("the message was not queued")

    async def wait_state(self, mid: bytes, state: str = "delivered", *, timeout_s: float) -> str:
        """Until the message is as far as ``state``, has failed, or the time is over: how far it is then."""
        async with self.listening() as queue:
            reached = self.message_state(mid)
            deadline_s = asyncio.get_running_loop().time() + timeout_s
            with contextlib.suppress(NotReached):
                while reached != "failed" and _rank(reached) < _rank(state):
                    left_s = deadline_s - asyncio.get_running_loop().time()
                    reached = await first_of(queue, lambda seen: _state_of(seen, mid), left_s, hang_up=False)
        return reached

    def message_state(self, mid: bytes) -> str:
        """queued, sent, delivered or failed."""
        return str(self.look("message_state", mid))

    def history(self, petname: str, limit: int = 50) -> tuple[MessageView, ...]:
        """The last ``limit`` messages, oldest first."""
        views: tuple[MessageView, ...] = self.look("history", petname, limit)
        return views

    # --- messages that came, and who has taken care of them ---

    def unhandled(self, cursor: str = "") -> tuple[events.MessageShown, ...]:
        """Messages that arrived and that ``handled`` has not been told of, oldest first."""
        shown: tuple[events.MessageShown, ...] = self.look("unhandled", cursor)
        return shown

    async def handled(self, order: int, cursor: str = "") -> None:
        """Everything up to this message is where it should be: it will not be given out again."""
        await self.perform(events.HandledNotices(order, cursor))

    async def messages(
        self, cursor: str, *, oldest: bool = False, anew: bool = False
    ) -> AsyncGenerator[events.MessageShown, None]:
        """What comes for a reader called ``cursor``, each message at least once, in order: what waited first.

        A message is given out again, after this process or the next one has begun anew, until ``handled`` was
        told its order. A new cursor begins now, or with the ``oldest`` that is kept. LocalError: the cursor
        was not used for too long (``anew`` begins again), or the vault failed.
        """
        await self.perform(events.OpenCursor(cursor, oldest=oldest, anew=anew))
        last = 0
        while True:
            for shown in await self.next_messages(cursor, after=last, wait_s=_LONG_S):
                last = shown.order
                yield shown

    def cursors(self) -> tuple[CursorView, ...]:
        views: tuple[CursorView, ...] = self.look("cursors")
        return views

    def dead_letters(self) -> tuple[DeadLetterView, ...]:
        """Messages on which a reader failed for good."""
        views: tuple[DeadLetterView, ...] = self.look("dead_letters")
        return views

    # --- whatever else the engine can do ---

    async def events(self) -> AsyncGenerator[Happening, None]:
        """All that happens from the iterator's first step on. LocalError ends it when the vault fails."""
        async with self.listening() as queue:
            while True:
                happening = await queue.get()
                yield happening
                if isinstance(happening, Stopped):
                    raise LocalError(happening.sentence)

    async def ask(self, command: Command, match: Callable[[Happening], T | None], timeout_s: float) -> T:
        """Give a command, and wait for the first happening that ``match`` makes something of. NotReached."""
        async with self.listening() as queue:
            await self.perform(command)
            return await first_of(queue, match, timeout_s)

    async def online_until(self, origin: str, match: Callable[[Happening], T | None], timeout_s: float) -> T:
        """Connect for the first time, and wait. NotReached; LocalError: the relay said no for good."""
        async with self.listening() as queue:
            self.go_online(origin)
            return await first_of(queue, match, timeout_s)


async def first_of(
    queue: asyncio.Queue[Happening],
    match: Callable[[Happening], T | None],
    timeout_s: float,
    *,
    hang_up: bool = True,
) -> T:
    """The first happening that ``match`` makes something of. NotReached after ``timeout_s``, with what is
    known of the connection; LocalError when there is no use in waiting."""
    trouble = ""
    deadline_s = asyncio.get_running_loop().time() + timeout_s
    try:
        while True:
            async with asyncio.timeout_at(deadline_s):
                happening = await queue.get()
            match happening:
                case Stopped(sentence=sentence):
                    raise LocalError(sentence)
                case HungUp(sentence=sentence):
                    raise (LocalError if hang_up else NotReached)(sentence)
                case Offline(sentence=sentence) | Stalled(sentence=sentence):
                    trouble = sentence
                case _:
                    found = match(happening)
                    if found is not None:
                        return found
    except TimeoutError:
        raise NotReached(trouble or "the relay did not answer in time: try again later") from None


def outcome(kind: type[T], errand: str) -> Callable[[Happening], T | None]:
    """Matches what an errand brings; raises its failure as LocalError."""

    def match(seen: Happening) -> T | None:
        if isinstance(seen, events.ErrandFailed) and seen.errand == errand:
            raise LocalError(seen.sentence)
        return seen if isinstance(seen, kind) else None

    return match


def _state_of(seen: Happening, mid: bytes) -> str | None:
    return seen.state if isinstance(seen, events.MessageState) and seen.mid == mid else None


def _rank(state: str) -> int:
    return STATES.index(state) if state in STATES else -1
