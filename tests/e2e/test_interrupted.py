"""Stopped in the middle, as real processes: at once, and the one secret that is shown once is shown."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lokket.crypto.keys import Ed25519KeyPair
from lokket.protocol.identity import Invite, new_recovery_code
from lokket.protocol.linking import AccountCode
from lokket.system import SystemEntropy
from tests.support.machine import Machine, Process, environment

BARE = "--insecure-no-passphrase"
RELAY_KEY = Ed25519KeyPair(bytes(32)).public
INVITE = Invite("", RELAY_KEY, None, None, bytes(32), 2**40)
CODE = AccountCode("", RELAY_KEY, bytes(32))


@pytest.fixture
def mute() -> Iterator[socket.socket]:
    """A relay that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(60)
        yield listening


def stopped(process: Process, mute: socket.socket) -> list[dict[str, object]]:
    """Once it waits for the relay, by Ctrl-C: what it told a program."""
    connection, _ = mute.accept()
    with connection:
        assert process.stop(signal.SIGINT) == 130
    assert not [line for line in process.errors if "Traceback" in line]
    return [json.loads(line) for line in process.rest()]


def origin(mute: socket.socket) -> str:
    return f"ws://127.0.0.1:{mute.getsockname()[1]}"


def test_a_join_that_is_stopped_shows_the_recovery_code_of_what_it_keeps(
    mute: socket.socket, tmp_path: Path
) -> None:
    machine = Machine(tmp_path)
    link = dataclasses.replace(INVITE, origin=origin(mute)).link()
    told = stopped(machine.start("join", link, BARE, "--json"), mute)
    assert machine.json("whoami")[0]["registered"] is False
    assert [(each["type"], len(str(each["recovery_code"]))) for each in told] == [("account", 69)]


def test_a_recovery_that_is_stopped_shows_the_next_code(mute: socket.socket, tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    process = machine.start(
        "recover", dataclasses.replace(CODE, origin=origin(mute)).encode(), BARE, "--json"
    )
    process.write(new_recovery_code(SystemEntropy()) + "\n")
    told = stopped(process, mute)
    assert [(each["type"], len(str(each["recovery_code"]))) for each in told] == [("account", 69)]


@pytest.mark.skipif(os.name != "posix", reason="a terminal is made by POSIX' means")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("option", "prompt"), [(BARE, b"Your recovery code: "), ("--passphrase", b"A passphrase for the vault")]
)
def test_a_question_is_no_reason_to_stay(
    tmp_path: Path, option: str, prompt: bytes, number: signal.Signals
) -> None:
    import pty

    account = dataclasses.replace(CODE, origin="ws://127.0.0.1:1").encode()
    person, terminal = pty.openpty()
    try:
        with subprocess.Popen(
            [sys.executable, "-m", "lokket.apps.entry", "recover", account, option],
            env=environment(tmp_path),
            stdin=terminal,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as asking:
            assert asking.stderr is not None
            told = b""
            while prompt not in told:
                piece = os.read(asking.stderr.fileno(), 4096)
                assert piece, told
                told += piece
            asking.send_signal(number)
            try:
                assert asking.wait(30) == 130
            finally:
                asking.kill()
            assert b"Traceback" not in asking.stderr.read()
    finally:
        os.close(person)
        os.close(terminal)
    assert not (tmp_path / "profiles").exists()
