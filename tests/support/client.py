"""Clients without sockets: connections in memory, to a real ``Relay`` or to one that a test plays by hand."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from lokket.client.client import Client
from lokket.client.surroundings import Surroundings
from lokket.client.transport import Connection, Unreachable
from lokket.relay.relay import Relay
from lokket.system import SystemEntropy, now_ms
from lokket.wire import api
from tests.support.relay import Desk

KEY = bytes(range(32))


class MemoryConnection:
    """Two queues. ``None`` in either means that the connection is over."""

    def __init__(self) -> None:
        self.to_client: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.to_relay: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.closed = False

    async def receive(self) -> bytes:
        frame = None if self.closed else await self.to_client.get()
        if frame is None:
            self.closed = True
            raise Unreachable("the relay closed the connection")
        return frame

    async def send(self, frame: bytes) -> None:
        if self.closed:
            raise Unreachable("the relay closed the connection")
        self.to_relay.put_nowait(frame)

    async def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.to_client.put_nowait(None)
            self.to_relay.put_nowait(None)

    def push(self, message: api.Push) -> None:
        self.to_client.put_nowait(api.encode(api.RelayFrame(0, message)))

    def answer(self, number: int, reply: api.Reply) -> None:
        self.to_client.put_nowait(api.encode(api.RelayFrame(number, reply)))

    async def asked(self) -> api.ClientFrame:
        frame = await self.to_relay.get()
        if frame is None:
            raise Unreachable("the client closed the connection")
        return api.decode_client_frame(frame)


class RelayTransport:
    """Connects to a ``Relay`` in this process. ``up`` False: nobody answers."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.up = True
        self.connections: list[MemoryConnection] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def connect(self) -> Connection:
        await asyncio.sleep(0)
        if not self.up:
            raise Unreachable("the relay cannot be reached")
        connection = MemoryConnection()
        self.connections.append(connection)
        task = asyncio.create_task(self._serve(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return connection

    async def cut(self) -> None:
        """Break every connection, as a network does."""
        for connection in self.connections:
            await connection.close()
        self.connections.clear()

    async def _serve(self, connection: MemoryConnection) -> None:
        entropy = SystemEntropy()
        caller = self.relay.connect(now_ms(), entropy)
        woken = asyncio.Event()
        caller.wake = woken.set
        connection.push(caller.hello)

        async def pushes() -> None:
            while True:
                await woken.wait()
                woken.clear()
                while (deliver := await self.relay.drain(caller, now_ms())) is not None:
                    connection.push(deliver)
                for notice in self.relay.notices(caller):
                    connection.push(notice)

        pushing = asyncio.create_task(pushes())
        try:
            while True:
                frame = await connection.asked()
                reply = await self.relay.handle(caller, frame.request, now_ms(), entropy)
                connection.answer(frame.number, reply)
                woken.set()
        except Unreachable:
            pass
        finally:
            pushing.cancel()
            self.relay.disconnect(caller)


class PlayedTransport:
    """The test is the relay: it takes each connection from ``taken`` and plays the other end."""

    def __init__(self) -> None:
        self.taken: asyncio.Queue[MemoryConnection] = asyncio.Queue()
        self.refuse: Callable[[], Exception] | None = None

    async def connect(self) -> Connection:
        if self.refuse is not None:
            raise self.refuse()
        connection = MemoryConnection()
        self.taken.put_nowait(connection)
        return connection


class Town:
    """A relay in memory and clients with real vaults. Close it, or use ``town``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.desk = Desk()
        self.clients: list[Client] = []
        self.transports: dict[str, RelayTransport] = {}

    def surroundings(self, who: str) -> Surroundings:
        transport = self.transports.setdefault(who, RelayTransport(self.desk.relay))
        return Surroundings(transport=lambda _: transport)

    async def open(self, who: str, *, create: bool = False, online: bool = True) -> Client:
        client = await Client.open(
            self.root / who, KEY, create=create, online=online, surroundings=self.surroundings(who)
        )
        self.clients.append(client)
        return client

    async def join(self, who: str) -> Client:
        """A new account named ``who``."""
        client = await self.open(who, create=True)
        await client.create_account(name=who, origin=self.desk.config.origin, relay_key=self.desk.key.public)
        return client

    async def close(self) -> None:
        for client in self.clients:
            await client.close()


@contextlib.asynccontextmanager
async def town(root: Path) -> AsyncIterator[Town]:
    made = Town(root)
    try:
        yield made
    finally:
        await made.close()
