"""Two homes and a relay, as a stranger with the README would use them: every command, as a process."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.machine import Machine, RelayMachine, eventually, machines

BARE = "--insecure-no-passphrase"


class Place:
    relay: RelayMachine
    alice: Machine
    bob: Machine


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Alice runs the relay's first account, Bob joined by her invite. Tests share the two and add to it."""
    with machines(tmp_path_factory.mktemp("place"), "alice", "bob") as (relay, alice, bob):
        made = Place()
        assert isinstance(relay, RelayMachine)
        made.relay, made.alice, made.bob = relay, alice, bob
        relay.serve()
        alice.json("join", relay.invite, "--name", "alice", BARE)
        link = alice.json("invite")[0]["link"]
        joined = bob.json("join", "-", "--name", "bob", "--inviter", "alice", BARE, text=link + "\n")[0]
        alice.json("listen", "--once")
        numbers = {
            joined["inviter"]["safety_number"],
            alice.json("verify", "bob")[0]["safety_number"],
        }
        assert len(numbers) == 1
        yield made


def texts(records: list[dict[str, object]]) -> list[object]:
    return [record["text"] for record in records if record["type"] == "message"]


def test_both_ways(place: Place) -> None:
    assert place.alice.json("send", "bob", "hi", "there", "--wait", "sent")[0]["state"] == "sent"
    assert texts(place.bob.json("listen", "--once")) == ["hi there"]
    assert texts(place.bob.json("listen", "--once")) == []  # once
    assert place.bob.json("send", "alice", "-", "--wait", "sent", text="two\nlines\n")[0]["state"] == "sent"
    assert texts(place.alice.json("listen", "--once")) == ["two\nlines"]
    history = place.alice.json("history", "bob")
    assert [(m["outgoing"], m["text"], m["state"]) for m in history][-2:] == [
        (True, "hi there", "delivered"),
        (False, "two\nlines", "received"),
    ]


def test_the_invite_was_verified_on_both_sides(place: Place) -> None:
    place.bob.json("listen", "--once")
    place.alice.json("listen", "--once")
    place.bob.json("listen", "--once")
    assert place.alice.json("contacts")[0]["level"] == "invited"
    assert place.bob.json("contacts")[0]["level"] == "invited"


def test_delivered_while_the_other_listens(place: Place) -> None:
    listening = place.bob.start("listen", "--json")
    listening.record("connection")
    assert (
        place.alice.json("send", "bob", "quick", "--wait", "delivered", "--timeout", "30")[0]["state"]
        == "delivered"
    )
    assert listening.record("message")["text"] == "quick"
    result = place.alice.run("send", "bob", "quicker", "--timeout", "30")
    assert result.stdout == "✓ delivered\n"
    assert listening.record("message")["text"] == "quicker"
    assert listening.stop(signal.SIGINT) == 130
    assert place.bob.run("listen", "--once").stdout == ""


def test_listen_for_a_person_ends_when_its_reader_goes(place: Place) -> None:
    place.alice.json("send", "bob", "for a person", "--wait", "sent")
    listening = place.bob.start("listen", "--count", "1")
    while (line := listening.line()).startswith("  ! "):
        pass  # what else there is to tell, such as that alice's invite came to its end
    assert line.endswith("alice: for a person")
    assert listening.wait() == 0


def test_a_chat_without_a_terminal_sends_each_line(place: Place) -> None:
    talking = place.alice.start("chat", "bob")
    talking.write("one\ntwo\n\n/quit\nnever\n")
    answering = place.bob.start("listen", "--json", "--count", "2")
    assert [answering.record("message")["text"] for _ in range(2)] == ["one", "two"]
    assert talking.wait() == 0
    assert answering.wait() == 0


def test_who_one_is_and_how_one_is(place: Place) -> None:
    me = place.alice.json("whoami")[0]
    assert (me["name"], me["registered"], me["admin"], me["device"]) == ("alice", True, True, 1)
    checks = {record["name"]: record["good"] for record in place.alice.json("doctor")}
    assert checks.keys() >= {"sqlite", "vault", "key", "files", "relay", "devices", "prekeys"}
    assert all(checks.values())


def test_a_contact_is_called_as_one_likes(place: Place) -> None:
    assert place.bob.json("contacts", "rename", "alice", "alice at work")[0]["petname"] == "alice at work"
    assert place.bob.run("history", "alice").returncode == 1
    shown = place.bob.run("contacts", "rename", "alice at work", "alice").stdout
    assert shown == "alice at work is alice now.\n"


def test_verifying_by_code(place: Place) -> None:
    code = place.bob.json("verify", "alice")[0]["code"]
    for nothing in ("-", ""):  # a scanner that failed, a variable that is not set
        assert place.alice.run("verify", "bob", "--code", nothing).returncode == 1
        assert place.alice.json("verify", "bob")[0]["level"] == "invited"
    assert place.alice.run("verify", "bob", "--code", code[:60] + "x" + code[61:]).returncode == 1
    assert place.alice.json("verify", "bob", "--code", "-", text=code)[0]["level"] == "verified"
    assert place.bob.json("verify", "alice", "--confirm")[0]["level"] == "verified"


def test_what_the_relay_holds(place: Place) -> None:
    place.alice.json("send", "bob", "the canary sings", "--wait", "sent")
    records = place.relay.json("relay", "explain", "bob")
    tables = {record["table"] for record in records if record["type"] == "row"}
    assert {"accounts", "devices", "batches", "names", "mail"} <= tables
    assert [record for record in records if record["type"] == "not-held"]
    shown = place.relay.run("relay", "explain", "bob")
    assert shown.returncode == 0
    for path in filter(Path.is_file, (place.relay.home / "relay").iterdir()):
        assert b"the canary sings" not in path.read_bytes()
    assert texts(place.bob.json("listen", "--once")) == ["the canary sings"]


@pytest.mark.attack(109)
def test_a_terminals_commands_in_a_message_are_shown(place: Place) -> None:
    place.alice.json("send", "bob", "-", "--wait", "sent", text="\x1b]0;owned\x07 \u202eevil", code=0)
    shown = place.bob.run("listen", "--once").stdout
    assert "\x1b" not in shown
    assert "⟨001B⟩]0;owned⟨0007⟩ ⟨202E⟩evil" in shown


@pytest.mark.attack(97)
def test_one_vault_one_process(place: Place) -> None:
    listening = place.bob.start("listen", "--json")
    listening.record("connection")
    result = place.bob.run("history", "alice")
    assert result.returncode == 4
    assert f"process {listening.pid}" in result.stderr
    assert result.stderr.count("\n") == 1
    listening.stop()


@pytest.mark.attack(98)
def test_a_running_command_leaves_no_core(place: Place) -> None:
    if not Path("/proc/self/limits").exists():
        pytest.skip("this system does not show the limits of a process")
    listening = place.bob.start("listen", "--json")
    listening.record("connection")
    limits = Path(f"/proc/{listening.pid}/limits").read_text()
    line = next(line for line in limits.splitlines() if "core file" in line)
    assert line.split()[4:6] == ["0", "0"]
    listening.stop()


def test_a_relay_that_is_away(place: Place) -> None:
    place.relay.serving.stop()
    result = place.alice.run("send", "bob", "when it is back", "--timeout", "1")
    assert result.returncode == 3
    assert "queued in the vault, not sent" in result.stderr
    assert result.stdout == ""
    assert place.alice.run("invite", "--timeout", "0.5").returncode == 3
    assert place.alice.run("doctor", "--timeout", "0.5").returncode == 1
    assert place.alice.json("history", "bob")[-1]["state"] == "queued"
    assert place.bob.run("listen", "--count", "1", "--timeout", "0.5").returncode == 3
    place.relay.serve()
    place.alice.json("listen", "--once")
    assert texts(place.bob.json("listen", "--once")) == ["when it is back"]


# --- what goes wrong is said in a sentence ---


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("send", "nobody", "hi"), 1, "no contact called 'nobody'"),
        (("send", "bob", "hi", "--wait", "read"), 1, "--wait is"),
        (("history", "nobody"), 1, "no contact called 'nobody'"),
        (("chat", "nobody"), 1, "no contact called 'nobody'"),
        (("verify", "bob", "--code", "lokket:invite#IAAAA"), 1, "another kind"),
        (("send", "bob", "-"), 1, "standard input is empty"),
        (("send", "bob", ""), 1, "an argument is empty"),
        (("contacts", "add", "alice", "-"), 1, "standard input is empty"),  # and not by name
        (("contacts", "add", "alice", ""), 1, "an argument is empty"),
        (("listen", "--once", "--cursor", ""), 1, "a cursor's name"),  # and not the person's own place
        (("device", "revoke", "9"), 1, "no device 9"),
        (("device", "admin", "9"), 1, "no device 9"),
        (("relay", "users", "--data", "nowhere"), 1, "no relay's data"),
        (("contacts", "add", "x", "lokket:invite#Iabc"), 1, ""),
        (("contacts", "add", "nobody"), 1, "nobody on this relay is called"),
        (("contacts", "rename", "bob", "a\x1bb"), 1, "printable"),
        (("--profile", "other", "whoami"), 4, "lokket join"),
        (("--profile", "../other", "whoami"), 4, "profile's name"),
        (("join", "lokket:nonsense", BARE), 1, "another kind"),
        (("relay", "explain", "nobody"), 1, ""),
        (("serve", "--listen", "0.0.0.0:0"), 1, "127.0.0.1"),
        (("send",), 2, "PETNAME"),
        (("no-such-command",), 2, "no-such-command"),
        (("listen", "--count", "x"), 2, "--count"),
    ],
)
def test_sentences(place: Place, arguments: tuple[str, ...], code: int, words: str) -> None:
    result = place.alice.run(*arguments)
    assert result.returncode == code, result.stderr
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert "\x1b" not in result.stderr
    if code != 2:
        assert result.stderr.startswith("lokket: ")
        assert result.stderr.count("\n") == 1
        assert result.stdout == ""


def test_an_error_for_a_program_is_an_object(place: Place) -> None:
    records = place.alice.json("send", "nobody", "hi", code=1)
    assert records == [{"type": "error", "sentence": records[0]["sentence"], "code": 1}]


def test_a_used_invite_leaves_nothing_behind(place: Place) -> None:
    result = place.bob.run("--profile", "second", "join", place.relay.invite, BARE)
    assert result.returncode == 1
    assert "invite" in result.stderr
    assert not (place.bob.home / "profiles" / "second").exists()


def test_a_profile_has_one_account(place: Place) -> None:
    link = place.alice.json("invite")[0]["link"]
    result = place.bob.run("join", link, BARE)
    assert result.returncode == 4
    assert "another --profile" in result.stderr


def test_without_a_keyring_and_a_terminal_nothing_is_made_unasked(place: Place) -> None:
    link = place.alice.json("invite")[0]["link"]
    result = place.bob.run("--profile", "third", "join", link)
    assert result.returncode == 1
    assert "--passphrase-fd" in result.stderr
    assert not (place.bob.home / "profiles" / "third").exists()


@pytest.mark.attack(92)
def test_a_passphrase_by_descriptor(place: Place, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("correct horse\nnot this line\n")
    link = place.alice.json("invite")[0]["link"]

    def with_passphrase(*arguments: str) -> object:
        descriptor = os.open(secret, os.O_RDONLY)
        try:
            return place.bob.run(
                *arguments, "--passphrase-fd", str(descriptor), "--profile", "guarded", pass_fds=(descriptor,)
            )
        finally:
            os.close(descriptor)

    joined = with_passphrase("join", link)
    assert joined.returncode == 0, joined  # type: ignore[attr-defined]
    folder = place.bob.home / "profiles" / "guarded"
    assert b"correct horse" not in b"".join(path.read_bytes() for path in folder.iterdir())
    assert with_passphrase("whoami").returncode == 0  # type: ignore[attr-defined]
    result = place.bob.run("whoami", "--profile", "guarded")
    assert result.returncode == 4
    assert "--passphrase-fd" in result.stderr
    secret.write_text("another\n")
    assert "passphrase does not open" in with_passphrase("whoami").stderr  # type: ignore[attr-defined]


def test_the_recovery_code_is_shown_once_and_kept_nowhere(place: Place) -> None:
    link = place.alice.json("invite")[0]["link"]
    record = place.bob.json("--profile", "coded", "join", link, BARE)[0]
    code = record["recovery_code"]
    assert len(code.replace("-", "")) == 56
    folder = place.bob.home / "profiles" / "coded"
    for form in (code, code.replace("-", "")):
        assert form.encode() not in b"".join(path.read_bytes() for path in folder.iterdir())
    assert code not in place.bob.run("--profile", "coded", "whoami", "--json").stdout


def test_the_relay_stops_when_asked(place: Place) -> None:
    assert place.relay.serving.stop(signal.SIGTERM) == 0
    eventually(lambda: place.relay.serving._process.poll() is not None)
    place.relay.serve()
