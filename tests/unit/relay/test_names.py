"""Names and invites: exact look-up, one answer for the unknown, bounded tokens."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from lokket import limits
from lokket.relay.budgets import RATES, Rate
from lokket.relay.config import RelayConfig
from lokket.relay.storage.memory import MemoryStorage
from lokket.wire import api
from tests.support.relay import ORIGIN, Desk


def code(reply: api.Reply) -> str:
    assert isinstance(reply, api.Refused), reply
    return reply.code


class Watched:
    """Writes down which verbs of a storage are used."""

    def __init__(self) -> None:
        self._inner = MemoryStorage()
        self.calls: list[str] = []

    def when_mended(self, callback: Callable[[], None]) -> None:
        """Memory never breaks."""

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        verb = getattr(self._inner, name)

        async def watched(*arguments: Any) -> Any:
            self.calls.append(name)
            return await verb(*arguments)

        return watched


async def test_a_name_leads_to_its_account_with_the_claim(desk: Desk) -> None:
    alice, bob = await desk.join("alice"), await desk.join("bob")
    claim = alice.claim("al")
    assert await alice.ask(api.ClaimName(claim)) == api.Ok()
    assert await bob.ask(api.LookupName("al")) == api.NameRecord(alice.genesis_hash, claim)
    assert code(await bob.ask(api.LookupName("a"))) == api.UNKNOWN
    assert code(await bob.ask(api.LookupName("AL"))) == api.UNKNOWN
    assert code(await bob.ask(api.LookupName("al "))) == api.UNKNOWN


@pytest.mark.attack(57)
async def test_unknown_resting_and_known_names_cost_the_same_work() -> None:
    storage = Watched()
    desk = Desk(storage=storage)  # type: ignore[arg-type]
    alice, bob = await desk.join("alice", name="al"), await desk.join("bob")
    await alice.ask(api.ClaimName(alice.claim("alice")))
    work, answers = [], []
    for name in ("alice", "al", "nobody"):
        storage.calls.clear()
        answers.append(await bob.ask(api.LookupName(name)))
        work.append(list(storage.calls))
    assert work == [["name"]] * 3
    assert isinstance(answers[0], api.NameRecord)
    assert answers[1] == answers[2], "a resting name answers like one that never was"


@pytest.mark.attack(57)
async def test_looking_up_is_limited_for_hits_and_misses_alike() -> None:
    desk = Desk(config=RelayConfig(origin=ORIGIN, open=True, rates={**RATES, "name": Rate(4, 60)}))
    await desk.join("alice", name="al")
    mallory, bob = await desk.join("mallory"), await desk.join("bob")
    for name in ("al", "bl", "cl", "dl"):
        await mallory.ask(api.LookupName(name))
    assert code(await mallory.ask(api.LookupName("al"))) == api.RATE_LIMITED
    assert code(await mallory.ask(api.LookupName("el"))) == api.RATE_LIMITED
    assert isinstance(await bob.ask(api.LookupName("al")), api.NameRecord)


@pytest.mark.attack(48)
async def test_a_name_cannot_be_taken_over(desk: Desk) -> None:
    alice, mallory = await desk.join("alice", name="al"), await desk.join("mallory")
    assert code(await mallory.ask(api.ClaimName(mallory.claim("al")))) == api.CONFLICT
    assert code(await mallory.ask(api.ClaimName(alice.claim("al")))) == api.INVALID
    await alice.ask(api.ClaimName(alice.claim("alice")))
    assert code(await mallory.ask(api.ClaimName(mallory.claim("al")))) == api.CONFLICT, "it rests"
    assert await alice.ask(api.ClaimName(alice.claim("al"))) == api.Ok(), "but not for its last owner"
    desk.now_ms += limits.NAME_REST_DAYS * limits.DAY_S * 1000
    await desk.upkeep()
    await mallory.log_in()
    assert await mallory.ask(api.ClaimName(mallory.claim("alice"))) == api.Ok()


async def test_claims_that_are_none_are_refused(desk: Desk) -> None:
    alice = await desk.join("alice")
    for claim in (
        b"",
        alice.claim("al")[:-1],
        alice.claim("al") + b"\x00",
        b"\x02Al" + alice.claim("al")[3:],
    ):
        assert code(await alice.ask(api.ClaimName(claim))) == api.MALFORMED
    changed = bytearray(alice.claim("al"))
    changed[-1] ^= 1
    assert code(await alice.ask(api.ClaimName(bytes(changed)))) == api.INVALID


async def test_claiming_is_limited() -> None:
    desk = Desk(config=RelayConfig(origin=ORIGIN, open=True, rates={**RATES, "claim": Rate(2, 1)}))
    alice = await desk.join("alice")
    replies = [await alice.ask(api.ClaimName(alice.claim(f"name{n}"))) for n in range(3)]
    assert replies[:2] == [api.Ok()] * 2
    assert code(replies[2]) == api.RATE_LIMITED


# --- invites ---


async def test_invites_are_short_lived(desk: Desk) -> None:
    alice = await desk.join("alice")
    day = limits.INVITE_VALID_S
    for expires_s, accepted in (
        (desk.now_s + day, True),
        (desk.now_s + day + limits.CLOCK_SKEW_S, True),
        (desk.now_s + day + limits.CLOCK_SKEW_S + 1, False),
        (desk.now_s, False),
        (0, False),
        (2**62, False),
    ):
        reply = await alice.ask(api.PutInvite(desk.entropy.draw(32), expires_s))
        assert (reply == api.Ok()) == accepted
        assert accepted or code(reply) == api.INVALID


async def test_open_invites_are_bounded(desk: Desk) -> None:
    alice, bob = await desk.join("alice"), await desk.join("bob")
    tokens = [desk.entropy.draw(32) for _ in range(limits.INVITES_OPEN_MAX + 1)]
    replies = [await alice.ask(api.PutInvite(token, desk.now_s + 60)) for token in tokens]
    assert replies[:-1] == [api.Ok()] * limits.INVITES_OPEN_MAX
    assert code(replies[-1]) == api.RATE_LIMITED
    assert await bob.ask(api.PutInvite(tokens[-1], desk.now_s + 60)) == api.Ok()
    assert code(await bob.ask(api.PutInvite(tokens[0], desk.now_s + 60))) == api.CONFLICT
    desk.now_ms += 61_000
    assert await alice.ask(api.PutInvite(desk.entropy.draw(32), desk.now_s + 60)) == api.Ok()


async def test_putting_invites_is_limited() -> None:
    desk = Desk(config=RelayConfig(origin=ORIGIN, open=True, rates={**RATES, "invite": Rate(1, 1)}))
    alice = await desk.join("alice")
    assert await alice.ask(api.PutInvite(bytes(32), desk.now_s + 60)) == api.Ok()
    assert code(await alice.ask(api.PutInvite(bytes(32), desk.now_s + 60))) == api.RATE_LIMITED
