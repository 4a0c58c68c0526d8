"""Two people, then with more devices: what is sent is shown, once, in order, and truthfully marked."""

from __future__ import annotations

import pytest

from lokket.engine import events, views
from lokket.errors import LocalError, LokketError
from lokket.protocol.pairwise.messages import SignalMessage
from lokket.wire import api
from tests.unit.engine.town import Device, Town

Friends = tuple[Town, Device, Device]


def test_both_ways(friends: Friends) -> None:
    town, alice, bob = friends
    town.say(alice, "bob", "hello bob")
    town.say(bob, "alice", "hello alice")
    assert alice.texts("bob") == bob.texts("alice") == ["hello bob", "hello alice"]
    assert alice.states("bob") == ["delivered", "received"]
    assert bob.states("alice") == ["received", "delivered"]


def test_an_invite_verifies_both(friends: Friends) -> None:
    _, alice, bob = friends
    assert alice.ask(views.contact, "bob").level == "invited"
    assert bob.ask(views.contact, "alice").level == "invited"
    assert alice.ask(views.safety_number, "bob") == bob.ask(views.safety_number, "alice")


def test_an_invite_works_once(friends: Friends) -> None:
    town, _, bob = friends
    carol = town.account("carol")
    link = bob.told(events.InviteMade)[0].link
    carol.handle(events.AddContact("bob", link=link))
    town.settle()
    assert carol.ask(views.contact, "bob").level == "unverified"
    stranger = next(view for view in bob.ask(views.contacts) if view.petname != "alice")
    assert stranger.level == "request"


def test_sent_is_said_when_the_relay_has_it_and_delivered_on_the_receipt(friends: Friends) -> None:
    town, alice, bob = friends
    bob.disconnect()
    town.say(alice, "bob", "are you there?")
    assert alice.states("bob") == ["sent"]
    bob.connect()
    town.settle()
    assert alice.states("bob") == ["delivered"]


def test_sending_offline_waits_for_the_relay(friends: Friends) -> None:
    town, alice, bob = friends
    alice.disconnect()
    town.say(alice, "bob", "later")
    assert alice.states("bob") == ["queued"]
    alice.connect()
    town.settle()
    assert bob.texts("alice") == ["later"]


def test_every_device_of_both_accounts_has_it(friends: Friends) -> None:
    town, alice, bob = friends
    alice_2, bob_2 = town.second_device(alice), town.second_device(bob)
    town.say(alice, "bob", "one")
    town.say(alice_2, "bob", "two")
    town.say(bob, "alice", "three")
    town.say(bob_2, "alice", "four")
    for device, petname in ((alice, "bob"), (alice_2, "bob"), (bob, "alice"), (bob_2, "alice")):
        assert device.texts(petname) == ["one", "two", "three", "four"], device.me.device_number
    assert alice_2.ask(views.contact, "bob").level == "invited"
    assert bob.trust_kinds().count("device-added") == 2


def test_a_device_that_joins_late_gets_what_was_not_yet_accepted(friends: Friends) -> None:
    town, alice, bob = friends
    bob.disconnect()
    bob.handle(events.SendText("alice", "written before"))
    alice_2 = town.second_device(alice)
    bob.connect()
    town.settle()
    assert alice.texts("bob") == alice_2.texts("bob") == ["written before"]


def test_a_stranger_waits_and_gets_no_receipt_until_accepted(town: Town) -> None:
    alice, bob = town.account("alice"), town.account("bob")
    alice.handle(events.AddContact("bob", name="bob"))
    town.settle()
    town.say(alice, "bob", "do you know me?")
    assert alice.states("bob") == ["sent"]
    assert bob.ask(views.contact, "alice").level == "request"
    assert bob.told(events.MessageShown)[0].request
    with pytest.raises(LocalError):
        bob.handle(events.SendText("alice", "who are you?"))
    bob.handle(events.AcceptContact("alice"))
    town.settle()
    assert alice.states("bob") == ["delivered"]
    town.say(bob, "alice", "now I do")
    assert alice.texts("bob")[-1] == "now I do"


def test_an_unknown_name_is_a_sentence(town: Town) -> None:
    alice = town.account("alice")
    alice.handle(events.AddContact("bob", name="nobody"))
    town.settle()
    assert "nobody" in alice.told(events.ErrandFailed)[0].sentence
    assert alice.ask(views.contacts) == ()
    alice.handle(events.AddContact("bob", name="nobody"))  # the petname is free again


def test_notices_stay_until_they_are_handled(friends: Friends) -> None:
    town, alice, bob = friends
    town.say(alice, "bob", "first")
    town.say(alice, "bob", "second")
    shown = bob.ask(views.unhandled)
    assert [notice.text for notice in shown] == ["first", "second"]
    bob.handle(events.HandledNotices(shown[0].order))
    assert [notice.text for notice in bob.ask(views.unhandled)] == ["second"]


def test_names_and_petnames(friends: Friends) -> None:
    town, alice, _ = friends
    alice.handle(events.RenameContact("bob", "my brother"))
    town.say(alice, "my brother", "hi")
    assert alice.states("my brother") == ["delivered"]
    for petname in ("", "two\nlines", "my brother", " x"):
        with pytest.raises(LocalError):
            alice.handle(events.AddContact(petname, name="carol"))


def test_a_verify_code_raises_the_level_and_a_wrong_one_does_not(friends: Friends) -> None:
    town, alice, bob = friends
    carol = town.account("carol")
    town.befriend(carol, bob)
    with pytest.raises(LocalError):
        alice.handle(events.MarkVerified("bob", carol.ask(views.verify_code, "bob")))
    with pytest.raises(LocalError):  # a scan that failed
        alice.handle(events.MarkVerified("bob", ""))
    assert alice.ask(views.contact, "bob").level != "verified"
    alice.handle(events.MarkVerified("bob", bob.ask(views.verify_code, "alice")))
    assert alice.ask(views.contact, "bob").level == "verified"


def test_a_commands_error_changes_nothing(friends: Friends) -> None:
    _, alice, _ = friends
    before = alice.vault.digest()
    for command in (
        events.SendText("nobody", "x"),
        events.SendText("bob", "x" * 100_000),
        events.CreateAccount("", "again", "ws://relay.test", bytes(32), ""),
        events.AddDevice(b"junk"),
    ):
        with pytest.raises(LokketError):
            alice.handle(command)
        assert alice.vault.digest() == before


@pytest.mark.attack(37)
def test_long_one_way_runs_turn_the_ratchet(friends: Friends) -> None:
    """Receipts answer every message, so the sender's ratchet key changes without a reply."""
    town, alice, bob = friends
    for number in range(4):
        town.say(alice, "bob", str(number))
    keys = set()
    for encoded in bob.envelopes:
        envelope = api.decode_envelope(encoded)
        if envelope.kind == api.KIND_WHISPER:
            keys.add(SignalMessage(envelope.body).ratchet_key)
    assert len(keys) >= 4


def test_a_message_that_was_refused_is_not_overtaken(friends: Friends) -> None:
    """Its next try is on its way, and may be refused again: what was written later waits for the answer."""
    town, alice, bob = friends
    alice.handle(events.SendText("bob", "first"))
    (call,) = _sends(alice)
    alice.outgoing.remove(call)
    assert isinstance(call.request, api.Send)
    refused = tuple(api.Deposited(each.envelope_id, api.STALE_LIST) for each in call.request.envelopes)
    alice.handle(events.Answered(call.call, api.Sent(refused)))
    town.now_ms += 2_000
    alice.handle(events.Tick())
    (again,) = _sends(alice)
    alice.handle(events.SendText("bob", "second"))
    assert _sends(alice) == [again]
    town.settle()
    assert bob.texts("alice") == ["first", "second"]


def test_a_message_that_names_an_older_list_is_not_overtaken(friends: Friends) -> None:
    """It is on its way and will be refused: what was written later waits for the answer."""
    town, alice, bob = friends
    alice.handle(events.SendText("bob", "first"))
    (call,) = _sends(alice)
    alice.outgoing.remove(call)
    tablet = town.second_device(bob)
    town.say(bob, "alice", "I have a tablet")
    alice.handle(events.SendText("bob", "second"))
    asked = [each.request for each in _sends(alice)]
    sent_to = {
        each.device_hash for request in asked if isinstance(request, api.Send) for each in request.envelopes
    }
    assert sent_to == {tablet.me.device_hash}
    assert alice.caller is not None
    alice.handle(events.Answered(call.call, town.answer(alice, alice.caller, call.request)))
    town.settle()
    said = ["first", "I have a tablet", "second"]
    assert sorted(bob.texts("alice")) == sorted(tablet.texts("alice")) == sorted(said)
    shown = [each.text for each in bob.told(events.MessageShown) if not each.outgoing]
    assert shown == ["first", "second"]


def _sends(device: Device) -> list[events.Call]:
    calls = [each for each in device.outgoing if isinstance(each, events.Call)]
    return [each for each in calls if isinstance(each.request, api.Send)]
