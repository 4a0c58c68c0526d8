"""The daemon's side of the socket: connections, each bounded in size, number and time.

1. Another user's process is hung up on. 2. ``hello`` first. 3. Each line is decoded by ``table``, done by
``desk``, answered when it is done: a request that waits holds up no other. 4. Who watches is told what
happens; who does not read it is hung up on, and has lost nothing: messages wait at cursors.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import Any

from lokket import limits
from lokket.client.direct import DirectClient
from lokket.client.happenings import Happening, NotReached, Stopped
from lokket.client.rpc import place, table, told
from lokket.client.rpc.desk import About, Desk
from lokket.errors import LocalError, RemoteError

_log = logging.getLogger(__name__)
_FAREWELL_S = 2.0
_LOOK_S = 0.25


class Service:
    """Serves one client's vault until ``stop`` is set, or the vault fails, or nobody came for ``idle_s``."""

    def __init__(self, client: DirectClient, about: About, *, idle_s: float = 0.0) -> None:
        self.stop = asyncio.Event()
        self.failure = ""  # why it ended by itself
        self._client = client
        self._idle_s = idle_s
        self._connections: set[_Connection] = set()
        self._desk = Desk(client, about, lambda: len(self._connections))
        self._left_s = 0.0  # when the last caller went

    async def run(self, listener: socket.socket) -> None:
        """Until the end; then nobody is connected, and the listener is closed."""
        loop = asyncio.get_running_loop()
        self._left_s = loop.time()
        server = await asyncio.start_unix_server(
            self._accept, sock=listener, limit=limits.RPC_REQUEST_MAX_BYTES
        )
        watching = asyncio.create_task(self._watch_the_vault(), name="lokket-vault-watch")
        try:
            while not self.stop.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_S if self._idle_s else None):
                        await self.stop.wait()
                if self._idle_s and not self._connections and loop.time() - self._left_s >= self._idle_s:
                    self.stop.set()
        finally:
            watching.cancel()
            server.close()
            sentence = self.failure or "the daemon ended"
            await asyncio.gather(*(each.end(sentence) for each in set(self._connections)))

    async def _watch_the_vault(self) -> None:
        async with self._client.listening() as queue:
            while not isinstance(happening := await queue.get(), Stopped):
                pass
        self.failure = happening.sentence
        self.stop.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self._desk, reader, writer)
        if not place.is_own_peer(writer.get_extra_info("socket")) or self.stop.is_set():
            writer.transport.abort()
            return
        if len(self._connections) >= limits.RPC_CONNECTIONS_MAX:
            writer.write(table.fault(None, table.TOO_LARGE, "too many programs are connected"))
            writer.close()
            return
        self._connections.add(connection)
        try:
            await connection.run()
            if connection.wants_end:
                self.stop.set()
        finally:
            self._connections.discard(connection)
            self._left_s = asyncio.get_running_loop().time()


class _Connection:
    def __init__(self, desk: Desk, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.wants_end = False
        self._desk = desk
        self._reader = reader
        self._writer = writer
        self._writing = asyncio.Lock()
        self._pending: dict[int | str, asyncio.Task[None]] = {}
        self._room = asyncio.Semaphore(limits.RPC_PENDING_MAX)
        self._telling: asyncio.Task[None] | None = None
        self._watch = contextlib.AsyncExitStack()

    async def run(self) -> None:
        """Until the other side goes, misbehaves, or ``end``."""
        try:
            if await self._greeted():
                await self._requests()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            await self._close()

    async def end(self, sentence: str) -> None:
        """Say that nothing follows, then hang up: what was not answered is not."""
        if self._telling is not None:
            with contextlib.suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(_FAREWELL_S):
                    await self._write(table.notification(told.as_object(Stopped(sentence))))
        await self._close()

    async def _close(self) -> None:
        tasks = [*self._pending.values(), *([self._telling] if self._telling else [])]
        for task in tasks:
            if task is not asyncio.current_task():
                task.cancel()
        await self._watch.aclose()
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(_FAREWELL_S):
                await self._writer.drain()
        self._writer.close()
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(_FAREWELL_S):
                await self._writer.wait_closed()

    async def _greeted(self) -> bool:
        try:
            async with asyncio.timeout(limits.RPC_HELLO_WAIT_S):
                line = await self._line()
        except TimeoutError:
            await self._write(table.fault(None, table.UNGREETED, "no hello came"))
            return False
        if line is None:
            return False
        try:
            request_id, method, params = table.decode(line)
            if not isinstance(params, table.Hello):
                raise table.Fault(table.UNGREETED, "the first request is hello", request_id)
            result = await self._desk.do(method, params)
        except table.Fault as wrong:
            await self._write(table.fault(wrong.request_id, wrong.number, str(wrong)))
            return False
        except LocalError as error:
            await self._write(table.fault(request_id, table.UNGREETED, str(error)))
            return False
        await self._write(table.answer(request_id, result))
        return True

    async def _requests(self) -> None:
        mistakes = 0
        while mistakes < limits.RPC_MISTAKES_MAX:
            await self._room.acquire()
            line = await self._line()
            if line is None:
                return
            try:
                request_id, method, params = table.decode(line)
                if request_id in self._pending:
                    raise table.Fault(table.NO_REQUEST, "this id waits for its answer already", request_id)
            except table.Fault as wrong:
                mistakes += 1
                self._room.release()
                await self._write(table.fault(wrong.request_id, wrong.number, str(wrong)))
                continue
            if method == "stop":
                await self._write(table.answer(request_id, None))
                self.wants_end = True
                return
            self._pending[request_id] = asyncio.create_task(self._answer(request_id, method, params))

    async def _line(self) -> bytes | None:
        """None: there is none any more, or it is too long to be one."""
        try:
            return await self._reader.readuntil(b"\n")
        except asyncio.IncompleteReadError:
            return None
        except asyncio.LimitOverrunError:
            await self._write(
                table.fault(
                    None, table.TOO_LARGE, f"a request has at most {limits.RPC_REQUEST_MAX_BYTES} bytes"
                )
            )
            return None

    async def _answer(self, request_id: int | str, method: str, params: Any) -> None:
        try:
            if method == "watch":
                await self._begin_telling()
                data = table.answer(request_id, None)
            else:
                data = table.answer(request_id, await self._desk.do(method, params))
            if len(data) > limits.RPC_ANSWER_MAX_BYTES:
                data = table.fault(request_id, table.TOO_LARGE, "the answer is too long: ask for fewer")
        except NotReached as error:
            data = table.fault(request_id, table.NOT_REACHED, str(error))
        except LocalError as error:
            data = table.fault(request_id, table.FAILED, str(error))
        except RemoteError as error:
            data = table.fault(request_id, table.REFUSED, str(error))
        except Exception as error:
            # Its text may hold what it failed on; its kind does not.
            _log.error("the method %s failed with %s", method, type(error).__name__)
            sentence = f"lokket made a mistake ({type(error).__name__}): please report it"
            data = table.fault(request_id, table.INTERNAL, sentence)
        finally:
            self._pending.pop(request_id, None)
            self._room.release()
        with contextlib.suppress(ConnectionError):
            await self._write(data)

    async def _begin_telling(self) -> None:
        """What happens after the answer to ``watch`` is told, all of it."""
        if self._telling is None:
            listening = self._desk.client.listening(at_most=limits.RPC_HAPPENINGS_MAX)
            queue = await self._watch.enter_async_context(listening)
            self._telling = asyncio.create_task(self._tell(queue), name="lokket-telling")

    async def _tell(self, queue: asyncio.Queue[Happening]) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                happening = await queue.get()
                await self._write(table.notification(told.as_object(happening)))
                if isinstance(happening, Stopped):
                    self._writer.transport.abort()
                    return

    async def _write(self, data: bytes) -> None:
        """ConnectionError: the other side is gone, or does not read."""
        async with self._writing:
            self._writer.write(data)
            try:
                async with asyncio.timeout(limits.SEND_WAIT_S):
                    await self._writer.drain()
            except TimeoutError:
                self._writer.transport.abort()
                raise ConnectionAbortedError from None
