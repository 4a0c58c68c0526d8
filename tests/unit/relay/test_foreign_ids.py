"""Foreign ids on every endpoint: what belongs to somebody else gives no data, has no effect, one answer.

``FOREIGN`` has one entry for each request of the interface: what a thief asks with the victim's ids, and
the same with ids that do not exist. Both get the same answer, and the relay's tables stay as they are. An
endpoint without an entry fails the test; those that are public by design are named with the reason.
"""

from __future__ import annotations

import pickle
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, get_args

import pytest
from msgspec import structs

from lokket.codec import tls
from lokket.crypto.primitives import sha256
from lokket.protocol import identity
from lokket.relay.config import RelayConfig
from lokket.wire import api
from tests.support.relay import ORIGIN, Desk, Member

pytestmark = pytest.mark.attack(45)
TOKEN = bytes(range(32))
BLOB = bytes(range(16))
NOBODY = b"\x5a" * 32
NO_ID = b"\xa5" * 16


@dataclass
class Town:
    """A victim with everything that a relay can hold of somebody, and a thief who knows all its ids."""

    desk: Desk
    victim: Member
    thief: Member
    friend: Member
    letter: api.Envelope
    registration: api.Register
    knocked: api.Knock


async def town(desk: Desk) -> Town:
    victim = await desk.join("victim", name="victim")
    thief, friend = await desk.join("thief", name="thief"), await desk.join("friend")
    assert await victim.ask(api.Publish(victim.encoded_batch(7))) == api.Ok()
    assert await victim.ask(api.PutInvite(sha256(TOKEN), desk.now_s + 3_600)) == api.Ok()
    await victim.ask(api.Meet(sha256(TOKEN)))
    knocked = api.Knock(TOKEN, b"sealed for the victim")
    assert await desk.ask(desk.connect(), knocked) == api.Ok()
    for request in (api.BeginBlob(BLOB, 4), api.PutBlobPart(BLOB, 0, b"data"), api.CommitBlob(BLOB)):
        assert isinstance(await victim.ask(request), api.BlobHeld)
    letter = friend.envelope(victim, b"for the victim alone")
    assert await friend.send(letter) == ("",)
    registration = victim.registration(victim.caller.hello, name="victim")
    return Town(desk, victim, thief, friend, letter, registration, knocked)


@pytest.fixture
def desk() -> Desk:
    return Desk(config=RelayConfig(origin=ORIGIN, open=True, blobs_max_bytes=1_000_000))


@dataclass(frozen=True)
class Pair:
    """The same request with the victim's ids and with ids of nobody."""

    foreign: api.Request
    unknown: api.Request
    before_login: bool = False


def _login(here: Town) -> Pair:
    """The victim's ids, the thief's key: as for a device that does not exist."""
    login = here.thief.login(here.desk.connect().hello)
    foreign = structs.replace(
        login, genesis_hash=here.victim.genesis_hash, device_hash=here.victim.device_hash
    )
    return Pair(foreign, structs.replace(login, genesis_hash=NOBODY, device_hash=NOBODY), before_login=True)


def _register(here: Town) -> Pair:
    """The victim's own registration, heard on another connection."""
    stranger = Member.new(here.desk, "stranger")
    other = stranger.registration(here.victim.caller.hello)
    return Pair(here.registration, other, before_login=True)


def _recover(here: Town) -> Pair:
    """A rotation by a code that is not the victim's: whose chain is known is no secret, so twice the same."""
    thief, victim = here.thief, here.victim
    account = identity.HybridKeyPair.from_seed(thief.entropy.draw(64))
    recovery = identity.recovery_key(identity.new_recovery_code(thief.entropy), 0)

    def attempt(target: Member) -> api.Recover:
        signed = identity.rotate(
            target.state, recovery, account, bytes(32), now_s=here.desk.now_s, entropy=thief.entropy
        )
        link, body = tls.encode(target.state.signed_link), tls.encode(target.state.body)
        login = structs.replace(thief.login(here.desk.connect().hello), genesis_hash=target.genesis_hash)
        return api.Recover(tls.encode(signed), link, body, tls.encode(thief.device), login)

    return Pair(attempt(victim), attempt(victim), before_login=True)


def _publish(here: Town) -> Pair:
    stranger = Member.new(here.desk, "stranger")
    return Pair(api.Publish(here.victim.encoded_batch(8)), api.Publish(stranger.encoded_batch(8)))


def _put_list(here: Town) -> Pair:
    foreign, _ = here.victim.next_list(add=(here.victim.second_device().device,))
    stranger = Member.new(here.desk, "stranger")
    unknown, _ = stranger.next_list(add=(stranger.second_device().device,))
    return Pair(foreign, unknown)


def _chain(member: Member) -> bytes:
    state = member.state
    devices = (tls.encode(member.device),)
    return tls.encode(identity.step_update(state.signed_link, state.body, devices, genesis=state.genesis))


def _put_chain(here: Town) -> Pair:
    stranger = Member.new(here.desk, "stranger")
    return Pair(api.PutChain(_chain(here.victim)), api.PutChain(_chain(stranger)))


def _readmit(here: Town) -> Pair:
    """The victim's chain, and a proof that it made for another connection."""
    stranger = Member.new(here.desk, "stranger")
    proof = here.registration.proof
    other = stranger.registration(here.victim.caller.hello).proof
    return Pair(
        api.Readmit(b"", _chain(here.victim), proof, None),
        api.Readmit(b"", _chain(stranger), other, None),
        before_login=True,
    )


def _claim(here: Town) -> Pair:
    stranger = Member.new(here.desk, "stranger")
    return Pair(api.ClaimName(here.victim.claim("victim2")), api.ClaimName(stranger.claim("nobody")))


def _send(here: Town) -> Pair:
    """As the victim, or as nobody."""
    letter = here.thief.envelope(here.friend)
    as_victim = api.Sender(here.victim.genesis_hash, here.victim.device_hash)
    foreign = structs.replace(letter, sender=as_victim)
    unknown = structs.replace(letter, sender=api.Sender(NOBODY, NOBODY))
    return Pair(api.Send((foreign,)), api.Send((unknown,)))


def _delete_account(here: Town) -> Pair:
    """The victim's signature over the greeting of its own connection."""
    signatures = []
    for member in (here.victim, Member.new(here.desk, "stranger")):
        hello = here.victim.caller.hello
        statement = identity.DeleteStatement(
            hello.origin.encode(), hello.relay_key, member.genesis_hash, hello.nonce
        )
        signatures.append(tls.encode(identity.sign_delete(member.account, statement, member.entropy)))
    return Pair(api.DeleteAccount(signatures[0]), api.DeleteAccount(signatures[1]))


FOREIGN: dict[type, Callable[[Town], Pair]] = {
    api.Login: _login,
    api.Register: _register,
    api.Recover: _recover,
    api.Meet: lambda here: Pair(api.Meet(sha256(TOKEN)), api.Meet(sha256(TOKEN))),
    api.Knock: lambda here: Pair(
        api.Knock(sha256(TOKEN), b"mine"), api.Knock(NOBODY, b"mine"), before_login=True
    ),
    api.Publish: _publish,
    # Bundles are anybody's, of a device that is the named account's: not the victim's under another account.
    api.FetchBundle: lambda here: Pair(
        api.FetchBundle(here.friend.genesis_hash, here.victim.device_hash),
        api.FetchBundle(here.friend.genesis_hash, NOBODY),
    ),
    api.PutList: _put_list,
    api.PutChain: _put_chain,
    api.Readmit: _readmit,
    api.ClaimName: _claim,
    api.PutInvite: lambda here: Pair(
        api.PutInvite(sha256(TOKEN), here.desk.now_s + 7_200),
        api.PutInvite(sha256(TOKEN), here.desk.now_s + 3_600),
    ),
    api.Send: _send,
    api.Acknowledge: lambda here: Pair(
        api.Acknowledge((here.letter.envelope_id,)), api.Acknowledge((NO_ID,))
    ),
    api.DeleteAccount: _delete_account,
    api.PutBlobPart: lambda here: Pair(api.PutBlobPart(BLOB, 4, b"x"), api.PutBlobPart(NO_ID, 4, b"x")),
    api.CommitBlob: lambda here: Pair(api.CommitBlob(BLOB), api.CommitBlob(NO_ID)),
    api.FetchBlobPart: lambda here: Pair(api.FetchBlobPart(BLOB, 0), api.FetchBlobPart(NO_ID, 0)),
    api.DeleteBlob: lambda here: Pair(api.DeleteBlob(BLOB), api.DeleteBlob(NO_ID)),
    api.ListBlobs: lambda here: Pair(api.ListBlobs(), api.ListBlobs()),
}
PUBLIC = {
    api.FetchChain: "who knows an account's hash may see its signed lists: recovery begins with them",
    api.FetchAccount: "every contact checks the signed lists",
    api.LookupName: "names are there to be looked up",
    api.Ping: "names nobody",
    api.BeginBlob: "an id of another account is free in one's own, and tells nothing of the other's",
}


def tables(desk: Desk) -> bytes:
    """Everything that the relay stores, and the meetings that it keeps in memory."""
    return pickle.dumps((desk.storage, desk.relay._office.meetings))


def test_every_endpoint_is_here() -> None:
    """A new one must say what it does with ids of somebody else."""
    assert set(FOREIGN) | set(PUBLIC) == set(get_args(api.Request))
    assert not set(FOREIGN) & set(PUBLIC)


@pytest.mark.parametrize(
    "kind", sorted(FOREIGN, key=lambda kind: kind.__name__), ids=lambda kind: kind.__name__
)
async def test_foreign_ids_give_nothing_and_change_nothing(desk: Desk, kind: type) -> None:
    here = await town(desk)
    pair = FOREIGN[kind](here)
    ask: Callable[[api.Request], Awaitable[Any]] = here.thief.ask
    if pair.before_login:
        ask = lambda request: desk.ask(desk.connect(), request)  # noqa: E731
    before = tables(desk)
    foreign = await ask(pair.foreign)
    assert tables(desk) == before, f"{kind.__name__} of the victim's ids changed something"
    unknown = await ask(pair.unknown)
    assert _without_ids(foreign) == _without_ids(unknown)
    shown = api.encode(foreign)
    for secret in (b"for the victim alone", b"sealed for the victim", b"data"):
        assert secret not in shown
    assert await here.desk.drained(here.victim.caller) == [here.letter]
    assert await here.victim.ask(api.Meet(sha256(TOKEN))) == api.Met(here.knocked.sealed)
    assert await here.victim.ask(api.FetchBlobPart(BLOB, 0)) == api.BlobPart(b"data")


def _without_ids(reply: api.Reply) -> object:
    """The answer, but for the id of an envelope that was asked for with it."""
    return [one.code for one in reply.results] if isinstance(reply, api.Sent) else reply


async def test_what_the_owner_does_shows_in_the_tables(desk: Desk) -> None:
    """Else nothing above could fail."""
    here = await town(desk)
    for request in (api.DeleteBlob(BLOB), api.Acknowledge((here.letter.envelope_id,)), api.Meet(NOBODY)):
        before = tables(desk)
        await here.victim.ask(request)
        assert tables(desk) != before


@pytest.mark.parametrize("kind", [api.FetchAccount, api.FetchChain, api.LookupName])
async def test_public_answers_hold_signed_objects_alone(desk: Desk, kind: type) -> None:
    """No token, no mail, no count, no time of a login."""
    here = await town(desk)
    hash_ = here.victim.genesis_hash
    request = {
        api.FetchAccount: api.FetchAccount(hash_, 0, 0),
        api.FetchChain: api.FetchChain(hash_),
        api.LookupName: api.LookupName("victim"),
    }[kind]
    caller = desk.connect() if kind is api.FetchChain else here.thief.caller
    reply = await desk.ask(caller, request)
    match reply:
        case api.Account(chain=chain):
            assert tls.encode(tls.decode(identity.AccountUpdate, chain)) == chain
        case api.NameRecord(genesis_hash=found, claim=claim):
            assert (found, claim) == (hash_, here.victim.claim("victim")) or found == hash_
        case _:
            pytest.fail(f"unexpected {reply}")


async def test_a_blob_of_another_accounts_id_is_a_file_of_ones_own(desk: Desk) -> None:
    here = await town(desk)
    reply = await here.thief.ask(api.BeginBlob(BLOB, 9))
    assert isinstance(reply, api.BlobHeld)
    assert (reply.received, reply.size_bytes) == (0, 9)
    assert await here.victim.ask(api.FetchBlobPart(BLOB, 0)) == api.BlobPart(b"data")
