"""``Client``: one account's messenger in an asyncio program. All here asks the driver or reads the vault.

async with await Client.open(folder, key) as client:
    mid = await client.send("bob", "hi")
    print(await client.wait_state(mid, "delivered", timeout_s=10))
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from lokket import limits
from lokket.client import backup, relay_backups
from lokket.client.driver import Driver, EngineLike, Happening, HungUp, Offline, Stopped
from lokket.client.transport import Transport, Unreachable, WebSocketTransport, trusting
from lokket.client.vault import open_vault
from lokket.crypto.entropy import Entropy
from lokket.engine import events, farewell, views
from lokket.engine.engine import Engine
from lokket.engine.events import Command, ContactAdded, InviteMade, MessageShown, Notice
from lokket.engine.store import Transaction
from lokket.errors import LocalError
from lokket.protocol import identity
from lokket.system import SystemEntropy, now_ms
from lokket.wire import api

T = TypeVar("T")

_log = logging.getLogger(__name__)
_SETTLE_POLL_S: Final = 0.02
_BUSY_MS: Final = 200
STATES: Final = ("queued", "sent", "delivered")


class NotReached(LocalError):
    """The relay, or an answer, did not come in time. What was asked for stays in the vault."""


@dataclass(frozen=True, slots=True)
class Created:
    """A new account. ``recovery_code`` is kept nowhere: it must be written down."""

    genesis_hash: bytes
    name: str | None
    recovery_code: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a test or a simulator puts in place of the real world."""

    entropy: Entropy = field(default_factory=SystemEntropy)
    now_ms: Callable[[], int] = now_ms
    transport: Callable[[str], Transport] | None = None  # from a relay's origin
    engine: Callable[[], EngineLike] = Engine


class Client:
    """Made by ``Client.open``; an asynchronous context manager. One per vault, in one event loop."""

    def __init__(
        self,
        driver: Driver,
        surroundings: Surroundings,
        *,
        allow_plaintext: bool,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._driver = driver
        self._surroundings = surroundings
        self._allow_plaintext = allow_plaintext
        self._tls = tls
        self._closed = False
        self._backing_up: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        folder: Path,
        key: bytes,
        *,
        create: bool = False,
        online: bool = True,
        allow_plaintext: bool = False,
        ca: Path | None = None,
        wait_s: float = 0.0,
        surroundings: Surroundings | None = None,
    ) -> Self:
        """The vault in ``folder`` under its raw 32-byte key; ``create`` makes a new one.

        ``online`` connects as soon as there is an account, and stays connected. ``wait_s``: how long to wait
        for another process to leave the vault. ``ca``: the only authority, in a PEM file, that may vouch for
        the relay; without it the system's may. LocalError: see ``vault.open_vault``.
        """
        around = surroundings or Surroundings()
        tls = trusting(ca) if ca is not None else None
        vault = open_vault(folder, key, create=create, wait_s=wait_s)
        driver = Driver(vault, around.engine(), around.entropy, around.now_ms)
        driver.start()
        client = cls(driver, around, allow_plaintext=allow_plaintext, tls=tls)
        try:
            me = client.whoami()
            if online and me is not None:
                client.go_online(me.origin)
                client._backing_up = asyncio.create_task(client._back_up_daily(), name="lokket-backups")
        except BaseException:
            await client.close()
            raise
        return client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Send what is on its way, hang up, cut and close the vault. Twice is once."""
        if not self._closed:
            self._closed = True
            try:
                if self._backing_up is not None:
                    self._backing_up.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await self._backing_up
                await self._driver.close()
            finally:
                self._driver.vault.close()

    # --- the connection ---

    def go_online(self, origin: str) -> None:
        """Connect in the background, and again whenever the connection is lost. LocalError: no address."""
        make = self._surroundings.transport
        transport = make(origin) if make else self._socket_to(origin)
        self._driver.go_online(transport)

    def _socket_to(self, origin: str) -> Transport:
        return WebSocketTransport(origin, allow_plaintext=self._allow_plaintext, tls=self._tls)

    async def wait_online(self, timeout_s: float) -> int:
        """Until logged in; how many envelopes wait. NotReached, LocalError: the relay said no for good."""
        if self._driver.online is not None:
            return self._driver.online
        return await self._until(
            lambda seen: seen.mailbox if isinstance(seen, events.Online) else None, timeout_s
        )

    async def events(self) -> AsyncGenerator[Happening, None]:
        """All that happens from the iterator's first step on. LocalError ends it when the vault fails."""
        with self._driver.listening() as queue:
            while True:
                happening = await queue.get()
                yield happening
                if isinstance(happening, Stopped):
                    raise LocalError(happening.sentence)

    async def settle(self, timeout_s: float) -> bool:
        """Until nothing waits to be sent or answered, at most ``timeout_s``; whether it came to that."""
        return await self._poll(
            lambda: self._driver.online is not None and not self._driver.busy and not self.health().queued,
            timeout_s,
        )

    async def catch_up(self, timeout_s: float) -> bool:
        """Until all that waited at the relay is in the vault and answered; whether it came to that.

        NotReached: the relay was not there in time.
        """
        waiting = await self.wait_online(timeout_s)
        taken = await self._poll(lambda: self._driver.arrived >= waiting, timeout_s)
        return await self.settle(timeout_s) and taken

    async def _poll(self, true: Callable[[], bool], timeout_s: float) -> bool:
        give_up_s = asyncio.get_running_loop().time() + timeout_s
        while not true():
            if asyncio.get_running_loop().time() >= give_up_s:
                return False
            await asyncio.sleep(_SETTLE_POLL_S)
        return True

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
        where = identity.Invite.parse(link).origin if link else origin
        code = identity.new_recovery_code(self._surroundings.entropy)
        with self._driver.listening() as queue:
            await self._driver.command(
                events.CreateAccount(
                    link=link, name=name, origin=origin, relay_key=relay_key, recovery_code=code
                )
            )
            if on_code is not None:
                on_code(code)
            self.go_online(where)
            done = await self._from(
                queue, lambda seen: seen if isinstance(seen, events.Registered) else None, timeout_s
            )
        return Created(done.genesis_hash, done.name, code)

    async def delete_account(self, timeout_s: float = 30.0) -> None:
        """Until the relay has forgotten the account. LocalError: another device holds the account key.

        NotReached: it is asked again whenever this vault goes online. The vault stays: it is its owner's.
        """
        try:
            await self.ask(events.DeleteAccount(), outcome(events.AccountDeleted, "delete"), timeout_s)
        except LocalError:
            if not self._read(farewell.is_over):  # an earlier attempt may have been heard
                raise

    def whoami(self) -> views.Me | None:
        """None: this vault has no account yet."""
        return self._read(views.whoami)

    def me(self) -> views.Me:
        """LocalError: this vault has no account yet."""
        me = self.whoami()
        if me is None:
            raise LocalError("there is no account in this vault: run 'lokket join LINK' first")
        return me

    def health(self) -> views.Health:
        return self._read(lambda tx: views.health(tx, self._surroundings.now_ms()))

    def vault_faults(self) -> tuple[str, ...]:
        """Reads the whole file. Empty: nothing wrong."""
        return self._driver.vault.faults()

    # --- contacts ---

    async def invite(self, timeout_s: float = 30.0) -> InviteMade:
        """A link for one person, good for a day. The relay must be reached for it."""
        await self.wait_online(timeout_s)
        with self._driver.listening() as queue:
            await self._driver.command(events.CreateInvite())
            return await self._from(queue, outcome(InviteMade, "invite"), timeout_s)

    async def add_contact(
        self, petname: str, *, link: str = "", name: str = "", timeout_s: float = 30.0
    ) -> ContactAdded:
        """By invite link or by name, looked up this once. NotReached: it goes on when the relay is back."""
        with self._driver.listening() as queue:
            await self._driver.command(events.AddContact(petname, link=link, name=name))
            match = outcome(ContactAdded, f"contact:{petname}")
            while True:
                added = await self._from(queue, match, timeout_s)
                if added.petname == petname:
                    return added

    async def wait_contact(self, genesis_hash: bytes, timeout_s: float) -> views.ContactView:
        """Until this account is a contact: whoever invited us is, once the relay has answered. NotReached."""

        def found() -> views.ContactView | None:
            return next((each for each in self.contacts() if each.genesis_hash == genesis_hash), None)

        with self._driver.listening() as queue:
            known = found()
            while known is None:
                await self._from(
                    queue, lambda seen: seen if isinstance(seen, ContactAdded) else None, timeout_s
                )
                known = found()
        return known

    async def accept(self, petname: str) -> None:
        await self._driver.command(events.AcceptContact(petname))

    async def rename(self, petname: str, new_petname: str) -> None:
        await self._driver.command(events.RenameContact(petname, new_petname))

    async def verify(self, petname: str, code: str = "") -> None:
        """The numbers were compared, or ``code`` was scanned. LocalError: the code is another pair's."""
        await self._driver.command(events.MarkVerified(petname, code))

    def contacts(self) -> tuple[views.ContactView, ...]:
        return self._read(views.contacts)

    def contact(self, petname: str) -> views.ContactView:
        return self._read(lambda tx: views.contact(tx, petname))

    def safety_number(self, petname: str) -> str:
        """60 digits."""
        return self._read(lambda tx: views.safety_number(tx, petname))

    def verify_code(self, petname: str) -> str:
        return self._read(lambda tx: views.verify_code(tx, petname))

    # --- messages ---

    async def send(self, petname: str, text: str) -> bytes:
        """Queue a message in the vault; its 16-byte id. It leaves now, or when the relay is back."""
        notices = await self._driver.command(events.SendText(petname, text))
        for notice in notices:
            if isinstance(notice, events.MessageState) and notice.state == "queued":
                return notice.mid
        raise LocalError("the message was not queued")

    async def wait_state(self, mid: bytes, state: str = "delivered", *, timeout_s: float) -> str:
        """Until the message is as far as ``state``, has failed, or the time is over: how far it is then."""
        with self._driver.listening() as queue:
            reached = self.message_state(mid)
            with contextlib.suppress(NotReached):
                while reached != "failed" and _rank(reached) < _rank(state):
                    reached = await self._from(
                        queue, lambda seen: _state_of(seen, mid), timeout_s, hang_up=False
                    )
        return reached

    def message_state(self, mid: bytes) -> str:
        """queued, sent, delivered or failed."""
        return self._read(lambda tx: views.message_state(tx, mid))

    def history(self, petname: str, limit: int = 50) -> tuple[views.MessageView, ...]:
        """The last ``limit`` messages, oldest first."""
        return self._read(lambda tx: views.history(tx, petname, limit))

    def unhandled(self) -> tuple[MessageShown, ...]:
        """Messages that arrived and that ``handled`` has not been told of, oldest first."""
        return self._read(views.unhandled)

    async def handled(self, order: int) -> None:
        """Everything up to this message is where it should be: it will not be given out again."""
        await self._driver.command(events.HandledNotices(order))

    # --- whatever else the engine can do ---

    async def ask(self, command: Command, match: Callable[[Happening], T | None], timeout_s: float) -> T:
        """Give a command, and wait for the first happening that ``match`` makes something of. NotReached."""
        with self._driver.listening() as queue:
            await self._driver.command(command)
            return await self._from(queue, match, timeout_s)

    async def online_until(self, origin: str, match: Callable[[Happening], T | None], timeout_s: float) -> T:
        """Connect for the first time, and wait. NotReached; LocalError: the relay said no for good."""
        with self._driver.listening() as queue:
            self.go_online(origin)
            return await self._from(queue, match, timeout_s)

    async def perform(self, command: Command) -> list[Notice]:
        """What the command's own step had to tell. LocalError: it cannot be done."""
        return await self._driver.command(command)

    async def exchange(self, request: api.Request, timeout_s: float) -> api.Reply:
        """One request past the engine, asked again while the relay is away or busy.

        NotReached: no answer in ``timeout_s``. LocalError: there is no use in waiting.
        """
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        wait_ms, trouble = 0, ""
        while True:
            left_s = deadline_s - asyncio.get_running_loop().time()
            if wait_ms / 1000 >= left_s:
                raise NotReached(trouble or "the relay did not answer in time: try again later")
            await asyncio.sleep(wait_ms / 1000)
            try:
                await self.wait_online(left_s)
                async with asyncio.timeout_at(deadline_s):
                    reply = await self._driver.exchange(request)
            except (Unreachable, TimeoutError) as error:
                wait_ms, trouble = _BUSY_MS, str(error)
                continue
            if not (isinstance(reply, api.Refused) and reply.code in api.BUSY):
                return reply
            wait_ms, trouble = max(reply.retry_after_ms, _BUSY_MS), reply.sentence

    def read(self, question: Callable[[Transaction], T]) -> T:
        """One of ``lokket.engine.views``."""
        return self._read(question)

    @property
    def folder(self) -> Path:
        """The vault's, for files that belong to it."""
        return self._driver.vault.path.parent

    @property
    def entropy(self) -> Entropy:
        return self._surroundings.entropy

    # --- inside ---

    async def _back_up_daily(self) -> None:
        """While the client stays open: the automatic backup when it is due; one that fails is tried again."""
        wait_s = limits.BACKUP_FIRST_LOOK_S
        while True:
            await asyncio.sleep(wait_s)
            wait_s = limits.BACKUP_LOOK_S
            try:
                now_s = self._surroundings.now_ms() // 1000
                await backup.daily(self, self.entropy, now_s)
                await relay_backups.daily(self, self.folder, now_s)
            except LocalError as error:
                _log.warning("no automatic backup: %s", error)

    def _read(self, question: Callable[[Transaction], T]) -> T:
        self._driver.raise_failure()
        with self._driver.vault.transaction() as tx:
            return question(tx)

    async def _until(self, match: Callable[[Happening], T | None], timeout_s: float) -> T:
        with self._driver.listening() as queue:
            return await self._from(queue, match, timeout_s)

    async def _from(
        self,
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
                    case Offline(sentence=sentence):
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
