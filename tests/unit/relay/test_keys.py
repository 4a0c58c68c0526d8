"""Prekeys at the relay: verified batches, pairs handed out once, drains slowed to a crawl."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from lokket import limits
from lokket.codec import tls
from lokket.protocol import prekeys
from lokket.relay.budgets import HOUR_MS, RATES, Rate
from lokket.relay.config import RelayConfig
from lokket.wire import api
from tests.support.relay import ORIGIN, Desk, Member


def code(reply: api.Reply) -> str:
    assert isinstance(reply, api.Refused), reply
    return reply.code


async def fetched(asker: Member, of: Member) -> prekeys.ServedBundle:
    reply = await asker.ask(api.FetchBundle(of.genesis_hash, of.device_hash))
    assert isinstance(reply, api.Bundle), reply
    prekeys.check_bundle(reply.bundle, of.state, of.device_hash, 0, of.desk.now_s)
    return tls.decode(prekeys.ServedBundle, reply.bundle)


@pytest.mark.attack(11)
async def test_pairs_go_out_once_and_then_bundles_without(desk: Desk) -> None:
    alice, bob = await desk.join("alice"), await desk.join("bob")
    assert await alice.ask(api.Publish(alice.encoded_batch(1, pairs=5))) == api.Ok()
    bundles = await asyncio.gather(*(fetched(bob, alice) for _ in range(7)))
    pairs = [bundle.served.pair for bundle in bundles if bundle.served is not None]
    assert len(pairs) == 5
    assert len({pair.leaf.slot for pair in pairs}) == 5
    assert len({pair.leaf.one_time.id for pair in pairs}) == 5


@pytest.mark.attack(13)
async def test_slots_do_not_tell_how_many_are_gone(desk: Desk) -> None:
    """Taken in order, the first slot would say "fresh" and the last "nearly empty"."""
    alice, bob = await desk.join("alice"), await desk.join("bob")
    await alice.ask(api.Publish(alice.encoded_batch(1, pairs=40)))
    slots = [bundle.served.pair.leaf.slot for _ in range(30) if (bundle := await fetched(bob, alice)).served]
    assert slots != sorted(slots)
    assert slots[0] != min(slots) or slots[-1] != max(slots)


@pytest.mark.attack(13)
async def test_strangers_are_told_no_counts(desk: Desk) -> None:
    alice, bob = await desk.join("alice"), await desk.join("bob")
    await alice.ask(api.Publish(alice.encoded_batch(1, pairs=40)))
    first = await bob.ask(api.FetchBundle(alice.genesis_hash, alice.device_hash))
    for _ in range(30):
        last = await bob.ask(api.FetchBundle(alice.genesis_hash, alice.device_hash))
    assert isinstance(first, api.Bundle)
    assert isinstance(last, api.Bundle)
    assert len(first.bundle) == len(last.bundle)


async def test_a_newer_batch_replaces_and_an_older_never_returns(desk: Desk) -> None:
    alice, bob = await desk.join("alice"), await desk.join("bob")
    old, new = alice.encoded_batch(3), alice.encoded_batch(4)
    assert await alice.ask(api.Publish(old)) == api.Ok()
    assert await alice.ask(api.Publish(new)) == api.Ok()
    assert await alice.ask(api.Publish(new)) == api.Ok(), "the same again is done already"
    assert code(await alice.ask(api.Publish(old))) == api.CONFLICT
    assert code(await alice.ask(api.Publish(alice.encoded_batch(4)))) == api.CONFLICT
    assert (await fetched(bob, alice)).signed.manifest.number == 4


@pytest.mark.attack(7)
async def test_a_batch_that_does_not_verify_is_refused(desk: Desk) -> None:
    alice, mallory = await desk.join("alice"), await desk.join("mallory")
    mine, theirs = alice.batch(1), mallory.batch(1)
    spoilt = {
        "of another device": theirs,
        "pairs of another": replace(mine, pairs=theirs.pairs, padding=theirs.padding),
        "signature of another": replace(mine, signed=replace(mine.signed, signature=theirs.signed.signature)),
        "number changed": replace(
            mine, signed=replace(mine.signed, manifest=replace(mine.signed.manifest, number=9))
        ),
    }
    for what, batch in spoilt.items():
        assert code(await alice.ask(api.Publish(tls.encode(batch)))) == api.INVALID, what
    assert code(await alice.ask(api.Publish(tls.encode(mine)[:-1]))) == api.MALFORMED
    assert code(await alice.ask(api.Publish(b""))) == api.MALFORMED
    assert (await alice.log_in()).manifest_number == 0


async def test_a_number_beyond_the_database_is_refused(desk: Desk) -> None:
    alice = await desk.join("alice")
    assert code(await alice.ask(api.Publish(alice.encoded_batch(2**63)))) == api.INVALID
    assert await alice.ask(api.Publish(alice.encoded_batch(2**63 - 1))) == api.Ok()
    assert desk.relay.counters["fault"] == 0


async def test_unknown_devices_have_no_prekeys(desk: Desk) -> None:
    alice, bob = await desk.join("alice"), await desk.join("bob")
    await alice.ask(api.Publish(alice.encoded_batch(1)))
    for genesis_hash, device_hash in (
        (alice.genesis_hash, bytes(32)),
        (bytes(32), alice.device_hash),
        (bob.genesis_hash, alice.device_hash),
        (bob.genesis_hash, bob.device_hash),
    ):
        assert code(await bob.ask(api.FetchBundle(genesis_hash, device_hash))) == api.UNKNOWN
    assert (await alice.log_in()).pairs_left == 3


@pytest.mark.attack(12)
async def test_one_asker_is_limited() -> None:
    desk = Desk(config=RelayConfig(origin=ORIGIN, open=True, rates={**RATES, "bundle": Rate(4, 60)}))
    alice, mallory, bob = [await desk.join(who) for who in ("alice", "mallory", "bob")]
    await alice.ask(api.Publish(alice.encoded_batch(1, pairs=20)))
    for _ in range(4):
        await fetched(mallory, alice)
    assert code(await mallory.ask(api.FetchBundle(alice.genesis_hash, alice.device_hash))) == api.RATE_LIMITED
    assert (await fetched(bob, alice)).served is not None
    assert (await alice.log_in()).pairs_left == 15


@pytest.mark.attack(12)
async def test_many_askers_together_drain_no_faster_than_the_target_allows() -> None:
    rates = {**RATES, "bundle-target": Rate(6, 6)}
    desk = Desk(config=RelayConfig(origin=ORIGIN, open=True, rates=rates))
    alice = await desk.join("alice")
    await alice.ask(api.Publish(alice.encoded_batch(1, pairs=30)))
    crowd = [await desk.join(f"mallory {number}") for number in range(4)]
    bundles = [await fetched(mallory, alice) for mallory in crowd for _ in range(5)]
    assert sum(bundle.served is not None for bundle in bundles) == 6
    assert len(bundles) == 20, "the others got a bundle too, without a pair: sessions still begin"
    desk.now_ms += HOUR_MS
    bundles = [await fetched(mallory, alice) for mallory in crowd for _ in range(5)]
    assert sum(bundle.served is not None for bundle in bundles) == 6
    assert (await alice.log_in()).pairs_left == 18


@pytest.mark.attack(12)
async def test_the_owner_is_told_when_pairs_run_low(desk: Desk) -> None:
    alice, bob = await desk.join("alice"), await desk.join("bob")
    woken: list[bool] = []
    alice.caller.wake = lambda: woken.append(True)
    await alice.ask(api.Publish(alice.encoded_batch(1, pairs=limits.PAIRS_LOW + 2)))
    await fetched(bob, alice)
    assert desk.relay.notices(alice.caller) == ()
    await fetched(bob, alice)
    await fetched(bob, alice)
    assert woken
    assert desk.relay.notices(alice.caller) == (api.PairsLow(limits.PAIRS_LOW - 1),), "the latest alone"
    assert desk.relay.notices(alice.caller) == ()


async def test_publishing_is_limited() -> None:
    desk = Desk(config=RelayConfig(origin=ORIGIN, open=True, rates={**RATES, "publish": Rate(1, 1)}))
    alice = await desk.join("alice")
    batch = alice.encoded_batch(1)
    assert await alice.ask(api.Publish(batch)) == api.Ok()
    assert code(await alice.ask(api.Publish(batch))) == api.RATE_LIMITED
