"""One connection as the driver sees it: numbers its calls, matches answers, writes in order."""

from __future__ import annotations

import asyncio
import contextlib

from lokket import limits
from lokket.client.transport import Connection, Unreachable
from lokket.errors import DecodeError
from lokket.wire import api


class Link:
    """Made once the socket is open; ``greeting`` first, then ``receive`` again and again."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._number = 0
        self._waiting: dict[int, tuple[str, float]] = {}  # number -> call, deadline; oldest first
        self._frames: asyncio.Queue[bytes] = asyncio.Queue()
        self._writer = asyncio.create_task(self._write(), name="lokket-writer")
        self.over = False
        self._hanging_up: asyncio.Task[None] | None = None  # kept, or it would be collected

    async def greeting(self) -> api.Hello:
        """Unreachable: whoever listens there is no relay, or says nothing."""
        try:
            async with asyncio.timeout(limits.OPEN_WAIT_S):
                frame = api.decode_relay_frame(await self._connection.receive())
        except TimeoutError:
            raise Unreachable("the relay does not answer: try again later") from None
        except DecodeError:
            raise Unreachable("this address answers, but not as a relay does: check it") from None
        match frame:
            case api.RelayFrame(number=0, message=api.Hello() as hello):
                return hello
            case api.RelayFrame(message=api.Closing(sentence=sentence)):
                raise Unreachable(f"the relay closed the connection: {sentence}")
        raise Unreachable("this address answers, but not as a relay does: check it")

    async def receive(self) -> tuple[str, api.Reply] | api.Push:
        """The next answer with its call's name, or a push. Unreachable: the connection is over."""
        while True:
            try:
                frame = api.decode_relay_frame(await self._connection.receive())
            except DecodeError:
                raise Unreachable("the relay sent what is no frame: update the older side") from None
            match frame.message:
                case api.Hello() | api.Deliver() | api.PairsLow() | api.Closing() as push:
                    return push
                case reply:
                    call, _ = self._waiting.pop(frame.number, ("", 0.0))
                    if call:
                        return call, reply

    def call(self, name: str, request: api.Request) -> None:
        """Queue a request. An empty name: nobody wants the answer."""
        self._number += 1
        deadline_s = asyncio.get_running_loop().time() + limits.ANSWER_WAIT_S
        self._waiting[self._number] = name, deadline_s
        self._frames.put_nowait(api.encode(api.ClientFrame(self._number, request)))

    def acknowledge(self, envelope_ids: tuple[bytes, ...]) -> None:
        for start in range(0, len(envelope_ids), limits.ACK_BATCH_MAX):
            self.call("", api.Acknowledge(envelope_ids[start : start + limits.ACK_BATCH_MAX]))

    @property
    def busy(self) -> bool:
        return bool(self._waiting)

    @property
    def overdue(self) -> bool:
        """A call has waited longer than an honest relay lets it wait."""
        oldest = next(iter(self._waiting.values()), None)
        return oldest is not None and oldest[1] < asyncio.get_running_loop().time()

    async def flush(self, wait_s: float) -> None:
        """Until everything queued is with the operating system, or ``wait_s`` is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._frames.join()

    def hang_up(self) -> None:
        """Close without waiting: whoever reads learns of it."""
        self._hanging_up = asyncio.create_task(self.close(), name="lokket-hang-up")

    async def close(self) -> None:
        self.over = True
        self._writer.cancel()
        await asyncio.wait({self._writer})  # whoever is told to stop while it waits here does stop
        with contextlib.suppress(Unreachable, TimeoutError, OSError):
            await self._connection.close()

    async def _write(self) -> None:
        while True:
            frame = await self._frames.get()
            with contextlib.suppress(Unreachable):  # the reader sees it too, and says so
                await self._connection.send(frame)
            self._frames.task_done()
