"""A new device takes over a long history while both ends are killed: it goes on, and nothing comes twice."""

from __future__ import annotations

import json
from pathlib import Path

from lokket.client.export import _Chain
from tests.support.machine import Machine, RelayMachine, machines

BARE = "--insecure-no-passphrase"
COUNT = 4_000  # messages, of 256 a page at most


def long_export(path: Path, contact: str) -> None:
    chain = _Chain()
    lines = [chain.line({"type": "lokket-export", "format": 1})]
    for number in range(COUNT):
        message = {
            "type": "message", "time": "", "petname": "", "outgoing": False, "state": "received",
            "contact": contact, "id": number.to_bytes(16, "big").hex(), "device": "dd" * 32,
            "seq": number + 1, "time_ms": 1_000 + number, "text": f"message {number} " + "x" * 200,
        }  # fmt: skip
        lines.append(chain.line(message))
    lines.append(chain.line({"type": "end", "contacts": 0, "messages": COUNT}))
    path.write_bytes(b"".join(lines))


def texts(machine: Machine, path: Path) -> list[str]:
    machine.json("export", str(path))
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [record["text"] for record in records if record["type"] == "message"]


def test_a_transfer_goes_on_after_both_ends_were_killed(tmp_path: Path) -> None:
    with machines(tmp_path, "alice", "bob", "phone") as (relay, alice, bob, phone):
        assert isinstance(relay, RelayMachine)
        relay.serve()
        alice.json("join", relay.invite, "--name", "alice", BARE)
        link = alice.json("invite")[0]["link"]
        bob.json("join", "-", "--name", "bob", "--inviter", "alice", BARE, text=link + "\n")
        alice.json("listen", "--once")
        long_export(tmp_path / "long.jsonl", alice.json("contacts")[0]["genesis_hash"])
        assert alice.json("import", str(tmp_path / "long.jsonl"))[0]["messages"] == COUNT

        asking = alice.start("device", "link", "--json", "--timeout", "60")
        joining = phone.start(
            "device", "link", asking.record("link")["code"], BARE, "--json", "--timeout", "60"
        )
        number = joining.record("link-number")["number"]
        asking.record("link-asked")
        asking.write(number + "\n")
        seen = joining.record("history")
        while not seen["received"]:
            seen = joining.record("history")
        joining.kill()
        asking.kill()
        assert 0 < seen["received"] < COUNT

        taking = phone.start("listen", "--json")
        giving = alice.start("listen", "--json")
        further = taking.record("history")
        assert further["received"] > seen["received"]  # it did not begin anew
        giving.kill()
        taking.kill()
        taking, giving = phone.start("listen", "--json"), alice.start("listen", "--json")
        while not further["done"]:
            further = taking.record("history")
        assert (further["received"], further["total"]) == (COUNT, COUNT)
        taking.stop()
        giving.stop()
        assert texts(phone, tmp_path / "phone.jsonl") == texts(alice, tmp_path / "alice.jsonl")
