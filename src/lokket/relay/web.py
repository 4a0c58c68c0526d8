"""The relay's HTTP and WebSocket face: ``/v1`` for clients; ``/healthz``, ``/readyz``, ``/metrics``.

A connection: greeting out; then one frame in, one reply out, in order. Beside it a pusher sends what
``Relay.drain`` gives whenever the relay wakes it. A slow reader stops its own pusher: what waits stays in
storage. Sockets stand behind ``Connection``, so that another WebSocket library can take their place.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from lokket import limits
from lokket.crypto.entropy import Entropy
from lokket.errors import DecodeError
from lokket.relay.proxy import Peers, counted_as
from lokket.relay.relay import Relay
from lokket.relay.storage.base import Counts
from lokket.wire import api

GOING_AWAY: Final = 1001
UNSUPPORTED: Final = 1003
POLICY: Final = 1008
TOO_BIG: Final = 1009
_CLOSE_CODES: Final = {api.UNAVAILABLE: GOING_AWAY, api.TOO_LARGE: TOO_BIG}  # POLICY for the others


class ConnectionClosed(Exception):
    """The other side is gone."""


class Connection(Protocol):
    """One WebSocket. Whole binary messages of at most ``limits.FRAME_MAX_BYTES``."""

    async def receive(self) -> bytes:
        """ConnectionClosed; DecodeError: a text message."""

    async def send(self, data: bytes) -> None:
        """Waits while the other side does not read. ConnectionClosed."""

    async def close(self, code: int) -> None: ...


class StarletteConnection:
    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    async def receive(self) -> bytes:
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise ConnectionClosed
        data = message.get("bytes")
        if not isinstance(data, bytes):
            raise DecodeError("clients speak in binary messages")
        return data

    async def send(self, data: bytes) -> None:
        try:
            await self._socket.send_bytes(data)
        except (WebSocketDisconnect, RuntimeError):
            raise ConnectionClosed from None

    async def close(self, code: int) -> None:
        if self._socket.application_state is not WebSocketState.DISCONNECTED:
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                await self._socket.close(code)


@dataclass(frozen=True, slots=True)
class Machine:
    """The real world, handed in."""

    now_ms: Callable[[], int]
    entropy: Entropy


class Session:
    """One connection from greeting to close."""

    def __init__(self, relay: Relay, connection: Connection, machine: Machine) -> None:
        self._relay = relay
        self._connection = connection
        self._machine = machine
        self._due = asyncio.Event()
        self._caller = relay.connect(machine.now_ms(), machine.entropy)
        self._caller.wake = self._due.set

    async def run(self) -> None:
        """Reader and pusher; the first to end ends both, and the relay forgets the caller."""
        try:
            await self._frame(0, self._caller.hello)
            await self._read_and_push()
        except ConnectionClosed:
            pass
        finally:
            self._relay.disconnect(self._caller)

    async def _read_and_push(self) -> None:
        tasks = [asyncio.ensure_future(self._read()), asyncio.ensure_future(self._push())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    async def _read(self) -> None:
        deadline = asyncio.get_running_loop().time() + limits.LOGIN_WAIT_S
        try:
            while not self._caller.device_hash:
                async with asyncio.timeout_at(deadline):
                    data = await self._connection.receive()
                if len(data) > limits.FRAME_BEFORE_LOGIN_MAX_BYTES:
                    return await self._dismiss(api.TOO_LARGE, "too much was said before the login")
                if not await self._answer(data):
                    return None
            while await self._answer(await self._connection.receive()):
                pass
        except TimeoutError:
            await self._dismiss(api.LOGIN_REFUSED, "no login in time; connect again")
        except DecodeError:
            await self._dismiss(api.MALFORMED, "clients speak in binary messages")
        return None

    async def _answer(self, data: bytes) -> bool:
        """Whether to go on: bytes that have not even a number end the connection."""
        try:
            frame = api.decode_client_frame(data)
        except DecodeError:
            number = api.frame_number(data)
            if number is None:
                await self._dismiss(api.MALFORMED, "that is no frame of this interface")
                return False
            await self._frame(number, api.Refused(api.MALFORMED, "the relay does not know this request"))
            return True
        reply = await self._relay.handle(
            self._caller, frame.request, self._machine.now_ms(), self._machine.entropy
        )
        await self._frame(frame.number, reply)
        return True

    async def _push(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            for notice in self._relay.notices(self._caller):
                await self._frame(0, notice)
                if isinstance(notice, api.Closing):
                    return await self._connection.close(_CLOSE_CODES.get(notice.code, POLICY))
            while (deliver := await self._relay.drain(self._caller, self._machine.now_ms())) is not None:
                await self._frame(0, deliver)

    async def _frame(self, number: int, message: api.Reply | api.Push) -> None:
        data = api.encode(api.RelayFrame(number, message))
        try:
            async with asyncio.timeout(limits.SEND_WAIT_S):
                await self._connection.send(data)
        except TimeoutError:
            raise ConnectionClosed from None

    async def _dismiss(self, code: str, sentence: str) -> None:
        await self._frame(0, api.Closing(code, sentence))
        await self._connection.close(_CLOSE_CODES.get(code, POLICY))


class Gate:
    """How many connections there may be, in all and for each address. Addresses are kept nowhere else."""

    def __init__(self, connections_max: int, per_address_max: int) -> None:
        self._connections_max = connections_max
        self._per_address_max = per_address_max
        self._open: Counter[str] = Counter()

    def enter(self, address: str) -> bool:
        if self._open.total() >= self._connections_max or self._open[address] >= self._per_address_max:
            return False
        self._open[address] += 1
        return True

    def leave(self, address: str) -> None:
        self._open[address] -= 1
        if not self._open[address]:
            del self._open[address]


@dataclass(frozen=True, slots=True)
class Entrance:
    """Who may come in, and under which address they are counted."""

    gate: Gate
    peers: Peers

    def client(self, connection: HTTPConnection) -> str | None:
        """The client's address; None: whoever this is must come through the proxy."""
        peer = connection.client.host if connection.client is not None else ""
        if not self.peers.admits(peer):
            return None
        return self.peers.client(peer, connection.headers.getlist("x-forwarded-for"))


def make_app(relay: Relay, machine: Machine, entrance: Entrance) -> Starlette:
    async def clients(socket: WebSocket) -> None:
        client = entrance.client(socket)
        if client is None:
            relay.counters["refused direct connection"] += 1
            await socket.send_denial_response(PlainTextResponse("come through the proxy\n", 403))
            return
        address = counted_as(client)
        if not entrance.gate.enter(address):
            relay.counters["refused connection"] += 1
            await socket.send_denial_response(PlainTextResponse("too many connections\n", 429))
            return
        try:
            await socket.accept()
            connection = StarletteConnection(socket)
            await Session(relay, connection, machine).run()
            await connection.close(GOING_AWAY)
        except Exception as error:
            relay.fault("a connection", error)
        finally:
            entrance.gate.leave(address)

    async def healthz(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        if relay.storage.broken:
            return PlainTextResponse("the disk fails\n", 503)
        return PlainTextResponse("ready\n")

    async def metrics(request: Request) -> Response:
        client = entrance.client(request)
        if client is None or not entrance.peers.may_read_metrics(client):
            return PlainTextResponse("not found\n", 404)
        registry = CollectorRegistry()
        registry.register(_Figures(relay, await relay.storage.counts()))
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4")

    return Starlette(
        routes=[
            WebSocketRoute("/v1", clients),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
        ]
    )


class _Figures:
    """Sums only: nothing in them belongs to one account."""

    def __init__(self, relay: Relay, counts: Counts) -> None:
        self._relay = relay
        self._counts = counts

    def collect(self) -> list[Metric]:
        events = CounterMetricFamily(
            "lokket_relay_events", "Requests, refusals, deliveries.", labels=["event"]
        )
        for event, count in sorted(self._relay.counters.items()):
            events.add_metric([event], count)
        gauges = {
            "connections": (self._relay.connections, "Open connections."),
            "accounts": (self._counts.accounts, "Accounts."),
            "devices": (self._counts.devices, "Listed devices."),
            "mail": (self._counts.mail, "Envelopes waiting."),
            "shortage": (int(bool(self._relay.shortage())), "1: no new accounts, for want of room."),
            "mail_bytes": (self._counts.mail_bytes, "Bytes of envelopes waiting."),
        }
        return [
            events,
            *(
                GaugeMetricFamily(f"lokket_relay_{name}", text, value)
                for name, (value, text) in gauges.items()
            ),
        ]
