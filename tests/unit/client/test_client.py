"""``Client`` over the real engine, the real relay and real vaults, without sockets."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from lokket.client.client import Client, Created, NotReached
from lokket.engine.store import PREKEY, SESSION, TABLES
from lokket.errors import LocalError, RemoteError
from lokket.relay.config import RelayConfig
from lokket.system import SystemEntropy, now_ms
from tests.support.client import KEY, Town, town
from tests.support.pages import readable
from tests.support.relay import ORIGIN, Desk

Play = Callable[[Callable[[Town], Awaitable[None]]], None]


@pytest.fixture
def play(tmp_path: Path) -> Play:
    def run(body: Callable[[Town], Awaitable[None]]) -> None:
        async def whole() -> None:
            async with town(tmp_path) as place, asyncio.timeout(60):
                await body(place)

        asyncio.run(whole())

    return run


async def pair(place: Town) -> tuple[Client, Client]:
    """Alice and Bob, who have each other as contacts."""
    alice, bob = await place.join("alice"), await place.join("bob")
    await alice.add_contact("bob", name="bob")
    await bob.add_contact("alice", name="alice")
    return alice, bob


async def deliver(sender: Client, petname: str, text: str) -> bytes:
    mid = await sender.send(petname, text)
    assert await sender.wait_state(mid, "delivered", timeout_s=20) == "delivered"
    return mid


def test_two_people_talk_both_ways(play: Play) -> None:
    async def body(place: Town) -> None:
        alice, bob = await pair(place)
        await deliver(alice, "bob", "hi")
        await deliver(bob, "alice", "hi yourself")
        assert [(m.outgoing, m.text) for m in alice.history("bob")] == [(True, "hi"), (False, "hi yourself")]
        assert [(m.outgoing, m.text) for m in bob.history("alice")] == [(False, "hi"), (True, "hi yourself")]
        assert alice.safety_number("bob") == bob.safety_number("alice")
        assert [message.text for message in bob.unhandled()] == ["hi"]
        await bob.handled(bob.unhandled()[0].order)
        assert bob.unhandled() == ()
        await bob.verify("alice", alice.verify_code("bob"))
        assert bob.contact("alice").level == "verified"

    play(body)


def test_an_invite_makes_contacts_of_two(play: Play) -> None:
    async def body(place: Town) -> None:
        alice = await place.join("alice")
        made = await alice.invite()
        bob = await place.open("bob", create=True)
        created = await bob.create_account(made.link, "bob")
        assert created.name == "bob"
        known = await bob.wait_contact(alice.me().genesis_hash, 20)
        await deliver(bob, known.petname, "through your link")
        assert [contact.petname for contact in alice.contacts()] == ["bob"]
        assert alice.contact("bob").level == "invited"

    play(body)


def test_everything_is_still_there_after_reopening(play: Play) -> None:
    async def body(place: Town) -> None:
        alice, bob = await pair(place)
        await deliver(alice, "bob", "one")
        await bob.close()
        await bob.close()
        mid = await alice.send("bob", "two")
        assert await alice.wait_state(mid, "sent", timeout_s=20) == "sent"
        assert alice.message_state(mid) == "sent"
        again = await place.open("bob")
        assert await again.catch_up(20)
        assert [message.text for message in again.unhandled()] == ["one", "two"]
        assert await alice.wait_state(mid, "delivered", timeout_s=20) == "delivered"

    play(body)


def test_offline_a_message_waits_in_the_vault(play: Play) -> None:
    async def body(place: Town) -> None:
        alice, bob = await pair(place)
        place.transports["alice"].up = False
        await place.transports["alice"].cut()
        mid = await alice.send("bob", "later")
        assert await alice.wait_state(mid, "sent", timeout_s=0.3) == "queued"
        with pytest.raises(NotReached):
            await alice.wait_online(0.1)
        assert not await alice.settle(0.1)
        await alice.close()
        place.transports["alice"].up = True
        again = await place.open("alice")
        assert await again.wait_state(mid, "delivered", timeout_s=20) == "delivered"
        assert [message.text for message in bob.unhandled()] == ["later"]

    play(body)


def test_a_connection_that_breaks_all_the_time_loses_and_doubles_nothing(play: Play) -> None:
    async def body(place: Town) -> None:
        alice, bob = await pair(place)
        sending = [f"message {at}" for at in range(30)]

        async def break_things() -> None:
            while True:
                await asyncio.sleep(0.15)
                for transport in place.transports.values():
                    await transport.cut()

        breaking = asyncio.create_task(break_things())
        last = b""
        for text in sending:
            last = await alice.send("bob", text)
            await asyncio.sleep(0.01)
        breaking.cancel()
        assert await alice.wait_state(last, "delivered", timeout_s=40) == "delivered"
        await bob.settle(20)
        assert [message.text for message in bob.unhandled()] == sending
        assert [message.text for message in bob.history("alice")] == sending

    play(body)


@pytest.mark.attack(36)
def test_keys_of_the_past_are_in_no_page_of_the_vault(play: Play) -> None:
    """A thief with the vault's key, after delivery: spent one-time keys and earlier ratchets are gone."""

    async def body(place: Town) -> None:
        alice, bob = await pair(place)

        def rows(table: str) -> dict[bytes, bytes]:
            with bob._driver.vault.transaction() as tx:
                return dict(tx.scan(table))

        prekeys = rows(PREKEY)
        await deliver(alice, "bob", "first")
        spent = {key: value for key, value in prekeys.items() if key not in rows(PREKEY)}
        kept = {key: value for key, value in prekeys.items() if key in rows(PREKEY)}
        earlier = b"".join(rows(SESSION).values())
        for text in ("second", "third"):
            await deliver(alice, "bob", text)
            await deliver(bob, "alice", text)
        later = b"".join(rows(SESSION).values())
        today = b"\n".join(value for table in TABLES for value in rows(table).values())
        await bob.close()
        pages = readable(place.root / "bob", KEY)
        assert spent
        assert kept
        assert all(value[:200] in pages for value in list(kept.values())[:20])  # the search works
        assert later[:200] in pages
        assert not [key for key, value in spent.items() if value[8:40] in pages]
        gone = [at for at in range(0, len(earlier) - 24, 8) if earlier[at : at + 24] not in today]
        assert len(gone) > 10
        assert not [at for at in gone if earlier[at : at + 24] in pages]

    play(body)


@pytest.mark.attack(92)
def test_no_text_and_no_name_is_in_the_vaults_files(play: Play) -> None:
    async def body(place: Town) -> None:
        alice, bob = await pair(place)
        await deliver(alice, "bob", "the canary sings")
        for client, who in ((alice, "alice"), (bob, "bob")):
            me = client.me().genesis_hash
            for _ in range(2):  # open, then closed
                data = b"".join(path.read_bytes() for path in (place.root / who).iterdir())
                for secret in (b"the canary sings", b"petname", b"alice", me, KEY):
                    assert secret not in data
                await client.close()

    play(body)


def test_a_refused_account_says_why(play: Play) -> None:
    async def body(place: Town) -> None:
        place.desk = Desk(config=RelayConfig(origin=ORIGIN))  # by invitation only
        first = await place.desk.relay.first_member_invite(now_ms(), SystemEntropy())
        assert first is not None
        alice = await place.open("alice", create=True)
        await alice.create_account(first.link(), "alice")
        made = await alice.invite()
        bob = await place.open("bob", create=True)
        await bob.create_account(made.link, "bob")
        carol = await place.open("carol", create=True)
        with pytest.raises(LocalError, match="invite"):
            await carol.create_account(made.link, "carol")

    play(body)


def test_a_taken_name_leaves_the_account_without_one(play: Play) -> None:
    async def body(place: Town) -> None:
        await place.join("alice")
        other = await place.open("other", create=True)
        created = await other.create_account(
            name="alice", origin=place.desk.config.origin, relay_key=place.desk.key.public
        )
        assert created.name is None
        assert other.me().registered

    play(body)


def test_what_is_asked_of_nobody_is_a_sentence(play: Play) -> None:
    async def body(place: Town) -> None:
        alice = await place.join("alice")
        with pytest.raises(LocalError, match="no contact called 'bob'"):
            await alice.send("bob", "hi")
        with pytest.raises(LocalError, match="nobody on this relay"):
            await alice.add_contact("bob", name="bob")
        with pytest.raises(RemoteError):
            await alice.add_contact("bob", link="lokket:invite#I" + "A" * 40)
        empty = await place.open("empty", create=True)
        assert empty.whoami() is None
        with pytest.raises(LocalError, match="lokket join"):
            await empty.send("bob", "hi")

    play(body)


@pytest.mark.attack(98)
def test_the_recovery_code_hides_in_repr() -> None:
    assert "SECRET" not in repr(Created(bytes(32), None, "SECRET"))


def test_events_end_when_the_vault_fails(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(place: Town) -> None:
        alice = await place.join("alice")
        stream = alice.events()
        coming = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        alice._driver._fail(LocalError("the disk is full"), deque())

        async def to_the_end() -> None:
            await coming
            async for _ in stream:
                pass

        with pytest.raises(LocalError, match="disk is full"):
            await to_the_end()

    play(body)
