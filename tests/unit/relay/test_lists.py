"""Device lists at the relay: verified, accepted by compare-and-set, served from what the asker knows."""

from __future__ import annotations

import asyncio

import pytest
from msgspec import structs

from lokket import limits
from lokket.codec import tls
from lokket.protocol import identity
from lokket.relay.budgets import RATES, Rate
from lokket.relay.config import RelayConfig
from lokket.wire import api
from tests.support.relay import ORIGIN, Desk, Member


def code(reply: api.Reply) -> str:
    assert isinstance(reply, api.Refused), reply
    return reply.code


async def chain(asker: Member, of: Member, epoch: int = 0, version: int = 0) -> identity.AccountUpdate:
    reply = await asker.ask(api.FetchAccount(of.genesis_hash, epoch, version))
    assert isinstance(reply, api.Account), reply
    return tls.decode(identity.AccountUpdate, reply.chain)


async def test_a_second_device_is_listed_and_logs_in(desk: Desk) -> None:
    alice, bob = await desk.join("alice"), await desk.join("bob")
    second = alice.second_device()
    caller = desk.connect()
    assert code(await desk.ask(caller, second.login(caller.hello))) == api.LOGIN_REFUSED
    request, after = alice.next_list(add=(second.device,))
    assert await alice.ask(request) == api.Ok()
    second.state = after
    logged_in = await second.log_in()
    assert (logged_in.head, logged_in.version) == (after.head, 2)
    assert await bob.send(bob.envelope(second)) == ("",)
    assert len(await desk.drained(second.caller)) == 1


@pytest.mark.attack(89)
async def test_contacts_catch_up_from_what_they_know(desk: Desk) -> None:
    alice, bob = await desk.join("alice"), await desk.join("bob")
    known = identity.first_contact(await chain(bob, alice), alice.genesis_hash, desk.now_s)
    second = alice.second_device()
    request, alice.state = alice.next_list(add=(second.device,))
    await alice.ask(request)
    for _ in range(3):
        request, alice.state = alice.next_list()
        await alice.ask(request)
    update = await chain(bob, alice, known.key_epoch, known.version)
    assert update.genesis is None
    assert [link.version for link in update.links] == [2, 3, 4, 5]
    assert len(update.devices) == 1
    known, changes = identity.advance(known, update, desk.now_s)
    assert known.head == alice.state.head
    assert changes == (identity.DeviceAdded(second.device_hash, 2),)
    nothing_new = await chain(bob, alice, known.key_epoch, known.version)
    assert identity.advance(known, nothing_new, desk.now_s) == (known, ())


async def test_the_same_list_again_is_accepted_again(desk: Desk) -> None:
    alice = await desk.join("alice")
    request, _ = alice.next_list()
    assert await alice.ask(request) == api.Ok()
    assert await alice.ask(request) == api.Ok()
    assert len((await chain(alice, alice)).links) == 2


async def test_of_two_lists_on_one_head_the_first_wins(desk: Desk) -> None:
    alice = await desk.join("alice")
    second, third = alice.second_device(2), alice.second_device(3)
    first, _ = alice.next_list(add=(second.device,))
    other, _ = alice.next_list(add=(third.device,))
    replies = await asyncio.gather(alice.ask(first), alice.ask(other))
    assert replies[0] == api.Ok()
    assert code(replies[1]) == api.CONFLICT


async def test_a_list_that_does_not_follow_is_a_conflict(desk: Desk) -> None:
    alice = await desk.join("alice")
    _, after = alice.next_list()
    alice.state = after
    request, _ = alice.next_list()
    assert code(await alice.ask(request)) == api.CONFLICT
    assert len((await chain(alice, alice)).links) == 1


async def test_a_list_signed_by_another_account_key_is_invalid(desk: Desk) -> None:
    alice, mallory = await desk.join("alice"), await desk.join("mallory")
    theirs, _ = mallory.next_list()
    mine, _ = alice.next_list()
    signed = tls.decode(identity.SignedLink, mine.link)
    forged = tls.encode(
        identity.SignedLink(signed.link, tls.decode(identity.SignedLink, theirs.link).signature)
    )
    assert code(await alice.ask(structs.replace(mine, link=forged))) == api.INVALID
    assert code(await alice.ask(structs.replace(mine, body=theirs.body))) == api.INVALID
    assert code(await alice.ask(theirs)) in (api.CONFLICT, api.INVALID)
    assert code(await mallory.ask(mine)) in (api.CONFLICT, api.INVALID)
    assert (await chain(alice, alice)).last.link.version == 1


async def test_a_new_device_must_come_with_its_record(desk: Desk) -> None:
    alice = await desk.join("alice")
    request, _ = alice.next_list(add=(alice.second_device().device,))
    assert code(await alice.ask(structs.replace(request, devices=()))) == api.INVALID
    assert code(await alice.ask(structs.replace(request, devices=(b"",)))) == api.MALFORMED


@pytest.mark.attack(87)
async def test_a_removed_device_loses_connection_mailbox_and_login(desk: Desk) -> None:
    alice, bob = await desk.join("alice"), await desk.join("bob")
    second = alice.second_device()
    request, alice.state = alice.next_list(add=(second.device,))
    await alice.ask(request)
    second.state = alice.state
    await second.log_in()
    await second.ask(api.Publish(second.encoded_batch(1)))
    await bob.send(bob.envelope(second))
    request, alice.state = alice.next_list(remove=(second.device_hash,))
    assert await alice.ask(request) == api.Ok()
    (closing,) = desk.relay.notices(second.caller)
    assert isinstance(closing, api.Closing)
    assert await desk.drained(second.caller) == []
    caller = desk.connect()
    assert code(await desk.ask(caller, second.login(caller.hello))) == api.LOGIN_REFUSED
    assert code(await bob.ask(api.FetchBundle(alice.genesis_hash, second.device_hash))) == api.UNKNOWN
    letter = structs.replace(bob.envelope(second), recipient_head=alice.state.head)
    assert await bob.send(letter) == (api.UNKNOWN,)
    assert (await desk.storage.counts()).mail == 0


async def test_a_rotation_cuts_off_the_lists_it_voids(desk: Desk) -> None:
    """The account key was stolen and signed a list; its owner goes on from the list before."""
    alice, bob = await desk.join("alice"), await desk.join("bob")
    code_text = identity.new_recovery_code(alice.entropy)
    owner = Member.new(desk, "owner")
    recovery = identity.recovery_key(code_text, 0)
    genesis = identity.make_genesis(owner.account.public, identity.recovery_commitment(recovery.public))
    device = identity.make_device(
        owner.keys,
        identity.genesis_hash(genesis),
        number=1,
        registration=5,
        added_version=1,
        entropy=owner.entropy,
    )
    owner.device = device
    owner.state = identity.found_account(genesis, owner.account, device, desk.now_s, owner.entropy)
    owner.caller = desk.connect()
    assert isinstance(await owner.ask(owner.registration(owner.caller.hello)), api.LoggedIn)
    before = owner.state
    stolen = owner.second_device()
    request, _ = owner.next_list(add=(stolen.device,))
    assert await owner.ask(request) == api.Ok()
    stolen.state = owner.state
    await stolen.log_in()
    fresh = identity.HybridKeyPair.from_seed(owner.entropy.draw(64))
    rotation = identity.rotate(
        before, recovery, fresh, owner.entropy.draw(32), now_s=desk.now_s, entropy=owner.entropy
    )
    signed, body = identity.sign_list(
        fresh, before, before.body, (), now_s=desk.now_s, entropy=owner.entropy, rotation=rotation
    )
    put = api.PutList(tls.encode(rotation), tls.encode(signed), tls.encode(body), ())
    assert await owner.ask(put) == api.Ok()
    update = await chain(bob, owner)
    assert [link.key_epoch for link in update.links] == [0, 1]
    state = identity.first_contact(update, owner.genesis_hash, desk.now_s)
    assert [listed for listed, _ in state.listed] == [owner.device_hash]
    assert stolen.caller.closing is not None
    voided, _ = owner.next_list()
    assert code(await owner.ask(voided)) == api.CONFLICT, "the old key signs nothing more"


async def test_unknown_accounts_are_unknown(desk: Desk) -> None:
    alice = await desk.join("alice")
    for known_version in (0, 3):
        assert code(await alice.ask(api.FetchAccount(bytes(32), 0, known_version))) == api.UNKNOWN


async def test_who_knows_more_than_the_relay_gets_its_last_list(desk: Desk) -> None:
    """A relay restored from a backup: the contact sees the older list and says so."""
    alice, bob = await desk.join("alice"), await desk.join("bob")
    update = await chain(bob, alice, 0, 9)
    assert [link.version for link in update.links] == [1]


async def test_lists_are_limited() -> None:
    desk = Desk(config=RelayConfig(origin=ORIGIN, open=True, rates={**RATES, "list": Rate(2, 1)}))
    alice = await desk.join("alice")
    request, _ = alice.next_list()
    replies = [await alice.ask(request) for _ in range(3)]
    assert replies[:2] == [api.Ok(), api.Ok()]
    assert code(replies[2]) == api.RATE_LIMITED


async def test_one_chain_has_a_bound(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LINKS_MAX", 2)
    alice = await desk.join("alice")
    request, alice.state = alice.next_list()
    assert await alice.ask(request) == api.Ok()
    request, _ = alice.next_list()
    assert code(await alice.ask(request)) == api.TOO_LARGE
