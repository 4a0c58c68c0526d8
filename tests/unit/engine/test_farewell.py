"""An account is deleted by its account key alone, once and for all; prekeys are made anew on request."""

from __future__ import annotations

import pytest

from lokket.codec import tls
from lokket.engine import events, views
from lokket.engine.events import AccountDeleted, PrekeysPublished
from lokket.engine.records import BatchRow, rows
from lokket.engine.step import require_account
from lokket.errors import LocalError
from lokket.protocol import identity
from lokket.wire import api
from tests.unit.engine.town import Device, Town, now

Friends = tuple[Town, Device, Device]


def settle_until_hung_up(town: Town) -> None:
    with pytest.raises(AssertionError, match="hung up"):
        town.settle()


def test_a_deleted_account_is_gone_from_the_relay(friends: Friends) -> None:
    town, alice, bob = friends
    phone = town.second_device(alice)
    alice.handle(events.DeleteAccount())
    settle_until_hung_up(town)
    assert alice.told(AccountDeleted)
    carol = town.account("carol")
    carol.handle(events.AddContact("alice", name="alice"))
    town.settle()
    assert "alice" in carol.told(events.ErrandFailed)[-1].sentence
    bob.handle(events.SendText("alice", "are you there?"))
    town.settle()
    assert bob.states("alice") == ["queued"]
    assert phone.caller is None or not phone.caller.logged_in
    alice.connect()
    settle_until_hung_up(town)


def test_only_the_admin_device_can(friends: Friends) -> None:
    town, alice, _ = friends
    phone = town.second_device(alice)
    with pytest.raises(LocalError, match="admin"):
        phone.handle(events.DeleteAccount())


@pytest.mark.attack(48)
def test_the_relay_takes_only_the_account_keys_word_for_this_connection(friends: Friends) -> None:
    """Not another account's key, not the words of another connection, not those for another relay."""
    town, alice, bob = friends
    assert alice.caller is not None
    account, other = alice.ask(require_account), bob.ask(require_account)
    hello = alice.caller.hello
    own_key = identity.HybridKeyPair.from_seed(account.account_seed)
    bobs_key = identity.HybridKeyPair.from_seed(other.account_seed)

    def ask(key: identity.HybridKeyPair, origin: str, genesis_hash: bytes, nonce: bytes) -> api.Reply:
        statement = identity.DeleteStatement(origin.encode(), hello.relay_key, genesis_hash, nonce)
        signature = identity.sign_delete(key, statement, town.entropy)
        request = api.DeleteAccount(tls.encode(signature))
        assert alice.caller is not None
        return now(town.relay.handle(alice.caller, request, town.now_ms, town.entropy))

    for reply in (
        ask(bobs_key, hello.origin, account.genesis_hash, hello.nonce),
        ask(own_key, hello.origin, account.genesis_hash, bytes(32)),
        ask(own_key, "ws://elsewhere", account.genesis_hash, hello.nonce),
        ask(own_key, hello.origin, other.genesis_hash, hello.nonce),
    ):
        assert isinstance(reply, api.Refused), reply
        assert reply.code == api.INVALID
    assert now(town.relay.storage.account(account.genesis_hash)) is not None
    assert ask(own_key, hello.origin, account.genesis_hash, hello.nonce) == api.Ok()
    assert now(town.relay.storage.account(account.genesis_hash)) is None


def test_a_lost_answer_and_a_crash_end_the_same_way(friends: Friends) -> None:
    town, alice, _ = friends
    town.replace = lambda device, request, reply: (
        api.Refused(api.UNAVAILABLE, "lost") if isinstance(request, api.DeleteAccount) else reply
    )
    alice.handle(events.DeleteAccount())
    town.settle(200)
    assert not alice.told(AccountDeleted)
    again = Device(town, alice.vault)  # the process died; the relay had done it
    alice.disconnect()
    again.connect()
    settle_until_hung_up(town)
    assert again.told(AccountDeleted)


def test_offline_it_waits_for_the_relay(friends: Friends) -> None:
    town, alice, _ = friends
    alice.disconnect()
    alice.handle(events.DeleteAccount())
    assert not alice.told(AccountDeleted)
    alice.connect()
    settle_until_hung_up(town)
    assert alice.told(AccountDeleted)


def test_a_refill_publishes_a_new_batch(friends: Friends) -> None:
    town, alice, bob = friends
    before = [key for key, _ in alice.ask(lambda tx: rows(tx, "batch", BatchRow))]
    alice.handle(events.RefillPrekeys())
    town.settle()
    numbers = [int.from_bytes(key, "big") for key in before]
    assert alice.told(PrekeysPublished)[-1].number > max(numbers)
    assert alice.ask(views.health, town.now_ms).prekey_pairs >= 4
    town.say(bob, "alice", "still here")
    assert alice.texts("bob") == ["still here"]
