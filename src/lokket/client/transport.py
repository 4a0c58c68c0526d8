"""The socket to a relay: whole binary frames over a WebSocket (RFC 6455). Knows no frame's meaning."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import SplitResult, urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from lokket import limits
from lokket.errors import LocalError

PATH: Final = "/v1"
_SCHEMES: Final = {"ws": "ws", "http": "ws", "wss": "wss", "https": "wss"}


class Unreachable(Exception):
    """No connection now; trying again may help. The text is a sentence for the person."""


class Connection(Protocol):
    """One open connection. All three raise ``Unreachable`` once it is closed, whoever closed it."""

    async def receive(self) -> bytes: ...

    async def send(self, frame: bytes) -> None: ...

    async def close(self) -> None: ...


class Transport(Protocol):
    async def connect(self) -> Connection:
        """Unreachable: not now. LocalError: never, as things are configured."""


class WebSocketTransport:
    """To ``origin`` (``wss://host``, ``ws://127.0.0.1:7677``); plain ``ws`` to this machine alone, unless
    it is allowed."""

    def __init__(
        self, origin: str, *, allow_plaintext: bool = False, tls: ssl.SSLContext | None = None
    ) -> None:
        """LocalError: no usable address, or an unencrypted one that leads off this machine."""
        self._address = address_of(origin)
        self._loopback = is_loopback(self._address.hostname or "")
        self._secure = self._address.scheme == "wss"
        if not (self._secure or self._loopback or allow_plaintext):
            raise LocalError(
                f"the relay at {self._address.netloc} is not behind TLS: ask for a wss:// address, "
                "or give --allow-plaintext to show your metadata to the network"
            )
        self._tls = tls

    async def connect(self) -> Connection:
        uri = self._address.geturl()
        try:
            socket = await _Connect(
                uri,
                compression=None,  # sizes would tell of contents
                max_size=limits.FRAME_MAX_BYTES,
                open_timeout=limits.OPEN_WAIT_S,
                ping_interval=limits.IDLE_PING_S,
                ping_timeout=limits.IDLE_PING_S,
                close_timeout=2,
                proxy=None if self._loopback else True,
                user_agent_header=None,
                ssl=(self._tls or ssl.create_default_context()) if self._secure else None,
            )
        except ssl.SSLError as error:
            reason = getattr(error, "verify_message", "") or error.reason or "the handshake failed"
            raise Unreachable(
                f"the relay at {self._address.netloc} did not prove its name by TLS ({reason}): "
                "check the address and its certificate"
            ) from None
        except (OSError, TimeoutError, InvalidHandshake, EOFError):
            raise Unreachable(
                f"the relay at {self._address.netloc} cannot be reached: check that it runs, and the network"
            ) from None
        except InvalidURI:
            raise LocalError("the relay's address is no address: ask for a new invite") from None
        return _WebSocket(socket)


def trusting(ca: Path) -> ssl.SSLContext:
    """For ``WebSocketTransport.tls``: certificates of this authority, and of no other. LocalError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError:
        raise LocalError(f"there is no certificate of an authority in {ca}: it must be PEM") from None
    except OSError as error:
        raise LocalError(f"{ca} cannot be read: {error.strerror}") from None
    return context


class _Connect(connect):
    """Goes where it was told: an answer that points elsewhere is an error (RFC 6455 section 4.1)."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class _WebSocket:
    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def receive(self) -> bytes:
        try:
            return await self._socket.recv(decode=False)
        except ConnectionClosed:
            raise Unreachable("the relay closed the connection") from None

    async def send(self, frame: bytes) -> None:
        try:
            await self._socket.send(frame)
        except ConnectionClosed:
            raise Unreachable("the relay closed the connection") from None

    async def close(self) -> None:
        async with asyncio.timeout(4):
            await self._socket.close()


def address_of(origin: str) -> SplitResult:
    """The WebSocket address of a relay's origin. Without a scheme: ``ws`` on this machine, else ``wss``."""
    try:
        parts = urlsplit(origin if "://" in origin else f"//{origin}")
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, SplitResult("", "", "", "", "")
    scheme = _SCHEMES.get(parts.scheme or ("ws" if is_loopback(host or "") else "wss"))
    if not host or scheme is None or parts.username is not None or parts.query or parts.fragment:
        raise LocalError("the relay's address is no address: ask for a new invite")
    return SplitResult(scheme, parts.netloc, parts.path.rstrip("/") + PATH, "", "")


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
