"""Whole sessions: both roles, any order, many epochs, archives, resets, and nothing spoiled by failure."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lokket import limits
from lokket.errors import DecryptionFailed, DuplicateMessage, KeyRefused, LocalError, RemoteError
from lokket.protocol import pairwise
from lokket.protocol.pairwise import Ciphertext, MessageKind, SessionRecord, Work
from lokket.protocol.pairwise.sesame import Used
from tests.support.pairwise import START_MS, Device, pair, talking
from tests.support.refusals import refusal

DAY_MS = 86_400_000


@pytest.mark.parametrize("one_time", [True, False])
def test_a_handshake_is_the_same_on_both_sides(one_time: bool) -> None:
    alice, bob = pair(one_time=one_time)
    record = alice.record(bob.address)
    assert record is not None
    first = alice.send(bob.address, b"hello")
    assert first.kind == MessageKind.PREKEY
    opened = bob.decrypt(alice.address, first)
    assert (opened.plaintext, opened.new_session) == (b"hello", True)
    assert opened.handshake == record.handshake == record.unacknowledged == opened.record.handshake
    assert (opened.used.one_time_prekey_id is not None) == one_time
    assert opened.used.kem_prekey_id == record.handshake.kem_prekey_id
    assert opened.record.unacknowledged is None
    assert opened.record.identity_key == alice.identity.public
    assert (opened.record.remote, opened.record.established_ms) == (alice.address, START_MS)
    assert record.knows_base_key(record.handshake.base_key, START_MS)
    assert not record.knows_base_key(b"\x05" + bytes(32), START_MS)


def test_what_a_prekey_message_says() -> None:
    alice, bob = pair()
    record = alice.record(bob.address)
    assert record is not None
    bodies = [alice.send(bob.address, b"%d" % number).body for number in range(2)]
    infos = [pairwise.inspect_prekey_message(body) for body in bodies]
    assert infos[0] == infos[1]  # the id is the session's, not the message's
    assert infos[0].base_key == record.handshake.base_key
    assert infos[0].identity_key == alice.identity.public
    assert infos[0].registration_id == alice.local.registration_id
    assert infos[0].one_time_prekey_id == record.handshake.one_time_prekey_id
    assert infos[0].signed_prekey_id == record.handshake.signed_prekey_id
    assert infos[0].kem_prekey_id == record.handshake.kem_prekey_id
    assert len(infos[0].first_message_id) == 32


def test_prekey_messages_until_the_first_answer() -> None:
    alice, bob = pair()
    kinds = [alice.send(bob.address, b"x") for _ in range(3)]
    assert {message.kind for message in kinds} == {MessageKind.PREKEY}
    for number, message in enumerate(kinds):
        opened = bob.decrypt(alice.address, message)
        assert opened.new_session == (number == 0)
        assert (opened.used.kem_prekey_id is not None) == (number == 0)
        assert opened.handshake is not None
        bob.receive(alice.address, message)
    alice.receive(bob.address, bob.send(alice.address, b"answer"))
    assert alice.send(bob.address, b"x").kind == MessageKind.WHISPER


def test_sizes_are_those_of_the_format() -> None:
    alice, bob = pair()
    assert 1_880 <= len(alice.send(bob.address, bytes(100)).body) <= 1_960
    bob.receive(alice.address, alice.send(bob.address, b""))
    assert len(bob.send(alice.address, bytes(100)).body) < 210


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.sampled_from([1, 6, 25]), st.sampled_from([0.0, 0.2]))
def test_conversations_arrive(seed: int, window: int, loss: float) -> None:
    """Random turns, loss and order, every step restored from stored bytes."""
    chance = random.Random(seed)
    alice, bob = talking()
    queues: dict[str, list[tuple[bytes, Ciphertext]]] = {"alice": [], "bob": []}
    for number in range(80):
        sender, receiver, name = chance.choice([(alice, bob, "bob"), (bob, alice, "alice")])
        plaintext = b"%d" % number
        message = sender.send(receiver.address, plaintext)
        if chance.random() >= loss:
            queues[name].append((plaintext, message))
        queue = queues[name]
        while len(queue) >= window:
            plaintext, message = queue.pop(chance.randrange(min(len(queue), 4)))
            assert receiver.receive(sender.address, message) == plaintext


def test_six_epochs_in_memory() -> None:
    """The record object is passed on, never stored; about 530 messages."""
    alice, bob = talking()
    records = {"a": alice.record(bob.address), "b": bob.record(alice.address)}
    for number in range(530):
        (one, sender), (other, receiver) = (
            (("a", alice), ("b", bob)) if number % 2 else (("b", bob), ("a", alice))
        )
        record = records[one]
        assert record is not None
        records[one], message = pairwise.encrypt(
            record, sender.local, b"%d" % number, START_MS, sender.entropy
        )
        opened = pairwise.decrypt(
            records[other],
            receiver.local,
            sender.address,
            message,
            receiver.store,
            START_MS,
            receiver.entropy,
        )
        assert opened.plaintext == b"%d" % number
        records[other] = opened.record
    record = records["a"]
    assert record is not None
    assert record.current is not None
    assert record.current.ratchet[1].braid.state.epoch >= 6


def test_an_old_record_stays_usable() -> None:
    """Records are values: what a caller rolls back to is what it was."""
    alice, bob = talking()
    message = alice.send(bob.address, b"once")
    old = bob.record(alice.address)
    assert old is not None
    stored = old.encode()
    outcomes = [
        pairwise.decrypt(old, bob.local, alice.address, message, bob.store, START_MS, bob.entropy)
        for _ in range(3)
    ]
    assert [outcome.plaintext for outcome in outcomes] == [b"once"] * 3
    assert old.encode() == stored
    sent = [pairwise.encrypt(old, bob.local, b"same", START_MS, bob.entropy)[1] for _ in range(2)]
    assert sent[0].body[-8:] == sent[1].body[-8:]
    assert old.encode() == stored


@pytest.mark.parametrize("kind", ["prekey", "whisper"])
def test_a_failed_decrypt_changes_nothing(kind: str) -> None:
    alice, bob = pair() if kind == "prekey" else talking()
    message = alice.send(bob.address, b"text")
    record = bob.record(alice.address)
    before = None if record is None else record.encode()
    prekeys = (dict(bob.store.one_time), dict(bob.store.kem))
    refusals = 0
    for place in range(0, len(message.body), 3 if kind == "whisper" else 37):
        body = bytearray(message.body)
        body[place] ^= 0x41
        with pytest.raises(RemoteError):
            pairwise.decrypt(
                record,
                bob.local,
                alice.address,
                Ciphertext(message.kind, bytes(body)),
                bob.store,
                START_MS,
                bob.entropy,
            )
        refusals += 1
        assert (None if record is None else record.encode()) == before
    assert refusals > 30
    assert (bob.store.one_time, bob.store.kem) == prekeys
    assert bob.receive(alice.address, message) == b"text"


# --- both begin at once ---


@pytest.mark.attack(25)
def test_simultaneous_initiation_over_all_interleavings() -> None:
    """Two messages each, sent and delivered in every order: all shown once, then one session is left."""
    steps = ["send a", "send a", "send b", "send b", "get a", "get a", "get b", "get b"]
    orders = [order for order in sorted(set(itertools.permutations(steps))) if possible(order)]
    assert len(orders) == 280
    for order in orders:
        run(order)


def possible(order: tuple[str, ...]) -> bool:
    """What is delivered was sent before; "get a" is delivery to a."""
    sent = {"a": 0, "b": 0}
    got = {"a": 0, "b": 0}
    for step, name in (entry.split() for entry in order):
        if step == "send":
            sent[name] += 1
        else:
            got[name] += 1
            if got[name] > sent["b" if name == "a" else "a"]:
                return False
    return True


def run(order: tuple[str, ...]) -> None:
    alice, bob = Device("alice"), Device("bob")
    alice.begin(bob.bundle())
    bob.begin(alice.bundle())
    devices = {"a": alice, "b": bob}
    mail: dict[str, list[tuple[bytes, Ciphertext]]] = {"a": [], "b": []}
    for number, (step, name) in enumerate(entry.split() for entry in order):
        other = "b" if name == "a" else "a"
        device, peer = devices[name], devices[other]
        if step == "send":
            text = b"%d" % number
            mail[other].append((text, device.send(peer.address, text)))
        else:
            text, message = mail[name].pop(0)
            assert device.receive(peer.address, message) == text
            with refusal(DuplicateMessage):
                device.receive(peer.address, message)
    for _ in range(2):
        assert bob.receive(alice.address, alice.send(bob.address, b"x")) == b"x"
        assert alice.receive(bob.address, bob.send(alice.address, b"y")) == b"y"
    records = alice.record(bob.address), bob.record(alice.address)
    assert records[0] is not None
    assert records[1] is not None
    assert records[0].handshake == records[1].handshake


# --- archives and resets ---


def test_an_archived_session_that_speaks_becomes_current() -> None:
    alice, bob = talking()
    late = alice.send(bob.address, b"late")
    old = alice.record(bob.address)
    assert old is not None
    alice.begin(bob.bundle())
    bob.receive(alice.address, alice.send(bob.address, b"reset"))
    record = bob.record(alice.address)
    assert record is not None
    assert len(record.archived) == 1
    assert record.handshake != old.handshake
    opened = bob.decrypt(alice.address, late)
    assert (opened.handshake, opened.new_session, opened.used) == (None, False, Used(None, None))
    assert bob.receive(alice.address, late) == b"late"
    record = bob.record(alice.address)
    assert record is not None
    assert record.handshake == old.handshake
    assert len(record.archived) == 1
    assert bob.receive(alice.address, alice.send(bob.address, b"back")) == b"back"


def test_five_are_archived_the_oldest_goes() -> None:
    alice, bob = talking()
    waiting = []
    for number in range(limits.ARCHIVED_SESSIONS_MAX + 1):
        waiting.append(alice.send(bob.address, b"late %d" % number))
        alice.begin(bob.bundle())
        bob.receive(alice.address, alice.send(bob.address, b"reset %d" % number))
    record = bob.record(alice.address)
    assert record is not None
    assert len(record.archived) == limits.ARCHIVED_SESSIONS_MAX
    with pytest.raises(RemoteError):
        bob.receive(alice.address, waiting[0])
    assert bob.receive(alice.address, waiting[1]) == b"late 1"


@pytest.mark.parametrize(
    ("days", "opens"), [(limits.ARCHIVED_SESSION_DAYS - 1, True), (limits.ARCHIVED_SESSION_DAYS, False)]
)
def test_an_archived_session_expires(days: int, opens: bool) -> None:
    alice, bob = talking()
    late = alice.send(bob.address, b"late")
    bob.begin(alice.bundle())
    bob.now_ms += days * DAY_MS
    if opens:
        assert bob.receive(alice.address, late) == b"late"
    else:
        with refusal(DecryptionFailed, "bad-mac"):
            bob.receive(alice.address, late)


def test_an_unanswered_session_stops_sending_but_still_receives() -> None:
    alice, bob = pair()
    first = alice.send(bob.address, b"first")
    alice.now_ms += limits.UNACKNOWLEDGED_SESSION_DAYS * DAY_MS
    alice.send(bob.address, b"last day")
    alice.now_ms += 1
    record = alice.record(bob.address)
    assert record is not None
    assert not record.can_send(alice.now_ms)
    with refusal(LocalError):
        alice.send(bob.address, b"too late")
    bob.receive(alice.address, first)
    alice.receive(bob.address, bob.send(alice.address, b"answer"))
    assert alice.send(bob.address, b"again").kind == MessageKind.WHISPER


def test_a_record_is_of_one_device_and_one_identity() -> None:
    alice, bob = talking()
    carol = Device("carol")
    record = alice.record(bob.address)
    assert record is not None
    with refusal(LocalError):
        pairwise.begin(record, alice.local, carol.bundle(), START_MS, alice.entropy)
    impostor = replace(carol.bundle(), address=bob.address)
    with pytest.raises(KeyRefused) as refused:
        pairwise.begin(record, alice.local, impostor, START_MS, alice.entropy)
    assert refused.value.code == "identity-changed"
    message = bob.send(alice.address, b"x")
    with refusal(LocalError):
        pairwise.decrypt(record, alice.local, carol.address, message, alice.store, START_MS, alice.entropy)


def test_no_session_with_oneself() -> None:
    alice = Device("alice")
    with refusal(KeyRefused, "own-identity"):
        alice.begin(alice.bundle())


def test_a_message_without_a_session() -> None:
    alice, bob = talking()
    carol = Device("carol")
    with pytest.raises(DecryptionFailed) as refused:
        carol.decrypt(bob.address, bob.send(alice.address, b"x"))
    assert refused.value.code == "no-session"


def test_too_long_a_message_is_our_error() -> None:
    alice, bob = talking()
    with refusal(LocalError):
        alice.send(bob.address, bytes(limits.PAIRWISE_MESSAGE_MAX_BYTES))
    longest = bytes(limits.PAIRWISE_MESSAGE_MAX_BYTES - 4096)
    assert bob.receive(alice.address, alice.send(bob.address, longest)) == longest
    fresh, other = pair()
    assert other.receive(fresh.address, fresh.send(other.address, longest)) == longest


def test_work_is_counted() -> None:
    alice, bob = talking()
    messages = [alice.send(bob.address, b"%d" % number) for number in range(20)]
    record = bob.record(alice.address)
    assert record is not None
    work = Work()
    pairwise.decrypt(
        record, bob.local, alice.address, messages[19], bob.store, START_MS, bob.entropy, work=work
    )
    assert work.sessions == 1
    assert work.exchanges == 1
    assert 40 <= work.chain_steps <= 42


@pytest.mark.parametrize("one_time", [True, False])
def test_work_of_a_first_message_is_added_up(one_time: bool) -> None:
    """Three or four exchanges of the handshake and the one of the first DH step."""
    alice, bob = pair(one_time=one_time)
    first, work = alice.send(bob.address, b"first"), Work()
    for count in (1, 2):
        pairwise.decrypt(None, bob.local, alice.address, first, bob.store, START_MS, bob.entropy, work=work)
        assert (work.sessions, work.exchanges) == (count, count * (5 if one_time else 4))


def test_a_record_says_what_it_lacks() -> None:
    alice, bob = talking()
    record = alice.record(bob.address)
    assert record is not None
    empty = SessionRecord(record.remote, record.identity_key, None, ())
    assert not empty.can_send(START_MS)
    assert empty.unacknowledged is None
    for read in (lambda: empty.handshake, lambda: empty.established_ms):
        with refusal(LocalError):
            read()
    assert SessionRecord.decode(empty.encode()).encode() == empty.encode()


@pytest.mark.parametrize("registration_id", [-1, 1 << 14])
def test_a_registration_id_that_peers_would_refuse(registration_id: int) -> None:
    """Ours to notice: the peer could only drop every first message."""
    local = Device("alice").local
    assert replace(local, registration_id=(1 << 14) - 1).registration_id == 0x3FFF
    with refusal(LocalError):
        replace(local, registration_id=registration_id)


def test_a_record_knows_a_base_key_as_long_as_decrypt_does() -> None:
    """Who remembers first messages asks it whether one is new: an expired session is no answer."""
    alice, bob = pair(one_time=False)
    first = alice.send(bob.address, b"first")
    base_key = pairwise.inspect_prekey_message(first.body).base_key
    bob.receive(alice.address, first)
    alice.begin(bob.bundle(one_time=False))
    bob.receive(alice.address, alice.send(bob.address, b"anew"))
    record = bob.record(alice.address)
    assert record is not None
    for days, known in ((0, True), (limits.ARCHIVED_SESSION_DAYS, False)):
        bob.now_ms = START_MS + days * DAY_MS
        assert record.knows_base_key(base_key, bob.now_ms) == known
        if known:
            with refusal(DuplicateMessage):
                bob.decrypt(alice.address, first)
        else:
            assert bob.decrypt(alice.address, first).new_session
