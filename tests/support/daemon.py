"""A daemon in this process, and callers who write its protocol by hand.

As real processes: ``lokket daemon`` by ``tests.support.machine``, and ``Wire`` from outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

from lokket.client.client import Client
from lokket.client.direct import DirectClient
from lokket.client.rpc import place
from lokket.client.rpc.desk import About
from lokket.client.rpc.remote import attach
from lokket.client.rpc.server import Service

T = TypeVar("T")
LONG_S = 30


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """A socket's path has at most a hundred characters, and tests have long names."""
    with tempfile.TemporaryDirectory(prefix="lokket-") as folder:
        yield Path(folder)


class Wire:
    """One connection: lines out and in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self._number = 0
        self.happened: list[dict[str, Any]] = []

    async def send(self, line: bytes | str | dict[str, Any]) -> None:
        data = json.dumps(line) if isinstance(line, dict) else line
        self.writer.write((data.encode() if isinstance(data, str) else data) + b"\n")
        await self.writer.drain()

    async def line(self) -> dict[str, Any] | None:
        """None: the daemon hung up."""
        async with asyncio.timeout(LONG_S):
            try:
                data = await self._reader.readline()
            except ConnectionError:
                return None
        return json.loads(data) if data else None

    async def answer(self) -> dict[str, Any]:
        """The next that is no notification."""
        while (line := await self.line()) is not None:
            if "method" not in line:
                return line
            self.happened.append(line["params"])
        raise AssertionError("the daemon hung up")

    async def ask(self, method: str, **params: Any) -> Any:
        """The result; AssertionError with the error, if it is one."""
        line = await self.request(method, **params)
        assert "error" not in line, line
        return line["result"]

    async def request(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        await self.send({"jsonrpc": "2.0", "id": self._number, "method": method, "params": params})
        line = await self.answer()
        assert line["id"] == self._number
        return line

    async def is_closed(self) -> bool:
        while (line := await self.line()) is not None:
            if "method" in line:
                self.happened.append(line["params"])
        return True


@contextlib.asynccontextmanager
async def wire(folder: Path, *, greet: bool = True) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_unix_connection(
        str(place.socket_path(folder)), limit=64 * 1024 * 1024
    )
    one = Wire(reader, writer)
    try:
        if greet:
            await one.ask("hello", versions=[1])
        yield one
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def served(client: Client, folder: Path, *, idle_s: float = 0.0) -> AsyncIterator[Service]:
    """The client's vault at a socket in ``folder``."""
    assert isinstance(client, DirectClient)
    service = Service(client, About("test", 0), idle_s=idle_s)
    running = asyncio.create_task(service.run(place.listen(folder)))
    try:
        yield service
    finally:
        service.stop.set()
        async with asyncio.timeout(LONG_S):
            await running


async def elsewhere(folder: Path, body: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
    """``body`` with a client attached to ``folder``'s daemon, in a thread with an event loop of its own: as
    in another process."""

    async def attached() -> T:
        client = attach(folder)
        assert client is not None
        async with client:
            return await body(client)

    return await asyncio.to_thread(lambda: asyncio.run(attached()))
