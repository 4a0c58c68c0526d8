"""The admin role moves: at every moment one device may sign, and afterwards one holds the key."""

from __future__ import annotations

import pytest

from lokket.engine import devices, events
from lokket.engine.engine import Engine
from lokket.engine.step import own_state, require_account
from lokket.engine.store import TABLES
from lokket.errors import LocalError
from tests.unit.engine.town import Device, Town


def two(town: Town) -> tuple[Device, Device]:
    alice = town.account("alice")
    return alice, town.second_device(alice)


def seed(device: Device) -> bytes:
    return device.ask(require_account).account_seed


def signers(*all_devices: Device) -> list[int]:
    return [
        device.me.device_number for device in all_devices if devices.is_admin(device.ask(require_account))
    ]


def hand_over(town: Town, giver: Device, taker: Device) -> None:
    giver.handle(events.OfferAdmin(taker.me.device_number))
    town.settle()
    assert taker.told(events.AdminOffered)[-1].number == giver.me.device_number
    taker.handle(events.AcceptAdmin())
    town.settle()


def test_the_role_moves_and_the_old_key_is_gone(town: Town) -> None:
    alice, tablet = two(town)
    bob = town.account("bob")
    town.befriend(alice, bob)
    key = seed(alice)
    hand_over(town, alice, tablet)
    assert seed(tablet) == key
    assert seed(alice) == b""
    assert (alice.me.admin, tablet.me.admin) == (False, True)
    assert signers(alice, tablet) == [2]
    for table in TABLES:
        assert not [row for row in alice.vault.rows.get(table, {}).values() if key in row], table
    with pytest.raises(LocalError, match="only the admin device"):
        alice.handle(events.RevokeDevice(2))
    tablet.handle(events.RevokeDevice(1))
    town.settle()
    assert [view.number for view in tablet.me.devices] == [2]
    town.say(tablet, "bob", "still me")
    assert bob.texts("alice") == ["still me"]
    assert "rotated" not in bob.trust_kinds()


def test_it_may_go_back(town: Town) -> None:
    alice, tablet = two(town)
    hand_over(town, alice, tablet)
    hand_over(town, tablet, alice)
    assert signers(alice, tablet) == [1]
    assert not seed(tablet)


def test_nothing_moves_without_both_persons_consent(town: Town) -> None:
    alice, tablet = two(town)
    with pytest.raises(LocalError, match="no device of yours has offered"):
        tablet.handle(events.AcceptAdmin())
    with pytest.raises(LocalError, match="only the admin device"):
        tablet.handle(events.OfferAdmin(1))
    with pytest.raises(LocalError, match="admin device already"):
        alice.handle(events.OfferAdmin(1))
    alice.handle(events.OfferAdmin(2))
    town.settle()
    assert not seed(tablet)
    alice.handle(events.CancelAdmin())
    tablet.handle(events.AcceptAdmin())
    town.settle()
    assert not seed(tablet)
    assert signers(alice, tablet) == [1]


def test_a_declined_offer_is_over(town: Town) -> None:
    alice, tablet = two(town)
    alice.handle(events.OfferAdmin(2))
    town.settle()
    tablet.handle(events.CancelAdmin())
    town.settle()
    assert alice.ask(devices.role_of) is None
    assert "admin" in alice.trust_kinds()


def test_a_device_that_may_hold_the_key_is_not_revoked_by_a_list(town: Town) -> None:
    alice, tablet = two(town)
    alice.handle(events.OfferAdmin(2))
    town.settle()
    tablet.handle(events.AcceptAdmin())
    while alice.ask(devices.role_of).stage != "sent":  # type: ignore[union-attr]
        assert alice.act() or tablet.act()
    tablet.disconnect()
    with pytest.raises(LocalError, match="may hold the account key"):
        alice.handle(events.RevokeDevice(2))
    tablet.connect()
    town.settle()
    assert signers(alice, tablet) == [2]


def test_a_third_device_is_offered_nothing_and_offers_nothing(town: Town) -> None:
    alice, _ = two(town)
    third = town.second_device(alice)
    alice.handle(events.OfferAdmin(2))
    town.settle()
    assert not third.told(events.AdminOffered)
    with pytest.raises(LocalError):
        third.handle(events.AcceptAdmin())


@pytest.mark.parametrize("every", [1, 2, 3, 5])
def test_a_crash_at_any_moment_leaves_one_signer(town: Town, every: int) -> None:
    """Both sides lose connection and memory again and again; never none with the key, never two signers."""
    alice, tablet = two(town)
    alice.handle(events.OfferAdmin(2))
    accepted = False
    for moment in range(600):
        for device in (alice, tablet):
            device.act()
            assert (
                len(signers(alice, tablet)) <= 1
                or own_state(alice.ask(require_account)).version
                != own_state(tablet.ask(require_account)).version
            )
            assert seed(alice) or seed(tablet)
        if not accepted and tablet.told(events.AdminOffered):
            tablet.handle(events.AcceptAdmin())
            accepted = True
        if moment % every == 0 and moment < 400:
            device = alice if (moment // every) % 2 else tablet
            device.disconnect()
            device.engine = Engine(prekey_pairs=4)
            device.connect()
        town.now_ms += 100
    town.settle()
    alice.connect()
    tablet.connect()
    town.settle()
    assert signers(alice, tablet) == [2]
    assert not seed(alice)
    tablet.handle(events.RevokeDevice(1))
    town.settle()
    assert [view.number for view in tablet.me.devices] == [2]


def test_a_recovery_voids_the_role_on_its_way(town: Town) -> None:
    alice, tablet = two(town)
    alice.handle(events.OfferAdmin(2))
    town.settle()
    tablet.handle(events.AcceptAdmin())
    while not seed(tablet):
        assert alice.act() or tablet.act()
    alice.disconnect()
    fresh = town.recover(alice, keep=(2,))
    assert not seed(tablet)
    assert tablet.ask(devices.role_of) is None
    assert signers(fresh, tablet) == [3]


def role_stage(device: Device) -> str:
    role = device.ask(devices.role_of)
    assert role is not None
    return role.stage


@pytest.mark.parametrize("heard", [False, True])
def test_an_admin_device_back_at_its_offer_gives_the_key_again(town: Town, heard: bool) -> None:
    """``heard``: the vault that is gone took the word that the other holds the key; the person asks again."""
    alice, tablet = two(town)
    alice.handle(events.OfferAdmin(2))
    town.settle()
    older = alice.vault.copy()
    alice.connect()  # a login that the copy does not know
    town.settle()
    tablet.handle(events.AcceptAdmin())
    while role_stage(tablet) != "held":
        assert alice.act() or tablet.act()
    while heard and role_stage(alice) != "held":
        assert alice.act() or tablet.act()
    alice.outgoing = [effect for effect in alice.outgoing if isinstance(effect, events.Acknowledge)]
    while heard and alice.outgoing:
        alice.act()
    alice.disconnect()
    town.devices.remove(alice)
    town.settle()
    restored = Device(town, older)
    restored.connect()
    town.settle()
    if heard:
        assert (role_stage(restored), role_stage(tablet), signers(restored, tablet)) == (
            "offered",
            "held",
            [1],
        )
        restored.handle(events.OfferAdmin(2))
        town.settle()
    assert signers(restored, tablet) == [2]
    assert not seed(restored)
    assert seed(tablet)
