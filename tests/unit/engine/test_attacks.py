"""Hostile relays, thieves and broken bytes against one device. Numbers are rows of docs/attacks.md."""

from __future__ import annotations

import msgspec
import pytest

from lokket import limits
from lokket.codec import tls
from lokket.engine import events, outbox, sessions, views
from lokket.engine.records import Contact, OutboxRow, SessionRow, load, rows, save
from lokket.engine.step import Link, Step, account_of, require_account, save_account
from lokket.errors import LocalError
from lokket.protocol import identity, prekeys
from lokket.protocol.pairwise import SessionRecord
from lokket.protocol.pairwise.record import Archived
from lokket.wire import api, content
from tests.unit.engine.town import Device, Town, now

Friends = tuple[Town, Device, Device]


def inject(device: Device, envelope: api.Envelope | bytes) -> None:
    """Deliver bytes to a device as its relay would."""
    device.handle(events.Arrived((envelope if isinstance(envelope, bytes) else api.encode(envelope),)))
    device.town.settle()


def renamed(encoded: bytes, number: int = 1, **changes: object) -> api.Envelope:
    """The same envelope under another envelope id: a hostile relay can always do this."""
    return msgspec.structs.replace(api.decode_envelope(encoded), envelope_id=bytes([number]) * 16, **changes)


def step_of(device: Device) -> Step:
    """A step outside of any event, to play a device that misbehaves."""
    return Step(device.vault.begin(), device.town.now_ms, device.town.entropy, Link())


def send_forged(device: Device, petname: str, **changes: object) -> None:
    """Send a text whose row was changed before it was encrypted: an insider's forgery."""
    device.handle(events.SendText(petname, "honest"))
    device.outgoing.clear()
    device.disconnect()
    step = step_of(device)
    for key, row in rows(step.tx, "outbox", OutboxRow):
        if row.kind == content.TEXT:
            forged = msgspec.structs.replace(row, envelope=b"", envelope_id=b"", **changes)
            save(step.tx, "outbox", key, forged)
    step.tx.commit()  # type: ignore[attr-defined]
    device.connect()
    device.town.settle()


@pytest.mark.attack(10)
def test_a_replayed_first_message_shows_nothing(friends: Friends) -> None:
    """Also when the session that it opened is gone and its keys are of last resort."""
    _town, _alice, bob = friends
    first = next(sent for sent in bob.envelopes if api.decode_envelope(sent).kind == api.KIND_PREKEY)
    peer = api.decode_envelope(first).sender
    assert peer is not None
    step = step_of(bob)
    step.tx.delete("session", peer.device_hash)
    step.tx.commit()  # type: ignore[attr-defined]
    before = bob.texts("alice")
    inject(bob, renamed(first))
    assert bob.texts("alice") == before
    assert bob.held() == ["replayed"]


@pytest.mark.attack(10)
def test_a_first_message_replayed_when_its_archived_session_has_expired(town: Town) -> None:
    """Its record holds the session still, and does not open with it: that it was seen must count."""

    def last_resort(device: Device, request: api.Request, reply: api.Reply) -> api.Reply:
        if not isinstance(reply, api.Bundle):
            return reply
        signed = tls.decode(prekeys.ServedBundle, reply.bundle).signed
        return api.Bundle(tls.encode(prekeys.ServedBundle(signed, None)))

    town.replace = last_resort
    alice, bob = town.account("alice"), town.account("bob")
    town.befriend(alice, bob)
    first = next(sent for sent in bob.envelopes if api.decode_envelope(sent).kind == api.KIND_PREKEY)
    peer = api.decode_envelope(first).sender
    assert peer is not None
    step = step_of(bob)
    record = sessions.record_of(step.tx, peer.device_hash)
    assert record is not None
    replayed = record.handshake
    old_ms = town.now_ms - limits.ARCHIVED_SESSION_DAYS * limits.DAY_S * 1000
    record = SessionRecord(record.remote, record.identity_key, None, (Archived(old_ms, record.current),))
    sessions.store(step, peer.device_hash, record, b"")
    step.tx.commit()  # type: ignore[attr-defined]
    inject(bob, renamed(first))
    assert bob.held() == ["replayed"]
    kept = sessions.record_of(step_of(bob).tx, peer.device_hash)
    assert kept is not None
    assert kept.handshake != replayed  # healing has begun a session of its own


@pytest.mark.attack(11)
def test_a_pair_handed_out_twice_costs_the_second_sender_no_message(town: Town) -> None:
    """The second one's first message does not open; it heals by itself, once the stranger may be answered."""
    alice, bob, carol = town.account("alice"), town.account("bob"), town.account("carol")
    served: list[api.Bundle] = []

    def replay(device: Device, request: api.Request, reply: api.Reply) -> api.Reply:
        if isinstance(reply, api.Bundle) and device in (alice, carol) and request.genesis_hash == bob_genesis:
            if served and device is carol and len(served) == 1:
                served.append(served[0])
                return served[0]
            served.append(reply)
        return reply

    bob_genesis = bob.me.genesis_hash
    town.replace = replay
    for device in (alice, carol):
        device.handle(events.AddContact("bob", name="bob"))
        town.settle()
        town.say(device, "bob", f"from {device.me.name}")
    bob.handle(events.AcceptContact("alice"))
    town.settle()
    assert bob.texts("alice") == ["from alice"]
    assert len(served) >= 2
    petname = next(view.petname for view in bob.ask(views.contacts) if view.petname != "alice")
    assert bob.texts(petname) == []
    bob.handle(events.AcceptContact(petname))
    town.settle(60_000)
    petname = next(view.petname for view in bob.ask(views.contacts) if view.petname != "alice")
    assert bob.texts(petname) == ["from carol"]


@pytest.mark.attack(23)
def test_a_replayed_message_is_acknowledged_and_not_shown_again(friends: Friends) -> None:
    town, alice, bob = friends
    town.say(alice, "bob", "once")
    shown = len(bob.told(events.MessageShown))
    last = bob.envelopes[-1]
    inject(bob, last)
    inject(bob, renamed(last))
    assert len(bob.told(events.MessageShown)) == shown
    assert bob.texts("alice") == ["once"]
    assert bob.held() == ["duplicate"]  # the one under a new id: a changed number looks the same


@pytest.mark.attack(24, 62)
def test_a_message_that_does_not_open_blocks_nothing_and_keeps_the_session(friends: Friends) -> None:
    town, alice, bob = friends
    town.say(alice, "bob", "good")
    spoilt = api.decode_envelope(bob.envelopes[-1])
    for number, body in enumerate((b"", b"\x44", b"\x00" * 100, spoilt.body[:-1] + b"\xff"), start=2):
        inject(bob, msgspec.structs.replace(spoilt, envelope_id=bytes([number]) * 16, body=body))
    town.say(alice, "bob", "still good")
    assert bob.texts("alice") == ["good", "still good"]
    assert len(bob.held()) == 4  # the last one seems the copy of a message that was shown


@pytest.mark.attack(24)
def test_a_changed_number_that_looks_like_a_duplicate_heals(friends: Friends) -> None:
    """The relay makes a message look like one that was shown: it is asked for all the same."""
    town, alice, bob = friends
    for text in ("one", "two", "three"):
        town.say(alice, "bob", text)
    shown = api.decode_envelope(bob.envelopes[-1]).body

    def swap(device: Device, arrived: tuple[bytes, ...]) -> tuple[bytes, ...]:
        if device is not bob:
            return arrived
        town.tamper = lambda _, unchanged: unchanged
        envelope = api.decode_envelope(arrived[0])
        return (api.encode(msgspec.structs.replace(envelope, body=shown)), *arrived[1:])

    town.tamper = swap
    town.say(alice, "bob", "four")
    assert bob.texts("alice") == ["one", "two", "three", "four"]
    assert alice.states("bob") == ["delivered"] * 4


@pytest.mark.attack(24)
def test_what_is_undecryptable_heals_under_the_same_message_id(friends: Friends) -> None:
    """The relay spoils a message on its way: the peer asks in a fresh session and gets it, once."""
    town, alice, bob = friends
    town.say(alice, "bob", "before")
    spoil = True

    def tamper(device: Device, arrived: tuple[bytes, ...]) -> tuple[bytes, ...]:
        nonlocal spoil
        if device is bob and spoil:
            spoil = False
            return tuple(_spoilt(encoded) for encoded in arrived)
        return arrived

    town.tamper = tamper
    town.say(alice, "bob", "spoilt on the way")
    town.say(alice, "bob", "after")
    town.settle(120_000)
    assert bob.texts("alice") == ["before", "spoilt on the way", "after"]
    assert alice.states("bob") == ["delivered"] * 3
    assert "session-reset" in alice.trust_kinds()


def _spoilt(encoded: bytes) -> bytes:
    envelope = api.decode_envelope(encoded)
    body = bytearray(envelope.body)
    body[-1] ^= 1
    return api.encode(msgspec.structs.replace(envelope, body=bytes(body)))


@pytest.mark.attack(28)
def test_sessions_made_anew_are_shown_and_five_a_day_at_most(friends: Friends) -> None:
    """A relay that spoils everything cannot make two devices open sessions without end, or in silence."""
    town, alice, bob = friends

    def spoil(device: Device, arrived: tuple[bytes, ...]) -> tuple[bytes, ...]:
        return tuple(_spoilt(encoded) for encoded in arrived) if device is bob else arrived

    town.tamper = spoil
    for number in range(limits.HEAL_REQUESTS_PER_DAY + 4):
        town.say(alice, "bob", str(number))
        town.settle(10_000)
    resets = alice.trust_kinds().count("session-reset")
    assert 1 <= resets <= limits.HEAL_REQUESTS_PER_DAY


@pytest.mark.attack(26)
def test_a_restored_vault_uses_no_key_twice_and_its_peers_heal(friends: Friends) -> None:
    town, alice, bob = friends
    town.say(alice, "bob", "one")
    copy = alice.vault.copy()
    town.say(alice, "bob", "two")
    town.say(bob, "alice", "three")
    alice.connect()  # a login that the copy does not know
    town.settle()
    alice.disconnect()
    town.devices.remove(alice)
    restored = Device(town, copy)
    restored.connect()
    town.settle()
    assert "restored" in restored.trust_kinds()
    town.say(restored, "bob", "four")
    town.say(bob, "alice", "five")
    assert bob.texts("alice")[-2:] == ["four", "five"]
    assert restored.texts("bob")[-2:] == ["four", "five"]
    assert "clone-alarm" not in bob.trust_kinds()


@pytest.mark.attack(27)
def test_a_cloned_device_is_noticed(friends: Friends) -> None:
    """Both copies send the same number under one incarnation: the peer sees it."""
    town, alice, bob = friends
    town.say(alice, "bob", "one")
    clone = Device(town, alice.vault.copy())
    town.devices.remove(clone)
    town.say(alice, "bob", "two")
    step = step_of(clone)  # the thief suppresses the restore check
    account = require_account(step.tx)
    save_account(step.tx, msgspec.structs.replace(account, confirmed=0, nonces=()))
    for key, _ in list(step.tx.scan("session")):
        step.tx.delete("session", key)
    step.tx.commit()  # type: ignore[attr-defined]
    alice.disconnect()
    town.devices.append(clone)
    clone.connect()
    town.settle()
    town.say(clone, "bob", "from the thief")
    assert "clone-alarm" in bob.trust_kinds()


@pytest.mark.attack(29)
def test_a_request_to_send_again_reaches_only_what_was_sent_to_that_device(friends: Friends) -> None:
    town, alice, bob = friends
    carol = town.account("carol")
    town.befriend(carol, alice)
    bob.disconnect()
    town.say(alice, "bob", "for bob alone")
    step = step_of(alice)
    envelope_id = next(key for key, row in rows(step.tx, "awaiting", OutboxRow) if row.kind == content.TEXT)
    step.tx.rollback()  # type: ignore[attr-defined]
    step = step_of(carol)
    outbox.queue_control(step, alice.me.genesis_hash, alice.me.device_hash, content.Heal((envelope_id,)))
    step.tx.commit()  # type: ignore[attr-defined]
    carol.handle(events.Tick())
    town.settle(120_000)
    assert carol.texts("alice") == []
    assert carol.held() == []
    bob.connect()
    town.settle()
    assert bob.texts("alice") == ["for bob alone"]


@pytest.mark.attack(30)
def test_a_message_held_back_is_noticed_and_found_when_it_comes(friends: Friends) -> None:
    town, alice, bob = friends
    town.say(alice, "bob", "one")
    kept: list[bytes] = []

    def tamper(device: Device, arrived: tuple[bytes, ...]) -> tuple[bytes, ...]:
        if device is bob and not kept:
            kept.extend(arrived)
            return ()
        return arrived

    town.tamper = tamper
    town.say(alice, "bob", "two")
    town.say(alice, "bob", "three")
    assert "missing" in bob.trust_kinds()
    assert bob.texts("alice") == ["one", "three"]
    for encoded in kept:
        inject(bob, encoded)
    assert bob.texts("alice") == ["one", "two", "three"]


@pytest.mark.attack(31)
def test_an_own_message_mirrored_back_is_refused(friends: Friends) -> None:
    town, alice, bob = friends
    town.say(alice, "bob", "mine")
    account, peer = alice.me, bob.me
    mirrored = renamed(
        bob.envelopes[-1],
        recipient=account.genesis_hash,
        device_hash=account.device_hash,
        sender=api.Sender(peer.genesis_hash, peer.device_hash),
    )
    inject(alice, mirrored)
    assert alice.texts("bob") == ["mine"]


@pytest.mark.attack(32)
@pytest.mark.parametrize(
    "changes",
    [{"conversation": bytes(32)}, {"kind": content.RECEIPT}, {"seq": 0}],
    ids=["conversation", "kind", "number"],
)
def test_a_content_that_claims_another_place_is_refused(friends: Friends, changes: dict[str, object]) -> None:
    town, alice, bob = friends
    town.say(alice, "bob", "first")
    try:
        send_forged(alice, "bob", **changes)
    except LocalError:
        return  # the encoder itself refuses to make it
    assert bob.texts("alice") == ["first"]
    assert bob.held()


@pytest.mark.attack(86)
def test_only_own_devices_may_synchronise(friends: Friends) -> None:
    town, alice, bob = friends
    carol = town.account("carol")
    text = content.encode_body(content.Text("forged"))
    sync = content.encode_body(content.Sync(carol.me.genesis_hash, content.TEXT, text))
    send_forged(alice, "bob", kind=content.SYNC, body=sync)
    card = content.encode_body(content.Card(carol.me.genesis_hash, "carol", True, "verified"))
    send_forged(alice, "bob", kind=content.CARD, body=card, seq=0, previous=bytes(32))
    assert bob.held() == ["wrong-header"] * 2
    assert bob.texts("alice") == []
    assert [view.petname for view in bob.ask(views.contacts)] == ["alice"]


@pytest.mark.attack(13)
def test_names_resolve_once_and_the_pin_stays(friends: Friends) -> None:
    """A relay that answers with another account after the contact exists changes nothing."""
    town, alice, bob = friends
    mallory = town.account("mallory")

    def redirect(device: Device, request: api.Request, reply: api.Reply) -> api.Reply:
        if isinstance(request, api.LookupName):
            return now(
                town.relay.handle(mallory.caller, api.LookupName("mallory"), town.now_ms, town.entropy)
            )
        return reply

    town.replace = redirect
    town.say(alice, "bob", "for bob")
    assert bob.texts("alice") == ["for bob"]
    carol = town.account("carol")
    carol.handle(events.AddContact("bob", name="bob"))
    town.settle()
    assert "another name" in carol.told(events.ErrandFailed)[0].sentence
    assert carol.ask(views.contacts) == ()


@pytest.mark.attack(71, 89)
def test_a_rolled_back_list_changes_nothing_and_a_rotation_waits_for_consent(friends: Friends) -> None:
    town, alice, bob = friends
    old = now(
        town.relay.handle(
            alice.caller, api.FetchAccount(bob.me.genesis_hash, 0, 0), town.now_ms, town.entropy
        )
    )
    town.second_device(bob)
    town.say(alice, "bob", "to both")
    assert alice.ask(views.contact, "bob").devices == 2
    alice.handle(events.Answered(f"account:{bob.me.genesis_hash.hex()}", old))
    town.settle()
    assert alice.ask(views.contact, "bob").devices == 2


@pytest.mark.attack(71)
def test_a_rotation_blocks_sending_until_it_is_accepted(town: Town) -> None:
    """The recovery code replaces the account key: contacts see it and decide."""
    alice, bob = town.account("alice"), town.account("bob")
    town.befriend(alice, bob)
    bob_account = bob.ask(require_account)
    code = identity.new_recovery_code(town.entropy)
    # The town's accounts do not keep their codes: give Bob a known one by making his account anew.
    step = step_of(bob)
    step.tx.rollback()  # type: ignore[attr-defined]
    carol = Device(town)
    carol.handle(events.CreateAccount("", "carol", "ws://relay.test", town.relay_key.public, code))
    carol.connect()
    town.settle()
    town.befriend(alice, carol)
    town.say(alice, "carol", "before")
    account = carol.ask(require_account)
    state = identity.AccountState.decode(account.state)
    new_key = identity.HybridKeyPair.from_seed(town.entropy.draw(64))
    rotation = identity.rotate(
        state,
        identity.recovery_key(code, 0),
        new_key,
        identity.recovery_commitment(identity.recovery_key(code, 1).public),
        now_s=town.now_ms // 1000,
        entropy=town.entropy,
    )
    signed, body = identity.sign_list(
        new_key, state, state.body, (), now_s=town.now_ms // 1000, entropy=town.entropy, rotation=rotation
    )
    put = api.PutList(tls.encode(rotation), tls.encode(signed), tls.encode(body), ())
    assert isinstance(now(town.relay.handle(carol.caller, put, town.now_ms, town.entropy)), api.Ok)
    alice.handle(events.SendText("carol", "unsuspecting"))
    town.settle()
    assert "rotated" in alice.trust_kinds()
    assert alice.ask(views.contact, "carol").level == "was invited"
    with pytest.raises(LocalError):
        alice.handle(events.SendText("carol", "blocked"))
    alice.handle(events.AcceptContact("carol"))
    town.settle()
    assert carol.texts("alice")[-1] == "unsuspecting"
    assert bob_account.status == "active"


@pytest.mark.attack(64)
def test_a_fork_stops_sending_for_good(friends: Friends) -> None:
    """Two lists of one version: the relay shows Alice one that Bob's own account never made public."""
    town, alice, bob = friends
    account = bob.ask(require_account)
    state = identity.AccountState.decode(account.state)
    key = identity.HybridKeyPair.from_seed(account.account_seed)
    genesis = tls.decode(identity.Genesis, account.genesis)
    own = tls.decode(identity.Device, account.device)
    other, body = identity.sign_list(
        key,
        None,
        state.body,
        (own,),
        now_s=state.link.issued_s + 1,
        entropy=town.entropy,
        genesis=genesis,
    )
    update = identity.step_update(other, body, (account.device,), genesis=genesis)
    alice.handle(events.Answered(f"account:{account.genesis_hash.hex()}", api.Account(tls.encode(update))))
    assert "forked" in alice.trust_kinds()
    contact = alice.ask(lambda tx: load(tx, "contact", account.genesis_hash, Contact))
    assert contact is not None
    assert contact.evidence
    with pytest.raises(LocalError):
        alice.handle(events.SendText("bob", "x"))
    with pytest.raises(LocalError):
        alice.handle(events.AcceptContact("bob"))


@pytest.mark.attack(88)
def test_a_hidden_list_shows_within_one_round_trip(friends: Friends) -> None:
    """The relay keeps Bob's new list from Alice; Bob's own next message gives it away."""
    town, alice, bob = friends
    old = now(
        town.relay.handle(
            alice.caller, api.FetchAccount(bob.me.genesis_hash, 0, 0), town.now_ms, town.entropy
        )
    )

    def freeze(device: Device, request: api.Request, reply: api.Reply) -> api.Reply:
        frozen = device is alice and isinstance(request, api.FetchAccount)
        return old if frozen and request.genesis_hash == bob.me.genesis_hash else reply

    town.replace = freeze
    town.second_device(bob)
    town.say(bob, "alice", "I have a new device")
    assert "frozen" in alice.trust_kinds()


@pytest.mark.attack(22)
def test_mail_of_strangers_is_bounded(friends: Friends, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than the bound stays with the relay, unacknowledged."""
    _town, _, bob = friends
    monkeypatch.setattr(limits, "WAITING_ENVELOPES_MAX", 3)
    bob.disconnect()
    me = bob.me
    effects: list[events.Effect] = []
    for number in range(5):
        stranger = api.Sender(bytes([number]) * 32, bytes(32))
        envelope = api.Envelope(
            1, 2, bytes([number]) * 16, me.genesis_hash, me.device_hash, bytes(32), 0, b"", stranger, b"x"
        )
        bob.outgoing.clear()
        bob.handle(events.Arrived((api.encode(envelope),)))
        effects += bob.outgoing
    acknowledged = [effect for effect in effects if isinstance(effect, events.Acknowledge)]
    assert len(acknowledged) == 3


@pytest.mark.attack(61)
def test_a_jumping_clock_loses_nothing(friends: Friends) -> None:
    town, alice, bob = friends
    for days in (0, 3650, -3650, 0.01):
        for device in (alice, bob):
            device.clock_error_ms = int(days * 86_400_000)
            town.settle()
            alice.handle(events.SendText("bob", f"{days} days wrong"))
            device.connect()
            town.settle()
            device.disconnect()
            device.clock_error_ms = 0
            device.connect()
            town.settle()
    assert len(bob.texts("alice")) == 8
    assert sorted(bob.texts("alice")) == sorted(alice.texts("bob"))
    assert set(alice.states("bob")) == {"delivered"}


@pytest.mark.attack(98)
def test_records_hide_what_they_hold(friends: Friends) -> None:
    _, alice, _ = friends
    account = alice.ask(account_of)
    assert repr(account) == "Account(…)"


def test_a_damaged_session_of_our_own_is_no_fault_of_the_message(friends: Friends) -> None:
    """It is told, not set aside: the message comes again when the vault is mended."""
    town, alice, bob = friends
    town.say(alice, "bob", "before")
    tx = bob.vault.begin()
    [(peer, good)] = rows(tx, "session", SessionRow)
    save(tx, "session", peer, msgspec.structs.replace(good, record=b"\x02" + good.record[1:]))
    tx.commit()
    with pytest.raises(LocalError, match="session in the vault is damaged"):
        town.say(alice, "bob", "meanwhile")
    assert (bob.held(), bob.texts("alice")) == ([], ["before"])
