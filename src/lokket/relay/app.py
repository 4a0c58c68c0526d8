"""From a configuration to a relay that serves: data directory, keys, sockets, upkeep, an orderly stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lokket import limits
from lokket.crypto.keys import Ed25519KeyPair
from lokket.errors import LocalError
from lokket.protocol.identity import Invite
from lokket.relay.admin import Steward, ask, listening
from lokket.relay.admission import of_this_machine
from lokket.relay.backup import KEY_FILE, require_whole
from lokket.relay.bus import LocalBus
from lokket.relay.config import RelayConfig, require_safe
from lokket.relay.explain import DATA_FILE
from lokket.relay.orders import Answer, Order
from lokket.relay.proxy import Peers
from lokket.relay.relay import Relay
from lokket.relay.storage.base import Storage, StorageBroken, StorageFull
from lokket.relay.storage.memory import MemoryStorage
from lokket.relay.storage.sqlite import SQLiteStorage
from lokket.relay.tls import ServerTls
from lokket.relay.web import Entrance, Gate, Machine, make_app
from lokket.system import SystemEntropy, now_ms
from lokket.wire import api

_log = logging.getLogger(__name__)

_STOP_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Running:
    """A relay that accepts connections. ``invite``: for its first member, while it has none."""

    relay: Relay
    port: int
    origin: str
    relay_key: bytes
    invite: Invite | None


Ready = Callable[[Running], None]


def build(config: RelayConfig) -> tuple[Relay, Starlette]:
    """The relay and its web application; ``await relay.storage.close()`` ends it.

    LocalError: the origin or the data directory cannot be used, or another relay runs on it.
    """
    entropy = SystemEntropy()
    storage: Storage
    if config.data is None:
        storage, key = MemoryStorage(), Ed25519KeyPair(entropy.draw(32))
    else:
        _make_private(config.data)
        require_whole(config.data)
        storage = SQLiteStorage(config.data / DATA_FILE, max_bytes=config.storage_max_bytes)
        key = _relay_key(config.data / KEY_FILE, entropy)
    relay = Relay(storage, config, key, LocalBus(), of_this_machine(config.data))
    gate = Gate(config.connections_max, config.connections_per_address_max)
    return relay, make_app(relay, Machine(now_ms, entropy), Entrance(gate, Peers(config)))


async def order(config: RelayConfig, order: Order) -> Answer:
    """Have an operator's order carried out: by the relay that runs on ``config.data``, or else here.

    LocalError: it cannot be done, or there is no relay's data.
    """
    assert config.data is not None
    answer = await ask(config.data, order)
    if answer is not None:
        return answer
    if not (config.data / DATA_FILE).exists():
        raise LocalError(f"there is no relay's data in {config.data}; give --data or --config")
    relay, _ = build(_settled(config, config.port))
    try:
        return await Steward(relay, False).carry_out(order, now_ms(), SystemEntropy())
    finally:
        await relay.storage.close()


def _make_private(data: Path) -> None:
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        data.chmod(0o700)
    except OSError:
        raise LocalError(f"{data} cannot be made a private directory; name another data directory") from None


def _relay_key(path: Path, entropy: SystemEntropy) -> Ed25519KeyPair:
    """The relay's identity, made at the first start. Whoever holds the file is this relay."""
    if not path.exists():
        fresh = path.with_name(path.name + ".new")
        with open(os.open(fresh, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
            file.write(entropy.draw(32))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    seed = path.read_bytes()
    if len(seed) != 32:
        raise LocalError(f"{path.name} is damaged; restore it from a backup: clients know the relay by it")
    return Ed25519KeyPair(seed)


def listen(host: str, port: int) -> socket.socket:
    """A bound socket. LocalError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With its protocol named asyncio turns Nagle's delay off, on each socket that is accepted here; without,
    # every second small frame waits 40 ms for an acknowledgement.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise LocalError(
            f"{host}:{port} cannot be listened on; is another relay running? try --port"
        ) from None
    return bound


async def serve(config: RelayConfig, ready: Ready, stop: asyncio.Event | None = None) -> None:
    """Serve until ``stop`` is set, SIGTERM or SIGINT comes, or the task is cancelled.

    ``ready`` is called once connections are accepted. An empty ``config.origin`` becomes
    ``ws://host:port``, with TLS ``wss://host:port``. LocalError: it cannot start, or its data is damaged.
    """
    require_safe(config)
    tls = None
    if config.tls_cert is not None and config.tls_key is not None:
        tls = ServerTls(config.tls_cert, config.tls_key)
    bound = listen(config.host, config.port)
    try:
        config = _settled(config, int(bound.getsockname()[1]))
        relay, app = build(config)
        try:
            server = _Server(_server_config(app, config), tls)
            await _run(relay, server, bound, ready, stop or asyncio.Event())
        finally:
            await relay.storage.close()
    finally:
        bound.close()
    if relay.storage.damaged:
        raise LocalError("the relay's data is damaged; start it again to see what to do")


def _settled(config: RelayConfig, port: int) -> RelayConfig:
    """With the port that it got, and the address that follows from it where none was named."""
    host = f"[{config.host}]" if ":" in config.host else config.host
    scheme = "wss" if config.speaks_tls else "ws"
    return replace(config, port=port, origin=config.origin or f"{scheme}://{host}:{port}")


async def _run(
    relay: Relay, server: _Server, bound: socket.socket, ready: Ready, stop: asyncio.Event
) -> None:
    serving = asyncio.ensure_future(server.serve(sockets=[bound]))
    with _signals(stop):
        try:
            while not server.started and not serving.done():
                await asyncio.sleep(0.005)
            if not serving.done():
                entropy = SystemEntropy()
                async with listening(Steward(relay, True), relay.config.data, now_ms, entropy):
                    ready(await _running(relay))
                    await _keep(relay, server, serving, stop)
        finally:
            relay.close_all(api.UNAVAILABLE, "the relay stops; it will be back")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(_emptied(relay), _STOP_S)
            server.should_exit = True
            await serving


async def _running(relay: Relay) -> Running:
    config = relay.config
    invite = None if config.open else await relay.first_member_invite(now_ms(), SystemEntropy())
    return Running(relay, config.port, config.origin, relay.key, invite)


async def _keep(relay: Relay, server: _Server, serving: asyncio.Future[None], stop: asyncio.Event) -> None:
    """Upkeep until something ends the relay."""
    stopping = asyncio.ensure_future(stop.wait())
    try:
        while not stop.is_set() and not serving.done() and not relay.storage.damaged:
            with contextlib.suppress(StorageBroken, StorageFull):
                await relay.upkeep(now_ms())
            server.renew_certificate()
            ends: set[asyncio.Future[Any]] = {stopping, serving}
            await asyncio.wait(ends, timeout=limits.UPKEEP_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()


async def _emptied(relay: Relay) -> None:
    while relay.connections:
        await asyncio.sleep(0.01)


def _server_config(app: Starlette, config: RelayConfig) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_HurriedHttp,
        ws="websockets-sansio",
        ws_max_size=limits.FRAME_MAX_BYTES,
        ws_ping_interval=limits.IDLE_PING_S,
        ws_ping_timeout=limits.IDLE_CLOSE_S - limits.IDLE_PING_S,
        ws_per_message_deflate=False,  # compression tells of plaintext by size, and bombs
        limit_concurrency=2 * config.connections_max + 100,
        timeout_keep_alive=limits.LOGIN_WAIT_S,
        timeout_graceful_shutdown=int(_STOP_S),
        lifespan="off",
        log_config=None,
        log_level="warning",  # below it, addresses are logged
        access_log=False,
        server_header=False,
        proxy_headers=False,  # ``proxy`` decides whom to believe
    )


class _HurriedHttp(HttpToolsProtocol):
    """Closes who has sent no whole request in time: uvicorn has no bound of its own for that."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._hurry = self.loop.call_later(limits.LOGIN_WAIT_S, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self._hurry.cancel()
        super().connection_lost(exc)

    def on_headers_complete(self) -> None:
        self._hurry.cancel()
        super().on_headers_complete()

    def _give_up(self) -> None:
        self.transport.close()


class _Server(uvicorn.Server):
    """Leaves signals alone: ``serve`` closes the sockets first, then asks the server to exit.

    Listens by itself, because uvicorn has no bound for how long a TLS handshake may take.
    """

    def __init__(self, config: uvicorn.Config, tls: ServerTls | None) -> None:
        super().__init__(config)
        self._tls = tls

    def renew_certificate(self) -> None:
        """New connections get the certificate that is in the file now."""
        if self._tls is not None:
            try:
                if self._tls.renew():
                    _log.info("the certificate was renewed")
            except LocalError as error:
                _log.error("the old certificate stays in use: %s", error)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        loop, config = asyncio.get_running_loop(), self.config
        context = self._tls.context if self._tls is not None else None

        def protocol() -> asyncio.Protocol:
            made: asyncio.Protocol = config.http_protocol_class(  # type: ignore[call-arg]
                config=config, server_state=self.server_state, app_state=self.lifespan.state
            )
            return made

        self.servers = [
            await loop.create_server(
                protocol,
                sock=bound,
                backlog=config.backlog,
                ssl=context,
                ssl_handshake_timeout=limits.LOGIN_WAIT_S if context else None,
            )
            for bound in sockets or ()
        ]
        self.started = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.contextmanager
def _signals(stop: asyncio.Event) -> Iterator[None]:
    """SIGTERM and SIGINT set ``stop``, where this thread may say so."""
    loop = asyncio.get_running_loop()
    caught: list[signal.Signals] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
            loop.add_signal_handler(number, stop.set)
            caught.append(number)
    try:
        yield
    finally:
        for number in caught:
            loop.remove_signal_handler(number)
