"""Devices and recovery, as real processes: linked by code and number, revoked, replaced by the code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.machine import Machine, Process, RelayMachine, machines

BARE = "--insecure-no-passphrase"


class Place:
    relay: RelayMachine
    alice: Machine
    bob: Machine
    phone: Machine
    code: str  # Alice's recovery code
    where: str


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Alice and Bob know each other and have written; the tests go on from each other."""
    root = tmp_path_factory.mktemp("devices")
    with machines(root, "alice", "bob", "phone", "fresh") as (relay, alice, bob, phone, _):
        made = Place()
        assert isinstance(relay, RelayMachine)
        made.relay, made.alice, made.bob, made.phone = relay, alice, bob, phone
        relay.serve()
        joined = alice.json("join", relay.invite, "--name", "alice", BARE)[0]
        made.code, made.where = joined["recovery_code"], joined["code"]
        link = alice.json("invite")[0]["link"]
        bob.json("join", "-", "--name", "bob", BARE, text=link + "\n")
        alice.json("listen", "--once")
        bob.json("contacts", "rename", bob.json("contacts")[0]["petname"], "alice")
        for number in range(6):
            alice.json("send", "bob", f"before {number}", "--wait", "sent")
        bob.json("listen", "--once")
        yield made


def link(admin: Machine, new: Machine, name: str, *, number: str = "") -> tuple[Process, Process]:
    """Both sides under way, up to the typed number."""
    asking = admin.start("device", "link", "--json", "--timeout", "60")
    code = asking.record("link")["code"]
    joining = new.start("device", "link", code, "--device-name", name, BARE, "--json", "--timeout", "60")
    shown = joining.record("link-number")["number"]
    assert asking.record("link-asked")["name"] == name
    asking.write((number or shown) + "\n")
    return asking, joining


def texts(machine: Machine, petname: str) -> list[str]:
    return [record["text"] for record in machine.json("history", petname)]


@pytest.mark.attack(90)
def test_a_wrong_number_adds_nobody(place: Place) -> None:
    asking, joining = link(place.alice, place.phone, "phone", number="000000000000")
    assert asking.wait() == 1
    joining.stop()
    assert len(place.alice.json("device", "list")) == 1
    assert place.phone.run("whoami").returncode == 4  # nothing is left there


@pytest.mark.attack(85)
def test_a_device_is_linked_with_contacts_and_history(place: Place) -> None:
    asking, joining = link(place.alice, place.phone, "phone")
    linked = joining.record("linked")
    assert (linked["device"], linked["contacts"], linked["complete"]) == (2, 1, True)
    assert asking.wait() == 0
    assert joining.wait() == 0
    assert texts(place.phone, "bob") == [f"before {number}" for number in range(6)]
    for machine in (place.alice, place.phone):
        devices = machine.json("device", "list")
        assert [(device["number"], device["name"]) for device in devices] == [(1, None), (2, "phone")]
        assert [device["admin"] for device in devices] == [True, False]


def test_both_devices_see_both_sides(place: Place) -> None:
    place.bob.json("send", "alice", "for both", "--wait", "sent")
    place.phone.json("send", "bob", "from the phone", "--wait", "sent")
    for machine in (place.alice, place.phone):
        machine.json("listen", "--once")
    place.bob.json("listen", "--once")
    for machine, petname in ((place.alice, "bob"), (place.phone, "bob"), (place.bob, "alice")):
        assert texts(machine, petname)[-2:] == ["for both", "from the phone"]


def test_a_name_travels(place: Place) -> None:
    place.phone.json("device", "rename", "1", "laptop")
    place.alice.json("listen", "--once")
    assert [device["name"] for device in place.alice.json("device")] == ["laptop", "phone"]


def test_the_admin_role_moves_and_comes_back(place: Place) -> None:
    for giver, taker, number in ((place.alice, place.phone, 2), (place.phone, place.alice, 1)):
        offering = giver.start("device", "admin", str(number), "--json", "--timeout", "60")
        accepted = False
        while not accepted:  # the offer is on its way
            accepted = taker.run("device", "admin", "--accept", "--timeout", "30").returncode == 0
        assert offering.record("admin")["number"] == number
        assert offering.wait() == 0
        assert [device["admin"] for device in taker.json("device")].index(True) == number - 1
        assert not giver.json("whoami")[0]["admin"]


@pytest.mark.attack(87)
def test_a_revoked_device_learns_nothing(place: Place) -> None:
    assert place.alice.run("device", "revoke", "2", text="no\n").returncode == 1
    place.alice.json("device", "revoke", "2", "--yes")
    place.bob.json("send", "alice", "for one", "--wait", "sent")
    place.alice.json("listen", "--once")
    assert place.phone.run("listen", "--once", "--timeout", "3").returncode in (0, 3)
    assert "for one" not in texts(place.phone, "bob")
    assert texts(place.alice, "bob")[-1] == "for one"


def test_a_lost_admin_device_is_replaced(place: Place, tmp_path: Path) -> None:
    fresh = Machine(tmp_path / "fresh")
    wrong = fresh.run("recover", place.where, BARE, text=place.code[:-1] + "?\n")
    assert wrong.returncode == 1
    assert fresh.run("whoami").returncode == 4
    result = fresh.json(
        "recover", place.where, "--name", "alice", "--device-name", "new", BARE, text=place.code + "\n"
    )[-1]
    assert result["type"] == "recovered"
    assert result["devices"] == [3]
    assert result["recovery_code"] != place.code
    assert fresh.json("whoami")[0]["admin"]
    again = Machine(tmp_path / "again").run("recover", place.where, BARE, text=place.code + "\n")
    assert again.returncode == 1
    assert "not the account's recovery code" in again.stderr
    assert "the code above is void" in again.stderr

    place.bob.run("send", "alice", "are you there", "--wait", "sent", "--timeout", "2")
    blocked = place.bob.json("contacts")[0]
    assert blocked["blocked"]
    place.bob.json("contacts", "accept", "alice")
    place.bob.json("send", "alice", "welcome back", "--wait", "sent")
    heard = [record["text"] for record in fresh.json("listen", "--once") if record["type"] == "message"]
    assert heard[-1] == "welcome back"
    assert place.alice.run("listen", "--once", "--timeout", "3").returncode in (0, 3)
    assert "welcome back" not in texts(place.alice, "bob")
