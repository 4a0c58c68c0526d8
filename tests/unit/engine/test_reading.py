"""Read marks: what was shown on one device is read on all, and nobody else is told."""

from __future__ import annotations

from lokket.engine import events, views
from tests.unit.engine.town import Device, Town


def unread(device: Device, petname: str) -> int:
    return device.ask(views.contact, petname).unread


def show_all(device: Device) -> None:
    shown = device.ask(views.unhandled)
    if shown:
        device.handle(events.HandledNotices(shown[-1].order))


def three(town: Town) -> tuple[Device, Device, Device]:
    alice, bob = town.account("alice"), town.account("bob")
    town.befriend(alice, bob)
    return alice, town.second_device(alice), bob


def test_reading_on_one_device_reads_on_all(town: Town) -> None:
    alice, tablet, bob = three(town)
    for text in ("one", "two", "three"):
        town.say(bob, "alice", text)
    assert unread(alice, "bob") == unread(tablet, "bob") == 3
    told = len(bob.envelopes)
    show_all(alice)
    assert unread(alice, "bob") == 0
    town.settle()
    assert unread(tablet, "bob") == 0
    assert len(bob.envelopes) == told
    assert len(tablet.ask(views.unhandled)) == 3  # a program that listens there still gets them


def test_what_came_later_is_unread_again_and_marks_never_fall(town: Town) -> None:
    alice, tablet, bob = three(town)
    town.say(bob, "alice", "one")
    show_all(tablet)
    town.say(bob, "alice", "two")
    assert unread(alice, "bob") == unread(tablet, "bob") == 1
    tablet.handle(events.MarkRead("bob"))
    show_all(alice)
    town.settle()
    assert unread(alice, "bob") == unread(tablet, "bob") == 0
    town.say(alice, "bob", "mine is never unread")
    assert unread(tablet, "bob") == 0
    assert unread(bob, "alice") == 1


def test_a_mark_made_offline_arrives_later(town: Town) -> None:
    alice, tablet, bob = three(town)
    town.say(bob, "alice", "one")
    alice.disconnect()
    alice.handle(events.MarkRead("bob"))
    town.settle()
    assert unread(tablet, "bob") == 1
    alice.connect()
    town.settle()
    assert unread(tablet, "bob") == 0


def test_a_new_device_knows_what_was_read(town: Town) -> None:
    alice, _, bob = three(town)
    town.say(bob, "alice", "one")
    alice.handle(events.MarkRead("bob"))
    town.settle()
    third = town.second_device(alice)
    town.say(bob, "alice", "two")
    assert unread(third, "bob") == 1


def test_an_empty_conversation_has_nothing_to_mark(town: Town) -> None:
    alice, _, _ = three(town)
    alice.handle(events.MarkRead("bob"))
    assert unread(alice, "bob") == 0
