"""The client that has the vault itself. All here asks the driver or reads the vault."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final, Protocol

from lokket import limits
from lokket.client import backup, relay_backups
from lokket.client.client import Client, Created, P, Question, T, first_of
from lokket.client.driver import Driver
from lokket.client.happenings import Happening, NotReached, Stopped
from lokket.client.surroundings import Surroundings
from lokket.client.transport import Transport, Unreachable, WebSocketTransport, trusting
from lokket.client.vault import VaultFailing, VaultFull, open_vault
from lokket.crypto.entropy import Entropy
from lokket.engine import cursors, events, farewell, views
from lokket.engine.answers import Health
from lokket.errors import LocalError
from lokket.protocol import identity
from lokket.wire import api

_log = logging.getLogger(__name__)
_SETTLE_POLL_S: Final = 0.02
_BUSY_MS: Final = 200
_AT_ONCE: Final = 64

# Questions by name that are not in ``views``.
_ELSEWHERE: Final[dict[str, Callable[..., Any]]] = {
    "unhandled": cursors.unhandled,
    "cursors": cursors.cursors,
    "dead_letters": cursors.dead_letters,
    "is_deleted": farewell.is_over,
}


class Generation(Protocol):
    """A number outside the vault. Neither waits long nor fails; 0: nothing is known."""

    def read(self) -> int: ...

    def write(self, number: int) -> None: ...


class DirectClient(Client):
    """Made by ``begin``. One per vault, in one event loop."""

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
        self._generation: Generation | None = None

    @classmethod
    async def begin(
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
        generation: Generation | None = None,
    ) -> DirectClient:
        """As ``Client.open``, always with the vault itself.

        ``generation``: counts its openings outside of it, so that an older copy is noticed at once.
        """
        around = surroundings or Surroundings()
        tls = trusting(ca) if ca is not None else None
        vault = open_vault(folder, key, create=create, wait_s=wait_s, vfs=around.vfs)
        driver = Driver(vault, around.engine(), around.entropy, around.now_ms)
        driver.start()
        client = cls(driver, around, allow_plaintext=allow_plaintext, tls=tls)
        try:
            client._generation = generation
            await client._count_opening()
            me = client.whoami()
            if online and me is not None:
                client.go_online(me.origin)
                client._backing_up = asyncio.create_task(client._back_up_daily(), name="lokket-backups")
        except BaseException:
            await client.close()
            raise
        return client

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            try:
                if self._backing_up is not None:
                    self._backing_up.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await self._backing_up
                with contextlib.suppress(LocalError):  # the vault failed: there is nothing to count
                    await self._count_opening()  # a copy that was made meanwhile is older, too
                await self._driver.close()
            finally:
                self._driver.vault.close()

    # --- the connection ---

    def go_online(self, origin: str) -> None:
        make = self._surroundings.transport
        transport = make(origin) if make else self._socket_to(origin)
        self._driver.go_online(transport)

    def _socket_to(self, origin: str) -> Transport:
        return WebSocketTransport(origin, allow_plaintext=self._allow_plaintext, tls=self._tls)

    @property
    def online(self) -> bool:
        return self._driver.online is not None

    async def wait_online(self, timeout_s: float) -> int:
        if self._driver.online is not None:
            return self._driver.online
        async with self.listening() as queue:
            return await first_of(
                queue, lambda seen: seen.mailbox if isinstance(seen, events.Online) else None, timeout_s
            )

    async def settle(self, timeout_s: float) -> bool:
        return await self._poll(
            lambda: self._driver.online is not None and not self._driver.busy and not self.health().queued,
            timeout_s,
        )

    async def catch_up(self, timeout_s: float) -> bool:
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
        where = identity.Invite.parse(link).origin if link else origin
        code = identity.new_recovery_code(self._surroundings.entropy)
        async with self.listening() as queue:
            await self.perform(
                events.CreateAccount(
                    link=link, name=name, origin=origin, relay_key=relay_key, recovery_code=code
                )
            )
            if on_code is not None:
                on_code(code)
            self.go_online(where)
            done = await first_of(
                queue, lambda seen: seen if isinstance(seen, events.Registered) else None, timeout_s
            )
        return Created(done.genesis_hash, done.name, code)

    def health(self) -> Health:
        return self.read(views.health, self._surroundings.now_ms())

    def vault_faults(self) -> tuple[str, ...]:
        return self._driver.vault.faults()

    # --- steps and questions ---

    async def perform(self, command: events.Command) -> list[events.Notice]:
        return await self._driver.command(command)

    async def handled(self, order: int, cursor: str = "") -> None:
        """As in ``Client``. While the disk is full or fails, this waits until that is over."""
        while True:
            try:
                await super().handled(order, cursor)
            except (VaultFull, VaultFailing):
                await self._driver.disk_works()
            else:
                return

    def read(self, question: Question[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        self._driver.raise_failure()
        with self._driver.vault.transaction() as tx:
            return question(tx, *arguments, **named)

    def look(self, name: str, *arguments: Any) -> Any:
        question: Callable[..., Any] = _ELSEWHERE.get(name) or getattr(views, name)
        return self.read(question, *arguments)

    @contextlib.asynccontextmanager
    async def listening(self, *, at_most: int = 0) -> AsyncIterator[asyncio.Queue[Happening]]:
        """As in ``Client``; ``at_most`` as in ``Driver.listening``."""
        with self._driver.listening(at_most=at_most) as queue:
            yield queue

    async def next_messages(
        self, cursor: str = "", *, after: int = 0, limit: int = _AT_ONCE, wait_s: float = 0.0
    ) -> tuple[events.MessageShown, ...]:
        deadline_s = asyncio.get_running_loop().time() + wait_s
        await self._keep(cursor)
        async with self.listening() as queue:
            while True:
                shown = self.read(cursors.unhandled, cursor, after, limit)
                if shown:
                    return shown
                try:
                    async with asyncio.timeout_at(deadline_s):
                        while not isinstance(happening := await queue.get(), events.MessageShown):
                            if isinstance(happening, Stopped):
                                self._driver.raise_failure()
                                raise LocalError(happening.sentence)
                except TimeoutError:
                    return ()

    async def _keep(self, cursor: str) -> None:
        """Who reads there is alive, though nothing may have come for long: it must not expire."""
        view = next((each for each in self.read(cursors.cursors) if each.name == cursor), None)
        if view is not None and not view.expired and cursors.is_stale(view, self._surroundings.now_ms()):
            await self.perform(events.OpenCursor(cursor))

    @property
    def entropy(self) -> Entropy:
        return self._surroundings.entropy

    async def exchange(self, request: api.Request, timeout_s: float) -> api.Reply:
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

    @property
    def folder(self) -> Path:
        """The vault's, for files that belong to it."""
        return self._driver.vault.path.parent

    # --- inside ---

    async def _count_opening(self) -> None:
        if self._generation is not None:
            for notice in await self.perform(events.VaultOpened(self._generation.read())):
                if isinstance(notice, events.VaultGeneration):
                    self._generation.write(notice.number)

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
