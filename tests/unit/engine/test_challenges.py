"""Who opened a session proves that no broken curve is behind it: asked and answered without a person."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from lokket import limits
from lokket.codec import tls
from lokket.codec.tls import opaque
from lokket.engine import challenges, events, outbox, sessions, views
from lokket.engine.records import OutboxRow, SessionRow, rows
from lokket.engine.step import Step, require_account, save_account
from lokket.engine.store import AWAITING, OUTBOX, PREKEY, SESSION
from lokket.protocol import identity
from lokket.protocol.identity.device_keys import DeviceSeeds, InboxKeyPair
from lokket.wire import api, content
from tests.unit.engine.test_attacks import inject, step_of
from tests.unit.engine.town import Device, Town

Friends = tuple[Town, Device, Device]
Made = list[tuple[bytes, int]]
_PAUSE_MS = limits.CHALLENGE_REPEAT_S * 1000 + 1


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    """Every challenge and answer that is queued: (recipient device, kind)."""
    seen: Made = []
    queue = outbox.queue_control

    def spy(step: Step, genesis_hash: bytes, device_hash: bytes, body: content.Body) -> None:
        if isinstance(body, content.Challenge | content.ChallengeResponse):
            seen.append((device_hash, content.kind_of(body)))
        queue(step, genesis_hash, device_hash, body)

    monkeypatch.setattr(outbox, "queue_control", spy)
    return seen


@pytest.fixture
def acquainted(town: Town) -> Friends:
    """Alice looked Bob up by name and wrote first; he accepted. No invite vouches for her."""
    alice, bob = town.account("alice"), town.account("bob")
    meet(alice, bob)
    return town, alice, bob


def meet(alice: Device, bob: Device) -> None:
    town = alice.town
    alice.handle(events.AddContact("bob", name="bob"))
    town.settle()
    town.say(alice, "bob", "hello")
    bob.handle(events.AcceptContact("alice"))
    town.settle()


def label(device: Device, petname: str) -> str:
    return device.ask(views.contact, petname).sender_authentication


def bindings(device: Device) -> list[bytes]:
    """The session ids that are remembered, the latest current one last."""
    found = device.ask(lambda tx: rows(tx, SESSION, SessionRow))
    return [binding.session_id for _, row in found for binding in row.bindings]


def forget_sessions(device: Device) -> None:
    step = step_of(device)
    for key, _ in list(step.tx.scan(SESSION)):
        step.tx.delete(SESSION, key)
    step.tx.commit()  # type: ignore[attr-defined]


def lose(town: Town, kind: int, count: int = 1) -> list[bytes]:
    """The relay drops the first ``count`` contents of this kind. Returns them, once it has."""
    ids: set[bytes] = set()
    lost: list[bytes] = []

    def note(device: Device, request: api.Request, reply: api.Reply) -> api.Reply:
        if isinstance(request, api.Send):
            queued = device.ask(lambda tx: rows(tx, OUTBOX, OutboxRow))
            ids.update(row.envelope_id for _, row in queued if row.kind == kind)
        return reply

    def drop(device: Device, arrived: tuple[bytes, ...]) -> tuple[bytes, ...]:
        for encoded in arrived:
            if len(lost) < count and api.decode_envelope(encoded).envelope_id in ids:
                lost.append(encoded)
                return tuple(other for other in arrived if other is not encoded)
        return arrived

    town.replace, town.tamper = note, drop
    return lost


# --- it works, and nobody notices ---


def test_who_wrote_first_is_asked_once_and_answers(made: Made, acquainted: Friends) -> None:
    town, alice, bob = acquainted
    assert made == [
        (alice.me.device_hash, content.CHALLENGE),
        (bob.me.device_hash, content.CHALLENGE_RESPONSE),
    ]
    assert label(alice, "bob") == label(bob, "alice") == "post-quantum"
    for number in range(3):
        town.say(alice, "bob", f"{number}")
        town.say(bob, "alice", f"{number}")
    assert len(made) == 2
    assert not bob.told(events.ErrandFailed)
    assert not [row for _, row in bob.ask(lambda tx: rows(tx, AWAITING, OutboxRow)) if row.kind > 26]


def test_a_stranger_gets_no_challenge_before_acceptance(made: Made, town: Town) -> None:
    alice, bob = town.account("alice"), town.account("bob")
    alice.handle(events.AddContact("bob", name="bob"))
    town.settle()
    for text in ("hello", "are you there?"):
        town.say(alice, "bob", text)
        town.now_ms += _PAUSE_MS
    assert not made
    assert not alice.envelopes
    assert label(alice, "bob") == "post-quantum"  # his keys were signed by ML-DSA
    assert label(bob, "alice") == "classical"
    bob.handle(events.AcceptContact("alice"))
    town.settle()
    assert label(bob, "alice") == "post-quantum"


def test_before_the_first_session_there_is_nothing_to_say(town: Town) -> None:
    alice, _ = town.account("alice"), town.account("bob")
    alice.handle(events.AddContact("bob", name="bob"))
    town.settle()
    assert label(alice, "bob") == "none"


def test_both_sides_write_first(town: Town) -> None:
    alice, bob = town.account("alice"), town.account("bob")
    for device, name in ((alice, "bob"), (bob, "alice")):
        device.handle(events.AddContact(name, name=name))
    town.settle()
    for device in (alice, bob):
        device.disconnect()
    alice.handle(events.SendText("bob", "from alice"))
    bob.handle(events.SendText("alice", "from bob"))
    for device in (alice, bob):
        device.connect()
    town.settle()
    for number in range(3):
        town.say(alice, "bob", f"{number}")
        town.say(bob, "alice", f"{number}")
    assert label(alice, "bob") == label(bob, "alice") == "post-quantum"
    assert len(alice.texts("bob")) == len(bob.texts("alice")) == 8


def test_an_invite_proves_it_as_well(made: Made, friends: Friends) -> None:
    """No challenge in the session that carried the proof; one in the next session."""
    town, alice, bob = friends
    town.say(alice, "bob", "hello")
    assert not made
    assert label(alice, "bob") == label(bob, "alice") == "post-quantum"
    forget_sessions(alice)
    town.say(alice, "bob", "anew")
    assert made == [
        (alice.me.device_hash, content.CHALLENGE),
        (bob.me.device_hash, content.CHALLENGE_RESPONSE),
    ]
    assert label(bob, "alice") == "post-quantum"
    assert bob.texts("alice") == ["hello", "anew"]


def test_own_devices_ask_each_other(made: Made, town: Town) -> None:
    alice = town.account("alice")
    tablet = town.second_device(alice)
    pair = {alice.me.device_hash, tablet.me.device_hash}
    assert {device_hash for device_hash, _ in made} == pair
    for device, other in ((alice, tablet), (tablet, alice)):
        assert device.ask(sessions.authentication, other.me.device_hash) == "post-quantum"


def test_one_classical_device_is_enough_for_the_label(acquainted: Friends) -> None:
    town, alice, bob = acquainted
    tablet = town.second_device(alice)
    town.tamper = lambda device, arrived: () if device is tablet else arrived
    town.say(tablet, "bob", "from the tablet")
    assert bob.texts("alice") == ["hello", "from the tablet"]
    assert label(bob, "alice") == "classical"
    town.tamper = lambda device, arrived: arrived
    tablet.connect()
    town.settle()
    assert label(bob, "alice") == "post-quantum"


def test_a_proven_session_stays_so_when_its_prekeys_are_gone(acquainted: Friends) -> None:
    """Sessions live longer than the prekeys from which their id is computed."""
    town, alice, bob = acquainted
    step = step_of(bob)
    for key, _ in list(step.tx.scan(PREKEY)):
        step.tx.delete(PREKEY, key)
    step.tx.commit()  # type: ignore[attr-defined]
    town.say(alice, "bob", "much later")
    assert bob.texts("alice") == ["hello", "much later"]
    assert label(bob, "alice") == "post-quantum"


# --- losses ---


@pytest.mark.parametrize("kind", [content.CHALLENGE, content.CHALLENGE_RESPONSE], ids=["asked", "answered"])
def test_what_is_lost_is_asked_for_again_with_a_later_message(town: Town, kind: int) -> None:
    alice, bob = town.account("alice"), town.account("bob")
    lost = lose(town, kind)
    meet(alice, bob)
    assert len(lost) == 1
    town.say(alice, "bob", "at once")
    assert label(bob, "alice") == "classical"
    town.now_ms += _PAUSE_MS
    town.say(alice, "bob", "a while later")
    assert bob.texts("alice") == ["hello", "at once", "a while later"]
    assert set(alice.states("bob")) == {"delivered"}
    assert label(bob, "alice") == "post-quantum"


def test_an_answer_that_comes_late_counts(town: Town) -> None:
    """Also when it was asked for again meanwhile, and that answer is lost."""
    alice, bob = town.account("alice"), town.account("bob")
    lost = lose(town, content.CHALLENGE_RESPONSE, 2)
    meet(alice, bob)
    town.now_ms += _PAUSE_MS
    town.say(alice, "bob", "again")
    assert len(lost) == 2
    assert label(bob, "alice") == "classical"
    inject(bob, lost[0])
    assert label(bob, "alice") == "post-quantum"


def test_who_never_answers_is_asked_a_few_times_and_talks_on(
    made: Made, town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older version does not know the kind."""
    monkeypatch.setattr(challenges, "received", lambda *_: None)
    alice, bob = town.account("alice"), town.account("bob")
    meet(alice, bob)
    for number in range(8):
        town.now_ms += _PAUSE_MS
        town.say(alice, "bob", f"{number}")
        town.say(bob, "alice", f"{number}")
    assert made == [(alice.me.device_hash, content.CHALLENGE)] * limits.CHALLENGES_PER_SESSION_MAX
    assert label(bob, "alice") == "classical"
    assert set(alice.states("bob")) == {"delivered", "received"}


def test_a_contact_cannot_make_us_answer_without_end(made: Made, acquainted: Friends) -> None:
    town, alice, bob = acquainted
    sender, session_id = bob.me, bindings(alice)[-1]
    inbox_key = tls.decode(identity.Device, alice.ask(require_account).device).inbox_key
    step = step_of(alice)
    for _ in range(8):
        sealed = identity.seal_challenge(inbox_key, session_id, town.entropy.draw(32), town.entropy)
        challenges.received(step, sender.genesis_hash, sender.device_hash, content.Challenge(sealed))
    assert made.count((sender.device_hash, content.CHALLENGE_RESPONSE)) == limits.CHALLENGES_PER_SESSION_MAX


# --- attacks ---


@pytest.mark.attack(9)
def test_an_attacker_who_breaks_curves_poses_as_alice_and_never_loses_the_label(acquainted: Friends) -> None:
    """The thief computed every classical secret of her device; its X-Wing inbox key withstands."""
    town, alice, bob = acquainted
    alice.disconnect()
    thief = Device(town, alice.vault.copy())
    town.devices.remove(alice)
    step = step_of(thief)
    account = require_account(step.tx)
    seeds = tls.decode(DeviceSeeds, account.device_keys)
    broken = tls.encode(replace(seeds, inbox=bytes(32)))
    save_account(
        step.tx,
        msgspec.structs.replace(account, device_keys=broken, incarnation=9, confirmed=0, nonces=()),
    )
    step.tx.commit()  # type: ignore[attr-defined]
    forget_sessions(thief)
    thief.connect()
    town.settle()
    for number in range(5):
        town.now_ms += _PAUSE_MS
        town.say(thief, "bob", f"this is alice, {number}")
    assert bob.texts("alice")[-1] == "this is alice, 4"  # never blocked, and labelled
    assert label(bob, "alice") == "classical"
    thief.disconnect()
    town.devices.remove(thief)
    town.devices.append(alice)
    alice.connect()
    town.settle()
    town.now_ms += _PAUSE_MS
    town.say(alice, "bob", "I am back")
    assert label(bob, "alice") == "post-quantum"


@pytest.mark.attack(9)
@pytest.mark.parametrize("attempt", ["of another session", "with a wrong session id", "guessed"])
def test_only_the_answer_of_this_session_counts(
    town: Town, monkeypatch: pytest.MonkeyPatch, attempt: str
) -> None:
    """The first session is proven honestly; its answer and two others do not prove the second."""
    answers: list[bytes] = []
    forging = False
    honest = identity.answer_challenge

    def answer(inbox: InboxKeyPair, session_id: bytes, sealed: bytes) -> bytes:
        answers.append(honest(inbox, session_id, sealed))
        if not forging:
            return answers[-1]
        if attempt == "with a wrong session id":
            nonce = inbox.open(opaque(b"lokket v1 pq challenge") + opaque(session_id), sealed)
            return identity.challenge_response(nonce, first)
        return answers[0] if attempt == "of another session" else bytes(32)

    monkeypatch.setattr(identity, "answer_challenge", answer)
    alice, bob = town.account("alice"), town.account("bob")
    meet(alice, bob)
    assert label(bob, "alice") == "post-quantum"
    first, forging = bindings(bob)[-1], True
    forget_sessions(alice)
    town.say(alice, "bob", "anew")
    assert bindings(bob)[-1] != first
    assert len(answers) == 2
    assert label(bob, "alice") == "classical"
    forging = False
    town.now_ms += _PAUSE_MS
    town.say(alice, "bob", "honestly")
    assert label(bob, "alice") == "post-quantum"


@pytest.mark.attack(98)
def test_the_nonce_hides_and_is_forgotten(town: Town) -> None:
    alice, bob = town.account("alice"), town.account("bob")
    lose(town, content.CHALLENGE)
    meet(alice, bob)
    (row,) = [row for _, row in bob.ask(lambda tx: rows(tx, SESSION, SessionRow))]
    nonce = row.bindings[-1].nonce
    assert len(nonce) == 32
    assert repr(nonce) not in repr(row) + repr(row.bindings)
    town.now_ms += _PAUSE_MS
    town.say(alice, "bob", "again")
    (row,) = [row for _, row in bob.ask(lambda tx: rows(tx, SESSION, SessionRow))]
    assert row.bindings[-1].proven
    assert not row.bindings[-1].nonce


# --- names by invite ---


def test_who_joins_by_an_invite_learns_its_makers_name(town: Town) -> None:
    """And the maker's notices name the guest by the guest's own name from the first."""
    alice = town.account("alice")
    alice.handle(events.CreateInvite())
    town.settle()
    link = alice.told(events.InviteMade)[-1].link
    dora = Device(town)
    code = identity.new_recovery_code(town.entropy)
    origin, key = alice.me.origin, alice.me.relay_key
    dora.handle(events.CreateAccount(link, "dora", origin, key, code))
    dora.connect()
    town.settle()
    assert [view.petname for view in dora.ask(views.contacts)] == ["alice"]
    assert [view.petname for view in alice.ask(views.contacts)] == ["dora"]
    assert [notice.petname for notice in alice.told(events.TrustNotice) if notice.kind == "level"] == ["dora"]
    town.say(alice, "dora", "welcome")
    assert dora.texts("alice") == ["welcome"]
