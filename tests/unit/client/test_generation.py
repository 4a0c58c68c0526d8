"""An older copy of a vault is noticed at its opening, by a number in the keyring; alarms stay until seen."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import keyring
import pytest

from lokket import limits
from lokket.client.direct import DirectClient
from lokket.client.vault_key import InKeyring, InPlainFile, KeyringGeneration, generation_of, make_key
from lokket.engine import events
from lokket.engine.step import require_account
from lokket.engine.store import BATCH, PREKEY, SESSION
from lokket.system import SystemEntropy
from tests.support.client import KEY, Town, town
from tests.support.keyrings import Drawer, in_place

pytestmark = pytest.mark.attack(27)
Play = Callable[[Callable[[Town], Awaitable[None]]], None]


class Outside:
    """Where the number is kept, without a keyring."""

    def __init__(self) -> None:
        self.number = 0

    def read(self) -> int:
        return self.number

    def write(self, number: int) -> None:
        assert number > self.number
        self.number = number


@pytest.fixture
def play(tmp_path: Path) -> Play:
    def run(body: Callable[[Town], Awaitable[None]]) -> None:
        async def whole() -> None:
            async with town(tmp_path) as place, asyncio.timeout(60):
                await body(place)

        asyncio.run(whole())

    return run


@pytest.fixture
def drawer(monkeypatch: pytest.MonkeyPatch) -> Drawer:
    return in_place(monkeypatch)


async def reopened(place: Town, who: str, outside: Any, *, online: bool = False) -> DirectClient:
    client = await DirectClient.begin(
        place.root / who, KEY, online=online, surroundings=place.surroundings(who), generation=outside
    )
    place.clients.append(client)
    return client


def keys_left(client: DirectClient) -> int:
    return client.read(lambda tx: sum(len(list(tx.scan(table))) for table in (SESSION, PREKEY, BATCH)))


def incarnation(client: DirectClient) -> int:
    return client.read(lambda tx: require_account(tx).incarnation)


async def friends(place: Town, outside: Outside) -> DirectClient:
    """Alice, opened again with a number outside, who has a session with Bob."""
    alice, bob = await place.join("alice"), await place.join("bob")
    await alice.add_contact("bob", name="bob")
    await bob.add_contact("alice", name="alice")
    await alice.close()
    alice = await reopened(place, "alice", outside, online=True)
    mid = await alice.send("bob", "hi")
    assert await alice.wait_state(mid, "delivered", timeout_s=20) == "delivered"
    return alice


def test_an_older_copy_is_noticed_before_it_speaks_to_anybody(play: Play) -> None:
    async def body(place: Town) -> None:
        outside = Outside()
        alice = await friends(place, outside)
        await alice.close()
        shutil.copytree(place.root / "alice", place.root / "copy")
        alice = await reopened(place, "alice", outside, online=True)
        await alice.send("bob", "what the copy does not know")
        await alice.close()
        shutil.rmtree(place.root / "alice")
        shutil.copytree(place.root / "copy", place.root / "alice")

        alice = await reopened(place, "alice", outside)  # offline: the relay has not been asked
        assert keys_left(alice) == 0
        assert incarnation(alice) == 2
        (alarm,) = alice.health().alarms
        assert (alarm.kind, alarm.shown) == ("restored", False)
        assert "older copy" in alarm.sentence
        await alice.close()

        alice = await reopened(place, "alice", outside, online=True)
        mid = await alice.send("bob", "in a new session")
        assert await alice.wait_state(mid, "delivered", timeout_s=20) == "delivered"
        assert [message.text for message in place.clients[1].history("alice")][-1] == "in a new session"

    play(body)


def test_a_copy_made_while_the_vault_was_open_is_older_once_it_was_closed(play: Play) -> None:
    async def body(place: Town) -> None:
        outside = Outside()
        alice = await friends(place, outside)
        shutil.copytree(place.root / "alice", place.root / "copy")
        await alice.close()
        shutil.rmtree(place.root / "alice")
        shutil.copytree(place.root / "copy", place.root / "alice")
        alice = await reopened(place, "alice", outside)
        assert [alarm.kind for alarm in alice.health().alarms] == ["restored"]

    play(body)


def test_the_same_vault_and_a_number_that_was_lost_or_lags_behind_are_no_alarm(play: Play) -> None:
    async def body(place: Town) -> None:
        outside = Outside()
        alice = await friends(place, outside)
        before = keys_left(alice)
        for lost in (outside.number, outside.number - 1, 0):  # as after a kill; as with a new keyring
            await alice.close()
            outside.number = min(outside.number, lost)
            alice = await reopened(place, "alice", outside)
            assert not alice.health().alarms
            assert keys_left(alice) == before
        assert outside.number > 3

    play(body)


def test_alarms_stay_until_shown_and_two_weeks_more(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(place: Town) -> None:
        outside = Outside()
        alice = await friends(place, outside)
        await alice.close()
        outside.number += 5
        alice = await reopened(place, "alice", outside)
        now = alice._surroundings.now_ms()
        later = now + (limits.ALARM_DAYS * limits.DAY_S + 60) * 1000

        def at(moment: int) -> list[bool]:
            from lokket.engine import views

            return [alarm.shown for alarm in alice.read(lambda tx: views.health(tx, moment)).alarms]

        assert at(later) == [False]
        await alice.perform(events.AlarmsShown())
        assert at(now) == [True]
        assert at(later) == []

    play(body)


# --- the keyring ---


def test_the_number_is_in_the_keyring_of_a_vault_that_has_its_key_there(
    tmp_path: Path, drawer: Drawer
) -> None:
    make_key(tmp_path / "a", InKeyring(), SystemEntropy())
    make_key(tmp_path / "b", InKeyring(), SystemEntropy())
    first, second = generation_of(tmp_path / "a"), generation_of(tmp_path / "b")
    assert first is not None
    assert second is not None
    assert first.read() == 0
    first.write(7)
    assert (first.read(), second.read()) == (7, 0)
    make_key(tmp_path / "c", InPlainFile(), SystemEntropy())
    assert generation_of(tmp_path / "c") is None


@pytest.mark.parametrize("kept", ["", "-3", "9" * 40, "seven", "٧"])
def test_what_is_no_number_counts_as_none(drawer: Drawer, kept: str) -> None:
    generation = KeyringGeneration("id")
    drawer.set_password("lokket", "id generation", kept)
    assert generation.read() == 0


def test_a_keyring_that_is_locked_broken_or_slow_stops_nobody(
    drawer: Drawer, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation = KeyringGeneration("id")
    generation.write(3)
    drawer.locked = True
    assert generation.read() == 0

    def broken(*given: str) -> str:
        raise ZeroDivisionError

    monkeypatch.setattr(keyring, "get_password", broken)
    monkeypatch.setattr(keyring, "set_password", broken)
    assert generation.read() == 0
    generation.write(4)
    monkeypatch.setattr(limits, "KEYRING_WAIT_S", 0.05)
    release = threading.Event()
    monkeypatch.setattr(keyring, "get_password", lambda *given: "5" if release.wait(20) else None)
    assert generation.read() == 0
    release.set()
