"""Registration: a token, an account and the proof of every key, all at once or not at all."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from msgspec import structs

from lokket import limits
from lokket.codec import tls
from lokket.crypto.keys import Ed25519KeyPair
from lokket.crypto.primitives import sha256
from lokket.protocol import identity
from lokket.relay.budgets import RATES, Rate
from lokket.relay.config import RelayConfig
from lokket.wire import api
from tests.support.relay import ORIGIN, Desk, Member


@pytest.fixture
def closed() -> Desk:
    """A relay that registers with a token only."""
    return Desk(config=RelayConfig(origin=ORIGIN))


def code(reply: api.Reply) -> str:
    assert isinstance(reply, api.Refused), reply
    return reply.code


async def first_token(desk: Desk) -> bytes:
    invite = await desk.relay.first_member_invite(desk.now_ms, desk.entropy)
    assert invite is not None
    assert (invite.origin, invite.relay_key, invite.genesis_hash) == (ORIGIN, desk.key.public, None)
    return identity.derive_invite(invite.secret).token


async def test_registering_logs_in_and_is_found(desk: Desk) -> None:
    alice = await desk.join("alice", name="alice")
    bob = await desk.join("bob")
    reply = await bob.ask(api.LookupName("alice"))
    assert isinstance(reply, api.NameRecord)
    assert reply.genesis_hash == alice.genesis_hash
    account = await bob.ask(api.FetchAccount(alice.genesis_hash, 0, 0))
    assert isinstance(account, api.Account)
    state = identity.first_contact(
        tls.decode(identity.AccountUpdate, account.chain), alice.genesis_hash, desk.now_s
    )
    assert state.head == alice.state.head


async def test_the_first_member_needs_the_relays_own_invite(closed: Desk) -> None:
    member = Member.new(closed, "alice")
    caller = closed.connect()
    for wrong in (b"", bytes(32), b"short"):
        reply = await closed.ask(caller, member.registration(caller.hello, token=wrong))
        assert code(reply) == api.TOKEN_REFUSED
    alice = await closed.join("alice", token=await first_token(closed))
    assert await closed.relay.first_member_invite(closed.now_ms, closed.entropy) is None
    assert alice.caller.logged_in


async def test_members_invite_members(closed: Desk) -> None:
    alice = await closed.join("alice", token=await first_token(closed))
    token = b"t" * 32
    assert await alice.ask(api.PutInvite(sha256(token), closed.now_s + 3600)) == api.Ok()
    await closed.join("bob", token=token)
    member, caller = Member.new(closed, "carol"), closed.connect()
    reply = await closed.ask(caller, member.registration(caller.hello, token=token))
    assert code(reply) == api.TOKEN_REFUSED
    assert not caller.logged_in


async def test_a_token_of_yesterday_is_refused(closed: Desk) -> None:
    token = await first_token(closed)
    closed.now_ms += limits.INVITE_VALID_S * 1000
    member, caller = Member.new(closed, "alice"), closed.connect()
    reply = await closed.ask(caller, member.registration(caller.hello, token=token))
    assert code(reply) == api.TOKEN_REFUSED


async def test_of_many_with_one_token_one_gets_in(closed: Desk) -> None:
    token = await first_token(closed)
    members = [Member.new(closed, f"person {number}") for number in range(5)]
    callers = [closed.connect() for _ in members]
    replies = await asyncio.gather(
        *(
            closed.ask(caller, member.registration(caller.hello, token=token))
            for member, caller in zip(members, callers, strict=True)
        )
    )
    assert sum(isinstance(reply, api.LoggedIn) for reply in replies) == 1
    assert (await closed.storage.counts()).accounts == 1


async def test_registering_again_is_the_same_account(closed: Desk) -> None:
    """The answer was lost: the device connects and registers once more, its token spent."""
    token = await first_token(closed)
    alice = await closed.join("alice", token=token, name="alice")
    closed.now_ms += 2 * limits.DAY_S * 1000
    await closed.upkeep()
    caller = closed.connect()
    reply = await closed.ask(caller, alice.registration(caller.hello, token=token, name="alice"))
    assert isinstance(reply, api.LoggedIn)
    assert caller.logged_in
    assert (await closed.storage.counts()).accounts == 1


async def test_registering_again_does_not_bring_a_removed_device_back(desk: Desk) -> None:
    alice = await desk.join("alice")
    second = alice.second_device()
    request, alice.state = alice.next_list(add=(second.device,))
    assert await alice.ask(request) == api.Ok()
    signed, body = identity.sign_list(
        alice.account,
        alice.state,
        identity.list_body(
            second.device.device,
            (second.device_hash,),
            (identity.Revoked(alice.device.device, alice.device_hash, alice.state.version + 1),),
        ),
        (),
        now_s=desk.now_s,
        entropy=alice.entropy,
    )
    assert await alice.ask(api.PutList(None, tls.encode(signed), tls.encode(body), ())) == api.Ok()
    first = Member.new(desk, "alice")
    caller = desk.connect()
    assert code(await desk.ask(caller, first.registration(caller.hello))) == api.CONFLICT
    assert not caller.logged_in


@pytest.mark.attack(8)
async def test_every_key_of_the_proof_is_checked(desk: Desk) -> None:
    alice = Member.new(desk, "alice")
    mallory = Member.new(desk, "mallory")
    caller = desk.connect()
    request = alice.registration(caller.hello)
    good = tls.decode(identity.RegisterProof, request.proof)
    other = tls.decode(identity.RegisterProof, mallory.registration(caller.hello).proof)
    for part in ("account", "identity", "auth", "mls", "bundle"):
        caller = desk.connect()
        request = alice.registration(caller.hello)
        good = tls.decode(identity.RegisterProof, request.proof)
        proof = tls.encode(replace(good, **{part: getattr(other, part)}))
        assert code(await desk.ask(caller, structs.replace(request, proof=proof))) == api.INVALID, part
    assert (await desk.storage.counts()).accounts == 0


@pytest.mark.attack(19)
@pytest.mark.attack(46)
async def test_a_registration_is_bound_to_relay_token_and_greeting(desk: Desk) -> None:
    alice = Member.new(desk, "alice")
    for name, foreign in {
        "origin": {"origin": "ws://other.test:7677"},
        "key": {"relay_key": Ed25519KeyPair(bytes(32)).public},
        "nonce": {"nonce": bytes(32)},
    }.items():
        caller = desk.connect()
        request = alice.registration(structs.replace(caller.hello, **foreign))
        assert code(await desk.ask(caller, request)) == api.INVALID, name
    caller = desk.connect()
    request = structs.replace(alice.registration(caller.hello), token=b"another token, put in on the way")
    assert code(await desk.ask(caller, request)) == api.INVALID


async def test_a_greeting_registers_once_and_in_time(desk: Desk) -> None:
    alice = Member.new(desk, "alice")
    caller = desk.connect()
    request = alice.registration(caller.hello)
    desk.now_ms += (limits.LOGIN_VALID_S + 1) * 1000
    assert code(await desk.ask(caller, request)) == api.LOGIN_REFUSED
    caller = desk.connect()
    request = alice.registration(caller.hello)
    assert isinstance(await desk.ask(caller, request), api.LoggedIn)
    assert code(await desk.ask(caller, request)) == api.LOGIN_REFUSED
    assert code(await desk.ask(desk.connect(), request)) == api.INVALID


async def test_parts_of_two_accounts_do_not_make_one(desk: Desk) -> None:
    alice, mallory = Member.new(desk, "alice"), Member.new(desk, "mallory")
    for field in ("genesis", "link", "body", "devices", "proof"):
        caller = desk.connect()
        request = structs.replace(
            alice.registration(caller.hello),
            **{field: getattr(mallory.registration(caller.hello), field)},
        )
        assert code(await desk.ask(caller, request)) == api.INVALID, field


@pytest.mark.attack(16)
async def test_bytes_that_are_no_structure_are_malformed(desk: Desk) -> None:
    alice = Member.new(desk, "alice")
    for field in ("genesis", "link", "body", "proof", "name_claim"):
        for spoil in (lambda data: data + b"\x00", lambda data: data[:-1], lambda data: b""):
            caller = desk.connect()
            request = alice.registration(caller.hello, name="alice")
            request = structs.replace(request, **{field: spoil(getattr(request, field))})
            assert code(await desk.ask(caller, request)) == api.MALFORMED, field
    caller = desk.connect()
    request = alice.registration(caller.hello)
    assert (
        code(await desk.ask(caller, structs.replace(request, devices=(request.devices[0] + b"\x00",))))
        == api.MALFORMED
    )


@pytest.mark.attack(48)
async def test_a_taken_name_refuses_the_registration_and_keeps_the_token(closed: Desk) -> None:
    alice = await closed.join("alice", token=await first_token(closed), name="al")
    token = b"t" * 32
    await alice.ask(api.PutInvite(sha256(token), closed.now_s + 3600))
    bob = Member.new(closed, "bob")
    caller = closed.connect()
    reply = await closed.ask(caller, bob.registration(caller.hello, token=token, name="al"))
    assert code(reply) == api.CONFLICT
    reply = await closed.ask(caller, bob.registration(caller.hello, token=token, name="bob"))
    assert isinstance(reply, api.LoggedIn)


async def test_a_name_claim_of_someone_else_is_invalid(desk: Desk) -> None:
    alice, mallory = Member.new(desk, "alice"), Member.new(desk, "mallory")
    caller = desk.connect()
    request = structs.replace(mallory.registration(caller.hello), name_claim=alice.claim("alice"))
    assert code(await desk.ask(caller, request)) == api.INVALID


async def test_an_expired_list_is_no_first_contact(desk: Desk) -> None:
    alice = Member.new(desk, "alice")
    desk.now_ms += (limits.LIST_VALID_DAYS + 1) * limits.DAY_S * 1000
    caller = desk.connect()
    assert code(await desk.ask(caller, alice.registration(caller.hello))) == api.INVALID


async def test_costly_checks_are_limited_and_strangers_do_not_use_them_up() -> None:
    few = {**RATES, "register": Rate(3, 60)}
    desk = Desk(config=RelayConfig(origin=ORIGIN, rates=few))
    member = Member.new(desk, "alice")
    without_token = member.registration(desk.connect().hello, token=bytes(32))
    for _ in range(10):
        assert code(await desk.ask(desk.connect(), without_token)) == api.TOKEN_REFUSED
    token = await first_token(desk)
    spoilt = member.registration(desk.connect().hello, token=token)
    codes = [code(await desk.ask(desk.connect(), spoilt)) for _ in range(4)]
    assert codes == [api.INVALID] * 3 + [api.RATE_LIMITED]
