"""Strangers and the blocked: shown when and only when the person wants it, and answered never before."""

from __future__ import annotations

import pytest

from lokket import limits
from lokket.engine import events, views
from lokket.engine.events import MessageShown, TrustNotice
from lokket.errors import LocalError
from lokket.wire import api
from tests.unit.engine.town import Device, Town

Friends = tuple[Town, Device, Device]


def sent_by(town: Town, device: Device) -> list[api.Request]:
    """Every request that ``device`` makes from now on, as it makes them."""
    asked: list[api.Request] = []

    def note(who: Device, request: api.Request, reply: api.Reply) -> api.Reply:
        if who is device:
            asked.append(request)
        return reply

    town.replace = note
    return asked


def only_acknowledges(asked: list[api.Request]) -> bool:
    return {type(request) for request in asked} <= {api.Acknowledge}


@pytest.mark.attack(52)
def test_mail_of_the_blocked_is_dropped_unshown_and_answered_by_nothing(friends: Friends) -> None:
    town, alice, bob = friends
    town.say(alice, "bob", "before")
    bob.handle(events.BlockContact("alice"))
    told, asked = len(bob.notices), sent_by(town, bob)
    town.say(alice, "bob", "one")
    town.say(alice, "bob", "two")
    town.pass_days(0.01)
    town.settle()
    assert bob.texts("alice") == ["before"]
    assert bob.notices[told:] == []
    assert only_acknowledges(asked)
    assert bob.held() == []
    assert alice.states("bob") == ["delivered", "sent", "sent"]
    assert bob.ask(views.contact, "alice").level == "blocked"


def test_a_message_that_waits_to_be_shown_is_not_and_its_receipt_is_not_sent(friends: Friends) -> None:
    town, alice, bob = friends
    alice.handle(events.SendText("bob", "quick"))
    while not bob.ask(views.unhandled):
        assert any([alice.act(), bob.act()])
    bob.handle(events.BlockContact("alice"))
    asked = sent_by(town, bob)
    assert bob.ask(views.unhandled) == ()
    town.settle()
    assert only_acknowledges(asked)
    assert alice.states("bob") == ["sent"]


def test_unblocking_lets_the_conversation_go_on(friends: Friends) -> None:
    town, alice, bob = friends
    bob.handle(events.BlockContact("alice"))
    with pytest.raises(LocalError, match="unblock"):
        bob.handle(events.SendText("alice", "no"))
    town.say(alice, "bob", "dropped")
    bob.handle(events.UnblockContact("alice"))
    town.say(alice, "bob", "heard again")
    town.say(bob, "alice", "indeed")
    assert bob.texts("alice") == ["heard again", "indeed"]
    assert alice.texts("bob") == ["dropped", "heard again", "indeed"]
    assert alice.states("bob")[1:] == ["delivered", "received"]
    assert bob.ask(views.contact, "alice").level == "invited"


def test_a_new_device_of_the_blocked_is_not_even_looked_up(friends: Friends) -> None:
    town, alice, bob = friends
    bob.handle(events.BlockContact("alice"))
    phone = town.second_device(alice)
    asked = sent_by(town, bob)
    town.say(phone, "bob", "from elsewhere")
    assert only_acknowledges(asked)
    assert bob.texts("alice") == []
    bob.handle(events.UnblockContact("alice"))
    town.say(phone, "bob", "and again")
    assert bob.texts("alice") == ["and again"]


@pytest.mark.attack(52)
def test_rubbish_of_the_blocked_costs_nothing(friends: Friends) -> None:
    """No quarantine, no request to heal: a probe learns nothing."""
    town, alice, bob = friends
    town.say(alice, "bob", "a session")
    bob.handle(events.BlockContact("alice"))
    asked = sent_by(town, bob)

    def garble(device: Device, arrived: tuple[bytes, ...]) -> tuple[bytes, ...]:
        if device is not bob:
            return arrived
        envelopes = (api.decode_envelope(envelope) for envelope in arrived)
        return tuple(
            api.encode(api.Envelope(**{**{f: getattr(e, f) for f in e.__struct_fields__}, "body": b"junk"}))
            for e in envelopes
        )

    town.tamper = garble
    town.say(alice, "bob", "garbled")
    town.pass_days(0.01)
    town.settle()
    assert only_acknowledges(asked)
    assert bob.held() == []


def test_blocking_holds_on_all_devices(friends: Friends) -> None:
    town, alice, bob = friends
    tablet = town.second_device(bob)
    bob.handle(events.BlockContact("alice"))
    town.settle()
    assert tablet.ask(views.contact, "alice").level == "blocked"
    town.say(alice, "bob", "to nobody")
    assert bob.texts("alice") == tablet.texts("alice") == []
    tablet.handle(events.UnblockContact("alice"))
    town.settle()
    assert bob.ask(views.contact, "alice").level == "invited"
    town.say(alice, "bob", "to all")
    assert bob.texts("alice") == tablet.texts("alice") == ["to all"]


def strangers(town: Town) -> tuple[Device, Device]:
    """Alice writes to Bob, who does not know her."""
    alice, bob = town.account("alice"), town.account("bob")
    alice.handle(events.AddContact("bob", name="bob"))
    town.settle()
    return alice, bob


@pytest.mark.attack(52, 116)
def test_a_request_gets_no_answer_of_any_kind_before_it_is_accepted(town: Town) -> None:
    alice, bob = strangers(town)
    asked = sent_by(town, bob)
    town.say(alice, "bob", "do you know me?")
    alice_2 = town.second_device(alice)
    town.say(alice, "bob", "under a head that bob does not know")
    town.pass_days(0.01)
    town.settle()
    assert {type(request) for request in asked} <= {api.Acknowledge, api.FetchAccount}
    assert sum(isinstance(request, api.FetchAccount) for request in asked) == 1  # to open it at all
    assert [shown.request for shown in bob.told(MessageShown)] == [True, True]
    bob.handle(events.AcceptContact("alice"))
    town.settle()
    assert alice.states("bob") == ["delivered", "delivered"]
    town.say(bob, "alice", "now I do")
    assert alice.texts("bob")[-1] == alice_2.texts("bob")[-1] == "now I do"


def test_a_request_may_be_blocked_and_stays_a_request(town: Town) -> None:
    alice, bob = strangers(town)
    tablet = town.second_device(bob)
    town.say(alice, "bob", "first")
    bob.handle(events.BlockContact("alice"))
    town.settle()
    town.say(alice, "bob", "second")
    assert bob.texts("alice") == tablet.texts("alice") == ["first"]
    with pytest.raises(LocalError, match="unblock"):
        bob.handle(events.AcceptContact("alice"))
    bob.handle(events.UnblockContact("alice"))
    town.settle()
    for device in (bob, tablet):
        assert device.ask(views.contact, "alice").level == "request"
    assert alice.states("bob") == ["sent", "sent"]


@pytest.mark.attack(22)
def test_a_stranger_cannot_fill_the_vault(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REQUEST_MESSAGES_MAX", 3)
    monkeypatch.setattr(limits, "REQUESTS_MAX", 1)
    alice, bob = strangers(town)
    for number in range(5):
        town.say(alice, "bob", f"message {number}")
    assert bob.texts("alice") == ["message 0", "message 1", "message 2"]
    carol = town.account("carol")
    carol.handle(events.AddContact("bob", name="bob"))
    town.settle()
    town.say(carol, "bob", "one stranger too many")
    assert [view.petname for view in bob.ask(views.contacts)] == ["alice"]
    assert "unlisted-device" in bob.held()


def test_a_notice_of_the_blocked_is_none(friends: Friends) -> None:
    """Their list moves on: nobody is told."""
    town, alice, bob = friends
    bob.handle(events.BlockContact("alice"))
    told = len(bob.told(TrustNotice))
    town.second_device(alice)
    bob.connect()
    town.settle()
    assert len(bob.told(TrustNotice)) == told
