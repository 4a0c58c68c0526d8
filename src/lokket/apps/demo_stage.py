"""What the demo plays on: a throwaway relay with real sockets, two vaults, and frames that are watched."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from lokket.client.direct import DirectClient
from lokket.client.surroundings import Surroundings
from lokket.client.transport import Connection, Transport, WebSocketTransport
from lokket.errors import LocalError
from lokket.relay import app as relay_app
from lokket.relay.config import EVERYONE, RelayConfig
from lokket.system import SystemEntropy
from lokket.wire import api

M = TypeVar("M")

SEARCHED_MIN_BYTES: Final = 6  # shorter texts turn up in random bytes
_START_WAIT_S: Final = 10.0


@dataclass(slots=True)
class Frames:
    """Everything that one client said to the relay and heard from it: (size in bytes, message)."""

    said: list[tuple[int, api.Request]] = field(default_factory=list)
    heard: list[tuple[int, object]] = field(default_factory=list)

    def last_said(self, kind: type[M]) -> tuple[int, M]:
        """LocalError: no such frame went out."""
        return _last(self.said, kind)

    def last_heard(self, kind: type[M]) -> tuple[int, M]:
        """LocalError: no such frame came in."""
        return _last(self.heard, kind)

    def envelopes_sent(self) -> list[api.Envelope]:
        return [
            envelope
            for _, request in self.said
            if isinstance(request, api.Send)
            for envelope in request.envelopes
        ]

    def envelopes_delivered(self) -> list[bytes]:
        return [
            envelope
            for _, message in self.heard
            if isinstance(message, api.Deliver)
            for envelope in message.envelopes
        ]


def _last(frames: Sequence[tuple[int, object]], kind: type[M]) -> tuple[int, M]:
    for size, message in reversed(frames):
        if isinstance(message, kind):
            return size, message
    raise LocalError(f"no {kind.__name__} was seen on the wire")


class Watched:
    """A transport that notes what passes, and changes nothing."""

    def __init__(self, inner: Transport, frames: Frames) -> None:
        self._inner = inner
        self._frames = frames

    async def connect(self) -> Connection:
        return _WatchedConnection(await self._inner.connect(), self._frames)


class _WatchedConnection:
    def __init__(self, inner: Connection, frames: Frames) -> None:
        self._inner = inner
        self._frames = frames

    async def receive(self) -> bytes:
        data = await self._inner.receive()
        self._frames.heard.append((len(data), api.decode_relay_frame(data).message))
        return data

    async def send(self, frame: bytes) -> None:
        self._frames.said.append((len(frame), api.decode_client_frame(frame).request))
        await self._inner.send(frame)

    async def close(self) -> None:
        await self._inner.close()


class Actor:
    """One person of the demo: a vault, a client that comes and goes, and the frames it exchanged."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.frames = Frames()
        self._key = SystemEntropy().draw(32)
        self._client: DirectClient | None = None

    @property
    def client(self) -> DirectClient:
        """LocalError: offline just now."""
        if self._client is None:
            raise LocalError(f"{self.name} is offline")
        return self._client

    async def open(self, *, create: bool = False) -> DirectClient:
        around = Surroundings(transport=lambda origin: Watched(WebSocketTransport(origin), self.frames))
        self._client = await DirectClient.begin(self.folder, self._key, create=create, surroundings=around)
        return self._client

    async def close(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()


class RelayThread:
    """A relay in a thread and an event loop of its own, on any free port of this machine."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.running: relay_app.Running | None = None
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="demo-relay", daemon=True)

    def start(self) -> relay_app.Running:
        """LocalError: it did not start."""
        self._thread.start()
        self._started.wait(_START_WAIT_S)
        if self.running is None:
            raise LocalError(f"the relay did not start: {self._failure or 'it took too long'}")
        return self.running

    def stop(self) -> None:
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_START_WAIT_S)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._failure = error
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()

        def ready(running: relay_app.Running) -> None:
            self.running = running
            self._started.set()

        config = RelayConfig(open=True, data=self.data, port=0, admission=EVERYONE)
        await relay_app.serve(config, ready, self._stop)


@dataclass(frozen=True, slots=True)
class Stage:
    relay: RelayThread
    running: relay_app.Running
    alice: Actor
    bob: Actor

    def files(self) -> list[Path]:
        """All that the relay has on disk."""
        return sorted(path for path in self.relay.data.rglob("*") if path.is_file())

    def count(self, needle: bytes) -> int:
        """How often these bytes stand in the relay's files."""
        return sum(path.read_bytes().count(needle) for path in self.files())


@contextmanager
def stage() -> Iterator[Stage]:
    """Everything in one new folder, which is removed in the end."""
    folder = Path(tempfile.mkdtemp(prefix="lokket-demo-"))
    relay = RelayThread(folder / "relay")
    try:
        running = relay.start()
        yield Stage(relay, running, Actor("alice", folder / "alice"), Actor("bob", folder / "bob"))
    finally:
        relay.stop()
        shutil.rmtree(folder, ignore_errors=True)
