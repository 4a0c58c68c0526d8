"""The driver: the one task that owns vault and engine, and carries out what the engine wants.

1. An event comes: from the socket, from a person, or from the clock.
2. One transaction: ``Engine.handle``. Deliveries that wait together share it.
3. COMMIT. Only then, in order: frames to the relay, notices to whoever listens.

Decides nothing; knows no message. What it adds are facts of its own about the connection.

A disk that fails or is full stops nothing for good: the step is taken back, the connection hung up, and the
vault probed until it writes again. The relay then delivers anew what was not acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from lokket import limits
from lokket.client.happenings import Happening, HungUp, Offline, Stalled, Stopped
from lokket.client.link import Link
from lokket.client.transport import Transport, Unreachable
from lokket.client.vault import Vault, VaultFailing, VaultFull
from lokket.crypto.entropy import Entropy
from lokket.crypto.primitives import sha256
from lokket.engine import events
from lokket.engine.store import Transaction
from lokket.errors import LocalError, LokketError
from lokket.wire import api

_log = logging.getLogger(__name__)

_LOOK_AT_CLOCK_S: Final = 60.0  # however far off the next wake is: the clock may have been set
_FLUSH_S: Final = 2.0
_EXCHANGE: Final = "exchange:"  # no call of the engine begins so
_TOO_SLOW: Final = "this reader was too slow, and was told no more; messages wait for it"
_CALM_S: Final = 10.0  # since the last trouble with the disk: then the next one is a new one


class EngineLike(Protocol):
    def handle(
        self, tx: Transaction, event: events.Event, now_ms: int, entropy: Entropy
    ) -> list[events.Effect]: ...


@dataclass(frozen=True, slots=True)
class _Item:
    event: events.Event
    link: Link | None = None  # where it came from
    outcome: asyncio.Future[list[events.Notice]] | None = None


class Driver:
    """``start``, then ``command`` and ``go_online`` in any order, then ``close``."""

    def __init__(self, vault: Vault, engine: EngineLike, entropy: Entropy, now_ms: Callable[[], int]) -> None:
        self.vault = vault
        self._engine = engine
        self._entropy = entropy
        self._now_ms = now_ms
        self._items: asyncio.Queue[_Item] = asyncio.Queue(limits.EVENTS_QUEUED_MAX)
        self._listeners: set[asyncio.Queue[Happening]] = set()
        self._link: Link | None = None  # the connection that the engine knows of
        self._wake_ms: int | None = None
        self._untidy = True
        self._set_aside: set[bytes] = set()
        self._failure: LocalError | None = None
        self._exchanges: dict[str, asyncio.Future[api.Reply]] = {}
        self.arrived = 0  # envelopes taken in since the login
        self.online: int | None = None  # how many envelopes waited at the login; None: not logged in
        self._hung_up = ""
        self._refused = ""  # the login, by the relay, and why
        self._retry_ms = limits.RECONNECT_FIRST_MS
        self._redial_ms = 0
        self._worker: asyncio.Task[None] | None = None
        self._connector: asyncio.Task[None] | None = None
        self._disk = asyncio.Event()  # the vault could be written to when it was last tried
        self._disk.set()
        self._prober: asyncio.Task[None] | None = None
        self._probe_s = limits.MEND_FIRST_S
        self._closing = False
        self._trouble = ""
        self._trouble_over_s = -_CALM_S

    # --- for Client ---

    def start(self) -> None:
        self._worker = asyncio.create_task(self._work(), name="lokket-driver")

    def go_online(self, transport: Transport) -> None:
        """Connect, and again whenever the connection is lost. Twice is once."""
        if self._connector is None or self._connector.done():
            self._hung_up = ""
            self._connector = asyncio.create_task(self._stay_connected(transport), name="lokket-connector")

    async def command(self, command: events.Command) -> list[events.Notice]:
        """What the command's own step had to tell, once committed. LocalError: it cannot be done."""
        self.raise_failure()
        outcome: asyncio.Future[list[events.Notice]] = asyncio.get_running_loop().create_future()
        await self._items.put(_Item(command, None, outcome))
        return await outcome

    async def exchange(self, request: api.Request) -> api.Reply:
        """A request of the client's own, of which the engine learns nothing: parts of files.

        Unreachable: not logged in, or the connection ended before the answer.
        """
        self.raise_failure()
        if self._link is None or self._link.over or self.online is None:
            raise Unreachable("there is no connection to the relay")
        call = f"{_EXCHANGE}{len(self._exchanges)}:{self._entropy.draw(8).hex()}"
        answer: asyncio.Future[api.Reply] = asyncio.get_running_loop().create_future()
        self._exchanges[call] = answer
        self._link.call(call, request)
        try:
            return await answer
        finally:
            del self._exchanges[call]

    @contextlib.contextmanager
    def listening(self, *, at_most: int = 0) -> Iterator[asyncio.Queue[Happening]]:
        """A queue of all that happens from now on. Whoever lets more than ``at_most`` wait is told no more:
        ``Stopped`` stands in place of what waited. 0: there is no such bound."""
        queue: asyncio.Queue[Happening] = asyncio.Queue(at_most)
        self._listeners.add(queue)
        if self._hung_up:
            queue.put_nowait(HungUp(self._hung_up))
        if self._refused:
            queue.put_nowait(Offline(self._refused, 0))
        if self._trouble:
            queue.put_nowait(Stalled(self._trouble))
        if self._failure is not None:
            queue.put_nowait(Stopped(str(self._failure)))
        try:
            yield queue
        finally:
            self._listeners.discard(queue)

    @property
    def busy(self) -> bool:
        """Something is on its way to the relay, or its answer on the way here."""
        return self._link is not None and self._link.busy

    async def disk_works(self) -> None:
        """Until the vault could be written to when it was last tried."""
        await self._disk.wait()

    def raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def close(self) -> None:
        """Say what is left to say, hang up, stop. The vault stays open: it is its owner's."""
        if self._link is not None:
            await self._link.flush(_FLUSH_S)
        self._closing = True
        for task in (self._connector, self._worker, self._prober):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    # --- steps ---

    async def _work(self) -> None:
        """Ends by cancellation, or when the vault fails."""
        waiting: deque[_Item] = deque()
        try:
            while True:
                waiting.append(await self._next_item())
                while not self._items.empty():
                    waiting.append(self._items.get_nowait())
                while waiting:
                    self._take(_together(waiting))
                    await asyncio.sleep(0)  # the socket's turn
        except asyncio.CancelledError:
            self._fail(LocalError("the client was closed"), waiting)
            raise
        except LocalError as error:
            self._fail(error, waiting)
        except Exception as error:
            # Its text may hold what it failed on; its kind and place do not.
            _log.error("a step failed with %s", _where(error))
            self._fail(
                LocalError(f"lokket made a mistake ({type(error).__name__}): please report it"), waiting
            )

    async def _next_item(self) -> _Item:
        """From the queue, or a ``Tick`` when its time has come; meanwhile the vault is tidied."""
        while True:
            wait_s = _LOOK_AT_CLOCK_S
            if self._untidy:
                wait_s = limits.TIDY_IDLE_S
            if self._wake_ms is not None:
                wait_s = min(wait_s, (self._wake_ms - self._now_ms()) / 1000)
            try:
                async with asyncio.timeout(max(wait_s, 0)):
                    return await self._items.get()
            except TimeoutError:
                pass
            if self._wake_ms is not None and self._wake_ms <= self._now_ms():
                return _Item(events.Tick())
            if self._link is not None and self._link.overdue:
                self._link.hang_up()
            if self._untidy:
                self._tidy()
            elif self._wake_ms is None:
                return _Item(events.Tick())

    def _take(self, items: list[_Item]) -> None:
        """One transaction for these events; then their effects."""
        first = items[0]
        if isinstance(first.event, events.Connected):
            self._link = first.link
        try:
            effects = self._step([item.event for item in items])
        except (VaultFull, VaultFailing) as error:
            if isinstance(first.event, events.Disconnected):
                self._link = self.online = None
            _fail_outcome(first, error)
            self._stall(error, first.link)
            return
        except LokketError as error:
            if first.outcome is not None:
                _fail_outcome(first, error)
                return
            if isinstance(error, LocalError) or first.link is None:
                raise
            self._bad_frame(items, error)
            return
        except Exception as error:
            if first.outcome is not None:
                _log.error("a command failed with %s", _where(error))
                _fail_outcome(first, LocalError(_mistake(error)))
            elif first.link is not None:
                self._bad_frame(items, error)
            else:
                raise
            return
        if isinstance(first.event, events.Disconnected):
            self._link = self.online = None
        self._carry_out(effects)
        self.arrived += sum(
            len(item.event.envelopes) for item in items if isinstance(item.event, events.Arrived)
        )
        if first.outcome is not None and not first.outcome.done():
            first.outcome.set_result([effect for effect in effects if isinstance(effect, events.Notice)])

    def _tidy(self) -> None:
        self._untidy = False
        try:
            self.vault.tidy()
        except (VaultFull, VaultFailing) as error:
            self._stall(error, None)

    def _stall(self, error: LocalError, link: Link | None) -> None:
        """The step was taken back, and with it what the engine thinks of the connection: start that anew."""
        for each in (link, self._link):
            if each is not None:
                each.hang_up()
        if self._disk.is_set():
            self._disk.clear()
            self._trouble = str(error)
            if asyncio.get_running_loop().time() - self._trouble_over_s > _CALM_S:
                self._probe_s = limits.MEND_FIRST_S
            self._tell(Stalled(self._trouble))
            if self._closing:
                return
            self._prober = asyncio.create_task(self._probe(), name="lokket-prober")

    async def _probe(self) -> None:
        """Until the vault can be written to again, or is found damaged."""
        while not self._disk.is_set():
            await asyncio.sleep(self._probe_s)
            self._probe_s = min(2 * self._probe_s, limits.MEND_LAST_S)
            try:
                self.vault.probe()
            except (VaultFull, VaultFailing):
                continue
            except LocalError as error:
                self._fail(error, deque())
                if self._worker is not None:
                    self._worker.cancel()
                return
            self._trouble, self._trouble_over_s = "", asyncio.get_running_loop().time()
            self._retry_ms = limits.RECONNECT_FIRST_MS
            self._disk.set()
            with contextlib.suppress(asyncio.QueueFull):
                self._items.put_nowait(_Item(events.Tick()))  # for what was taken back

    def _step(self, taken: list[events.Event]) -> list[events.Effect]:
        self._wake_ms = None if any(isinstance(event, events.Tick) for event in taken) else self._wake_ms
        self._untidy = True
        with self.vault.transaction() as tx:
            return [
                effect
                for event in taken
                for effect in self._engine.handle(tx, event, self._now_ms(), self._entropy)
            ]

    def _bad_frame(self, items: list[_Item], error: Exception) -> None:
        """The relay sent what the engine stumbles over. Rolled back; the connection starts anew without it.

        An envelope that does so on its own is left at the relay and not looked at again by this process:
        it must not block what is behind it.
        """
        _log.error("a step on the relay's bytes failed with %s", _where(error))
        envelopes = [
            envelope
            for item in items
            if isinstance(item.event, events.Arrived)
            for envelope in item.event.envelopes
        ]
        for envelope in envelopes:
            try:
                effects = self._step([events.Arrived((envelope,))])
            except (VaultFull, VaultFailing) as failure:
                self._stall(failure, items[0].link)
                return
            except LocalError:
                raise
            except Exception:
                self._set_aside.add(sha256(envelope))
            else:
                self._carry_out(effects)
        if items[0].link is not None:
            items[0].link.hang_up()

    def _carry_out(self, effects: list[events.Effect]) -> None:
        for effect in effects:
            match effect:
                case events.Call(call=call, request=request):
                    if self._link is not None:
                        self._link.call(call, request)
                case events.Acknowledge(envelope_ids=envelope_ids):
                    if self._link is not None:
                        self._link.acknowledge(envelope_ids)
                case events.Wake(at_ms=at_ms):
                    self._wake_ms = at_ms if self._wake_ms is None else min(self._wake_ms, at_ms)
                case events.Redial(at_ms=at_ms):
                    self._redial_ms = at_ms
                    if self._link is not None:
                        self._link.hang_up()
                case events.HangUp(sentence=sentence):
                    self._hung_up = sentence
                    self._tell(HungUp(sentence))
                    if self._connector is not None:
                        self._connector.cancel()
                case events.Online():
                    self._retry_ms = limits.RECONNECT_FIRST_MS
                    self.online, self.arrived = effect.mailbox, 0
                    self._tell(effect)
                case notice:
                    self._tell(notice)

    def _tell(self, happening: Happening) -> None:
        if isinstance(happening, events.ErrandFailed) and happening.errand == "login":
            self._refused = happening.sentence
        for queue in list(self._listeners):
            if queue.full():
                self._listeners.discard(queue)
                while not queue.empty():
                    queue.get_nowait()
                queue.put_nowait(Stopped(_TOO_SLOW))
            else:
                queue.put_nowait(happening)

    def _fail(self, error: LocalError, waiting: deque[_Item]) -> None:
        first = self._failure is None
        self._failure = error = self._failure or error
        while not self._items.empty():
            waiting.append(self._items.get_nowait())
        for item in waiting:
            _fail_outcome(item, error)
        if self._connector is not None:
            self._connector.cancel()
        if first:
            self._tell(Stopped(str(error)))

    # --- the connection ---

    async def _stay_connected(self, transport: Transport) -> None:
        while not self._hung_up:
            await self._disk.wait()
            self._refused = ""
            try:
                await self._one_connection(transport)
                sentence = "the relay closed the connection"
            except Unreachable as error:
                sentence = str(error)
            except LocalError as error:
                self._hung_up = str(error)
                self._tell(HungUp(self._hung_up))
                return
            if not self._hung_up:
                wait_ms = self._next_wait_ms()
                self._tell(Offline(self._refused or sentence, wait_ms))
                await asyncio.sleep(wait_ms / 1000)

    def _next_wait_ms(self) -> int:
        """Half to one and a half of what doubles, so that not all clients come back in one moment."""
        jitter_ms = int.from_bytes(self._entropy.draw(2), "big") % self._retry_ms
        wait_ms = max(self._retry_ms // 2 + jitter_ms, self._redial_ms - self._now_ms())
        self._retry_ms = min(2 * self._retry_ms, limits.RECONNECT_LAST_MS)
        return wait_ms

    async def _one_connection(self, transport: Transport) -> None:
        link = Link(await transport.connect())
        greeted = False
        try:
            hello = await link.greeting()
            greeted = True
            await self._items.put(_Item(events.Connected(hello), link))
            while True:
                await self._received(link, await link.receive())
        finally:
            await link.close()
            for answer in self._exchanges.values():
                if not answer.done():
                    answer.set_exception(Unreachable("the connection to the relay was lost"))
            if greeted and self._failure is None:
                await self._items.put(_Item(events.Disconnected(), link))

    async def _received(self, link: Link, message: tuple[str, api.Reply] | api.Push) -> None:
        match message:
            case (call, reply) if call.startswith(_EXCHANGE):
                waiting = self._exchanges.get(call)
                if waiting is not None and not waiting.done():
                    waiting.set_result(reply)
            case (call, reply):
                await self._items.put(_Item(events.Answered(call, reply), link))
            case api.Deliver(envelopes=envelopes):
                fresh = tuple(each for each in envelopes if sha256(each) not in self._set_aside)
                if fresh:
                    await self._items.put(_Item(events.Arrived(fresh), link))
            case api.PairsLow(left=left):
                await self._items.put(_Item(events.PairsLow(left), link))
            case api.Closing(sentence=sentence):
                raise Unreachable(f"the relay closed the connection: {sentence}")
            case api.Hello():
                raise Unreachable("the relay greeted twice: update the older side")


def _together(waiting: deque[_Item]) -> list[_Item]:
    """The next event; deliveries of one connection that wait in a row together."""
    items = [waiting.popleft()]
    while (
        isinstance(items[0].event, events.Arrived)
        and len(items) < limits.EVENTS_PER_COMMIT_MAX
        and waiting
        and isinstance(waiting[0].event, events.Arrived)
        and waiting[0].link is items[0].link
    ):
        items.append(waiting.popleft())
    return items


def _fail_outcome(item: _Item, error: LokketError) -> None:
    if item.outcome is not None and not item.outcome.done():
        item.outcome.set_exception(error)


def _mistake(error: Exception) -> str:
    return f"lokket made a mistake ({type(error).__name__}), and nothing was changed: please report it"


def _where(error: Exception) -> str:
    """Kind and innermost place, without the text."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "" if trace is None else f" at {trace.tb_frame.f_code.co_name}:{trace.tb_lineno}"
    return type(error).__name__ + place
