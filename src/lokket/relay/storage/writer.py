"""One thread that writes: whatever was asked for while the last commit ran shares the next one.

A job is a function of the connection. Its future is resolved after COMMIT has returned, never before.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import apsw

from lokket.relay.storage.base import StorageBroken, StorageFull

T = TypeVar("T")
Job = Callable[[apsw.Connection], Any]

BATCH_MAX: Final = 512  # jobs in one transaction
IDLE_S: Final = 2.0  # without work: then the log is emptied, and deleted mail with it
_BROKEN = "the relay's disk failed; nothing more is accepted until the relay is started again"
_FULL = "the relay's disk is full"


@dataclass(slots=True)
class _Order:
    job: Job
    grows: bool
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None


class Writer:
    """Owns the writing connection. ``has_room`` is asked once per transaction before anything grows."""

    def __init__(
        self, connection: apsw.Connection, has_room: Callable[[], bool], on_broken: Callable[[], None]
    ) -> None:
        self._connection = connection
        self._has_room = has_room
        self._on_broken = on_broken
        self._orders: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        self.broken = False
        self.transactions = 0
        self._thread = threading.Thread(target=self._work, name="relay-writer", daemon=True)
        self._thread.start()

    async def run(self, job: Callable[[apsw.Connection], T], *, grows: bool) -> T:
        """The job's result, durable. StorageFull: ``grows`` and no room. StorageBroken: the disk failed."""
        if self.broken:
            raise StorageBroken(_BROKEN)
        loop = asyncio.get_running_loop()
        order = _Order(job, grows, loop, loop.create_future())
        self._orders.put(order)
        # Shielded: a caller that goes away does not take back what is being written.
        result: T = await asyncio.shield(order.future)
        return result

    async def close(self) -> None:
        """After all that was asked for."""
        self._orders.put(None)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    def _work(self) -> None:
        going_on = True
        unsettled = False
        while going_on:
            try:
                orders = [self._orders.get(timeout=IDLE_S if unsettled else None)]
            except queue.Empty:
                self._settle()
                unsettled = False
                continue
            unsettled = True
            while len(orders) < BATCH_MAX and not self._orders.empty():
                orders.append(self._orders.get())
            going_on = None not in orders
            batch = [order for order in orders if order is not None]
            if batch:
                self._write(batch)
                for loop in {id(order.loop): order.loop for order in batch}.values():
                    with contextlib.suppress(RuntimeError):  # that loop is closed: nobody waits
                        loop.call_soon_threadsafe(_resolve, [order for order in batch if order.loop is loop])

    def _settle(self) -> None:
        """Move the log into the data file and cut it to nothing; a reader in the way only delays it."""
        if self.broken:
            return
        try:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except (apsw.BusyError, apsw.LockedError, apsw.FullError):
            pass
        except apsw.Error:
            self._break()

    def _break(self) -> None:
        # After a failed fsync the kernel may call lost pages clean: trying again proves nothing.
        self.broken = True
        self._on_broken()

    def _write(self, batch: list[_Order]) -> None:
        if self.broken:
            for order in batch:
                order.error = StorageBroken(_BROKEN)
            return
        roomy = all(not order.grows for order in batch) or self._has_room()
        todo = []
        for order in batch:
            if order.grows and not roomy:
                order.error = StorageFull(_FULL)
            else:
                todo.append(order)
        if not todo or self._commit(todo):
            return
        for order in todo:  # one of them failed the whole transaction: each on its own
            self._commit([order], last=True)

    def _commit(self, orders: list[_Order], *, last: bool = False) -> bool:
        """One transaction. False: it was rolled back, and it is worth trying its jobs one by one."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for order in orders:
                order.result = order.job(self._connection)
            self._connection.execute("COMMIT")
            self.transactions += 1
            return True
        except Exception as error:
            if self._connection.in_transaction:
                with contextlib.suppress(apsw.Error):
                    self._connection.execute("ROLLBACK")
            if isinstance(error, apsw.IOError | apsw.CorruptError | apsw.NotADBError | apsw.CantOpenError):
                self._break()
                outcome: Exception = StorageBroken(_BROKEN)
            elif isinstance(error, apsw.FullError):
                outcome = StorageFull(_FULL)
            else:
                outcome = error
            if not (self.broken or last) and len(orders) > 1:
                return False
            for order in orders:
                order.error = outcome
            return True


def _resolve(orders: list[_Order]) -> None:
    for order in orders:
        if order.future.done():
            continue
        if order.error is not None:
            order.future.set_exception(order.error)
        else:
            order.future.set_result(order.result)
