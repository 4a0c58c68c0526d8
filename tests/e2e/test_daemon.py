"""One vault, many processes: the daemon, its callers and handlers, killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lokket.client.rpc import place
from tests.support.machine import Machine, Process, RelayMachine, environment, eventually, machines
from tests.unit.apps.test_handlers import Server

pytestmark = pytest.mark.skipif(not place.has_sockets(), reason="no Unix sockets here")

BARE = "--insecure-no-passphrase"


class Place:
    relay: RelayMachine
    alice: Machine
    bob: Machine
    daemon: Process  # Bob's


@pytest.fixture(scope="module")
def place_of_two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with machines(tmp_path_factory.mktemp("d"), "alice", "bob") as (relay, alice, bob):
        assert isinstance(relay, RelayMachine)
        made = Place()
        made.relay, made.alice, made.bob = relay, alice, bob
        relay.serve()
        alice.json("join", relay.invite, "--name", "alice", BARE)
        link = alice.json("invite")[0]["link"]
        bob.json("join", link, "--name", "bob", "--inviter", "alice", BARE)
        alice.json("listen", "--once")
        made.daemon = bob.daemon()
        yield made


@pytest.fixture
def two(place_of_two: Place) -> Iterator[Place]:
    """Bob's daemon runs, whatever the test before did to it; what a failed test left running ends with it."""
    if place_of_two.daemon._process.poll() is not None:
        place_of_two.bob.json("daemon", "stop")  # one that was started on demand holds the vault
        place_of_two.daemon = place_of_two.bob.daemon()
    yield place_of_two
    for machine in (place_of_two.alice, place_of_two.bob):
        for process in machine.started:
            if process is not place_of_two.daemon and process._process.poll() is None:
                process.kill()


def folder(machine: Machine) -> Path:
    return machine.home / "profiles" / "default"


def behind(two: Place, cursor: str) -> int:
    """How much waits at this one of Bob's; others are listed beside it, in the order of their names."""
    [found] = [record["behind"] for record in two.bob.json("on", "list") if record["name"] == cursor]
    assert isinstance(found, int)
    return found


def texts(records: list[dict[str, Any]]) -> list[str]:
    return [record["text"] for record in records if record["type"] == "message"]


def say(two: Place, *said: str) -> None:
    """Alice's process sends them all and ends."""
    talking = two.alice.start("chat", "bob")
    talking.write("".join(f"{text}\n" for text in said))
    talking.close_input()
    assert talking.wait() == 0


@pytest.mark.attack(97, 111)
def test_many_commands_use_one_vault_at_once(two: Place) -> None:
    found = place.socket_path(folder(two.bob)).lstat()
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert stat.S_IMODE(folder(two.bob).stat().st_mode) == 0o700
    listening = two.bob.start("listen", "--json")
    chatting = two.bob.start("chat", "alice", "--json")
    say(two, "hi all")
    assert listening.record("message")["text"] == "hi all"
    assert chatting.record("message")["text"] == "hi all"
    chatting.write("hi from chat\n")
    assert two.bob.json("send", "alice", "hi from send", "--wait", "sent")[0]["state"] == "sent"
    assert two.bob.run("send", "alice", "-", "--wait", "queued", text="piped\n").stdout == "· queued\n"
    assert two.bob.json("contacts")[0]["petname"] == "alice"
    assert two.bob.json("verify", "alice")[0]["level"] == "invited"
    assert two.bob.json("invite")[0]["link"].startswith("lokket:invite#")
    assert two.bob.json("whoami")[0]["name"] == "bob"
    checks = {check["name"]: check for check in two.bob.json("doctor", "--timeout", "30")}
    assert all(check["good"] for check in checks.values()), checks
    assert f"process {two.daemon.pid}" in checks["daemon"]["sentence"]
    chatting.close_input()
    assert chatting.wait() == 0
    assert listening.stop() == 130
    assert set(texts(two.bob.json("history", "alice"))) >= {"hi all", "hi from chat", "hi from send", "piped"}
    got = texts(two.alice.json("listen", "--once"))
    assert {"hi from chat", "hi from send", "piped"} <= set(got)


@pytest.mark.attack(97)
def test_a_second_daemon_is_refused_and_the_first_goes_on(two: Place) -> None:
    result = two.bob.run("daemon", "run")
    assert result.returncode == 4
    assert f"process {two.daemon.pid}" in result.stderr
    assert two.bob.json("daemon", "start")[0] == {"type": "daemon", "pid": two.daemon.pid, "started": False}
    status = two.bob.json("daemon", "status")[0]
    assert (status["running"], status["pid"], status["online"]) == (True, two.daemon.pid, True)


def test_two_named_listeners_do_not_steal_from_each_other(two: Place) -> None:
    for name in ("one", "other"):
        assert two.bob.run("listen", "--cursor", name, "--once").returncode == 0
    say(two, "m1", "m2")
    assert texts(two.bob.json("listen", "--cursor", "one", "--once")) == ["m1", "m2"]
    assert texts(two.bob.json("listen", "--cursor", "one", "--once")) == []
    assert texts(two.bob.json("listen", "--cursor", "other", "--once")) == ["m1", "m2"]


@pytest.mark.attack(58)
def test_a_command_handles_each_message_and_a_poison_one_blocks_nothing(two: Place, tmp_path: Path) -> None:
    """The handler fails on one message; kill -9 takes another away from it: that one comes again."""
    handler, log = tmp_path / "handler.py", tmp_path / "log"
    handler.write_text(
        "import json, os, sys, time\n"
        "message = json.load(sys.stdin)\n"
        f"open({str(log)!r}, 'a').write(message['text'] + '\\n')\n"
        f"while message['text'] == 'slow' and not os.path.exists({str(tmp_path / 'go')!r}):\n"
        "    time.sleep(0.05)\n"
        "sys.exit(message['text'] == 'poison')\n"
    )
    command = ("on", "message", "--exec", f"{sys.executable} {handler}", "--tries", "2")
    arguments = (*command, "--cursor", "runner", "--json")
    working = two.bob.start(*arguments)
    eventually(lambda: any(c["name"] == "runner" for c in two.bob.json("on", "list")))
    say(two, "good", "poison", "slow", "last")
    eventually(lambda: log.exists() and log.read_text().split() == ["good", "poison", "poison", "slow"])
    os.kill(working.pid, signal.SIGKILL)  # between delivery and acknowledgement
    (tmp_path / "go").touch()  # the handler that it leaves behind ends, too, and lets go of our pipes
    working.wait()
    again = two.bob.start(*arguments)
    eventually(lambda: log.read_text().split()[4:] == ["slow", "last"])
    eventually(lambda: behind(two, "runner") == 0)
    assert again.stop() == 130
    [letter] = two.bob.json("on", "dead", "runner")
    assert (letter["text"], letter["tries"], letter["sentence"]) == ("poison", 2, "the command ended with 1")
    findings = [record["sentence"] for record in two.bob.json("doctor", "--timeout", "30", code=1)]
    assert any("messages given up by 'runner': 1" in sentence for sentence in findings)
    two.bob.json("on", "dead", "runner", "--forget")
    two.bob.json("on", "close", "runner")
    for text in ("poison", "slow"):
        assert text not in "".join(working.errors + again.errors)


@pytest.mark.attack(58)
def test_a_web_address_gets_each_message_until_it_says_yes(two: Place) -> None:
    server = Server([500, 200])
    try:
        working = two.bob.start("on", "message", "--webhook", server.address, "--cursor", "hook", "--json")
        eventually(lambda: any(c["name"] == "hook" for c in two.bob.json("on", "list")))
        say(two, "to the web", "and again")
        eventually(lambda: len(server.got) == 3)
        bodies = [json.loads(body)["text"] for _, _, body in server.got]
        assert bodies == ["to the web", "to the web", "and again"]
        keys = [headers["Idempotency-Key"] for _, headers, _ in server.got]
        assert keys[0] == keys[1] != keys[2]
        assert working.stop() == 130
        assert "to the web" not in "".join(working.errors)
    finally:
        server.close()
    two.bob.json("on", "close", "hook")


@pytest.mark.attack(38, 95)
def test_kill_the_daemon_while_callers_send(two: Place) -> None:
    """Who repeats a send under its id after the daemon died has sent it once, whatever had become of it."""
    two.alice.json("listen", "--once")
    ids = {f"{number:032x}": f"from a killed daemon {number}" for number in range(1, 7)}
    for number, (mid, text) in enumerate(ids.items()):
        sending = two.bob.start("send", "alice", text, "--id", mid, "--wait", "queued", "--json")
        if number % 2:
            two.daemon.kill()  # somewhere in the middle of it, or before, or after
            sending.wait()
            two.daemon = two.bob.daemon()  # the dead one's socket is replaced
        else:
            assert sending.wait() == 0
    for mid, text in ids.items():
        two.bob.json("send", "alice", text, "--id", mid, "--wait", "sent", "--timeout", "30")
    got = texts(two.alice.json("listen", "--once"))
    assert sorted(text for text in got if text in ids.values()) == sorted(ids.values())


@pytest.mark.attack(38, 96)
def test_kill_the_daemon_while_it_delivers(two: Place, tmp_path: Path) -> None:
    """A handler outlives its daemon: it gets everything, in order, and nothing again that it acknowledged."""
    path = tmp_path / "mail.jsonl"
    working = two.bob.start("on", "message", "--jsonl", str(path), "--cursor", "file", "--json")
    eventually(lambda: any(c["name"] == "file" for c in two.bob.json("on", "list")))
    sent = [f"through a kill {number}" for number in range(30)]
    talking = two.alice.start("chat", "bob")
    talking.write("".join(f"{text}\n" for text in sent))
    for count in (5, 17):
        eventually(lambda count=count: path.exists() and len(path.read_text().splitlines()) >= count)
        two.daemon.kill()
        two.daemon = two.bob.daemon()
    talking.close_input()
    eventually(lambda: sent[-1] in path.read_text())
    assert talking.wait() == 0
    eventually(lambda: behind(two, "file") == 0)
    assert working.stop() == 130
    written = [json.loads(line) for line in path.read_text().splitlines()]
    assert list(dict.fromkeys(record["text"] for record in written)) == sent
    assert len(written) <= len(sent) + 2  # at most the one that each kill caught
    size = path.stat().st_size
    assert two.bob.run("on", "close", "file").returncode == 0
    assert path.stat().st_size == size


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_who_talks_through_a_daemon_that_ends_is_told_in_one_sentence_and_may_go_on(
    two: Place, how: str
) -> None:
    """Readers and talkers end at once, also in the middle of a line; what was said before is said once."""
    listening = two.bob.start("listen", "--json")
    chatting = two.bob.start("chat", "alice")
    chatting.write(f"before the {how}\n")
    eventually(lambda: f"before the {how}" in texts(two.bob.json("history", "alice")))
    chatting.write("half a line")
    if how == "kill":
        two.daemon.kill()
    else:
        assert two.daemon.stop() == 0
    assert (listening.wait(), chatting.wait()) == (1, 1)
    [said] = [line for line in chatting.errors if line.strip() and not line.startswith("(")]
    assert "the daemon ended" in said
    [ended] = [record for record in map(json.loads, listening.rest()) if record["type"] == "error"]
    assert "the daemon ended" in ended["sentence"]
    assert two.bob.json("send", "alice", f"after the {how}", "--wait", "sent")[0]["state"] == "sent"
    got = texts(two.alice.json("listen", "--once"))
    assert got[-2:] == [f"before the {how}", f"after the {how}"]


def test_a_backup_at_the_relay_is_made_and_checked_through_the_daemon(two: Place) -> None:
    *_, made = two.bob.json("backup", "create", "--relay")
    assert two.bob.json("daemon", "status")[0]["pid"] == two.daemon.pid
    *_, checked = two.bob.json("backup", "verify", "--relay")
    assert checked["messages"] == made["messages"] == len(two.bob.json("history", "alice", "-n", "10000"))
    assert two.bob.json("daemon", "status")[0]["pid"] == two.daemon.pid


def test_it_ends_cleanly_with_subscribers_and_is_started_on_demand(two: Place) -> None:
    listening = two.bob.start("listen", "--json")
    eventually(lambda: two.bob.json("daemon", "status")[0]["callers"] >= 3)  # two of it, and who asks
    assert two.daemon.stop(signal.SIGTERM) == 0
    assert not place.socket_path(folder(two.bob)).exists()
    assert listening.wait() == 1
    assert "daemon ended" in "".join(listening.errors) + "".join(listening.rest())
    assert two.bob.json("daemon", "status", code=1)[0] == {"type": "daemon-status", "running": False}
    auto = {**environment(two.bob.home), "LOKKET_DAEMON": "auto"}
    assert two.bob.run("contacts", env=auto).returncode == 0
    status = two.bob.json("daemon", "status")[0]
    assert status["running"]
    assert two.bob.json("daemon", "stop")[0]["pid"] == status["pid"]
    assert two.bob.json("daemon", "stop")[0]["pid"] is None
    assert two.bob.json("contacts")[0]["petname"] == "alice"  # with the vault itself
    started = two.bob.json("daemon", "start", "--idle", "0.5")[0]
    eventually(lambda: not place.socket_path(folder(two.bob)).exists())  # nobody came
    assert started["started"]


def test_a_vault_under_a_passphrase_is_open_to_its_owner(two: Place) -> None:
    link = two.alice.json("invite")[0]["link"]
    reading, writing = os.pipe()
    os.write(writing, b"a long passphrase\n" * 2)
    os.close(writing)
    carol = Machine(two.bob.home.parent / "carol")
    arguments = ("join", link, "--inviter", "alice", "--passphrase-fd", str(reading))
    joined = carol.run(*arguments, pass_fds=(reading,))
    assert joined.returncode == 0, joined.stderr
    assert carol.run("contacts").returncode == 4
    os.close(reading)
    reading, writing = os.pipe()
    os.write(writing, b"a long passphrase\n")
    os.close(writing)
    started = carol.run("daemon", "start", "--passphrase-fd", str(reading), pass_fds=(reading,))
    os.close(reading)
    assert started.returncode == 0, started.stderr
    try:
        assert carol.json("contacts")[0]["petname"] == "alice"
        for path in folder(carol).iterdir():
            assert path.is_socket() or b"long passphrase" not in path.read_bytes()
    finally:
        carol.json("daemon", "stop")


def test_a_unit_for_systemd(two: Place) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("systemd is Linux's")
    shown = two.bob.run("daemon", "install-unit", "--print").stdout
    assert "ExecStart=" in shown
    assert f"--home {two.bob.home}" in shown
    written = two.bob.run(
        "daemon",
        "install-unit",
        env={**environment(two.bob.home), "XDG_CONFIG_HOME": str(two.bob.home / "x")},
    )
    assert written.returncode == 0
    path = two.bob.home / "x" / "systemd" / "user" / "lokket-default.service"
    assert path.read_text() == shown
