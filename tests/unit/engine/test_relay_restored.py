"""A relay goes back to an older backup; as its members come online it gets back what it lost."""

from __future__ import annotations

import copy

import pytest

from lokket.codec import tls
from lokket.engine import events
from lokket.engine.step import own_state, require_account
from lokket.engine.store import ACCOUNT
from lokket.protocol import identity
from lokket.relay.bus import LocalBus
from lokket.relay.config import RelayConfig
from lokket.relay.relay import Relay
from lokket.relay.storage.base import AccountRow
from lokket.relay.storage.memory import MemoryStorage
from lokket.wire import api
from tests.unit.engine.town import ORIGIN, Device, Town, now

pytestmark = pytest.mark.attack(118)


def backed_up(town: Town) -> MemoryStorage:
    storage = town.relay.storage
    assert isinstance(storage, MemoryStorage)
    return copy.deepcopy(storage)


def restore(town: Town, backup: MemoryStorage, *, is_open: bool = True) -> None:
    """The relay stops, and starts again as it was; nobody is connected yet."""
    for device in town.devices:
        device.disconnect()
    config = RelayConfig(origin=ORIGIN, open=is_open)
    town.relay = Relay(copy.deepcopy(backup), config, town.relay_key, LocalBus())


def come_online(town: Town, *devices: Device) -> None:
    for device in devices:
        device.connect()
        town.settle()


def row_of(town: Town, device: Device) -> AccountRow:
    row = now(town.relay.storage.account(device.me.genesis_hash))
    assert row is not None
    return row


def assert_same_list(town: Town, *devices: Device) -> None:
    """The relay serves, from the genesis on, what the account's devices go by."""
    row = row_of(town, devices[0])
    for device in devices:
        assert own_state(device.ask(require_account)).head == row.head
    update = tls.decode(identity.AccountUpdate, row.chain)
    served = identity.first_contact(update, devices[0].me.genesis_hash, town.now_ms // 1000)
    assert served.head == row.head
    assert {key for key, _ in served.listed} == {device.me.device_hash for device in devices}


def test_mail_prekeys_and_the_name_come_back(town: Town) -> None:
    alice, bob = town.account("alice"), town.account("bob")
    backup = backed_up(town)
    town.befriend(alice, bob)
    come_online(town, alice)  # a login that the backup does not know
    bob.disconnect()
    alice.handle(events.SendText("bob", "on its way"))
    town.settle()
    assert alice.states("bob") == ["sent"]
    restore(town, backup)
    come_online(town, alice, bob)
    assert bob.texts("alice") == ["on its way"]
    assert alice.states("bob") == ["delivered"]
    assert "relay-restored" in alice.trust_kinds()
    carol = town.account("carol")
    carol.handle(events.AddContact("al", name="alice"))
    town.settle()
    town.say(carol, "al", "to a fresh prekey")
    assert alice.ask(lambda tx: tx.get(ACCOUNT, b"claim")) is None
    assert carol.states("al") == ["sent"], "to a stranger, who gives no receipt"


def test_a_name_claimed_after_the_backup_is_claimed_again(town: Town) -> None:
    alice = town.account("alice")
    backup = backed_up(town)
    backup._names.clear()
    alice.connect()
    town.settle()
    restore(town, backup)
    come_online(town, alice)
    assert now(town.relay.storage.name("alice")) is not None


def test_a_link_that_was_handed_out_still_opens(town: Town) -> None:
    alice = town.account("alice")
    backup = backed_up(town)
    come_online(town, alice)
    alice.handle(events.CreateInvite())
    town.settle()
    link = alice.told(events.InviteMade)[-1].link
    restore(town, backup, is_open=False)
    come_online(town, alice)
    assert len(alice.told(events.InviteMade)) == 1, "it was shown when it was made"
    bob = Device(town)
    code = identity.new_recovery_code(town.entropy)
    bob.handle(events.CreateAccount(link, "bob", ORIGIN, town.relay_key.public, code))
    come_online(town, bob)
    assert bob.told(events.Registered)


def changed_thrice(town: Town, alice: Device) -> Device:
    """Alice's list moves on by three: a device comes, another comes, the first goes."""
    tablet = town.second_device(alice)
    phone = town.second_device(alice)
    alice.handle(events.RevokeDevice(tablet.ask(require_account).number))
    town.settle()
    tablet.disconnect()
    town.devices.remove(tablet)
    return phone


def test_a_list_that_moved_on_by_three_is_put_back(town: Town) -> None:
    alice, bob = town.account("alice"), town.account("bob")
    town.befriend(alice, bob)
    backup = backed_up(town)
    phone = changed_thrice(town, alice)
    town.say(bob, "alice", "before")
    restore(town, backup)
    come_online(town, alice)
    assert_same_list(town, alice, phone)
    come_online(town, phone, bob)
    town.say(bob, "alice", "after")
    town.say(phone, "bob", "from the phone")
    assert phone.texts("bob") == alice.texts("bob") == ["before", "after", "from the phone"]
    assert bob.texts("alice") == ["before", "after", "from the phone"]
    assert "forked" not in [*alice.trust_kinds(), *bob.trust_kinds(), *phone.trust_kinds()]


def test_whoever_comes_first_nothing_breaks(town: Town) -> None:
    """A contact, then a device that the relay does not know yet, then the one that can help."""
    alice, bob = town.account("alice"), town.account("bob")
    town.befriend(alice, bob)
    backup = backed_up(town)
    phone = changed_thrice(town, alice)
    town.say(bob, "alice", "before")
    restore(town, backup)
    come_online(town, bob)
    town.say(bob, "alice", "to both")
    come_online(town, phone, alice)
    town.settle(600_000)
    phone.connect()
    town.settle(600_000)
    assert_same_list(town, alice, phone)
    assert phone.texts("bob") == alice.texts("bob") == ["before", "to both"]
    assert bob.states("alice") == ["delivered", "delivered"]


def test_a_device_without_the_account_key_can_put_the_list_back(town: Town) -> None:
    alice = town.account("alice")
    tablet = town.second_device(alice)
    backup = backed_up(town)
    phone = town.second_device(alice)
    restore(town, backup)
    come_online(town, tablet)
    assert_same_list(town, alice, tablet, phone)


def test_a_change_that_waits_is_made_after_the_list_is_put_back(town: Town) -> None:
    alice = town.account("alice")
    backup = backed_up(town)
    tablet = town.second_device(alice)
    alice.disconnect()
    alice.handle(events.RevokeDevice(tablet.ask(require_account).number))
    restore(town, backup)
    come_online(town, alice)
    assert_same_list(town, alice)
    assert not [failed for failed in alice.told(events.ErrandFailed) if failed.errand == "list"]


def test_an_account_made_since_comes_back_with_its_name_and_devices(town: Town) -> None:
    bob = town.account("bob")
    backup = backed_up(town)
    alice = town.account("alice")
    tablet = town.second_device(alice)
    town.befriend(alice, bob)
    restore(town, backup)
    come_online(town, bob)
    town.say(bob, "alice", "are you there")
    come_online(town, alice, tablet)
    town.settle(600_000)
    assert_same_list(town, alice, tablet)
    assert now(town.relay.storage.name("alice")) is not None
    assert tablet.texts("bob") == alice.texts("bob") == ["are you there"]
    assert bob.states("alice") == ["delivered"]


def test_on_a_closed_relay_its_operator_is_asked_for(town: Town) -> None:
    backup = backed_up(town)
    alice = town.account("alice")
    restore(town, backup, is_open=False)
    come_online(town, alice)
    (failed,) = alice.told(events.ErrandFailed)[-1:]
    assert "open registration for a while" in failed.sentence
    requests: list[api.Request] = []
    town.replace = lambda device, request, reply: requests.append(request) or reply  # type: ignore[func-returns-value]
    come_online(town, alice)
    assert not any(isinstance(request, api.Readmit) for request in requests), "not again within the hour"
    town.now_ms += 3_600_001
    restore(town, backup)
    come_online(town, alice)
    assert alice.told(events.Online)
    assert_same_list(town, alice)


def test_a_name_that_was_taken_meanwhile_is_lost_and_the_account_is_not(town: Town) -> None:
    backup = backed_up(town)
    alice = town.account("alice")
    restore(town, backup)
    mallory = town.account("alice")
    come_online(town, alice)
    record = now(town.relay.storage.name("alice"))
    assert record is not None
    assert record.genesis_hash == mallory.me.genesis_hash
    assert alice.me.name is None
    assert any(failed.errand == "name" for failed in alice.told(events.ErrandFailed))
    assert_same_list(town, alice)


def test_a_recovery_since_comes_back_and_the_thief_stays_out(town: Town) -> None:
    """The relay knows the stolen device and not the one that replaced it; the thief is there first."""
    stolen, bob = town.account("alice"), town.account("bob")
    town.befriend(stolen, bob)
    backup = backed_up(town)
    stolen.disconnect()
    town.devices.remove(stolen)
    alice = town.recover(stolen, name="alice")
    restore(town, backup)
    town.devices.append(stolen)
    come_online(town, stolen)
    town.second_device(stolen)
    assert row_of(town, alice).version == 2, "the relay has the thief's list"
    come_online(town, alice)
    assert_same_list(town, alice)
    assert stolen.caller is None or not stolen.caller.logged_in
    come_online(town, bob)
    alice.handle(events.AddContact("bob", name="bob"))
    town.settle()
    town.say(bob, "alice", "is it you")
    assert "rotated" in bob.trust_kinds()
    bob.handle(events.AcceptContact("alice"))
    town.settle()
    assert alice.texts("bob")[-1:] == ["is it you"]
    assert "is it you" not in stolen.texts("bob")
    stolen.connect()
    town.settle()
    assert stolen.caller is None or not stolen.caller.logged_in
    assert_same_list(town, alice)


def test_a_revoked_device_gains_nothing_by_its_older_chain(town: Town) -> None:
    """Not even one that was the admin device: the relay has a newer chain."""
    stolen = town.account("alice")
    stolen.disconnect()
    town.devices.remove(stolen)
    alice = town.recover(stolen)
    before = row_of(town, alice)
    town.devices.append(stolen)
    come_online(town, stolen)
    assert row_of(town, alice) == before
    assert stolen.caller is None or not stolen.caller.logged_in


def test_a_vault_of_an_older_lokket_fetches_the_chain_that_it_lacks(town: Town) -> None:
    alice = town.account("alice")
    town.second_device(alice)
    backup = backed_up(town)
    phone = changed_thrice(town, alice)
    transaction = alice.vault.begin()
    transaction.delete(ACCOUNT, b"chain")
    transaction.commit()
    come_online(town, alice)
    restore(town, backup)
    come_online(town, alice)
    row = row_of(town, alice)
    assert own_state(alice.ask(require_account)).head == row.head
    come_online(town, phone)
    assert phone.told(events.Online)


def test_a_relay_of_an_older_lokket_is_asked_and_nothing_breaks(town: Town) -> None:
    """It does not know the request: the list stays behind, mail goes on."""
    alice, bob = town.account("alice"), town.account("bob")
    town.befriend(alice, bob)
    backup = backed_up(town)
    changed_thrice(town, alice)
    restore(town, backup)
    real = town.answer

    def older(device: Device, caller: object, request: api.Request) -> api.Reply:
        if isinstance(request, api.PutChain | api.Readmit):
            return api.Refused(api.MALFORMED, "the relay does not know this request")
        return real(device, caller, request)  # type: ignore[arg-type]

    town.answer = older  # type: ignore[method-assign, assignment]
    come_online(town, alice, bob)
    town.say(bob, "alice", "hi")
    assert alice.texts("bob") == ["hi"]
