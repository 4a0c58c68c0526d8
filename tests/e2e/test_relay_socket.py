"""A served relay on a real socket: frames, limits before the login, slow readers, an orderly stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from lokket import limits
from lokket.client.direct import DirectClient
from lokket.errors import LocalError
from lokket.protocol import identity
from lokket.relay.app import Running, build, listen, serve
from lokket.relay.config import EVERYONE, RelayConfig
from lokket.relay.explain import NOT_HELD, explain_data
from lokket.system import now_ms
from lokket.wire import api
from tests.support.machine import RelayMachine, machines
from tests.support.served import LONG_S, Wire, get, person, served, wire

ROOT = Path(__file__).parent.parent.parent


async def test_two_people_and_a_letter(tmp_path: Path) -> None:
    """Register, send, deliver, acknowledge; then everything again from disk after a restart."""
    config = RelayConfig(origin="wss://relay.test", data=tmp_path / "data", open=True, port=0)
    alice, bob = person("alice"), person("bob")
    async with served(config) as running:
        assert running.origin == "wss://relay.test"
        at = Running(running.relay, running.port, f"ws://127.0.0.1:{running.port}", running.relay_key, None)
        async with wire(at) as (a, hello_a), wire(at) as (b, hello_b):
            assert hello_a.nonce != hello_b.nonce
            assert isinstance(await a.ask(alice.registration(hello_a, name="alice")), api.LoggedIn)
            assert isinstance(await b.ask(bob.registration(hello_b)), api.LoggedIn)
            letters = [alice.envelope(bob, b"one"), alice.envelope(bob, b"two")]
            sent = await a.ask(api.Send(tuple(letters)))
            assert sent == api.Sent(tuple(api.Deposited(letter.envelope_id, "") for letter in letters))
            deliver = (await b.push()).message
            assert isinstance(deliver, api.Deliver)
            assert [api.decode_envelope(data) for data in deliver.envelopes] == letters
            assert await b.ask(api.Acknowledge((letters[0].envelope_id,))) == api.Ok()
        key = running.relay_key
    async with served(config) as running:
        assert running.relay_key == key
        at = Running(running.relay, running.port, f"ws://127.0.0.1:{running.port}", key, None)
        async with wire(at) as (b, hello_b):
            logged_in = await b.ask(bob.login(hello_b))
            assert isinstance(logged_in, api.LoggedIn)
            assert logged_in.mailbox == 1
            deliver = (await b.push()).message
            assert isinstance(deliver, api.Deliver)
            assert [api.decode_envelope(data) for data in deliver.envelopes] == letters[1:]
            record = await b.ask(api.LookupName("alice"))
            assert isinstance(record, api.NameRecord)
            assert record.genesis_hash == alice.genesis_hash


@pytest.mark.attack(44)
async def test_the_older_connection_of_a_device_is_closed() -> None:
    alice = person("alice")
    async with served() as running, wire(running) as (older, hello):
        await older.ask(alice.registration(hello))
        async with wire(running) as (newer, fresh):
            assert isinstance(await newer.ask(alice.login(fresh)), api.LoggedIn)
            assert await older.closed() == 1008
            assert [type(push) for push in older.pushes] == [api.Closing]
            assert await newer.ask(api.Ping()) == api.Ok()


# --- what strangers may do ---


@pytest.mark.attack(50)
async def test_who_does_not_log_in_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOGIN_WAIT_S", 0.3)
    async with served() as running, wire(running) as (one, _):
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        for _ in range(20):  # asking does not prolong it
            with contextlib.suppress(ConnectionClosed):
                await one.socket.send(api.encode(api.ClientFrame(1, api.Ping())))
                await asyncio.sleep(0.02)
        assert await one.closed() == 1008
        assert loop.time() - start_s < 5
        assert isinstance(one.pushes[-1], api.Closing)
        assert running.relay.connections == 0


@pytest.mark.attack(50)
@pytest.mark.parametrize("beginning", [b"", b"GET /v1 HTTP/1.1\r\nHost: a\r\nX: "])
async def test_who_does_not_finish_a_request_is_closed(
    beginning: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOGIN_WAIT_S", 0.3)
    async with served() as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(beginning)
        async with asyncio.timeout(LONG_S):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
        writer.close()


@pytest.mark.attack(50)
@pytest.mark.parametrize(
    ("size", "logged_in"),
    [(limits.FRAME_BEFORE_LOGIN_MAX_BYTES + 1, False), (limits.FRAME_MAX_BYTES + 1, True)],
)
async def test_an_oversize_frame_ends_the_connection(size: int, logged_in: bool) -> None:
    alice = person("alice")
    async with served() as running, wire(running) as (one, hello):
        if logged_in:
            await one.ask(alice.registration(hello))
        with contextlib.suppress(ConnectionClosed):
            await one.socket.send(bytes(size))
        assert await one.closed() in (1009, 1006)
        async with wire(running) as (two, fresh):
            reply = await two.ask(alice.login(fresh) if logged_in else alice.registration(fresh))
            assert isinstance(reply, api.LoggedIn), "the relay goes on"


async def test_the_largest_allowed_frame_is_taken() -> None:
    alice = person("alice")
    async with served() as running, wire(running) as (one, hello):
        await one.ask(alice.registration(hello))
        room = limits.FRAME_MAX_BYTES - 64
        reply = await one.ask(api.Publish(bytes(room)))
        assert isinstance(reply, api.Refused)
        assert reply.code == api.MALFORMED
        assert await one.ask(api.Publish(alice.encoded_batch(1, pairs=128))) == api.Ok()


@pytest.mark.attack(16)
@pytest.mark.attack(50)
async def test_garbage_gets_a_typed_answer_and_never_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    alice = person("alice")
    with caplog.at_level(logging.DEBUG, logger="lokket"):
        async with served() as running:
            for garbage in (b"", b"\xff" * 10, b"\x91" * 10_000, secrets.token_bytes(200), b"\xc1"):
                async with wire(running) as (one, _):
                    await one.socket.send(garbage)
                    assert await one.closed() == 1008
                    closing = one.pushes[-1]
                    assert isinstance(closing, api.Closing)
                    assert closing.code == api.MALFORMED
            async with wire(running) as (one, hello):
                await one.socket.send("text")
                assert await one.closed() == 1008
            async with wire(running) as (one, hello):
                await one.ask(alice.registration(hello))
                later = msgspec.msgpack.encode([77, ["a-request-of-later", b"data"]])
                await one.socket.send(later)
                frame = await one.next()
                assert frame.number == 77
                assert isinstance(frame.message, api.Refused)
                assert frame.message.code == api.MALFORMED
                assert await one.ask(api.Ping()) == api.Ok(), "the connection goes on"
            assert running.relay.counters["fault"] == 0
    assert "Traceback" not in caplog.text


@pytest.mark.attack(50)
async def test_connections_are_bounded_in_all_and_per_address() -> None:
    for config in (
        RelayConfig(open=True, port=0, connections_max=3),
        RelayConfig(open=True, port=0, connections_per_address_max=3),
    ):
        async with served(config) as running, contextlib.AsyncExitStack() as stack:
            for _ in range(3):
                await stack.enter_async_context(wire(running))
            with pytest.raises(InvalidStatus) as refused:
                await stack.enter_async_context(wire(running))
            assert refused.value.response.status_code == 429
            await stack.aclose()
            async with asyncio.timeout(LONG_S):
                while running.relay.connections:
                    await asyncio.sleep(0.01)
            async with wire(running) as (one, _):
                assert isinstance(await one.ask(api.Ping()), api.Refused)


@pytest.mark.attack(50)
async def test_compression_is_not_spoken() -> None:
    async with served() as running, connect(f"{running.origin}/v1", compression="deflate") as opened:
        assert opened.response is not None
        assert "Sec-WebSocket-Extensions" not in opened.response.headers


@pytest.mark.attack(51)
async def test_a_reader_that_stops_costs_no_more_than_its_window() -> None:
    """Bob reads nothing while 60 letters of 64 KiB arrive: they wait in storage, not in memory."""
    alice, bob = person("alice"), person("bob")
    async with served() as running, wire(running) as (a, hello):
        await a.ask(alice.registration(hello))
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.setblocking(False)
        await asyncio.get_running_loop().sock_connect(slow, ("127.0.0.1", running.port))
        async with connect(f"{running.origin}/v1", compression=None, sock=slow, max_queue=1) as quiet:
            b = Wire(quiet)
            hello_b = (await b.push()).message
            assert isinstance(hello_b, api.Hello)
            await b.ask(bob.registration(hello_b))
            for _ in range(12):
                letters = tuple(alice.envelope(bob, bytes(64 * 1024)) for _ in range(5))
                sent = await a.ask(api.Send(letters))
                assert isinstance(sent, api.Sent)
                assert {result.code for result in sent.results} == {""}
            (caller,) = [one for one in running.relay._callers if one.device_hash == bob.device_hash]
            assert sum(caller.unacknowledged.values()) <= limits.DELIVER_UNACKNOWLEDGED_MAX_BYTES
            assert await a.ask(api.Ping()) == api.Ok(), "others are served"
            received = 0
            while received < 60:
                frame = await b.next()
                if isinstance(frame.message, api.Deliver):
                    ids = tuple(api.decode_envelope(data).envelope_id for data in frame.message.envelopes)
                    received += len(ids)
                    await quiet.send(api.encode(api.ClientFrame(9, api.Acknowledge(ids))))
            assert received == 60


# --- operating it ---


async def test_health_readiness_and_figures(tmp_path: Path) -> None:
    alice = person("alice")
    async with (
        served(RelayConfig(open=True, port=0, data=tmp_path)) as running,
        wire(running) as (one, hello),
    ):
        await one.ask(alice.registration(hello, name="alice"))
        assert await get(running, "/healthz") == (200, "ok\n")
        assert await get(running, "/readyz") == (200, "ready\n")
        status, text = await get(running, "/metrics")
        assert status == 200
        assert "lokket_relay_accounts 1.0" in text
        assert "lokket_relay_connections 1.0" in text
        assert 'lokket_relay_events_total{event="Register"} 1.0' in text
        for secret in ("alice", alice.genesis_hash.hex(), alice.device_hash.hex()):
            assert secret not in text
        assert (await get(running, "/anything"))[0] == 404
        running.relay.storage._writer.broken = True  # type: ignore[attr-defined]
        assert (await get(running, "/readyz"))[0] == 503
        running.relay.storage._writer.broken = False  # type: ignore[attr-defined]


async def test_stopping_closes_sockets_as_going_away() -> None:
    alice = person("alice")
    async with served() as running:
        stack = contextlib.AsyncExitStack()
        one, hello = await stack.enter_async_context(wire(running))
        await one.ask(alice.registration(hello))
        two, _ = await stack.enter_async_context(wire(running))
        running.relay.close_all(api.UNAVAILABLE, "the relay stops")
        assert await one.closed() == 1001
        assert await two.closed() == 1001
        await stack.aclose()


async def test_a_relay_that_is_told_to_stop_says_so_to_every_socket(tmp_path: Path) -> None:
    """As a process: SIGTERM, 1001, exit code 0."""
    with machines(tmp_path) as (relay,):
        assert isinstance(relay, RelayMachine)
        await asyncio.to_thread(relay.serve)
        async with connect(f"ws://127.0.0.1:{relay.port}/v1", compression=None) as one:
            assert isinstance(api.decode_relay_frame(bytes(await one.recv())).message, api.Hello)
            assert await asyncio.to_thread(relay.serving.stop) == 0
            async for frame in one:  # until it is closed
                assert isinstance(api.decode_relay_frame(bytes(frame)).message, api.Closing)
            assert one.close_code == 1001


@pytest.mark.attack(117)
@pytest.mark.parametrize("versions", [(1, 2), (2, 3)])
async def test_a_client_meets_a_newer_relay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, versions: tuple[int, ...]
) -> None:
    """One that still speaks the client's version serves it; one that does not is left with a sentence."""
    monkeypatch.setattr(api, "PROTOCOL_VERSIONS", versions)
    async with served(RelayConfig(open=True, port=0, admission=EVERYONE)) as running:
        client = await DirectClient.begin(tmp_path / "vault", bytes(32), create=True)
        try:
            making = client.create_account(name="a", origin=running.origin, relay_key=running.relay_key)
            if api.PROTOCOL_VERSION in versions:
                assert (await making).name == "a"
            else:
                with pytest.raises(LocalError, match="update the older side"):
                    await making
        finally:
            await client.close()


async def test_the_first_members_invite_comes_with_the_start(tmp_path: Path) -> None:
    config = RelayConfig(port=0, data=tmp_path / "data")
    async with served(config) as running:
        first = running.invite
    async with served(config) as running:
        assert first is not None
        assert running.invite is not None
        assert running.invite.relay_key == first.relay_key == running.relay_key
        alice = person("alice")
        async with wire(running) as (one, hello):
            used = identity.derive_invite(first.secret).token
            refused = await one.ask(alice.registration(hello, token=used))
            assert isinstance(refused, api.Refused), "each start replaces the one before"
            token = identity.derive_invite(running.invite.secret).token
            assert isinstance(await one.ask(alice.registration(hello, token=token)), api.LoggedIn)
    async with served(config) as running:
        assert running.invite is None


def test_without_tls_it_listens_on_this_machine_only() -> None:
    for host in ("0.0.0.0", "192.0.2.1", "::", "relay.example"):
        with pytest.raises(LocalError, match="without TLS"):
            asyncio.run(serve(RelayConfig(host=host, port=0), lambda running: None))


async def test_what_cannot_be_started_says_why(tmp_path: Path) -> None:
    async with served(RelayConfig(port=0, data=tmp_path)) as running:
        with pytest.raises(LocalError, match="another relay"):
            await serve(RelayConfig(port=0, data=tmp_path), lambda running: None)
        with pytest.raises(LocalError, match="cannot be listened on"):
            await serve(RelayConfig(port=running.port), lambda running: None)
    (tmp_path / "relay.key").write_bytes(b"short")
    with pytest.raises(LocalError, match="damaged"):
        build(RelayConfig(origin="wss://relay.test", data=tmp_path))
    with pytest.raises(LocalError, match="origin"):
        build(RelayConfig(origin="ws://ünprintable"))


@pytest.mark.attack(58)
async def test_explain_shows_every_row_and_the_files_hold_no_address(tmp_path: Path) -> None:
    alice, bob = person("alice"), person("bob")
    async with served(RelayConfig(open=True, port=0, data=tmp_path)) as running:
        async with wire(running) as (a, hello_a), wire(running) as (b, hello_b):
            await a.ask(alice.registration(hello_a, name="alice"))
            await b.ask(bob.registration(hello_b))
            await a.ask(api.Publish(alice.encoded_batch(1)))
            await a.ask(api.PutInvite(bytes(32), now_ms() // 1000 + 3600))
            await a.ask(api.Send((alice.envelope(bob, b"c" * 1_000), alice.envelope(alice))))
        told = await explain_data(tmp_path, "alice")
        assert told == await explain_data(tmp_path, alice.genesis_hash.hex()[:12])
        with pytest.raises(LocalError, match="knows nobody"):
            await explain_data(tmp_path, "nobody")
    assert told.genesis_hash == alice.genesis_hash
    assert told.name == "alice"
    assert told.not_held == NOT_HELD
    tables = [row.table for row in told.rows]
    assert tables == ["accounts", "heads", "devices", "batches", "names", "invites", "mail", "mail"]
    assert set(told.tables) == set(tables)
    assert told.size_bytes > 20_000
    files = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert alice.genesis_hash in files
    assert b"127.0.0.1" not in files


@pytest.mark.attack(58)
@pytest.mark.skipif(os.name != "posix", reason="sends SIGTERM")
async def test_a_process_serves_stops_on_a_signal_and_logs_no_one(tmp_path: Path) -> None:
    script = (
        "import asyncio, logging, pathlib, sys\n"
        "from lokket.relay.app import serve\n"
        "from lokket.relay.config import RelayConfig\n"
        "logging.basicConfig(level=logging.DEBUG)\n"
        "config = RelayConfig(open=True, port=0, data=pathlib.Path(sys.argv[1]))\n"
        "asyncio.run(serve(config, lambda running: print(running.port, flush=True)))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        port = int(await asyncio.to_thread(process.stdout.readline))
        alice = person("alice")
        async with connect(f"ws://127.0.0.1:{port}/v1", compression=None) as opened:
            one = Wire(opened)
            hello = (await one.push()).message
            assert isinstance(hello, api.Hello)
            await one.ask(alice.registration(hello, name="alice"))
            await one.ask(api.Send((alice.envelope(alice, b"canary-of-the-body"),)))
            await one.ask(api.LookupName("a-name-looked-up"))
            await opened.send(b"\xff garbage-canary")
            await one.closed()
        process.terminate()
        _, errors = await asyncio.to_thread(process.communicate, timeout=LONG_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    canaries = ["canary", "a-name-looked-up", "alice", alice.genesis_hash.hex(), "127.0.0.1"]
    assert [canary for canary in canaries if canary in errors] == []


async def test_small_frames_do_not_wait_for_acknowledgements() -> None:
    """A socket whose protocol is not named keeps Nagle's delay in asyncio: 40 ms for a small frame."""
    accepted: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()
    server = await asyncio.start_server(
        lambda _, writer: accepted.set_result(writer), sock=listen("127.0.0.1", 0)
    )
    async with server:
        _, ours = await asyncio.open_connection(*server.sockets[0].getsockname())
        theirs = await accepted
        assert theirs.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        for writer in (ours, theirs):
            writer.close()
