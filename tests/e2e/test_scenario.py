"""Everything that can befall an account, in one story of real processes: nothing lost, all devices agree.

Three accounts, five devices: Alice's laptop and phone, Bob's desktop and tablet, Carol's one. The relay is
restarted and killed with mail in it; the tablet is revoked; the laptop is lost and replaced by the recovery
code on a clean machine, where a backup is restored.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.machine import Machine, Process, RelayMachine, machines

BARE = "--insecure-no-passphrase"


def say(machine: Machine, petname: str, text: str) -> None:
    """The relay has it on disk when this returns."""
    assert machine.json("send", petname, text, "--wait", "sent", "--timeout", "60")[-1]["state"] != "queued"


def hear(*listening: Machine) -> None:
    for machine in listening:
        machine.json("listen", "--once")


def link(admin: Machine, new: Machine, name: str) -> None:
    """By code and typed number; contacts and messages are there when this returns."""
    asking = admin.start("device", "link", "--json", "--timeout", "60")
    code = asking.record("link")["code"]
    joining = new.start("device", "link", code, "--device-name", name, BARE, "--json", "--timeout", "60")
    number = joining.record("link-number")["number"]
    assert asking.record("link-asked")["name"] == name
    asking.write(number + "\n")
    assert joining.record("linked")["complete"]
    assert (asking.wait(), joining.wait()) == (0, 0)


def said(machine: Machine, petname: str) -> list[tuple[str, str, bool]]:
    """A conversation in its order: id, text, whether this account said it."""
    return [
        (record["id"], record["text"], record["outgoing"])
        for record in machine.json("history", petname, "--limit", "1000")
    ]


def mirrored(conversation: list[tuple[str, str, bool]]) -> list[tuple[str, str, bool]]:
    """As the other side sees it."""
    return [(mid, text, not outgoing) for mid, text, outgoing in conversation]


def exported(machine: Machine, path: Path) -> list[dict[str, Any]]:
    """Every message that the machine has, without what may differ between devices: how far it got."""
    machine.json("export", str(path))
    records = [json.loads(line) for line in path.read_text().splitlines()]
    kept = ("contact", "id", "device", "seq", "time_ms", "text", "outgoing")
    messages = [{name: record[name] for name in kept} for record in records if record["type"] == "message"]
    return sorted(messages, key=lambda message: str(message["id"]))


def restart(relay: RelayMachine) -> None:
    assert relay.serving.stop(signal.SIGTERM) == 0
    relay.serve()


def kill(relay: RelayMachine) -> None:
    relay.serving.kill()
    relay.serve()


def give_history(giver: Machine, number: int, taker: Machine) -> None:
    """Both online until the last page is in the taker's vault."""
    taking: Process = taker.start("listen", "--json")
    giver.json("device", "history", str(number))
    giving: Process = giver.start("listen", "--json")
    while not taking.record("history")["done"]:
        pass
    giving.stop()
    taking.stop()


@pytest.mark.timeout(900)  # some eighty commands, each a process
@pytest.mark.attack(85, 87, 95, 99)
def test_three_accounts_five_devices_and_everything_that_can_go_wrong(tmp_path: Path) -> None:
    names = ("laptop", "phone", "desktop", "tablet", "carol", "clean")
    with machines(tmp_path, *names) as (relay, laptop, phone, desktop, tablet, carol, clean):
        assert isinstance(relay, RelayMachine)
        relay.serve()

        # 1. Three accounts that know each other.
        joined = laptop.json("join", relay.invite, "--name", "alice", BARE)[0]
        for machine, name in ((desktop, "bob"), (carol, "carol")):
            invite = laptop.json("invite")[0]["link"]
            machine.json("join", "-", "--name", name, "--inviter", "alice", BARE, text=invite + "\n")
        hear(laptop)
        desktop.json("contacts", "add", "carol")
        say(desktop, "carol", "it is me, bob")
        hear(carol)
        carol.json("contacts", "accept", "bob")
        say(laptop, "bob", "before there were more devices")

        # 2. Five devices; what one says, the other one of its account shows.
        link(laptop, phone, "phone")
        link(desktop, tablet, "tablet")
        say(phone, "carol", "from the phone")
        say(tablet, "alice", "from the tablet")
        say(carol, "alice", "to both of yours")
        hear(laptop, phone, desktop, tablet, carol)
        assert said(laptop, "carol") == said(phone, "carol") == mirrored(said(carol, "alice"))
        assert said(desktop, "alice") == said(tablet, "alice") == mirrored(said(phone, "bob"))

        # 3. The relay is restarted and killed while mail waits in it, and while it is wanted.
        say(laptop, "bob", "over a restart")
        restart(relay)
        say(carol, "bob", "over a kill")
        kill(relay)
        relay.serving.stop(signal.SIGTERM)
        queued = phone.json("send", "carol", "said while it was down", "--timeout", "1", code=3)
        assert "queued" in queued[-1]["sentence"]
        relay.serve()
        hear(phone, laptop, desktop, tablet, carol)
        assert [text for _, text, _ in said(carol, "alice")][-1] == "said while it was down"
        assert [text for _, text, _ in said(tablet, "carol")][-1] == "over a kill"

        # 4. A backup; then Alice's laptop, the admin device, is gone.
        archive = tmp_path / "alice.backup"
        made = laptop.json("backup", "create", str(archive))[0]
        say(laptop, "carol", "the last words of the laptop")
        hear(phone, carol)
        lost = said(laptop, "bob"), said(laptop, "carol")
        say(desktop, "alice", "to a laptop that is gone")

        # 5. Bob's tablet is revoked. From the next message on it learns nothing, and nobody hears it.
        hear(desktop, tablet)
        known = said(tablet, "alice"), said(tablet, "carol")
        desktop.json("device", "revoke", "2", "--yes")
        say(carol, "bob", "not for the tablet")
        say(phone, "bob", "not for the tablet either")
        assert tablet.run("send", "carol", "from a thief", "--timeout", "2").returncode == 3
        assert tablet.run("listen", "--once", "--timeout", "2").returncode in (0, 3)
        assert (said(tablet, "alice"), said(tablet, "carol")[:-1]) == known
        hear(desktop, carol, phone)

        # 6. On a clean machine: the account by its code, its messages by the backup and the phone.
        recovered = clean.json(
            "recover", joined["code"], "--keep", "2", "--name", "alice", "--device-name", "new", BARE,
            text=joined["recovery_code"] + "\n",
        )[-1]  # fmt: skip
        assert recovered["devices"] == [2, 3]
        restored = clean.json("backup", "restore", str(archive), "--code", "-", text=made["code"] + "\n")[0]
        assert (restored["contacts"], restored["messages"], restored["refused"]) == (2, made["messages"], 0)
        hear(phone)
        give_history(phone, 3, clean)
        for machine, text in ((desktop, "bob's, too early"), (carol, "carol's, too early")):
            hear(machine)
            early = machine.run("send", "alice", text, "--wait", "sent", "--timeout", "1")
            machine.json("contacts", "accept", "alice")
            if early.returncode == 1:  # the new key was known already: nothing was taken in
                assert "alice has a new account key" in early.stderr
                say(machine, "alice", text)
            else:  # taken in, and held until now
                assert early.returncode == 3
        say(clean, "bob", "back again")
        say(desktop, "alice", "welcome back")
        say(carol, "alice", "welcome, all of you")
        say(phone, "carol", "the phone is still one of mine")

        # 7. Every conversation is the same on every device that is left.
        everyone = (clean, phone, desktop, carol)
        hear(*everyone)
        assert said(clean, "bob") == said(phone, "bob") == mirrored(said(desktop, "alice"))
        assert said(clean, "carol") == said(phone, "carol") == mirrored(said(carol, "alice"))
        assert said(desktop, "carol") == mirrored(said(carol, "bob"))
        assert exported(clean, tmp_path / "clean.jsonl") == exported(phone, tmp_path / "phone.jsonl")
        texts = [text for conversation in ("bob", "carol") for _, text, _ in said(clean, conversation)]
        assert len(texts) == len(set(texts))
        assert {
            "before there were more devices", "from the phone", "from the tablet", "to both of yours",
            "over a restart", "said while it was down", "the last words of the laptop", "back again",
            "to a laptop that is gone", "not for the tablet either", "welcome back", "welcome, all of you",
            "the phone is still one of mine", "bob's, too early", "carol's, too early",
        } == set(texts)  # fmt: skip
        assert [text for _, text, _ in said(carol, "bob")] == [
            "it is me, bob", "over a kill", "not for the tablet",
        ]  # fmt: skip

        # 8. The lost and the revoked device know what they knew.
        for gone in (laptop, tablet):
            assert gone.run("listen", "--once", "--timeout", "2").returncode in (0, 3)
        assert (said(laptop, "bob"), said(laptop, "carol")) == lost
        assert said(tablet, "alice") == known[0]
