"""Backups at a relay, as real processes: killed on the way, fetched by a recovered device, counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.machine import RelayMachine, machines

BARE = "--insecure-no-passphrase"
LONG = "x" * 50_000
COUNT = 24  # of them: an archive of several parts


def of_kind(records: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [record for record in records if record["type"] == kind]


@pytest.mark.attack(99, 108)
def test_a_backup_at_the_relay_survives_kills_and_the_loss_of_the_device(tmp_path: Path) -> None:
    with machines(tmp_path, "alice", "bob", "clean") as (relay, alice, bob, clean):
        assert isinstance(relay, RelayMachine)
        relay.serve()
        joined = alice.json("join", relay.invite, "--name", "alice", BARE)[0]
        link = alice.json("invite")[0]["link"]
        bob.json("join", "-", "--name", "bob", "--inviter", "alice", BARE, text=link + "\n")
        alice.json("listen", "--once")
        chat = alice.start("chat", "bob", "--json")
        for number in range(COUNT):
            chat.write(f"{number} {LONG}\n")
        chat.close_input()
        assert chat.wait() == 0
        assert "one of them" in alice.run("backup", "create").stderr
        assert alice.json("backup", "verify", "--relay", code=1)[-1]["sentence"].startswith(
            "the relay has no"
        )

        # Killed on the way, then the relay, too: the same archive goes on.
        sending = alice.start("backup", "create", "--relay", "--json")
        assert sending.record("transfer")["done_bytes"] == 0
        second = sending.record("transfer")["done_bytes"]
        sending.kill()
        relay.serving.kill()
        relay.serve()
        records = alice.json("backup", "create", "--relay")
        done = [record["done_bytes"] for record in of_kind(records, "transfer")]
        assert done[0] >= second > 0
        assert done[-1] == records[-1]["size_bytes"]
        assert (records[-1]["messages"], records[-1]["relay"], records[-1]["path"]) == (COUNT, True, None)
        code = alice.json("backup", "create", str(tmp_path / "file.backup"), "--new-key")[0]["code"]
        alice.json("backup", "create", "--relay")
        assert alice.json("backup", "verify", "--relay")[-1]["messages"] == COUNT

        # The operator sees that it is there, and how large it is.
        user = next(user for user in relay.json("relay", "users") if user["name"] == "alice")
        assert user["blobs"] == 2
        assert user["blob_bytes"] == relay.json("relay", "stats")[0]["blob_bytes"] > COUNT * len(LONG)
        assert any(record.get("table") == "blobs" for record in relay.json("relay", "explain", "alice"))

        # On a clean machine: the account by its code, then what the relay has for it.
        clean.json("recover", joined["code"], "--name", "alice", BARE, text=joined["recovery_code"] + "\n")
        refused = clean.run("backup", "restore", "--relay")
        assert "give --code" in refused.stderr
        restored = clean.json("backup", "restore", "--relay", "--code", code)[-1]
        assert (restored["contacts"], restored["messages"], restored["refused"]) == (1, COUNT, 0)
        said = [record["text"] for record in clean.json("history", "bob")]
        assert said == [f"{number} {LONG}" for number in range(COUNT)]
        assert not list(clean.home.rglob("vault.download*"))

        # Every day from here on; purged with the account.
        assert of_kind(clean.json("backup", "auto", "--relay"), "backup")[0]["relay"]
        assert clean.json("backup", "auto")[-1] | {"written_s": 0} == {
            "type": "backup-auto", "folder": None, "relay": True, "written_s": 0,
        }  # fmt: skip
        relay.json("relay", "quota", "alice", "--backup-bytes", "1000")
        full = clean.json("backup", "create", "--relay", code=1)[-1]
        assert "no room for more" in full["sentence"]
        relay.json("relay", "purge", "alice", "--yes")
        assert relay.json("relay", "stats")[0]["blobs"] == 0
