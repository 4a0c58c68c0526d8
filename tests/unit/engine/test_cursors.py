"""Cursors: every reader gets every message at least once, and moves nobody else."""

from __future__ import annotations

import pytest

from lokket import limits
from lokket.engine import cursors, events, views
from lokket.engine.store import NOTICE
from lokket.errors import LocalError
from tests.unit.engine.town import Device, Town

DAY_MS = limits.DAY_S * 1000


def texts(device: Device, cursor: str = "", after: int = 0, limit: int = 0) -> list[str]:
    return [shown.text for shown in device.ask(cursors.unhandled, cursor, after, limit)]


def handle(device: Device, count: int, cursor: str = "") -> None:
    """The first ``count`` messages that wait there."""
    order = device.ask(cursors.unhandled, cursor)[count - 1].order
    device.handle(events.HandledNotices(order, cursor))


def kept(device: Device) -> int:
    return len(device.vault.rows[NOTICE])


def say(town: Town, sender: Device, *said: str) -> None:
    for text in said:
        town.say(sender, "bob", text)


def test_two_readers_do_not_steal_from_each_other(friends: tuple[Town, Device, Device]) -> None:
    town, alice, bob = friends
    bob.handle(events.OpenCursor("mailer"))
    bob.handle(events.OpenCursor("logger"))
    say(town, alice, "one", "two", "three")
    handle(bob, 2, "mailer")
    assert texts(bob, "mailer") == ["three"]
    assert texts(bob, "logger") == texts(bob) == ["one", "two", "three"]
    handle(bob, 3, "logger")
    assert texts(bob, "logger") == []
    assert texts(bob, "mailer") == ["three"]
    handle(bob, 1)
    assert texts(bob) == ["two", "three"]
    assert kept(bob) == 2  # what all three are beyond is gone
    handle(bob, 2)
    handle(bob, 1, "mailer")
    assert kept(bob) == 0


def test_a_reader_that_was_away_gets_what_came_meanwhile(friends: tuple[Town, Device, Device]) -> None:
    town, alice, bob = friends
    bob.handle(events.OpenCursor("mailer"))
    say(town, alice, "one", "two")
    handle(bob, 2)
    assert texts(bob) == []
    bob.handle(events.OpenCursor("mailer"))  # it comes back: its place is where it was
    assert texts(bob, "mailer") == ["one", "two"]
    assert texts(bob, "mailer", limit=1) == ["one"]
    first = bob.ask(cursors.unhandled, "mailer")[0].order
    assert texts(bob, "mailer", after=first) == ["two"]  # looked at, not handled
    assert texts(bob, "mailer") == ["one", "two"]


def test_a_new_reader_begins_now_or_with_the_oldest_kept(friends: tuple[Town, Device, Device]) -> None:
    town, alice, bob = friends
    say(town, alice, "one", "two")
    bob.handle(events.OpenCursor("now"))
    bob.handle(events.OpenCursor("all", oldest=True))
    say(town, alice, "three")
    assert texts(bob, "now") == ["three"]
    assert texts(bob, "all") == ["one", "two", "three"]


def test_handling_goes_forward_only_and_not_beyond_what_came(friends: tuple[Town, Device, Device]) -> None:
    town, alice, bob = friends
    bob.handle(events.OpenCursor("mailer"))
    say(town, alice, "one", "two")
    orders = [shown.order for shown in bob.ask(cursors.unhandled, "mailer")]
    bob.handle(events.HandledNotices(2**60, "mailer"))
    bob.handle(events.HandledNotices(orders[0], "mailer"))
    assert texts(bob, "mailer") == []
    say(town, alice, "three")
    assert texts(bob, "mailer") == ["three"]


def test_only_the_persons_own_cursor_marks_as_read(friends: tuple[Town, Device, Device]) -> None:
    town, alice, bob = friends
    bob.handle(events.OpenCursor("mailer"))
    say(town, alice, "one")
    handle(bob, 1, "mailer")
    assert bob.ask(views.contact, "alice").unread == 1
    handle(bob, 1)
    assert bob.ask(views.contact, "alice").unread == 0


def test_a_cursor_that_nobody_uses_expires_with_a_sentence(friends: tuple[Town, Device, Device]) -> None:
    town, alice, bob = friends
    bob.handle(events.OpenCursor("gone"))
    bob.handle(events.OpenCursor("idle"))
    say(town, alice, "one")
    handle(bob, 1)
    handle(bob, 1, "idle")
    for _ in range(limits.CURSOR_DAYS + 1):
        town.now_ms += DAY_MS
        bob.handle(events.Tick())
        bob.handle(events.OpenCursor("idle"))
    town.settle()
    assert {view.name: view.expired for view in bob.ask(cursors.cursors)} == {"gone": True, "idle": False}
    assert kept(bob) == 0
    assert any("'gone' was not used" in warning for warning in bob.ask(views.health, town.now_ms).warnings)
    for refused in (events.OpenCursor("gone"), events.HandledNotices(1, "gone")):
        with pytest.raises(LocalError, match="was not used for 30 days"):
            bob.handle(refused)
    with pytest.raises(LocalError, match="was not used for 30 days"):
        texts(bob, "gone")
    bob.handle(events.OpenCursor("gone", anew=True))
    say(town, alice, "two")
    assert texts(bob, "gone") == ["two"]


def test_names_and_numbers_are_bounded(friends: tuple[Town, Device, Device]) -> None:
    _, _, bob = friends
    for name in ("", "a b", "../x", "a" * 65, "é", "-x"):
        with pytest.raises(LocalError, match="name"):
            bob.handle(events.OpenCursor(name))
    for number in range(limits.CURSORS_MAX):
        bob.handle(events.OpenCursor(f"reader-{number}"))
    with pytest.raises(LocalError, match="close one first"):
        bob.handle(events.OpenCursor("one-more"))
    bob.handle(events.OpenCursor("reader-3"))  # it is there already
    bob.handle(events.CloseCursor("reader-3"))
    bob.handle(events.OpenCursor("one-more"))
    for wrong in (
        events.CloseCursor("reader-3"),
        events.CloseCursor(""),
        events.HandledNotices(1, "reader-3"),
    ):
        with pytest.raises(LocalError, match="no cursor called"):
            bob.handle(wrong)


def test_what_is_given_up_blocks_nothing_and_is_kept_to_be_seen(
    friends: tuple[Town, Device, Device],
) -> None:
    town, alice, bob = friends
    bob.handle(events.OpenCursor("mailer"))
    say(town, alice, "poison", "fine")
    poison = bob.ask(cursors.unhandled, "mailer")[0].order
    bob.handle(events.GiveUpNotice("mailer", poison, 5, "the command ended with 1"))
    assert texts(bob, "mailer") == ["fine"]
    assert texts(bob) == ["poison", "fine"]
    [letter] = bob.ask(cursors.dead_letters)
    assert (letter.cursor, letter.message.text, letter.tries) == ("mailer", "poison", 5)
    assert any("given up by 'mailer'" in line for line in bob.ask(views.health, town.now_ms).warnings)
    handle(bob, 2)
    handle(bob, 1, "mailer")
    assert kept(bob) == 0
    assert bob.ask(cursors.dead_letters)[0].message.text == "poison"
    bob.handle(events.ForgetDeadLetter("mailer", poison))
    assert bob.ask(cursors.dead_letters) == ()
    with pytest.raises(LocalError, match="no such message"):
        bob.handle(events.GiveUpNotice("mailer", poison, 5, "again"))


def test_dead_letters_are_bounded_and_go_with_their_cursor(
    friends: tuple[Town, Device, Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DEAD_LETTERS_MAX", 2)
    town, alice, bob = friends
    bob.handle(events.OpenCursor("mailer"))
    say(town, alice, "one", "two", "three")
    for shown in bob.ask(cursors.unhandled, "mailer"):
        bob.handle(events.GiveUpNotice("mailer", shown.order, 5, "no"))
    assert [letter.message.text for letter in bob.ask(cursors.dead_letters)] == ["two", "three"]
    bob.handle(events.CloseCursor("mailer"))
    assert bob.ask(cursors.dead_letters) == ()


def test_the_same_message_is_sent_once_by_its_id(friends: tuple[Town, Device, Device]) -> None:
    town, alice, bob = friends
    mid = bytes(range(16))
    told = [alice.handle(events.SendText("bob", "once", mid))[0] for _ in range(2)]
    assert [notice.state for notice in told if isinstance(notice, events.MessageState)] == ["queued"] * 2
    town.settle()
    [late] = alice.handle(events.SendText("bob", "once", mid))
    assert isinstance(late, events.MessageState)
    assert (late.mid, late.state) == (mid, "delivered")
    assert texts(bob) == ["once"]
    with pytest.raises(LocalError, match="another message has this id"):
        alice.handle(events.SendText("bob", "other", mid))
    with pytest.raises(LocalError, match="16 bytes"):
        alice.handle(events.SendText("bob", "short", b"short"))
