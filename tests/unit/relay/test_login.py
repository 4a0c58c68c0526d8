"""Logging in: one signed answer to one greeting, at one relay, for 60 seconds."""

from __future__ import annotations

import pytest
from msgspec import structs

from lokket import limits
from lokket.crypto.keys import Ed25519KeyPair
from lokket.protocol.identity import LoginStatement, check_hello, sign_login
from lokket.relay.config import RelayConfig
from lokket.wire import api
from tests.support.relay import ORIGIN, START_MS, Desk, Member


def refused(reply: api.Reply) -> str:
    assert isinstance(reply, api.Refused), reply
    assert reply.sentence
    return reply.code


async def test_the_greeting_is_signed_by_the_relays_key(desk: Desk) -> None:
    hello = desk.connect().hello
    assert hello.relay_key == desk.key.public
    check_hello(hello.origin, hello.relay_key, hello.nonce, hello.time_ms, hello.signature)
    assert desk.connect().hello.nonce != hello.nonce


async def test_login_answers_what_a_device_needs_to_know(desk: Desk) -> None:
    alice = await desk.join("alice")
    bob = await desk.join("bob")
    await alice.ask(api.Publish(alice.encoded_batch(7)))
    await bob.send(bob.envelope(alice))
    reply = await alice.log_in(b"\x01" * 32)
    assert reply == api.LoggedIn(
        last_nonce=None,
        head=alice.state.head,
        key_epoch=0,
        version=1,
        manifest_number=7,
        pairs_left=3,
        mailbox=1,
    )


async def test_login_names_the_nonce_of_the_login_before(desk: Desk) -> None:
    alice = await desk.join("alice")
    assert (await alice.log_in(b"\x01" * 32)).last_nonce is None
    assert (await alice.log_in(b"\x02" * 32)).last_nonce == b"\x01" * 32


@pytest.mark.attack(26)
async def test_a_login_whose_answer_may_be_lost_is_not_named(desk: Desk) -> None:
    """A restored vault would else learn nothing of the newer one, which it must not be."""
    alice = await desk.join("alice")
    await alice.log_in(b"\x01" * 32)
    for nonce in (b"\x02" * 32, b"\x03" * 32):
        caller = desk.connect()
        reply = await desk.ask(caller, alice.login(caller.hello, nonce))
        assert isinstance(reply, api.LoggedIn)
        assert reply.last_nonce == b"\x01" * 32


@pytest.mark.attack(46)
@pytest.mark.attack(47)
async def test_a_login_seen_once_opens_nothing_again(desk: Desk) -> None:
    alice = await desk.join("alice")
    caller = desk.connect()
    login = alice.login(caller.hello)
    assert isinstance(await desk.ask(caller, login), api.LoggedIn)
    assert refused(await desk.ask(caller, login)) == api.LOGIN_REFUSED
    other = desk.connect()
    assert refused(await desk.ask(other, login)) == api.LOGIN_REFUSED
    assert not other.logged_in


@pytest.mark.attack(46)
@pytest.mark.parametrize("age_s", [limits.LOGIN_VALID_S + 1, 10 * 365 * limits.DAY_S, -3600])
async def test_a_greeting_is_good_for_a_minute(desk: Desk, age_s: int) -> None:
    alice = await desk.join("alice")
    caller = desk.connect()
    login = alice.login(caller.hello)
    desk.now_ms += age_s * 1000
    assert refused(await desk.ask(caller, login)) == api.LOGIN_REFUSED


@pytest.mark.attack(46)
@pytest.mark.parametrize("other_part", ["origin", "key"])
async def test_a_login_made_for_another_relay_is_worth_nothing(desk: Desk, other_part: str) -> None:
    """The other relay passes this relay's nonce on as its own; the device signs the other's name and key."""
    alice = await desk.join("alice")
    caller = desk.connect()
    foreign = structs.replace(caller.hello, origin="ws://other.test:7677")
    if other_part == "key":
        foreign = structs.replace(caller.hello, relay_key=Ed25519KeyPair(bytes(32)).public)
    assert refused(await desk.ask(caller, alice.login(foreign))) == api.LOGIN_REFUSED
    assert isinstance(await desk.ask(caller, alice.login(caller.hello)), api.LoggedIn)


async def test_every_signed_field_counts(desk: Desk) -> None:
    alice = await desk.join("alice")
    bob = await desk.join("bob")
    spoilt = {
        "genesis_hash": bob.genesis_hash,
        "device_hash": bob.device_hash,
        "client_nonce": b"\x09" * 32,
        "time_s": START_MS // 1000 + 1,
        "signature": bytes(64),
    }
    for field, value in spoilt.items():
        caller = desk.connect()
        login = structs.replace(alice.login(caller.hello), **{field: value})
        assert refused(await desk.ask(caller, login)) == api.LOGIN_REFUSED, field
        assert not caller.logged_in


async def test_anothers_key_does_not_log_in(desk: Desk) -> None:
    alice = await desk.join("alice")
    mallory = await desk.join("mallory")
    caller = desk.connect()
    statement = LoginStatement(
        caller.hello.origin.encode(),
        caller.hello.relay_key,
        alice.genesis_hash,
        alice.device_hash,
        caller.hello.nonce,
        bytes(32),
        desk.now_s,
    )
    signature = sign_login(mallory.keys.auth, statement)
    login = api.Login(alice.genesis_hash, alice.device_hash, bytes(32), desk.now_s, signature)
    assert refused(await desk.ask(caller, login)) == api.LOGIN_REFUSED


@pytest.mark.attack(57)
async def test_unknown_devices_get_the_answer_of_a_wrong_signature(desk: Desk) -> None:
    alice = await desk.join("alice")
    stranger = Member.new(desk, "stranger")
    known, unknown = desk.connect(), desk.connect()
    wrong = structs.replace(alice.login(known.hello), signature=bytes(64))
    assert await desk.ask(known, wrong) == await desk.ask(unknown, stranger.login(unknown.hello))


@pytest.mark.attack(61)
@pytest.mark.parametrize("years", [-10, 10])
async def test_a_client_with_a_wrong_clock_logs_in(desk: Desk, years: int) -> None:
    alice = await desk.join("alice")
    caller = desk.connect()
    desk.now_ms += years * 365 * limits.DAY_S * 1000
    login = alice.login(caller.hello)
    desk.now_ms = START_MS
    assert isinstance(await desk.ask(caller, login), api.LoggedIn)


async def test_attempts_per_connection_are_bounded(desk: Desk) -> None:
    alice = await desk.join("alice")
    caller = desk.connect()
    good = alice.login(caller.hello)
    bad = structs.replace(good, signature=bytes(64))
    for _ in range(limits.LOGIN_ATTEMPTS_MAX):
        assert refused(await desk.ask(caller, bad)) == api.LOGIN_REFUSED
    assert refused(await desk.ask(caller, good)) == api.LOGIN_REFUSED


async def test_logins_per_device_are_limited(desk: Desk) -> None:
    alice = await desk.join("alice")
    replies = []
    for _ in range(desk.config.rates["login"].burst + 1):
        caller = desk.connect()
        replies.append(await desk.ask(caller, alice.login(caller.hello)))
        desk.relay.disconnect(caller)
    assert [type(reply) for reply in replies[:-1]] == [api.LoggedIn] * (len(replies) - 1)
    last = replies[-1]
    assert isinstance(last, api.Refused)
    assert (last.code, last.retry_after_ms > 0) == (api.RATE_LIMITED, True)
    desk.now_ms += last.retry_after_ms
    await alice.log_in()


@pytest.mark.attack(44)
async def test_the_newer_connection_of_a_device_wins(desk: Desk) -> None:
    alice = await desk.join("alice")
    bob = await desk.join("bob")
    older = alice.caller
    woken: list[bool] = []
    older.wake = lambda: woken.append(True)
    await alice.log_in()
    letter = bob.envelope(alice)
    assert await bob.send(letter) == ("",)
    assert woken
    (closing,) = desk.relay.notices(older)
    assert isinstance(closing, api.Closing)
    assert await desk.drained(older) == []
    assert [envelope.envelope_id for envelope in await desk.drained(alice.caller)] == [letter.envelope_id]
    reply = await desk.ask(older, api.Acknowledge((letter.envelope_id,)))
    assert isinstance(reply, api.Refused), "the older connection deletes nothing"
    assert (await alice.log_in()).mailbox == 1
    desk.relay.disconnect(older)
    assert alice.caller.logged_in, "the end of the older one does not end the newer"
    assert await bob.send(bob.envelope(alice)) == ("",)
    assert len(await desk.drained(alice.caller)) == 2


@pytest.mark.parametrize(
    "ask",
    [
        api.Ping(),
        api.Publish(b""),
        api.FetchAccount(bytes(32), 0, 0),
        api.FetchBundle(bytes(32), bytes(32)),
        api.PutList(None, b"", b"", ()),
        api.ClaimName(b""),
        api.LookupName("alice"),
        api.PutInvite(bytes(32), 0),
        api.Acknowledge((bytes(16),)),
    ],
    ids=lambda request: type(request).__name__,
)
async def test_before_the_login_nothing_else_is_answered(desk: Desk, ask: api.Request) -> None:
    caller = desk.connect()
    assert refused(await desk.ask(caller, ask)) == api.NOT_LOGGED_IN
    assert not await desk.drained(caller)


async def test_a_disconnected_caller_gets_nothing_more(desk: Desk) -> None:
    alice = await desk.join("alice")
    desk.relay.disconnect(alice.caller)
    assert refused(await alice.ask(api.Ping())) == api.UNAVAILABLE
    assert desk.relay.connections == 0


async def test_every_refusal_code_is_listed(desk: Desk) -> None:
    caller = desk.connect()
    assert refused(await desk.ask(caller, api.Ping())) in api.CODES


def test_an_origin_that_nobody_can_sign_is_refused_at_the_start() -> None:
    with pytest.raises(Exception, match="origin"):
        Desk(config=RelayConfig(origin="ws://ünsigned.test"))
    Desk(config=RelayConfig(origin=ORIGIN))
