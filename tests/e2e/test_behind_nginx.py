"""A relay behind a real nginx, set up as docs/relay.md says."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from lokket.relay.config import RelayConfig
from lokket.wire import api
from tests.support.certificates import Authority
from tests.support.served import OPEN, get, person, served, wire

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
HANDBOOK = Path(__file__).parent.parent.parent / "docs" / "relay.md"
pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed here")


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def handbook(port: int, relay_port: int, cert: Path, key: Path) -> str:
    """The server block of the handbook, with this test's ports and files."""
    found = re.search(r"^```nginx\n(.*?)^```$", HANDBOOK.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    text = found[1]
    for written, here in (
        (r"listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        (r"ssl_certificate /\S+;", f"ssl_certificate {cert};"),
        (r"ssl_certificate_key /\S+;", f"ssl_certificate_key {key};"),
        (r"http://127\.0\.0\.1:7677;", f"http://127.0.0.1:{relay_port};"),
    ):
        text, count = re.subn(written, here, text)
        assert count == 1, written
    return text


@contextlib.contextmanager
def nginx(folder: Path, server: str, port: int) -> Iterator[None]:
    """Runs in the foreground as a child of this process; every file of its own is in ``folder``."""
    assert NGINX is not None
    user = "user root;\n" if os.getuid() == 0 else ""
    places = " ".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"{user}daemon off;\nworker_processes 1;\npid {folder}/nginx.pid;\nerror_log {folder}/error.log;\n"
        f"events {{ worker_connections 256; }}\nhttp {{\naccess_log off;\n{places}\n{server}\n}}\n"
    )
    process = subprocess.Popen(
        [NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")],
        stderr=subprocess.PIPE,
    )
    try:
        give_up_s = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            assert time.monotonic() < give_up_s
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait(20)
        if process.stderr is not None:
            process.stderr.close()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def behind(port: int, **changes: object) -> RelayConfig:
    config = replace(OPEN, origin=f"wss://127.0.0.1:{port}", behind_proxy=True)
    return replace(config, **changes)  # type: ignore[arg-type]


async def test_frames_and_the_stop_pass_through(tmp_path: Path, authority: Authority) -> None:
    port = free_port()
    alice, bob = person("alice"), person("bob")
    async with served(behind(port)) as running:
        block = handbook(port, running.port, *authority.issue("127.0.0.1"))
        with nginx(tmp_path, block, port):
            tls = authority.trusted()
            async with wire(running, tls=tls) as (a, hello_a), wire(running, tls=tls) as (b, hello_b):
                assert isinstance(await a.ask(alice.registration(hello_a)), api.LoggedIn)
                assert isinstance(await b.ask(bob.registration(hello_b)), api.LoggedIn)
                letter = alice.envelope(bob, bytes(90_000))
                assert await a.ask(api.Send((letter,))) == api.Sent((api.Deposited(letter.envelope_id, ""),))
                deliver = (await b.push()).message
                assert isinstance(deliver, api.Deliver)
                assert [api.decode_envelope(data) for data in deliver.envelopes] == [letter]
                running.relay.close_all(api.UNAVAILABLE, "the relay stops")
                assert await a.closed() == 1001
            async with asyncio.timeout(10):
                with pytest.raises(InvalidStatus) as refused:
                    await connect(f"wss://127.0.0.1:{port}/metrics", ssl=tls)
                assert refused.value.response.status_code == 404


@pytest.mark.attack(50)
@pytest.mark.skipif(sys.platform != "linux", reason="needs several addresses of loopback")
async def test_addresses_are_counted_as_the_proxy_names_them(tmp_path: Path, authority: Authority) -> None:
    """Two clients have an address each; the header that one of them makes up changes nothing."""
    port = free_port()
    async with served(behind(port, connections_per_address_max=1)) as running:
        block = handbook(port, running.port, *authority.issue("127.0.0.1"))
        with nginx(tmp_path, block, port):
            tls = authority.trusted()

            def from_address(address: str, **headers: str) -> connect:
                return connect(
                    f"wss://127.0.0.1:{port}/v1",
                    ssl=tls,
                    local_addr=(address, 0),
                    additional_headers=headers,
                )

            async with from_address("127.0.0.5"), from_address("127.0.0.6"):
                for header in ({}, {"X-Forwarded-For": "127.0.0.9"}):
                    with pytest.raises(InvalidStatus) as refused:
                        await from_address("127.0.0.5", **header)
                    assert refused.value.response.status_code == 429


@pytest.mark.attack(60)
async def test_without_tls_only_a_listed_proxy_comes_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule itself is in unit/relay/test_proxy.py; here it stands at both doors."""
    config = behind(1, trusted_proxies=("192.0.2.1",))
    async with served(config) as running:
        at = f"ws://127.0.0.1:{running.port}"
        async with wire(running, origin=at) as (_, hello):
            assert hello.origin == config.origin
        assert (await get(running, "/metrics"))[0] == 200
        monkeypatch.setattr("lokket.relay.proxy.Peers.admits", lambda self, peer: False)
        with pytest.raises(InvalidStatus) as refused:
            async with wire(running, origin=at):
                pass
        assert refused.value.response.status_code == 403
        assert (await get(running, "/metrics"))[0] == 404
