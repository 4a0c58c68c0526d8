"""A served relay on a real socket in this process, and a client's end of a connection to it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import replace

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from lokket import limits
from lokket.relay.app import Running, serve
from lokket.relay.config import EVERYONE, RelayConfig
from lokket.system import now_ms
from lokket.wire import api
from tests.support.relay import Desk, Member

LONG_S = 30
OPEN = RelayConfig(open=True, port=0, admission=EVERYONE)


@contextlib.asynccontextmanager
async def served(config: RelayConfig = OPEN) -> AsyncIterator[Running]:
    """A relay that takes new accounts however busy this machine is."""
    loop = asyncio.get_running_loop()
    started: asyncio.Future[Running] = loop.create_future()
    stop = asyncio.Event()
    task = asyncio.create_task(serve(replace(config, admission=EVERYONE), started.set_result, stop))
    await asyncio.wait({started, task}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await task
    try:
        yield started.result()
    finally:
        stop.set()
        async with asyncio.timeout(LONG_S):
            await task


class Wire:
    """A client's end: frames out and in."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.pushes: list[api.Push] = []
        self._number = 0

    async def next(self) -> api.RelayFrame:
        async with asyncio.timeout(LONG_S):
            data = await self.socket.recv()
        assert isinstance(data, bytes)
        return api.decode_relay_frame(data)

    async def push(self) -> api.RelayFrame:
        frame = await self.next()
        assert frame.number == 0
        return frame

    async def ask(self, request: api.Request) -> object:
        self._number += 1
        await self.socket.send(api.encode(api.ClientFrame(self._number, request)))
        while (frame := await self.next()).number != self._number:
            assert frame.number == 0
            self.pushes.append(frame.message)  # type: ignore[arg-type]
        return frame.message

    async def closed(self) -> int:
        """The close code, after whatever was still on the way."""
        async with asyncio.timeout(LONG_S):
            try:
                while True:
                    data = await self.socket.recv()
                    assert isinstance(data, bytes)
                    message = api.decode_relay_frame(data).message
                    self.pushes.append(message)  # type: ignore[arg-type]
            except ConnectionClosed as closed:
                return closed.rcvd.code if closed.rcvd is not None else 1006


@contextlib.asynccontextmanager
async def wire(
    running: Running,
    *,
    tls: ssl.SSLContext | None = None,
    origin: str = "",
    headers: dict[str, str] | None = None,
) -> AsyncIterator[tuple[Wire, api.Hello]]:
    async with connect(
        f"{origin or running.origin}/v1",
        compression=None,
        max_size=limits.FRAME_MAX_BYTES,
        ssl=tls,
        additional_headers=headers,
    ) as socket:
        one = Wire(socket)
        hello = (await one.push()).message
        assert isinstance(hello, api.Hello)
        yield one, hello


def person(name: str) -> Member:
    desk = Desk(seed=f"socket {name}")
    desk.now_ms = now_ms()
    return Member.new(desk, name)


async def get(running: Running, path: str) -> tuple[int, str]:
    def fetch() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{running.port}{path}", timeout=LONG_S) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    return await asyncio.to_thread(fetch)
