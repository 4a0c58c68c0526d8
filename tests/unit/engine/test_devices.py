"""Devices of one account: revoked, named, and what each of them then knows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lokket.codec import tls
from lokket.engine import events, views
from lokket.engine.records import HeldEnvelope, OutboxRow, rows
from lokket.engine.step import own_state, require_account
from lokket.engine.store import AWAITING, INBOX, OUTBOX, SESSION
from lokket.errors import LocalError
from lokket.protocol import identity
from lokket.protocol.identity.devicelist import body_hash, sign_link
from lokket.wire import api
from tests.unit.engine.town import Device, Town


def pair(town: Town) -> tuple[Device, Device, Device]:
    """Alice with two devices, and Bob, who knows her."""
    alice, bob = town.account("alice"), town.account("bob")
    town.befriend(alice, bob)
    tablet = town.second_device(alice)
    return alice, tablet, bob


def names(device: Device) -> dict[int, str]:
    return {view.number: view.name for view in device.me.devices}


@pytest.mark.attack(87)
def test_a_revoked_device_receives_nothing_from_the_next_send_on(town: Town) -> None:
    alice, tablet, bob = pair(town)
    town.say(bob, "alice", "for both")
    assert tablet.texts("bob") == ["for both"]
    gone = tablet.me.device_hash
    alice.handle(events.RevokeDevice(2))
    town.settle()
    seen = len(tablet.envelopes)
    town.say(bob, "alice", "for one")
    town.say(alice, "bob", "mine alone")
    tablet.connect()
    town.settle()
    assert len(tablet.envelopes) == seen
    assert tablet.texts("bob") == ["for both"]
    assert bob.texts("alice") == ["for both", "for one", "mine alone"]
    for device in (alice, bob):
        assert not device.ask(lambda tx: tx.get(SESSION, gone))
        assert "device-removed" in device.trust_kinds()
    assert [view.number for view in alice.me.devices] == [1]


def test_no_other_list_is_signed_before_our_chain_shows_the_last_one(town: Town) -> None:
    """Two lists of one version are a fork, which contacts never forgive: the relay may lose the first."""
    alice, _, bob = pair(town)
    chains: list[api.Reply] = []

    def hold_chains(device: Device, request: api.Request, reply: api.Reply) -> api.Reply:
        if device is alice and isinstance(request, api.FetchAccount):
            chains.append(reply)
            return api.Refused(api.UNAVAILABLE, "later", 500)
        return reply

    town.replace = hold_chains
    alice.handle(events.RevokeDevice(2))
    town.settle(within_ms=400)
    assert chains, "the relay has the list, and its chain was asked for"
    with pytest.raises(LocalError, match="under way"):
        alice.handle(events.RevokeDevice(2))
    town.replace = lambda device, request, reply: reply
    alice.connect()
    town.settle()
    assert [view.number for view in alice.me.devices] == [1]
    assert not alice.ask(require_account).pending_list
    town.say(bob, "alice", "to one device")
    assert alice.texts("bob") == ["to one device"]


def test_a_device_that_is_gone_is_not_to_be_asked_for_its_mail_again(town: Town) -> None:
    alice, tablet, bob = pair(town)
    town.say(tablet, "bob", "opens")
    town.tamper = lambda device, arrived: tuple(each[:-1] + bytes((each[-1] ^ 1,)) for each in arrived)
    tablet.handle(events.SendText("bob", "spoilt"))
    town.settle(within_ms=0)
    town.tamper = lambda device, arrived: arrived
    assert _to_heal(bob) == [True]
    alice.handle(events.RevokeDevice(2))
    town.settle(within_ms=0)
    alice.handle(events.SendText("bob", "the list is a new one"))
    town.settle(within_ms=0)
    assert "device-removed" in bob.trust_kinds()
    assert _to_heal(bob) == [False]


def _to_heal(device: Device) -> list[bool]:
    return [row.to_heal for _, row in device.ask(lambda tx: rows(tx, INBOX, HeldEnvelope))]


@pytest.mark.attack(87)
def test_mail_of_a_revoked_device_is_quarantined(town: Town) -> None:
    alice, tablet, bob = pair(town)
    town.say(tablet, "bob", "still mine")
    held_back: list[bytes] = []

    def later(device: Device, arrived: tuple[bytes, ...]) -> tuple[bytes, ...]:
        if device is bob:
            held_back.extend(arrived)
            return ()
        return arrived

    town.tamper = later
    town.say(tablet, "bob", "delivered after the revocation")
    town.tamper = lambda device, arrived: arrived
    alice.handle(events.RevokeDevice(2))
    town.settle()
    town.say(alice, "bob", "it was stolen")
    bob.handle(events.Arrived(tuple(held_back)))
    town.settle()
    assert bob.texts("alice") == ["still mine", "it was stolen"]
    assert bob.held() == ["unlisted-device"]


def test_a_revoked_device_that_hears_of_it_sends_no_more(town: Town) -> None:
    alice, tablet, _ = pair(town)
    me, state = tablet.me, own_state(tablet.ask(require_account))
    alice.handle(events.RevokeDevice(2))
    town.settle()
    tablet.connect()
    town.settle(1_000)
    assert [failed.errand for failed in tablet.told(events.ErrandFailed)] == ["login"]
    assert alice.caller is not None
    chain = town.answer(
        alice, alice.caller, api.FetchAccount(me.genesis_hash, state.key_epoch, state.version)
    )
    tablet.handle(events.Answered(f"account:{me.genesis_hash.hex()}", chain))
    assert tablet.trust_kinds()[-1] == "revoked"
    with pytest.raises(LocalError, match="removed from its account"):
        tablet.handle(events.SendText("bob", "still here?"))


def test_only_the_admin_device_revokes_and_not_itself(town: Town) -> None:
    alice, tablet, _ = pair(town)
    with pytest.raises(LocalError, match="only the admin device"):
        tablet.handle(events.RevokeDevice(1))
    with pytest.raises(LocalError, match="this is the admin device"):
        alice.handle(events.RevokeDevice(1))
    with pytest.raises(LocalError, match="no device 3"):
        alice.handle(events.RevokeDevice(3))


def test_a_revocation_survives_a_lost_connection(town: Town) -> None:
    alice, _, bob = pair(town)
    alice.disconnect()
    alice.handle(events.RevokeDevice(2))
    with pytest.raises(LocalError, match="another change"):
        alice.handle(events.RevokeDevice(2))
    alice.connect()
    town.settle()
    assert [view.number for view in alice.me.devices] == [1]
    town.say(bob, "alice", "one only")
    assert not bob.ask(lambda tx: list(tx.scan(OUTBOX)))


def test_a_number_is_not_used_again(town: Town) -> None:
    alice, _, _ = pair(town)
    alice.handle(events.RevokeDevice(2))
    town.settle()
    third = town.second_device(alice)
    assert third.me.device_number == 3
    assert [view.number for view in alice.me.devices] == [1, 3]


def test_names_travel_to_own_devices_only(town: Town) -> None:
    alice, tablet, bob = pair(town)
    alice.handle(events.RenameDevice(1, "laptop"))
    tablet.handle(events.RenameDevice(2, "tablet"))
    town.settle()
    assert names(alice) == names(tablet) == {1: "laptop", 2: "tablet"}
    third = town.second_device(alice)
    assert names(third) == {1: "laptop", 2: "tablet", 3: ""}
    tablet.handle(events.RenameDevice(1, "old laptop"))
    town.settle()
    assert {names(device)[1] for device in (alice, tablet, third)} == {"old laptop"}
    assert "laptop" not in repr(bob.vault.rows)
    for wrong in ("", " x", "a\nb", "x" * 65):
        with pytest.raises(LocalError, match="name"):
            alice.handle(events.RenameDevice(1, wrong))


def test_the_later_name_wins_whatever_arrives_last(town: Town) -> None:
    alice, tablet, _ = pair(town)
    alice.handle(events.RenameDevice(1, "first"))
    town.now_ms += 5
    tablet.handle(events.RenameDevice(1, "second"))
    town.settle()
    assert names(alice)[1] == names(tablet)[1] == "second"


def petnames(device: Device) -> list[str]:
    return [contact.petname for contact in device.ask(views.contacts)]


def test_a_petname_that_is_chosen_anew_is_the_same_on_every_device(town: Town) -> None:
    """Also where another one had been chosen before; the later choice wins, whatever arrives last."""
    alice, tablet, bob = pair(town)
    alice.handle(events.RenameContact("bob", "robert"))
    town.settle()
    assert petnames(alice) == petnames(tablet) == ["robert"]
    tablet.handle(events.RenameContact("robert", "bobby"))
    town.settle()
    assert petnames(alice) == petnames(tablet) == ["bobby"]
    tablet.disconnect()
    tablet.handle(events.RenameContact("bobby", "early"))
    town.now_ms += 1_000
    alice.handle(events.RenameContact("bobby", "late"))
    tablet.connect()
    town.settle()
    assert petnames(alice) == petnames(tablet) == ["late"]
    assert len(bob.ask(views.contacts)) == 1
    town.say(bob, "alice", "under any name")
    assert tablet.texts("late") == ["under any name"]


@pytest.mark.attack(91)
def test_a_dead_device_blocks_nobody(town: Town) -> None:
    """An old phone in a drawer: the others talk, nothing waits for it for ever, and it may come back."""
    alice, drawer, bob = pair(town)
    drawer.disconnect()
    for day in range(24):
        town.say(bob, "alice", f"day {day}")
        town.say(alice, "bob", f"answer {day}")
        town.pass_days(1)
        for device in (alice, bob):
            device.connect()
        town.settle()
    for device, petname in ((alice, "bob"), (bob, "alice")):
        assert set(device.states(petname)) == {"delivered", "received"}
    assert not bob.ask(lambda tx: list(tx.scan(OUTBOX)))
    waiting = [row for _, row in bob.ask(lambda tx: rows(tx, AWAITING, OutboxRow))]
    assert min(row.created_ms for row in waiting) > town.now_ms - 16 * 86_400_000
    drawer.connect()
    town.settle()
    assert "day 23" in drawer.texts("bob")
    alice.handle(events.RevokeDevice(2))
    town.settle()
    gone = drawer.me.device_hash
    assert gone not in {row.device_hash for _, row in bob.ask(lambda tx: rows(tx, AWAITING, OutboxRow))}


@pytest.mark.attack(88)
def test_a_device_that_the_relay_adds_is_sent_nothing(town: Town) -> None:
    """The relay signs a list of its own with one device more and serves it to Bob."""
    alice, tablet, bob = pair(town)
    town.say(bob, "alice", "both of you")
    mallory = town.account("mallory")
    state = own_state(alice.ask(require_account))
    foreign = tls.decode(identity.Device, mallory.ask(require_account).device)
    forger = identity.HybridKeyPair.generate(town.entropy)
    body = identity.list_body(1, (*state.body.device_hashes, identity.device_hash(foreign)))
    link = replace(state.link, version=state.version + 1, previous=state.head, body_hash=body_hash(body))
    signed = sign_link(forger, link, town.entropy)
    forged = tls.encode(identity.step_update(signed, body, (tls.encode(foreign),)))
    town.replace = lambda device, request, reply: (
        api.Account(forged)
        if device is bob and isinstance(request, api.FetchAccount) and request.known_version
        else reply
    )
    bob.handle(events.Disconnected())
    bob.connect()
    town.say(tablet, "bob", "a head that Bob may not know")
    town.say(bob, "alice", "to her devices alone")
    assert bob.ask(views.contact, "alice").devices == 2
    assert not mallory.envelopes
    assert alice.texts("bob")[-1] == "to her devices alone"
