"""Backup to a clean machine, export, blocking, passphrases and the account's end, as real processes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lokket.client.export import _Chain
from tests.support.machine import Machine, RelayMachine, machines

BARE = "--insecure-no-passphrase"


class Place:
    root: Path
    alice: Machine
    bob: Machine
    code: str  # Alice's recovery code
    where: str


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Alice and Bob know each other and have written; the tests go on from each other."""
    root = tmp_path_factory.mktemp("backup")
    with machines(root, "alice", "bob") as (relay, alice, bob):
        assert isinstance(relay, RelayMachine)
        made = Place()
        made.root, made.alice, made.bob = root, alice, bob
        relay.serve()
        joined = alice.json("join", relay.invite, "--name", "alice", BARE)[0]
        made.code, made.where = joined["recovery_code"], joined["code"]
        link = alice.json("invite")[0]["link"]
        bob.json("join", "-", "--name", "bob", "--inviter", "alice", BARE, text=link + "\n")
        alice.json("listen", "--once")
        for number in range(2):
            alice.json("send", "bob", f"to bob {number}", "--wait", "sent")
            bob.json("send", "alice", f"to alice {number}", "--wait", "sent")
        alice.json("listen", "--once")
        bob.json("listen", "--once")
        yield made


def texts(machine: Machine, petname: str) -> list[Any]:
    return [record["text"] for record in machine.json("history", petname)]


def with_lines(machine: Machine, *arguments: str, **lines: str) -> Any:
    """Options whose value is read from a descriptor: ``new_passphrase_fd="words"``."""
    given: list[int] = []
    options: list[str] = []
    for name, text in lines.items():
        reading, writing = os.pipe()
        os.write(writing, text.encode() + b"\n")
        os.close(writing)
        given.append(reading)
        options += ["--" + name.replace("_", "-"), str(reading)]
    try:
        return machine.run(*arguments, *options, "--json", pass_fds=tuple(given))
    finally:
        for descriptor in given:
            os.close(descriptor)


def test_a_passphrase_and_daily_backups(place: Place) -> None:
    path, folder = place.root / "p.backup", place.root / "daily"
    folder.mkdir()
    made = with_lines(place.alice, "backup", "create", str(path), backup_passphrase_fd="four words of mine")
    assert made.returncode == 0, made.stderr
    fresh = Machine(place.root / "elsewhere")
    opened = with_lines(fresh, "backup", "verify", str(path), backup_passphrase_fd="four words of mine")
    assert json.loads(opened.stdout)["messages"] == 4
    refused = with_lines(fresh, "backup", "verify", str(path), backup_passphrase_fd="another")
    assert refused.returncode == 1
    assert "not the right one" in refused.stdout

    assert place.alice.json("backup", "auto", str(folder))[0]["type"] == "backup"
    assert place.alice.json("backup", "auto")[0]["type"] == "backup-auto"  # not due
    assert len(list(folder.iterdir())) == 1
    assert place.alice.json("backup", "auto", "--off")[0]["folder"] is None
    assert place.alice.run("backup", "auto", str(place.root / "nowhere")).returncode == 1


@pytest.mark.attack(99)
def test_a_backup_of_somebody_else_is_refused(place: Place) -> None:
    path = place.root / "bob.backup"
    code = place.bob.json("backup", "create", str(path))[0]["code"]
    result = place.alice.run("backup", "restore", str(path), "--code", code)
    assert result.returncode == 1
    assert "another account" in result.stderr
    place.bob.json("backup", "create", str(place.root / "newer.backup"))
    older = place.bob.run("backup", "restore", str(path))
    assert older.returncode == 1
    assert "--older" in older.stderr


def test_export_and_import(place: Place) -> None:
    path = place.root / "alice.jsonl"
    exported = place.alice.json("export", str(path))[0]
    assert (exported["contacts"], exported["messages"]) == (1, 4)
    spoken = [json.loads(line).get("text") for line in path.read_text().splitlines()]
    assert [text for text in spoken if text] == texts(place.alice, "bob")
    again = place.alice.json("import", str(path))[0]
    assert (again["messages"], again["known"], again["chain"]) == (0, 5, exported["chain"])
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:3] + lines[4:]))
    cut = place.alice.run("import", str(path))
    assert cut.returncode == 1
    assert "line 4" in cut.stderr


def test_block_and_unblock(place: Place) -> None:
    before = texts(place.bob, "alice")
    assert place.bob.json("block", "alice")[0]["level"] == "blocked"
    place.alice.json("send", "bob", "unheard", "--wait", "sent")
    assert [
        record["type"] for record in place.bob.json("listen", "--once") if record["type"] == "message"
    ] == []
    assert place.alice.json("history", "bob")[-1]["state"] == "sent"
    assert "unblock" in place.bob.run("send", "alice", "no").stderr
    assert place.bob.json("unblock", "alice")[0]["level"] == "invited"
    place.alice.json("send", "bob", "heard", "--wait", "sent")
    place.bob.json("listen", "--once")
    assert texts(place.bob, "alice") == [*before, "heard"]


def test_the_passphrase_is_changed_and_keys_are_refilled(place: Place) -> None:
    changed = with_lines(place.alice, "passphrase", "change", new_passphrase_fd="first words")
    assert changed.returncode == 0, changed.stderr
    assert "first words" not in "".join(
        file.read_text(errors="replace") for file in place.alice.home.rglob("*") if file.is_file()
    )
    assert place.alice.run("whoami").returncode == 4
    assert with_lines(place.alice, "whoami", passphrase_fd="first words").returncode == 0
    wrong = with_lines(
        place.alice, "passphrase", "change", passphrase_fd="no words", new_passphrase_fd="second words"
    )
    assert wrong.returncode == 1
    again = with_lines(
        place.alice, "passphrase", "change", passphrase_fd="first words", new_passphrase_fd="second words"
    )
    assert again.returncode == 0, again.stderr
    assert with_lines(place.alice, "whoami", passphrase_fd="first words").returncode == 4
    refilled = with_lines(place.alice, "key", "refill", passphrase_fd="second words")
    assert json.loads(refilled.stdout)["batch"] > 0
    assert with_lines(place.alice, "passphrase", "change", BARE, passphrase_fd="second words").returncode == 0
    place.bob.json("send", "alice", "still there?", "--wait", "sent")
    place.alice.json("listen", "--once")
    assert texts(place.alice, "bob")[-1] == "still there?"


def test_a_destroyed_machine_comes_back(place: Place) -> None:
    """Recover with the code, restore the backup: the same history, shown once, and the talk goes on."""
    path = place.root / "alice.backup"
    made = place.alice.json("backup", "create", str(path), "--new-key")[0]
    before = texts(place.alice, "bob")
    assert (made["contacts"], made["messages"]) == (1, len(before))
    verified = place.alice.json("backup", "verify", str(path))[0]
    assert (verified["contacts"], verified["messages"]) == (1, len(before))
    shutil.rmtree(place.alice.home)

    place.alice = fresh = Machine(place.root / "fresh")
    assert fresh.json("backup", "verify", str(path), "--code", made["code"])[0]["messages"] == len(before)
    assert fresh.run("backup", "verify", str(path)).returncode == 1
    wrong = made["code"][:-1] + ("0" if made["code"][-1] != "0" else "1")
    assert "does not add up" in fresh.run("backup", "verify", str(path), "--code", wrong).stderr
    fresh.json("recover", place.where, "--name", "alice", BARE, text=place.code + "\n")
    restored = fresh.json("backup", "restore", str(path), "--code", "-", text=made["code"] + "\n")[0]
    assert (restored["contacts"], restored["messages"], restored["refused"]) == (1, len(before), 0)
    assert texts(fresh, "bob") == before
    assert fresh.json("contacts")[0]["level"] == "was invited"
    again = fresh.json("backup", "restore", str(path))[0]  # its key is in this vault now
    assert (again["contacts"], again["messages"], again["known"]) == (0, 0, 1 + len(before))
    assert [record for record in fresh.json("listen", "--once") if record["type"] == "message"] == []

    fresh.json("send", "bob", "back again", "--wait", "sent")
    assert [
        record["text"] for record in place.bob.json("listen", "--once") if record["type"] == "message"
    ] == ["back again"]
    place.bob.json("contacts", "accept", "alice")
    place.bob.json("send", "alice", "welcome", "--wait", "sent")
    fresh.json("listen", "--once")
    assert texts(fresh, "bob") == [*before, "back again", "welcome"]
    assert texts(place.bob, "alice")[-2:] == ["back again", "welcome"]
    later = fresh.json("backup", "create", str(path))[0]
    assert later["counter"] > made["counter"]
    assert later["code"] is None


def test_a_deleted_account_is_gone_on_both_sides(place: Place) -> None:
    kept = place.alice.run("account", "delete")
    assert kept.returncode == 1
    assert "nobody is here to confirm" in kept.stderr
    assert place.alice.json("whoami")[0]["registered"]
    gone = place.alice.json("account", "delete", "--yes-delete-everything")[0]
    assert (gone["type"], gone["at_relay"]) == ("deleted", True)
    assert place.alice.run("whoami").returncode == 4
    assert not list(place.alice.home.rglob("vault.*"))
    result = place.bob.run("send", "alice", "are you there?", "--timeout", "2")
    assert result.returncode == 3


# --- killed in the middle ---

LONG = 12_000


@pytest.fixture(scope="module")
def long_vault(place: Place) -> Machine:
    """Bob's vault with a long history, taken in from an export of it that was made by hand."""
    contact = next(iter(place.bob.json("contacts")))["genesis_hash"]
    chain = _Chain()
    lines = [chain.line({"type": "lokket-export", "format": 1})]
    for number in range(LONG):
        lines.append(
            chain.line(
                {
                    "type": "message", "time": "", "petname": "", "outgoing": False, "state": "received",
                    "contact": contact, "id": number.to_bytes(16, "big").hex(), "device": "dd" * 32,
                    "seq": number + 1, "time_ms": 1_000 + number, "text": f"message {number} " + "x" * 200,
                }
            )
        )  # fmt: skip
    lines.append(chain.line({"type": "end", "contacts": 0, "messages": LONG}))
    path = place.root / "long.jsonl"
    path.write_bytes(b"".join(lines))
    assert place.bob.json("import", str(path))[0]["messages"] == LONG
    return place.bob


def test_kill_nine_while_a_backup_is_written_leaves_the_old_one(place: Place, long_vault: Machine) -> None:
    path = place.root / "long.backup"
    made = long_vault.json("backup", "create", str(path))[0]
    before = path.read_bytes()
    draft = path.with_name(f".{path.name}.partial")
    killed = 0
    for extra_bytes in (0, 1, 1_000_000):
        process = long_vault.start("backup", "create", str(path), "--json")
        while process._process.poll() is None:
            if size_of(draft) >= extra_bytes:
                process.kill()
                break
        process._process.wait()
        killed += draft.exists()
        if draft.exists():
            assert path.read_bytes() == before
    assert killed, "no process was killed in the middle"
    assert long_vault.json("backup", "verify", str(path))[0]["messages"] == made["messages"]
    again = long_vault.json("backup", "create", str(path))[0]
    assert again["counter"] > made["counter"]
    assert not draft.exists()


def size_of(path: Path) -> int:
    """-1: it is not there (any more)."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1


def vault_bytes(machine: Machine) -> int:
    return sum(file.stat().st_size for file in machine.home.rglob("vault.db*"))


def test_kill_nine_while_a_backup_is_restored_loses_and_doubles_nothing(
    place: Place, long_vault: Machine
) -> None:
    path = place.root / "long.backup"
    code = long_vault.json("backup", "create", str(path), "--new-key")[0]["code"]
    expected = long_vault.json("backup", "verify", str(path))[0]["messages"]
    heir = Machine(place.root / "heir")
    link = place.bob.json("invite")[0]["link"]
    heir.json("join", "-", BARE, text=link + "\n")
    killed = 0
    for grown_bytes in (1, 300_000, 1_000_000):
        before = vault_bytes(heir)
        process = heir.start(
            "backup", "restore", str(path), "--code", code, "--other-account", "--timeout", "1", "--json"
        )
        while process._process.poll() is None:
            if vault_bytes(heir) > before + grown_bytes:
                killed += 1
                break
        process.kill()
    assert killed, "no process was killed in the middle"
    done = heir.json("backup", "restore", str(path), "--code", code, "--other-account")[0]
    assert done["refused"] == 0
    assert done["messages"] + done["contacts"] + done["known"] == expected + 1
    counted = heir.json("export", str(place.root / "heir.jsonl"))[0]
    assert counted["messages"] == expected
