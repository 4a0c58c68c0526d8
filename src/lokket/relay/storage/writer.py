"""Group commit: whatever is asked for while one commit runs shares the next one.

A job is a function of the connection; its statements run in the event loop's thread, in memory for the
most part. COMMIT, which waits for the disk, runs in a thread of its own, and is the only thing there:
handing every statement to that thread would hand the interpreter's lock back and forth for each. A job's
future is resolved after COMMIT has returned, never before.

When the disk fails, everything is refused, and ``mend`` is tried until it succeeds: nobody has to start the
relay again. Only data that is damaged ends that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import apsw

from lokket import limits
from lokket.errors import LocalError
from lokket.relay.storage.base import StorageBroken, StorageDamaged, StorageFull

T = TypeVar("T")
Job = Callable[[apsw.Connection], Any]

BATCH_MAX: Final = 256  # jobs in one transaction
IDLE_S: Final = 2.0  # without work: then the log is emptied, and deleted mail with it
_BROKEN: Final = "the relay's disk fails; nothing is accepted until it works again"
_FULL: Final = "the relay's disk is full"
DISK_ERRORS: Final = (
    apsw.IOError,
    apsw.CorruptError,
    apsw.NotADBError,
    apsw.CantOpenError,
    apsw.ReadOnlyError,
    apsw.ConnectionClosedError,
)

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Order:
    job: Job
    grows: bool
    future: asyncio.Future[Any]
    result: Any = None


class Writer:
    """Owns the writing connection. ``has_room`` is asked once per transaction before anything grows.

    ``mend`` runs in the disk's thread, while nothing else uses the storage; it gives the connection to go on
    with. Any error: not yet; StorageDamaged: never.
    """

    def __init__(
        self, connection: apsw.Connection, has_room: Callable[[], bool], mend: Callable[[], apsw.Connection]
    ) -> None:
        self._connection = connection
        self._has_room = has_room
        self._mend = mend
        self._mending: asyncio.Task[None] | None = None
        self.on_mended: list[Callable[[], None]] = []
        self._orders: deque[_Order] = deque()
        self._task: asyncio.Task[None] | None = None
        self._settling: asyncio.TimerHandle | None = None
        self._closing = False
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="relay-disk")
        self.broken = False
        self.damaged = False
        self.transactions = 0

    async def run(self, job: Callable[[apsw.Connection], T], *, grows: bool) -> T:
        """The job's result, durable. StorageFull: ``grows`` and no room. StorageBroken: the disk failed."""
        if self.broken:
            raise StorageBroken(_BROKEN)
        order = _Order(job, grows, asyncio.get_running_loop().create_future())
        self._orders.append(order)
        self._start()
        # Shielded: a caller that goes away does not take back what is being written.
        result: T = await asyncio.shield(order.future)
        return result

    async def close(self) -> None:
        """After all that was asked for."""
        self._closing = True
        if self._settling is not None:
            self._settling.cancel()
        if self._mending is not None and self._mending.get_loop() is asyncio.get_running_loop():
            self._mending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._mending
        if self._task is not None and self._task.get_loop() is asyncio.get_running_loop():
            await self._task
        self._disk.shutdown()

    def _start(self) -> None:
        if self._task is not None and not self._task.done():
            return
        if self._settling is not None:
            self._settling.cancel()
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        while self._orders:
            batch = [self._orders.popleft() for _ in range(min(BATCH_MAX, len(self._orders)))]
            try:
                await self._write(batch)
            finally:
                for order in batch:
                    if not order.future.done():
                        order.future.cancel()
        if not self._closing:
            self._settling = asyncio.get_running_loop().call_later(IDLE_S, self._settle)

    async def _write(self, batch: list[_Order]) -> None:
        if any(order.grows for order in batch) and not self._has_room():
            _fail([order for order in batch if order.grows], StorageFull(_FULL))
            batch = [order for order in batch if not order.grows]
        if not batch or await self._commit(batch):
            return
        for order in batch:  # one of them failed the whole transaction: each on its own
            await self._commit([order])

    async def _commit(self, batch: list[_Order]) -> bool:
        """One transaction. False: it was rolled back, and it is worth trying its jobs one by one."""
        if self.broken:
            _fail(batch, StorageBroken(_BROKEN))
            return True
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for order in batch:
                order.result = order.job(self._connection)
            await self._on_disk("COMMIT")
        except Exception as error:
            return self._failed(batch, error)
        self.transactions += 1
        for order in batch:
            if not order.future.done():
                order.future.set_result(order.result)
        return True

    async def _on_disk(self, sql: str) -> None:
        def execute() -> None:
            self._connection.execute(sql)

        await asyncio.get_running_loop().run_in_executor(self._disk, execute)

    def _failed(self, batch: list[_Order], error: Exception) -> bool:
        if self._connection.in_transaction:
            with contextlib.suppress(apsw.Error):
                self._connection.execute("ROLLBACK")
        if isinstance(error, DISK_ERRORS):
            self.fail()
            _fail(batch, StorageBroken(_BROKEN))
        elif len(batch) > 1:
            return False
        else:
            _fail(batch, StorageFull(_FULL) if isinstance(error, apsw.FullError) else error)
        return True

    def fail(self) -> None:
        """The disk failed, here or where the caller read: refuse everything, and mend."""
        if not self.broken:
            _log.error("the disk fails; it is tried again until it works")
            self.broken = True
            self._mending = asyncio.get_running_loop().create_task(self._keep_mending())

    async def _keep_mending(self) -> None:
        wait_s = limits.MEND_FIRST_S
        while True:
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, limits.MEND_LAST_S)
            if self._task is not None and not self._task.done():
                continue  # a batch is on its way to being refused
            try:
                connection = await asyncio.get_running_loop().run_in_executor(self._disk, self._mend)
            except StorageDamaged as error:
                _log.error("%s", error)
                self.damaged = True
                return
            except (apsw.Error, OSError, LocalError):
                continue
            self._connection = connection
            self.broken = False
            _log.error("the disk works again")
            for callback in self.on_mended:
                callback()
            return

    def _settle(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._empty_log())

    async def _empty_log(self) -> None:
        """Move the log into the data file and cut it to nothing; a reader in the way only delays it."""
        if self.broken:
            return
        try:
            await self._on_disk("PRAGMA wal_checkpoint(TRUNCATE)")
        except (apsw.BusyError, apsw.LockedError, apsw.FullError):
            pass
        except apsw.Error:
            self.fail()
        if self._orders:
            await self._work()


def _fail(orders: list[_Order], error: Exception) -> None:
    for order in orders:
        if not order.future.done():
            order.future.set_exception(error)
