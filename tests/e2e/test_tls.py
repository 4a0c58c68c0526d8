"""A relay with TLS of its own, under an authority of its own: who gets in, who is refused, and renewal."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lokket import limits
from lokket.errors import LocalError
from lokket.relay.app import serve
from lokket.relay.tls import ServerTls
from lokket.wire import api
from tests.support.certificates import Authority
from tests.support.machine import Machine, RelayMachine, machines
from tests.support.served import OPEN, person, served, wire


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def world(tmp_path: Path, authority: Authority) -> Iterator[tuple[RelayMachine, Machine]]:
    """A relay with TLS, and alice's machine."""
    cert, key = authority.issue("127.0.0.1")
    with machines(tmp_path, "alice") as (relay, alice):
        assert isinstance(relay, RelayMachine)
        relay.serving = relay.start(
            "serve", "--listen", "127.0.0.1:0", "--tls-cert", str(cert), "--tls-key", str(key), "--json"
        )
        relay.invite = relay.serving.record("relay")["invite"]
        yield relay, alice


@pytest.mark.attack(60)
def test_a_member_joins_and_talks_over_tls_of_an_own_authority(
    world: tuple[RelayMachine, Machine], authority: Authority
) -> None:
    relay, alice = world
    join = ("join", relay.invite, "--name", "alice", "--insecure-no-passphrase")
    (refused,) = [
        record for record in alice.json(*join, "--timeout", "4", code=3) if record["type"] == "error"
    ]
    assert "did not prove its name by TLS" in refused["sentence"], "the system knows no such authority"
    other = Authority(authority.file.parent, "other")
    result = alice.run(*join, "--timeout", "4", "--profile", "second", "--ca", str(other.file))
    assert result.returncode == 3
    assert "did not prove its name by TLS" in result.stderr
    missing = alice.run(*join, "--profile", "third", "--ca", str(authority.file) + ".not-there")
    assert missing.returncode == 1
    assert "cannot be read" in missing.stderr
    made = alice.json("invite", "--ca", str(authority.file))
    assert made[0]["type"] == "invite"


async def test_frames_over_tls_and_an_orderly_stop(authority: Authority) -> None:
    cert, key = authority.issue("127.0.0.1")
    alice = person("alice")
    async with served(replace(OPEN, tls_cert=cert, tls_key=key)) as running:
        assert running.origin == f"wss://127.0.0.1:{running.port}"
        async with wire(running, tls=authority.trusted()) as (one, hello):
            assert hello.origin == running.origin
            assert isinstance(await one.ask(alice.registration(hello)), api.LoggedIn)
            running.relay.close_all(api.UNAVAILABLE, "the relay stops")
            assert await one.closed() == 1001


@pytest.mark.attack(60)
@pytest.mark.parametrize("case", ["other name", "expired", "other authority"])
async def test_a_wrong_certificate_is_not_talked_to(tmp_path: Path, authority: Authority, case: str) -> None:
    cert, key = authority.issue(
        "127.0.0.2" if case == "other name" else "127.0.0.1", days=-1 if case == "expired" else 30
    )
    trusted = Authority(tmp_path, "another") if case == "other authority" else authority
    async with served(replace(OPEN, tls_cert=cert, tls_key=key)) as running:
        with pytest.raises(ssl.SSLCertVerificationError):
            async with wire(running, tls=trusted.trusted()):
                pass
        assert not running.relay.connections


@pytest.mark.attack(60)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_old_versions_of_tls_are_refused(authority: Authority) -> None:
    cert, key = authority.issue("127.0.0.1")
    old = authority.trusted()
    old.minimum_version = ssl.TLSVersion.TLSv1_1
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    async with served(replace(OPEN, tls_cert=cert, tls_key=key)) as running:
        with pytest.raises((ssl.SSLError, OSError)):
            async with wire(running, tls=old):
                pass
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            good = authority.trusted()
            good.minimum_version = good.maximum_version = version
            async with wire(running, tls=good) as (one, hello):
                assert hello.origin == running.origin
                assert await one.ask(api.Ping()) is not None


@pytest.mark.attack(50)
async def test_who_does_not_finish_the_handshake_is_closed(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOGIN_WAIT_S", 0.3)
    cert, key = authority.issue("127.0.0.1")
    async with served(replace(OPEN, tls_cert=cert, tls_key=key)) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(b"\x16\x03\x01")  # a handshake that begins and stops
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        writer.close()


async def test_plaintext_on_the_port_of_tls_is_no_relay(authority: Authority) -> None:
    cert, key = authority.issue("127.0.0.1")
    async with served(replace(OPEN, tls_cert=cert, tls_key=key)) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: relay\r\n\r\n")
        async with asyncio.timeout(10):
            assert b"lokket" not in await reader.read()
        writer.close()


async def test_a_renewed_certificate_is_shown_to_new_connections(authority: Authority) -> None:
    cert, key = authority.issue("127.0.0.1")
    tls = ServerTls(cert, key)
    assert not tls.renew()
    before = await _shown(tls, authority)
    authority.issue("127.0.0.1")
    assert tls.renew()
    after = await _shown(tls, authority)
    assert before != after
    cert.write_text("no certificate")
    with pytest.raises(LocalError, match="cannot be used for TLS"):
        tls.renew()
    assert await _shown(tls, authority) == after, "the last good one stays"
    assert not tls.renew(), "and is complained about once"


async def _shown(tls: ServerTls, authority: Authority) -> bytes:
    """The certificate that a client sees."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=tls.context)
    port = server.sockets[0].getsockname()[1]
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=authority.trusted())
    connection = writer.get_extra_info("ssl_object")
    found: bytes = connection.getpeercert(binary_form=True)
    writer.close()
    server.close()
    return found


async def test_pairs_that_cannot_be_used_are_refused_in_a_sentence(
    tmp_path: Path, authority: Authority
) -> None:
    cert, key = authority.issue("127.0.0.1")
    other, _ = authority.issue("127.0.0.1", stem="other")
    for pair, sentence in (
        ((cert, tmp_path / "missing"), "cannot be read"),
        ((other, key), "do not belong together"),
        ((key, key), "cannot be used for TLS"),
    ):
        with pytest.raises(LocalError, match=sentence):
            await serve(replace(OPEN, tls_cert=pair[0], tls_key=pair[1]), lambda running: None)
    with pytest.raises(LocalError, match="both"):
        await serve(replace(OPEN, tls_cert=cert), lambda running: None)


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
async def test_tls_may_listen_on_every_address_under_a_name(authority: Authority) -> None:
    cert, key = authority.issue("localhost")
    config = replace(OPEN, host="0.0.0.0", tls_cert=cert, tls_key=key)
    with pytest.raises(LocalError, match="told an address"):
        await serve(config, lambda running: None)
    async with served(replace(config, origin="wss://localhost")) as running:
        at = f"wss://localhost:{running.port}"
        async with wire(running, tls=authority.trusted(), origin=at) as (_, hello):
            assert hello.origin == "wss://localhost"
