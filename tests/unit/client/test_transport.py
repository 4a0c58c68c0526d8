"""The socket: where it goes, where it refuses to go, and how it fails."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path

import pytest
import websockets
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from lokket import limits
from lokket.client.transport import Unreachable, WebSocketTransport, address_of, is_loopback
from lokket.errors import LocalError


@pytest.mark.parametrize(
    ("origin", "address"),
    [
        ("ws://127.0.0.1:7677", "ws://127.0.0.1:7677/v1"),
        ("wss://relay.example.org", "wss://relay.example.org/v1"),
        ("https://relay.example.org/chat/", "wss://relay.example.org/chat/v1"),
        ("http://localhost:80", "ws://localhost:80/v1"),
        ("relay.example.org:4430", "wss://relay.example.org:4430/v1"),
        ("127.0.0.1:7677", "ws://127.0.0.1:7677/v1"),
        ("[::1]:7677", "ws://[::1]:7677/v1"),
    ],
)
def test_an_origin_is_an_address(origin: str, address: str) -> None:
    assert address_of(origin).geturl() == address


@pytest.mark.parametrize(
    "origin",
    ["", "://", "ftp://a", "file:///etc/passwd", "ws://", "ws://a:b", "ws://a:99999", "ws://me:pw@a", "ws://a?b",
     "ws://a#b", "ws://[::1", "javascript:alert(1)"],
)  # fmt: skip
def test_what_is_no_address_is_refused(origin: str) -> None:
    with pytest.raises(LocalError):
        address_of(origin)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.attack(60)
@pytest.mark.parametrize(
    "origin",
    ["ws://relay.example.org", "http://10.0.0.1:7677", "ws://localhost.example.org", "ws://0.0.0.0:1"],
)
def test_plaintext_never_leaves_this_machine_unasked(origin: str) -> None:
    with pytest.raises(LocalError, match="not behind TLS"):
        WebSocketTransport(origin)
    WebSocketTransport(origin, allow_plaintext=True)


Handler = Callable[[ServerConnection], Awaitable[None]]


async def greeted_by(handler: Handler, visit: Callable[[str], Awaitable[None]]) -> None:
    async with serve(handler, "127.0.0.1", 0, max_size=None) as server:
        port = server.sockets[0].getsockname()[1]
        await visit(f"ws://127.0.0.1:{port}")


def test_frames_go_and_come_whole_and_uncompressed() -> None:
    async def echo(socket: ServerConnection) -> None:
        assert socket.request is not None
        assert socket.request.path == "/v1"
        assert "Sec-WebSocket-Extensions" not in socket.request.headers
        assert "User-Agent" not in socket.request.headers
        async for message in socket:
            await socket.send(message)

    async def visit(origin: str) -> None:
        connection = await WebSocketTransport(origin).connect()
        for frame in (b"", b"x", bytes(limits.FRAME_MAX_BYTES)):
            await connection.send(frame)
            assert await connection.receive() == frame
        await connection.close()
        with pytest.raises(Unreachable):
            await connection.receive()
        with pytest.raises(Unreachable):
            await connection.send(b"late")

    asyncio.run(greeted_by(echo, visit))


@pytest.mark.attack(50)
def test_a_larger_frame_ends_the_connection() -> None:
    async def flood(socket: ServerConnection) -> None:
        await socket.send(bytes(limits.FRAME_MAX_BYTES + 1))
        await socket.wait_closed()

    async def visit(origin: str) -> None:
        connection = await WebSocketTransport(origin).connect()
        with pytest.raises(Unreachable):
            await connection.receive()

    asyncio.run(greeted_by(flood, visit))


def test_nobody_there() -> None:
    async def run() -> None:
        async with serve(lambda _: asyncio.sleep(0), "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
        with pytest.raises(Unreachable, match="cannot be reached"):
            await WebSocketTransport(f"ws://127.0.0.1:{port}").connect()

    asyncio.run(run())


@pytest.mark.attack(60)
def test_a_redirect_is_not_followed() -> None:
    """Neither to plaintext nor anywhere: the address in the invite is the address."""
    reached: list[str] = []

    async def elsewhere(socket: ServerConnection) -> None:
        reached.append("elsewhere")

    async def run() -> None:
        async with serve(elsewhere, "127.0.0.1", 0) as target:
            port = target.sockets[0].getsockname()[1]

            def redirect(connection: ServerConnection, request: Request) -> Response:
                headers = websockets.Headers({"Location": f"ws://127.0.0.1:{port}/v1"})
                return Response(HTTPStatus.FOUND, "Found", headers, b"")

            async with serve(elsewhere, "127.0.0.1", 0, process_request=redirect) as first:
                first_port = first.sockets[0].getsockname()[1]
                with pytest.raises(Unreachable):
                    await WebSocketTransport(f"ws://127.0.0.1:{first_port}").connect()

    asyncio.run(run())
    assert not reached


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Self-signed, for ``name``: certificate and key files."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / f"{name}.crt", folder / f"{name}.key"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


@pytest.mark.attack(60)
@pytest.mark.parametrize(
    ("shown", "trusted", "good"),
    [("localhost", True, True), ("localhost", False, False), ("other.example", True, False)],
)
def test_tls_fails_closed(tmp_path: Path, shown: str, trusted: bool, good: bool) -> None:
    """A man in the middle with another authority, or with a certificate for another name."""
    chain, key = certificate(tmp_path, shown)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(chain, key)
    client_side = ssl.create_default_context(cafile=str(chain)) if trusted else None

    async def greet(socket: ServerConnection) -> None:
        await socket.send(b"hello")
        await socket.wait_closed()

    async def run() -> None:
        async with serve(greet, "127.0.0.1", 0, ssl=server_side) as server:
            port = server.sockets[0].getsockname()[1]
            transport = WebSocketTransport(f"wss://localhost:{port}", tls=client_side)
            if good:
                connection = await transport.connect()
                assert await connection.receive() == b"hello"
                await connection.close()
            else:
                with pytest.raises(Unreachable, match="did not prove its name by TLS"):
                    await transport.connect()

    asyncio.run(run())
