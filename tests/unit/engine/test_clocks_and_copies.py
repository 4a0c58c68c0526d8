"""Vaults that go back in time and clocks that go anywhere: nothing is used twice, nothing is lost."""

from __future__ import annotations

import pytest

from lokket import limits
from lokket.engine import events
from lokket.engine.engine import Engine
from lokket.engine.records import OutboxRow, PrekeyRow, rows
from lokket.engine.step import require_account
from lokket.engine.store import AWAITING, OUTBOX, PREKEY, SEEN
from lokket.wire import api
from tests.sim.vault import Vault
from tests.unit.engine.town import Device, Town

DAY_MS = limits.DAY_S * 1000
YEARS_MS = 10 * 365 * DAY_MS


@pytest.fixture
def pair() -> tuple[Town, Device, Device]:
    town = Town()
    alice, bob = town.account("alice"), town.account("bob")
    town.befriend(alice, bob)
    town.say(alice, "bob", "hello")
    town.say(bob, "alice", "hello")
    return town, alice, bob


def reconnect(town: Town, device: Device) -> None:
    device.connect()
    town.settle()


def replace_vault(device: Device, vault: Vault) -> None:
    device.disconnect()
    device.vault, device.engine = vault, Engine(prekey_pairs=4)


def lose_answer_to_login(town: Town, device: Device) -> None:
    """The relay takes the login, and the connection breaks before its answer is here."""
    device.connect()
    login = device.outgoing.pop(0)
    assert isinstance(login, events.Call)
    assert isinstance(login.request, api.Login)
    assert device.caller is not None
    town.answer(device, device.caller, login.request)
    device.disconnect()


# --- older copies ---


@pytest.mark.attack(26)
@pytest.mark.parametrize("lost", [0, 1, 3])
def test_a_lost_answer_to_a_login_hides_no_restored_vault(
    pair: tuple[Town, Device, Device], lost: int
) -> None:
    town, alice, bob = pair
    older = alice.vault.copy()
    reconnect(town, alice)
    town.say(alice, "bob", "lost with the newer copy")
    replace_vault(alice, older)
    for _ in range(lost):
        lose_answer_to_login(town, alice)
    reconnect(town, alice)
    assert alice.trust_kinds().count("restored") == 1
    town.say(alice, "bob", "after")
    assert bob.texts("alice")[-2:] == ["lost with the newer copy", "after"]
    reconnect(town, alice)
    assert alice.trust_kinds().count("restored") == 1


@pytest.mark.attack(26)
def test_no_ciphertext_leaves_before_the_relay_knows_of_this_login(
    pair: tuple[Town, Device, Device],
) -> None:
    town, alice, bob = pair
    alice.disconnect()
    alice.handle(events.SendText("bob", "waits"))
    alice.connect()
    while not alice.outgoing or not isinstance(alice.outgoing[0], events.Call):
        assert alice.act()
    assert alice.act()  # the login and its answer
    calls = [effect.request for effect in alice.outgoing if isinstance(effect, events.Call)]
    assert api.Ping() in calls
    assert not [request for request in calls if isinstance(request, api.Send)]
    town.settle()
    assert bob.texts("alice")[-1] == "waits"


def test_an_older_vault_knows_again_what_arrived(pair: tuple[Town, Device, Device]) -> None:
    """The copy is from before the receipt: who has the message says so once more."""
    town, alice, bob = pair
    bob.disconnect()
    town.say(alice, "bob", "received meanwhile")
    older = alice.vault.copy()
    reconnect(town, alice)
    reconnect(town, bob)
    assert alice.states("bob")[-1] == "delivered"
    replace_vault(alice, older)
    reconnect(town, alice)
    assert alice.states("bob")[-1] == "delivered"
    assert bob.texts("alice").count("received meanwhile") == 1


@pytest.mark.parametrize("answer", ["refused", "lost"])
def test_many_logins_in_vain_make_no_vault_a_restored_one(
    pair: tuple[Town, Device, Device], answer: str
) -> None:
    town, alice, bob = pair
    if answer == "refused":
        alice.may_hang_up = True
        town.replace = lambda device, request, reply: (
            api.Refused(api.LOGIN_REFUSED, "connect again")
            if device is alice and isinstance(request, api.Login)
            else reply
        )
    for _ in range(40):
        if answer == "refused":
            # The relay's real answer must not count: it never sees the login.
            alice.connect()
            login = alice.outgoing.pop(0)
            assert isinstance(login, events.Call)
            alice.handle(events.Answered(login.call, api.Refused(api.LOGIN_REFUSED, "connect again")))
            alice.disconnect()
        else:
            lose_answer_to_login(town, alice)
    town.replace = lambda device, request, reply: reply
    assert len(alice.ask(require_account).nonces) <= 32
    reconnect(town, alice)
    assert not {"restored", "relay-restored"} & set(alice.trust_kinds())
    town.say(alice, "bob", "still the same session")
    assert bob.texts("alice")[-1] == "still the same session"


# --- clocks ---


@pytest.mark.attack(61)
@pytest.mark.parametrize("jump_ms", [-YEARS_MS, -DAY_MS, 20 * DAY_MS, YEARS_MS])
def test_a_clock_that_jumps_while_connected_expires_nothing(
    pair: tuple[Town, Device, Device], jump_ms: int
) -> None:
    """Not what waits for the peer, not the prekeys, not what was seen: the greeting is compared anew."""
    town, alice, bob = pair
    bob.disconnect()
    town.say(alice, "bob", "waits at the relay")
    kept = {table: set(alice.vault.rows[table]) for table in (AWAITING, PREKEY, SEEN)}
    alice.clock_error_ms = jump_ms
    alice.handle(events.Tick())
    alice.handle(events.SendText("bob", "written by a wrong clock"))
    town.settle()
    assert "clock" in alice.trust_kinds()
    for table, keys in kept.items():
        assert keys <= set(alice.vault.rows[table]), table
    alice.clock_error_ms = 0
    alice.handle(events.Tick())
    town.settle(2 * 3_600_000)
    reconnect(town, bob)
    assert bob.texts("alice")[-2:] == ["waits at the relay", "written by a wrong clock"]
    assert alice.states("bob")[-2:] == ["delivered", "delivered"]


@pytest.mark.attack(61)
def test_mail_written_by_a_clock_that_ran_behind_is_not_too_old(pair: tuple[Town, Device, Device]) -> None:
    town, alice, bob = pair
    alice.disconnect()
    alice.clock_error_ms = -YEARS_MS
    alice.handle(events.SendText("bob", "from years ago"))
    alice.clock_error_ms = 0
    reconnect(town, alice)
    assert "from years ago" in bob.texts("alice")
    assert set(alice.states("bob")) == {"delivered", "received"}


@pytest.mark.attack(61)
def test_what_a_clock_stamped_that_ran_ahead_expires_in_time(pair: tuple[Town, Device, Device]) -> None:
    """Prekeys are rotated within an upkeep, and no row stays for ten years."""
    town, alice, bob = pair
    bob.disconnect()
    alice.disconnect()
    town.now_ms += YEARS_MS  # the relay's clock as well, else it would take none of this
    alice.connect()
    alice.handle(events.RefillPrekeys())
    alice.handle(events.SendText("bob", "from the future"))
    town.settle()
    newest = alice.told(events.PrekeysPublished)[-1].number
    alice.disconnect()
    town.now_ms -= YEARS_MS
    reconnect(town, alice)
    town.settle(2 * 3_600_000)
    assert alice.told(events.PrekeysPublished)[-1].number > newest
    latest_ms = alice.now_ms + limits.CLOCK_SKEW_S * 1000
    for table in (OUTBOX, AWAITING):
        held = alice.ask(lambda tx, name=table: rows(tx, name, OutboxRow))  # type: ignore[misc]
        assert all(row.created_ms <= latest_ms for _, row in held)
    prekeys = alice.ask(lambda tx: rows(tx, PREKEY, PrekeyRow))
    assert all(row.made_ms <= latest_ms for _, row in prekeys)
    reconnect(town, bob)
    assert bob.texts("alice")[-1] == "from the future"
    carol = town.account("carol")
    town.befriend(carol, alice)
    town.say(carol, "alice", "a session with the new prekeys")
    assert alice.texts("carol") == ["a session with the new prekeys"]


# --- receipts that a restored relay lost ---


def test_a_receipt_that_the_relay_lost_is_sent_again(pair: tuple[Town, Device, Device]) -> None:
    """Nobody's login tells that the relay was restored; the next day's retry brings the receipt back."""
    town, alice, bob = pair
    town.say(alice, "bob", "read")  # Alice hears nothing of it
    assert alice.states("bob")[-1] == "delivered"
    alice.handle(events.SendText("bob", "the receipt is lost"))
    while "the receipt is lost" not in bob.texts("alice"):
        assert alice.act() or bob.act()
    alice.disconnect()
    town.settle()
    for mailbox in town.relay.storage._devices.values():  # type: ignore[attr-defined]
        mailbox.mail.clear()
    reconnect(town, alice)
    assert alice.states("bob")[-1] == "sent"
    town.settle(26 * 3_600_000)
    assert alice.states("bob")[-1] == "delivered"
