"""Whole chains that come back to a restored relay: what proves itself is taken, and nothing else."""

from __future__ import annotations

import copy

import msgspec
import pytest

from lokket.codec import tls
from lokket.crypto.primitives import sha256
from lokket.protocol import identity
from lokket.relay.bus import LocalBus
from lokket.relay.config import RelayConfig
from lokket.relay.relay import Relay
from lokket.relay.storage.base import Ruling
from lokket.relay.storage.memory import MemoryStorage
from lokket.wire import api
from tests.support.relay import ORIGIN, Desk, Member

pytestmark = pytest.mark.attack(118)


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def grow(member: Member, number: int) -> Member:
    """One device more on the account's list, at the relay too."""
    other = member.second_device(number)
    request, after = member.next_list(add=(other.device,))
    assert await member.ask(request) == api.Ok()
    member.state = other.state = after
    return other


def kept(desk: Desk) -> MemoryStorage:
    assert isinstance(desk.storage, MemoryStorage)
    return copy.deepcopy(desk.storage)


def go_back(desk: Desk, backup: MemoryStorage, *, is_open: bool = True) -> None:
    desk.storage = copy.deepcopy(backup)
    desk.config = RelayConfig(origin=ORIGIN, open=is_open)
    desk.relay = Relay(desk.storage, desk.config, desk.key, LocalBus())


async def chain_of(desk: Desk, member: Member) -> bytes:
    row = await desk.storage.account(member.genesis_hash)
    assert row is not None
    return row.chain


def readmission(member: Member, hello: api.Hello, chain: bytes, token: bytes = b"") -> api.Readmit:
    statement = identity.RegisterStatement(
        hello.origin.encode(),
        hello.relay_key,
        sha256(token),
        member.genesis_hash,
        member.device_hash,
        hello.nonce,
    )
    proof = identity.sign_register(member.account, member.keys, statement, member.entropy)
    return api.Readmit(token, chain, tls.encode(proof), None)


def code_of(reply: api.Reply) -> str:
    return reply.code if isinstance(reply, api.Refused) else ""


async def test_a_chain_three_lists_longer_is_taken_at_once(desk: Desk) -> None:
    alice, bob = await desk.join("alice"), await desk.join("bob")
    backup = kept(desk)
    first = alice.state.head
    others = [await grow(alice, number) for number in (2, 3, 4)]
    chain = await chain_of(desk, alice)
    go_back(desk, backup)
    await alice.log_in()
    assert await alice.ask(api.PutChain(chain)) == api.Ok()
    assert await alice.ask(api.PutChain(chain)) == api.Ok(), "and again, for nothing"
    assert await chain_of(desk, alice) == chain
    for other in others:
        await other.log_in()
    await bob.log_in()
    for head, code in (
        (first, api.STALE_LIST),
        (others[1].state.head, api.STALE_LIST),
        (alice.state.head, ""),
    ):
        letter = msgspec.structs.replace(bob.envelope(alice), recipient_head=head)
        assert await bob.send(letter) == (code,)


async def test_an_older_another_and_anothers_chain_are_conflicts(desk: Desk) -> None:
    alice, bob = await desk.join("alice"), await desk.join("bob")
    older = await chain_of(desk, alice)
    backup = kept(desk)
    await grow(alice, 2)
    branch = await chain_of(desk, alice)
    go_back(desk, backup)
    await alice.log_in()
    alice.state = identity.first_contact(older, alice.genesis_hash, desk.now_s)
    await grow(alice, 3)
    now = await chain_of(desk, alice)
    for chain, code in (
        (older, api.CONFLICT),
        (branch, api.CONFLICT),
        (await chain_of(desk, bob), api.INVALID),
        (tls.encode(tls.decode(identity.AccountUpdate, now).since(0, 1)), api.INVALID),
        (b"rubbish", api.MALFORMED),
    ):
        assert code_of(await alice.ask(api.PutChain(chain))) == code
    assert await chain_of(desk, alice) == now


async def test_every_byte_of_what_is_new_counts(desk: Desk) -> None:
    alice = await desk.join("alice")
    backup = kept(desk)
    before = await chain_of(desk, alice)
    await grow(alice, 2)
    chain = await chain_of(desk, alice)
    for at in range(len(chain) - 1, 0, -max(1, len(chain) // 60)):
        go_back(desk, backup)
        await alice.log_in()
        spoilt = chain[:at] + bytes((chain[at] ^ 1,)) + chain[at + 1 :]
        reply = await alice.ask(api.PutChain(spoilt))
        held = await chain_of(desk, alice)
        assert (code_of(reply) and held == before) or held == chain, at


async def test_a_device_that_came_since_is_readmitted(desk: Desk) -> None:
    """The admin device itself is new: only the account key speaks for it."""
    alice = await desk.join("alice")
    backup = kept(desk)
    laptop = alice.second_device(2)
    signed, body = identity.extend_list(
        alice.state, alice.account, now_s=desk.now_s, entropy=desk.entropy, add=(laptop.device,)
    )
    await alice.ask(api.PutList(None, tls.encode(signed), tls.encode(body), (tls.encode(laptop.device),)))
    chain = await chain_of(desk, alice)
    go_back(desk, backup)
    caller = desk.connect()
    proofs = readmission(laptop, caller.hello, chain)
    assert code_of(await desk.ask(caller, proofs)), "it is on the list, and not the admin device"
    caller = desk.connect()
    reply = await desk.ask(caller, readmission(alice, caller.hello, chain))
    assert isinstance(reply, api.LoggedIn)
    assert reply.version == 2
    await laptop.log_in()


async def test_an_unknown_account_needs_a_token_where_new_ones_do(desk: Desk) -> None:
    backup = kept(desk)
    alice = await desk.join("alice")
    await grow(alice, 2)
    chain = await chain_of(desk, alice)
    go_back(desk, backup, is_open=False)
    caller = desk.connect()
    reply = await desk.ask(caller, readmission(alice, caller.hello, chain))
    assert code_of(reply) == api.TOKEN_REFUSED
    go_back(desk, backup)
    caller = desk.connect()
    assert isinstance(await desk.ask(caller, readmission(alice, caller.hello, chain)), api.LoggedIn)
    assert await chain_of(desk, alice) == chain


async def test_a_forged_readmission_changes_nothing(desk: Desk) -> None:
    backup = kept(desk)
    alice, mallory = await desk.join("alice"), await desk.join("mallory")
    chain = await chain_of(desk, alice)
    go_back(desk, backup)
    for case in ("another account's key", "another greeting", "no genesis", "rubbish"):
        caller = desk.connect()
        request = readmission(alice, caller.hello, chain)
        match case:
            case "another account's key":
                forged = msgspec.structs.replace(readmission(mallory, caller.hello, chain), chain=chain)
            case "another greeting":
                forged = readmission(alice, desk.connect().hello, chain)
            case "no genesis":
                update = tls.decode(identity.AccountUpdate, chain)
                forged = msgspec.structs.replace(request, chain=tls.encode(update.since(0, 1)))
            case _:
                forged = msgspec.structs.replace(request, chain=b"rubbish")
        assert code_of(await desk.ask(caller, forged)) in (api.INVALID, api.MALFORMED), case
        assert await desk.storage.account(alice.genesis_hash) is None
        assert not caller.logged_in


async def test_a_banned_account_is_not_readmitted(desk: Desk) -> None:
    alice = await desk.join("alice")
    chain = await chain_of(desk, alice)
    await desk.relay.rule(Ruling(alice.genesis_hash, banned=True))
    await desk.relay.forget(alice.genesis_hash, desk.now_ms)
    caller = desk.connect()
    reply = await desk.ask(caller, readmission(alice, caller.hello, chain))
    assert code_of(reply) == api.LOGIN_REFUSED
    assert await desk.storage.account(alice.genesis_hash) is None
