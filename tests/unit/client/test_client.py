"""``Client`` over the real engine, the real relay and real vaults, without sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from lokket.client.client import Client, NotReached
from lokket.engine import events
from lokket.errors import LocalError
from tests.support.client import Town, town


async def befriend(a: Client, b: Client) -> None:
    """Each has the other as contact, by name."""
    await a.add_contact("bob", name="bob")
    await b.add_contact("alice", name="alice")


async def shown(client: Client, count: int) -> list[events.MessageShown]:
    """The next ``count`` messages, those that wait first."""
    found: dict[int, events.MessageShown] = {}
    stream = client.events()
    pending = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    try:
        while True:
            found.update({message.order: message for message in client.unhandled()})
            if len(found) >= count:
                return [found[order] for order in sorted(found)]
            await asyncio.wait_for(asyncio.shield(pending), 20)
            pending = asyncio.ensure_future(anext(stream))
    finally:
        pending.cancel()


def test_two_people_talk_both_ways(tmp_path: Path) -> None:
    async def scenario(place: Town) -> None:
        alice, bob = await place.join("alice"), await place.join("bob")
        await befriend(alice, bob)
        mid = await alice.send("bob", "hi")
        assert await alice.wait_state(mid, "delivered", timeout_s=20) == "delivered"
        assert [message.text for message in await shown(bob, 1)] == ["hi"]
        answer = await bob.send("alice", "hi yourself")
        assert await bob.wait_state(answer, "delivered", timeout_s=20) == "delivered"
        assert [(m.outgoing, m.text) for m in alice.history("bob")] == [(True, "hi"), (False, "hi yourself")]
        assert alice.safety_number("bob") == bob.safety_number("alice")

    async def run() -> None:
        async with town(tmp_path) as place:
            await scenario(place)

    asyncio.run(run())
