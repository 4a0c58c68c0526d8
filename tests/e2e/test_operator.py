"""An operator and their relay, by command lines: looking after it, and losing an hour of it."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import Authority
from tests.support.machine import Machine, RelayMachine, machines

BARE = "--insecure-no-passphrase"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[RelayMachine, list[Machine]]]:
    """A relay that runs, and three machines without an account."""
    with machines(tmp_path, "alice", "bob", "carol") as (relay, *others):
        assert isinstance(relay, RelayMachine)
        relay.serve()
        yield relay, others


def texts(records: list[dict[str, Any]]) -> list[str]:
    return [record["text"] for record in records if record["type"] == "message"]


@pytest.mark.parametrize("running", [True, False])
def test_the_operators_orders(place: tuple[RelayMachine, list[Machine]], running: bool) -> None:
    """By the socket of the running relay, and on its data when it is stopped: the same."""
    relay, (alice, bob, carol) = place
    alice.json("join", relay.invite, "--name", "alice", BARE)
    origin = alice.json("whoami")[0]
    config = relay.home / "relay.toml"
    config.write_text(f'origin = "ws://127.0.0.1:{relay.port}"\n')
    if not running:
        assert relay.serving.stop(signal.SIGTERM) == 0
        assert relay.json("relay", "users")[0]["name"] == "alice"  # with the settings of a bare 'serve'

    def order(*arguments: str, code: int = 0) -> list[dict[str, Any]]:
        return relay.json("relay", *arguments, "--config", str(config), code=code)

    assert origin["name"] == "alice"
    (user,) = order("users")
    assert (user["name"], user["devices"], user["banned"]) == ("alice", 1, False)
    assert order("stats")[0]["running"] is running
    (made,) = order("invite", "--hours", "1")
    assert order("quota", "alice", "--messages", "5")[0]["count_max"] == 5
    assert order("ban", "alice")[0]["banned"]
    assert order("users")[0]["banned"]
    if running:
        assert "is banned from this relay" in str(alice.json("doctor", code=1))
    assert not order("ban", "alice", "--lift")[0]["banned"]
    assert "--yes" in order("purge", "alice", code=1)[0]["sentence"]
    assert "knows nobody" in order("purge", "nobody", "--yes", code=1)[0]["sentence"]
    if not running:
        relay.serve()
    bob.json("join", made["link"], "--name", "bob", BARE)
    assert "token-refused" not in str(bob.json("whoami"))
    refused = carol.json("join", made["link"], "--name", "carol", BARE, code=1)
    assert "invite is used" in str(refused)
    assert {user["name"] for user in order("users")} == {"alice", "bob"}
    order("purge", "alice", "--yes")
    assert [user["name"] for user in order("users")] == ["bob"]
    if running and os.name == "posix":
        socket = relay.home / "relay" / "admin.sock"
        assert stat.S_IMODE(socket.stat().st_mode) == 0o600


@pytest.mark.attack(118)
def test_a_relay_that_lost_an_hour_gets_it_back(
    place: tuple[RelayMachine, list[Machine]], tmp_path: Path
) -> None:
    """Between backup and disaster: mail, a contact, a new account. Afterwards nothing of it is missing."""
    relay, (alice, bob, carol) = place
    alice.json("join", relay.invite, "--name", "alice", BARE)
    link = alice.json("invite")[0]["link"]
    bob.json("join", link, "--name", "bob", "--inviter", "alice", BARE)
    alice.json("listen", "--once")
    file = tmp_path / "hourly.backup"
    made = relay.json("relay", "backup", str(file))[0]
    assert (made["accounts"], made["devices"]) == (2, 2)
    alice.json("send", "bob", "read before the disaster", "--wait", "sent")
    assert texts(bob.json("listen", "--once")) == ["read before the disaster"]
    alice.json("send", "bob", "on the relay when it burnt", "--wait", "sent")
    carols = alice.json("invite")[0]["link"]
    carol.json("join", carols, "--name", "carol", "--inviter", "alice", BARE)
    alice.json("listen", "--once")
    relay.serving.kill()

    refused = relay.json("relay", "restore", str(file), code=1)[0]
    assert "--replace" in refused["sentence"]
    relay.json("relay", "restore", str(file), "--replace")
    config = relay.home / "relay.toml"
    config.write_text("open = true\n")
    relay.serving = relay.start("serve", "--port", str(relay.port), "--config", str(config), "--json")
    relay.serving.record("relay")
    told = [record for record in alice.json("listen", "--once") if record["type"] == "trust"]
    assert [record["kind"] for record in told] == ["relay-restored"]
    assert "restored from a backup" in told[0]["sentence"]
    assert texts(bob.json("listen", "--once")) == ["on the relay when it burnt"]
    checks = {check["name"]: check for check in bob.json("doctor")}
    assert "restored from a backup" in checks["alarm"]["sentence"]
    bob.json("listen", "--once")
    alice.json("listen", "--once")
    states = {record["text"]: record["state"] for record in alice.json("history", "bob")}
    assert states == {"read before the disaster": "delivered", "on the relay when it burnt": "delivered"}
    carol.json("send", "alice", "I was never lost", "--wait", "sent", "--timeout", "30")
    assert texts(alice.json("listen", "--once")) == ["I was never lost"]
    names = {user["name"] for user in relay.json("relay", "users")}
    assert names == {"alice", "bob", "carol"}


def test_check_config_says_what_is_wrong(tmp_path: Path) -> None:
    cert, key = Authority(tmp_path).issue("relay.example.org")
    config = tmp_path / "relay.toml"
    with machines(tmp_path, "operator") as (_, operator):
        config.write_text(
            f'origin = "wss://relay.example.org"\nlisten = "0.0.0.0:443"\n'
            f'tls_cert = "{cert}"\ntls_key = "{key}"\n'
        )
        records = operator.json("relay", "check-config", "--config", str(config))
        shown = {record["name"]: record for record in records if record["type"] == "setting"}
        assert (shown["listen"]["value"], shown["listen"]["source"]) == ("0.0.0.0:443", str(config))
        assert shown["mail_days"]["source"] == "default"
        config.write_text('origin = "wss://relay.example.org"\nlisten = "0.0.0.0:443"\n')
        records = operator.json("relay", "check-config", "--config", str(config), code=1)
        assert any("without TLS" in record.get("sentence", "") for record in records)
        config.write_text("mail_day = 3\n")
        (refused,) = operator.json("relay", "check-config", "--config", str(config), code=1)
        assert "no setting 'mail_day'" in refused["sentence"]
        refused = operator.json("serve", "--config", str(config), code=1)[0]
        assert "no setting" in refused["sentence"]
