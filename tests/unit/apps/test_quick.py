"""``send`` without typer reads as typer does, or leaves it to typer."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lokket.apps import cli, command, quick
from lokket.apps import send as room
from lokket.apps.session import Session, session_of

ENVIRONMENT = {"LOKKET_HOME": "/from/environment", "LOKKET_PROFILE": "named", "LOKKET_CA": "ca.pem"}
PLAIN = [
    "bob hi",
    "bob hi there you",
    "bob -",
    "bob hi --json",
    "--json bob hi",
    "bob --wait sent hi",
    "bob hi --wait queued --timeout 2.5",
    "bob hi --id 00112233445566778899aabbccddeeff",
    "bob hi --home /h --profile p --ca c.pem --allow-plaintext",
    "bob hi --home /h --home /again",
    "bob hi --timeout 0",
]
LEFT_TO_TYPER = [
    "",
    "bob",
    "--help",
    "bob hi -h",
    "bob hi --wait",
    "bob hi --timeout soon",
    "bob hi --timeout -1",
    "bob hi --timeout inf",
    "bob hi --timeout nan",
    "bob hi --wait=sent",
    "bob hi --jso",
    "bob hi --unknown",
    "bob -- --json",
    "bob hi --passphrase-fd 3",
    "bob -x",
]


def by_typer(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> tuple[Session, dict[str, Any]]:
    seen: list[tuple[Session, dict[str, Any]]] = []

    @functools.wraps(room.send)
    async def send(session: Session, *given: Any, **named: Any) -> int:
        raise AssertionError

    def perform(session: Session, work: Any) -> int:
        seen.append((session, work.__closure__[1].cell_contents))
        return 0

    monkeypatch.setattr(room, "send", send)
    monkeypatch.setattr(command, "perform", perform)
    with pytest.raises(SystemExit) as ending:
        cli.build("send")(["send", *arguments], prog_name="lokket")
    assert ending.value.code == 0
    return seen[0]


@pytest.mark.parametrize("environment", [{}, ENVIRONMENT], ids=["bare", "environment"])
@pytest.mark.parametrize("line", PLAIN)
def test_the_two_read_alike(monkeypatch: pytest.MonkeyPatch, line: str, environment: dict[str, str]) -> None:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    written = quick.read(line.split(), environment)
    assert written is not None
    session, given = by_typer(monkeypatch, line.split())
    quickly = session_of(**written.common)
    for field in ("home", "profile", "passphrase_fd", "allow_plaintext", "ca", "daemon"):
        assert getattr(quickly, field) == getattr(session, field), field
    assert quickly.out.as_json == session.out.as_json
    defaults = {"wait": "", "timeout": 0.0, "message_id": ""}
    assert {"petname": written.petname, "words": written.words, **defaults, **written.own} == given


@pytest.mark.parametrize("line", LEFT_TO_TYPER)
def test_all_else_is_left_to_typer(line: str) -> None:
    assert quick.read(line.split(), {}) is None


HEAVY = ("typer", "rich", "click", "pydantic", "msgspec", "cryptography", "apsw", "websockets", "keyring")


def test_it_loads_little(tmp_path: Path) -> None:
    """With a daemon that is not there for the asking: what ``send`` loads before it knows that."""
    code = (
        "import sys; from lokket.apps import quick; from lokket.client.rpc import remote;"
        "print(sorted({name.split('.')[0] for name in sys.modules}),"
        "sorted(name for name in sys.modules if name.startswith('lokket.')))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not [name for name in HEAVY if f"'{name}'" in loaded]
    assert "lokket.engine" not in loaded
