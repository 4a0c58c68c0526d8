"""Recovery at the relay: chain, rotation and login without a device that could log in before."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec import structs

from lokket import limits
from lokket.codec import tls
from lokket.crypto.primitives import sha256
from lokket.errors import LocalError
from lokket.protocol import identity
from lokket.relay.meetings import Meeting, Meetings
from lokket.wire import api
from tests.support.relay import Desk, Member


def code(reply: api.Reply) -> str:
    assert isinstance(reply, api.Refused), reply
    return reply.code


async def owner(desk: Desk, seed: str) -> tuple[Member, str]:
    """A registered account whose recovery code is known."""
    made = Member.new(desk, seed)
    recovery_code = identity.new_recovery_code(made.entropy)
    commitment = identity.recovery_commitment(identity.recovery_key(recovery_code, 0).public)
    genesis = identity.make_genesis(made.account.public, commitment)
    device = identity.make_device(
        made.keys,
        identity.genesis_hash(genesis),
        number=1,
        registration=7,
        added_version=1,
        entropy=made.entropy,
    )
    state = identity.found_account(genesis, made.account, device, desk.now_s, made.entropy)
    member = replace(made, device=device, state=state)
    member.caller = desk.connect()
    assert isinstance(await desk.ask(member.caller, member.registration(member.caller.hello)), api.LoggedIn)
    return member, recovery_code


def recovery(lost: Member, recovery_code: str, hello: api.Hello) -> tuple[Member, api.Recover]:
    """The member that the recovery makes, and its request on this connection."""
    entropy, state, now_s = lost.entropy, lost.state, lost.desk.now_s
    account = identity.HybridKeyPair.from_seed(entropy.draw(64))
    following = identity.recovery_key(identity.new_recovery_code(entropy), 1)
    rotation = identity.rotate(
        state,
        identity.recovery_key(recovery_code, state.key_epoch),
        account,
        identity.recovery_commitment(following.public),
        now_s=now_s,
        entropy=entropy,
    )
    fresh = replace(lost.second_device(), account=account)
    gone = tuple(
        identity.Revoked(device.device, listed, state.version + 1) for listed, device in state.listed
    )
    body = identity.list_body(2, (fresh.device_hash,), gone)
    signed, body = identity.sign_list(
        account, state, body, (fresh.device,), now_s=now_s, entropy=entropy, rotation=rotation
    )
    update = identity.step_update(signed, body, (tls.encode(fresh.device),), rotation=rotation)
    fresh.state, _ = identity.advance(state, update, now_s)
    request = api.Recover(
        tls.encode(rotation),
        tls.encode(signed),
        tls.encode(body),
        tls.encode(fresh.device),
        fresh.login(hello),
    )
    return fresh, request


async def test_a_recovery_logs_in_and_ends_the_lost_device(desk: Desk) -> None:
    lost, recovery_code = await owner(desk, "alice")
    caller = desk.connect()
    reply = await desk.ask(caller, api.FetchChain(lost.genesis_hash))
    assert isinstance(reply, api.Account)
    state = identity.first_contact(reply.chain, lost.genesis_hash, desk.now_s)
    assert state.head == lost.state.head
    fresh, request = recovery(lost, recovery_code, caller.hello)
    logged_in = await desk.ask(caller, request)
    assert isinstance(logged_in, api.LoggedIn)
    assert (logged_in.key_epoch, logged_in.version, logged_in.head) == (1, 2, fresh.state.head)
    assert caller.logged_in
    assert lost.caller.closing is not None
    again = desk.connect()
    assert code(await desk.ask(again, lost.login(again.hello))) == api.LOGIN_REFUSED


async def test_the_same_recovery_again_is_a_login(desk: Desk) -> None:
    lost, recovery_code = await owner(desk, "alice")
    first = desk.connect()
    fresh, request = recovery(lost, recovery_code, first.hello)
    assert isinstance(await desk.ask(first, request), api.LoggedIn)
    second = desk.connect()
    repeated = structs.replace(request, login=fresh.login(second.hello))
    assert isinstance(await desk.ask(second, repeated), api.LoggedIn)
    third = desk.connect()
    assert isinstance(await desk.ask(third, fresh.login(third.hello)), api.LoggedIn)


async def test_what_is_forged_is_refused_and_changes_nothing(desk: Desk) -> None:
    lost, recovery_code = await owner(desk, "alice")
    other, other_code = await owner(desk, "bob")
    caller = desk.connect()
    fresh, request = recovery(lost, recovery_code, caller.hello)
    elsewhere = desk.connect()
    _, foreign = recovery(other, other_code, caller.hello)
    attempts = [
        structs.replace(request, login=fresh.login(elsewhere.hello)),  # a login of another connection
        structs.replace(request, login=foreign.login),  # another device's
        structs.replace(request, login=lost.login(caller.hello)),  # the lost device's
        structs.replace(request, rotation=foreign.rotation),
        structs.replace(request, link=foreign.link),
        structs.replace(request, body=foreign.body),
        structs.replace(request, device=foreign.device),
        structs.replace(request, device=foreign.device, login=foreign.login),
    ]
    for attempt in attempts:
        caller.attempts = 0
        assert code(await desk.ask(caller, attempt)) in (api.INVALID, api.CONFLICT, api.LOGIN_REFUSED)
        assert not caller.logged_in
    row = await desk.storage.account(lost.genesis_hash)
    assert row is not None
    assert row.head == lost.state.head
    caller.attempts = 0
    assert isinstance(await desk.ask(caller, request), api.LoggedIn)


async def test_a_rotation_with_another_code_is_refused(desk: Desk) -> None:
    lost, _ = await owner(desk, "alice")
    caller = desk.connect()
    with pytest.raises(LocalError, match="contacts would refuse"):
        recovery(lost, identity.new_recovery_code(lost.entropy), caller.hello)


async def test_an_account_that_is_not_there(desk: Desk) -> None:
    lost, recovery_code = await owner(desk, "alice")
    elsewhere = Desk(seed="elsewhere")
    caller = elsewhere.connect()
    _, request = recovery(lost, recovery_code, caller.hello)
    assert code(await elsewhere.ask(caller, request)) == api.UNKNOWN
    assert code(await elsewhere.ask(caller, api.FetchChain(lost.genesis_hash))) == api.UNKNOWN


async def test_a_chain_is_shown_without_login_a_few_times_only(desk: Desk) -> None:
    lost, _ = await owner(desk, "alice")
    caller = desk.connect()
    replies = [await desk.ask(caller, api.FetchChain(lost.genesis_hash)) for _ in range(5)]
    assert [isinstance(reply, api.Account) for reply in replies] == [True] * 3 + [False] * 2
    codes = []
    for _ in range(40):
        reply = await desk.ask(desk.connect(), api.FetchChain(lost.genesis_hash))
        codes.append("" if isinstance(reply, api.Account) else code(reply))
    assert api.RATE_LIMITED in codes
    assert codes[0] == ""


# --- meetings ---


async def test_a_word_reaches_who_opened_the_meeting(desk: Desk) -> None:
    alice, bob = await desk.join("alice"), await desk.join("bob")
    token = bytes(32)
    meet = api.Meet(sha256(token))
    assert await alice.ask(meet) == api.Met(b"")
    knocker = desk.connect()
    assert code(await desk.ask(knocker, api.Knock(b"x" * 32, b"word"))) == api.UNKNOWN
    assert await desk.ask(knocker, api.Knock(token, b"word")) == api.Ok()
    assert await desk.ask(knocker, api.Knock(token, b"word")) == api.Ok()
    assert await alice.ask(meet) == api.Met(b"word")
    assert code(await bob.ask(meet)) == api.UNKNOWN
    late = desk.connect()
    assert code(await desk.ask(late, api.Knock(token, b"other"))) == api.CONFLICT
    assert await alice.ask(meet) == api.Met(b"word")


async def test_a_meeting_ends_and_a_new_one_replaces_it(desk: Desk) -> None:
    alice = await desk.join("alice")
    first, second = b"1" * 32, b"2" * 32
    await alice.ask(api.Meet(sha256(first)))
    await alice.ask(api.Meet(sha256(second)))
    assert code(await desk.ask(desk.connect(), api.Knock(first, b"word"))) == api.UNKNOWN
    assert await desk.ask(desk.connect(), api.Knock(second, b"word")) == api.Ok()
    desk.now_ms += (limits.LINK_CODE_VALID_S + 1) * 1000
    assert code(await desk.ask(desk.connect(), api.Knock(second, b"word"))) == api.UNKNOWN
    assert await alice.ask(api.Meet(sha256(second))) == api.Met(b"")


async def test_guesses_are_few_on_one_connection_and_meetings_bounded(desk: Desk) -> None:
    alice = await desk.join("alice")
    caller = desk.connect()
    codes = [code(await desk.ask(caller, api.Knock(bytes([n]) * 32, b"w"))) for n in range(5)]
    assert codes == [api.UNKNOWN] * 3 + [api.LOGIN_REFUSED] * 2
    meetings = Meetings(entries_max=2)
    assert meetings.open(b"1", Meeting(b"a", b"1", 0))
    assert meetings.open(b"2", Meeting(b"a", b"2", 0))
    assert not meetings.open(b"3", Meeting(b"b", b"3", 0))
    assert meetings.open(b"4", Meeting(b"a", b"2", 0))
    assert len(meetings) == 2
    assert meetings.open(b"5", Meeting(b"b", b"3", (limits.LINK_CODE_VALID_S + 1) * 1000))
    assert len(meetings) == 1
    assert await alice.ask(api.Meet(bytes(32))) == api.Met(b"")


async def test_nobody_meets_without_a_login(desk: Desk) -> None:
    assert code(await desk.ask(desk.connect(), api.Meet(bytes(32)))) == api.NOT_LOGGED_IN
