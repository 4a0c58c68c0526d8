"""A lost admin device, and the recovery code."""

from __future__ import annotations

import pytest

from lokket.engine import book, events, views
from lokket.engine.records import OutboxRow, rows
from lokket.engine.step import own_state, require_account
from lokket.engine.store import ACCOUNT, AWAITING
from lokket.errors import LocalError, RemoteError
from lokket.protocol import identity
from lokket.wire import api
from lokket.wire.content import SYNC
from tests.unit.engine.town import Device, Town


def test_a_lost_admin_device_is_replaced(town: Town) -> None:
    alice, bob = town.account("alice"), town.account("bob")
    town.befriend(alice, bob)
    town.say(bob, "alice", "before")
    alice.disconnect()
    fresh = town.recover(alice, name="alice")
    recovered = fresh.told(events.Recovered)
    assert [(notice.device_number, notice.kept) for notice in recovered] == [(2, ())]
    assert fresh.me.admin
    assert fresh.me.genesis_hash == alice.me.genesis_hash
    assert [(view.number, view.name) for view in fresh.me.devices] == [(2, "new laptop")]

    bob.handle(events.SendText("alice", "who are you now?"))
    town.settle()
    assert "rotated" in bob.trust_kinds()
    assert bob.states("alice")[-1] == "queued"
    assert bob.ask(views.contact, "alice").blocked
    with pytest.raises(LocalError, match="new account key"):
        bob.handle(events.SendText("alice", "no"))
    bob.handle(events.AcceptContact("alice"))
    town.settle()
    (stranger,) = fresh.ask(views.contacts)
    assert (stranger.level, fresh.texts(stranger.petname)) == ("request", ["who are you now?"])
    assert bob.states("alice") == ["delivered", "sent"]
    fresh.handle(events.AcceptContact(stranger.petname))
    town.settle()
    town.say(fresh, stranger.petname, "the same one")
    assert bob.texts("alice")[-1] == "the same one"
    assert bob.states("alice")[:2] == ["delivered", "delivered"]


def test_mail_that_lay_unread_for_the_lost_device_comes_to_the_new_one(town: Town) -> None:
    alice, bob = town.account("alice"), town.account("bob")
    town.befriend(alice, bob)
    alice.disconnect()
    for text in ("one", "two", "three"):
        town.say(bob, "alice", text)
    assert bob.states("alice") == ["sent"] * 3
    fresh = town.recover(alice)
    town.say(bob, "alice", "four")
    bob.handle(events.AcceptContact("alice"))
    town.settle()
    (stranger,) = fresh.ask(views.contacts)
    fresh.handle(events.AcceptContact(stranger.petname))
    town.settle()
    assert fresh.texts(stranger.petname) == ["one", "two", "three", "four"]
    assert bob.states("alice") == ["delivered"] * 4


def test_the_name_is_found_again_under_the_new_key(town: Town) -> None:
    alice, carol = town.account("alice"), town.account("carol")
    alice.disconnect()
    fresh = town.recover(alice, name="alice")
    carol.handle(events.AddContact("a", name="alice"))
    town.settle()
    (added,) = carol.told(events.ContactAdded)
    assert added.genesis_hash == fresh.me.genesis_hash
    assert not carol.told(events.ErrandFailed)


@pytest.mark.attack(87)
def test_the_thief_of_the_admin_device_is_out(town: Town) -> None:
    """The stolen device signs on under the old key: neither relay nor contact follows."""
    alice, bob = town.account("alice"), town.account("bob")
    town.befriend(alice, bob)
    thief = alice
    town.second_device(thief)
    stolen = thief.ask(require_account)
    thief.disconnect()
    fresh = town.recover(thief)
    assert [view.number for view in fresh.me.devices] == [3]

    old_key = identity.HybridKeyPair.from_seed(stolen.account_seed)
    state = own_state(stolen)
    signed = identity.renew(old_key, state, town.now_ms // 1000, town.entropy)
    update = identity.step_update(signed, state.body)
    newer = own_state(fresh.ask(require_account))
    with pytest.raises(RemoteError, match="does not follow"):
        identity.advance(newer, update, town.now_ms // 1000)
    thief.connect()
    town.settle(1_000)
    assert thief.caller is None or not thief.caller.logged_in
    town.say(bob, "alice", "is anyone there?")
    bob.handle(events.AcceptContact("alice"))
    town.settle()
    assert "is anyone there?" not in thief.texts("bob")
    assert chain_of(bob, thief.me.genesis_hash).key_epoch == 1


def chain_of(device: Device, genesis_hash: bytes) -> identity.AccountState:
    contact = device.ask(book.of, genesis_hash)
    assert contact is not None
    return book.state_of(contact)


def test_a_kept_device_stays_and_brings_contacts(town: Town) -> None:
    alice, bob = town.account("alice"), town.account("bob")
    town.befriend(alice, bob)
    tablet = town.second_device(alice)
    alice.disconnect()
    fresh = town.recover(alice, keep=(2,))
    assert [view.number for view in fresh.me.devices] == [2, 3]
    assert [view.number for view in tablet.me.devices] == [2, 3]
    assert not tablet.me.admin
    assert {"rotated", "device-added", "device-removed"} <= set(tablet.trust_kinds())
    assert [contact.petname for contact in fresh.ask(views.contacts)] == ["bob"]
    town.say(fresh, "bob", "from the new one")
    bob.handle(events.AcceptContact("alice"))
    town.settle()
    assert bob.texts("alice") == ["from the new one"]
    assert tablet.texts("bob") == ["from the new one"]
    town.say(tablet, "bob", "from the kept one")
    assert fresh.texts("bob")[-1] == "from the kept one"
    assert not [row for _, row in tablet.ask(lambda tx: rows(tx, AWAITING, OutboxRow)) if row.kind == SYNC]


def test_what_was_revoked_by_a_thief_can_be_kept(town: Town) -> None:
    """The thief revokes the honest device; recovery keeps what the lists still name, and only that."""
    alice = town.account("alice")
    town.second_device(alice)
    alice.handle(events.RevokeDevice(2))
    town.settle()
    alice.disconnect()
    fresh = town.recovering(alice, keep=(2,))
    fresh.connect()
    town.settle()
    assert "no device 2" in fresh.hung_up


def test_a_second_recovery_takes_the_second_code(town: Town) -> None:
    alice = town.account("alice")
    alice.disconnect()
    second = town.recover(alice)
    second.disconnect()
    again = town.recovering(alice)
    again.connect()
    town.settle()
    assert "not the account's recovery code" in again.hung_up
    third = town.recover(second)
    assert third.me.admin
    assert third.me.device_number == 3


def test_wrong_codes_are_refused_before_anything_leaves(town: Town) -> None:
    alice, bob = town.account("alice"), town.account("bob")
    code = alice.recovery_code
    slip = code[:-1] + ("0" if code[-1] != "0" else "1")
    with pytest.raises(LocalError, match="does not add up"):
        town.recovering(alice, code=slip)
    town.devices.pop()
    fresh = town.recovering(alice, code=bob.recovery_code)
    fresh.connect()
    town.settle()
    assert "not the account's recovery code" in fresh.hung_up
    assert not fresh.vault.rows[ACCOUNT].get(b"recovery")


def test_a_recovery_survives_losing_every_answer(town: Town) -> None:
    """The connection breaks after each request: the chain, the rotation, and once it was taken."""
    alice = town.account("alice")
    alice.disconnect()
    fresh = town.recovering(alice)
    fresh.connect()
    fresh.disconnect()  # before the chain
    fresh.connect()
    assert fresh.act()  # the chain is here, the rotation signed
    fresh.disconnect()
    signed = fresh.ask(require_account).device
    fresh.connect()
    assert fresh.caller is not None
    request = fresh.outgoing.pop(0)
    assert isinstance(request, events.Call)
    assert isinstance(town.answer(fresh, fresh.caller, request.request), api.LoggedIn)
    fresh.disconnect()  # the relay has it, and we do not know
    fresh.connect()
    town.settle()
    assert fresh.told(events.Recovered)
    assert fresh.ask(require_account).device == signed
    assert fresh.me.admin
    assert [view.number for view in fresh.me.devices] == [2]


def test_an_expired_list_can_be_recovered(town: Town) -> None:
    alice = town.account("alice")
    alice.disconnect()
    town.pass_days(60)
    fresh = town.recover(alice)
    assert fresh.me.admin


def test_codes_are_not_kept(town: Town) -> None:
    alice = town.account("alice")
    alice.disconnect()
    fresh = town.recover(alice)
    rows = b"".join(value for table in fresh.vault.rows.values() for value in table.values())
    for code in (alice.recovery_code, fresh.recovery_code):
        assert code.encode() not in rows


def test_who_has_nothing_new_to_say_learns_of_a_recovery_too(town: Town) -> None:
    """Mail that nobody took for an hour makes its sender look at the list."""
    alice, bob = town.account("alice"), town.account("bob")
    town.befriend(alice, bob)
    alice.disconnect()
    town.say(bob, "alice", "lies with the lost device")
    fresh = town.recover(alice)
    assert "rotated" not in bob.trust_kinds()
    town.settle(2 * 3_600_000 + 60_000)
    assert "rotated" in bob.trust_kinds()
    bob.handle(events.AcceptContact("alice"))
    town.settle()
    (stranger,) = fresh.ask(views.contacts)
    assert fresh.texts(stranger.petname) == ["lies with the lost device"]
