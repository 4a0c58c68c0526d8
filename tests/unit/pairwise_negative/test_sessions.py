"""Rows 21, 23 to 25, 31 and 33: refusals leave sessions as they were, and sessions find each other."""

from __future__ import annotations

import ast
import inspect
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lokket import limits
from lokket.crypto import primitives
from lokket.errors import DecryptionFailed, DuplicateMessage, KeyRefused, LocalError, RemoteError
from lokket.protocol import pairwise
from lokket.protocol.pairwise import Ciphertext, MessageKind, Work, braid, triple_ratchet
from tests.support import pairwise as support
from tests.support import protobuf as lenient
from tests.support.pairwise import Device

DAY_MS = 86_400_000


def forged(message: Ciphertext, changes: dict[int, int | bytes | None]) -> Ciphertext:
    """A whisper message with other fields under the old MAC."""
    body = b"\x44" + lenient.replaced(message.body[1:-8], changes) + message.body[-8:]
    return Ciphertext(message.kind, body)


def refused(device: Device, sender: Device, message: Ciphertext, work: Work | None = None) -> RemoteError:
    """The refusal of a message, with the receiver's record and the value it was decoded from unchanged."""
    stored = device.records.get(sender.address)
    record = device.record(sender.address)
    with pytest.raises(RemoteError) as error:
        pairwise.decrypt(
            record,
            device.local,
            sender.address,
            message,
            device.store,
            device.now_ms,
            device.entropy,
            work=work,
        )
    assert device.records.get(sender.address) == stored
    assert (record and record.encode()) == stored
    return error.value


# --- 20, 21: forged headers ---


@pytest.mark.attack(20, 21)
@pytest.mark.parametrize("counter", [limits.SKIP_AHEAD_MAX + 10, 2**31, 2**32 - 1])
@pytest.mark.parametrize("known_key", [True, False])
def test_a_forged_counter_costs_no_step(counter: int, known_key: bool) -> None:
    alice, bob = support.talking()
    message = alice.send(bob.address, b"x")
    if known_key:
        bob.receive(alice.address, message)
    work = Work()
    refused(bob, alice, forged(message, {2: counter}), work)
    assert (work.chain_steps, work.exchanges) == (0, 0)


@pytest.mark.attack(20, 21)
def test_the_costliest_forgery_is_bounded_in_steps() -> None:
    """The furthest jump in both ratchets, in every session of a full record."""
    alice, bob = support.talking()
    for _ in range(limits.ARCHIVED_SESSIONS_MAX + 1):
        alice.begin(bob.bundle())
        bob.receive(alice.address, alice.send(bob.address, b"again"))
        alice.receive(bob.address, bob.send(alice.address, b"answer"))
    message = alice.send(bob.address, b"x")
    pq_ratchet = b"\x01\x01" + lenient.varint(limits.SKIP_AHEAD_MAX) + b"\x00"
    jump = forged(message, {2: limits.SKIP_AHEAD_MAX, 5: pq_ratchet, 1: b"\x05\x09" + bytes(31)})
    work = Work()
    refused(bob, alice, jump, work)
    assert work.sessions == 1 + limits.ARCHIVED_SESSIONS_MAX
    assert work.exchanges <= work.sessions
    assert 0 < work.chain_steps <= work.sessions * 2 * (limits.SKIP_AHEAD_MAX + 1)


@pytest.mark.attack(21, 24)
def test_a_thousand_forgeries_change_nothing() -> None:
    alice, bob = support.talking()
    for _ in range(3):
        alice.send(bob.address, b"lost")
    message = alice.send(bob.address, b"good")
    seed = 21
    print(f"seed {seed}")
    chance = random.Random(seed)
    before = bob.records[alice.address]
    for _ in range(1_000):
        body = bytearray(message.body)
        for _ in range(chance.randint(1, 3)):
            body[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
        if bytes(body) == message.body:
            continue
        with pytest.raises(RemoteError):
            bob.decrypt(alice.address, Ciphertext(chance.choice(list(MessageKind)), bytes(body)))
    assert bob.records[alice.address] == before
    assert bob.receive(alice.address, message) == b"good"


@pytest.mark.attack(24)
def test_every_bit_of_a_message_counts() -> None:
    alice, bob = support.talking()
    message = alice.send(bob.address, b"good")
    for bit in range(8 * len(message.body)):
        body = bytearray(message.body)
        body[bit // 8] ^= 1 << bit % 8
        with pytest.raises(RemoteError):
            bob.decrypt(alice.address, Ciphertext(message.kind, bytes(body)))
    assert bob.receive(alice.address, message) == b"good"


@pytest.mark.attack(24)
@pytest.mark.parametrize("kind", list(MessageKind))
def test_rubbish_under_either_kind(kind: MessageKind) -> None:
    alice, bob = support.talking()
    other = Device("carol")
    for body in (b"", b"\x44", b"\x44" * 100, bytes(2_000), alice.send(bob.address, b"x").body[:-1]):
        refused(bob, alice, Ciphertext(kind, body))
        refused(bob, other, Ciphertext(kind, body))
    assert bob.receive(alice.address, alice.send(bob.address, b"good")) == b"good"


@pytest.mark.attack(24)
def test_a_message_of_the_other_kind_is_refused() -> None:
    alice, bob = support.pair()
    first = alice.send(bob.address, b"first")
    refused(bob, alice, Ciphertext(MessageKind.WHISPER, first.body))
    bob.receive(alice.address, first)
    answer = bob.send(alice.address, b"answer")
    refused(alice, bob, Ciphertext(MessageKind.PREKEY, answer.body))
    assert alice.receive(bob.address, answer) == b"answer"


@pytest.mark.attack(24)
def test_a_refused_prekey_message_keeps_the_session_it_would_replace() -> None:
    alice, bob = support.talking()
    mallory = Device("mallory")
    mallory.begin(bob.bundle())
    refused(bob, alice, mallory.send(bob.address, b"posing as Alice"))
    assert bob.receive(alice.address, alice.send(bob.address, b"good")) == b"good"


# --- 23: duplicates ---


@pytest.mark.attack(23)
def test_duplicates_are_told_from_forgeries() -> None:
    alice, bob = support.talking()
    delivered = [alice.send(bob.address, b"%d" % number) for number in range(4)]
    for message in (delivered[2], delivered[0], delivered[3]):
        bob.receive(alice.address, message)
        assert isinstance(refused(bob, alice, message), DuplicateMessage)
    alice.receive(bob.address, bob.send(alice.address, b"a step"))
    bob.receive(alice.address, alice.send(bob.address, b"another"))
    for message in (delivered[2], delivered[0], delivered[3]):
        assert isinstance(refused(bob, alice, message), DuplicateMessage)
    assert bob.receive(alice.address, delivered[1]) == b"1"


@pytest.mark.attack(23, 25)
def test_a_message_of_an_archived_session_is_no_duplicate_of_the_current_one() -> None:
    """Its post-quantum index may have been used in the current session: only the ratchet key decides."""
    alice, bob = support.talking()
    late = [alice.send(bob.address, b"late %d" % number) for number in range(3)]
    alice.begin(bob.bundle())
    for number in range(10):
        bob.receive(alice.address, alice.send(bob.address, b"new session %d" % number))
    assert bob.receive(alice.address, late[1]) == b"late 1"
    assert isinstance(refused(bob, alice, late[1]), DuplicateMessage)
    assert bob.receive(alice.address, late[0]) == b"late 0"


# --- 25: both begin ---


@pytest.mark.attack(25)
@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("AB"), st.sampled_from(["send", "receive", "receive", "last", "begin"])),
        max_size=40,
    )
)
def test_simultaneous_initiation_shows_every_message_once_and_converges(steps: list[tuple[str, str]]) -> None:
    """Any interleaving of sends, deliveries in and out of order and fresh sessions on both sides."""
    devices = {"A": Device("alice"), "B": Device("bob")}
    bundles = {name: [device.bundle() for _ in range(4)] for name, device in devices.items()}
    peers = {"A": "B", "B": "A"}
    for name, device in devices.items():
        device.begin(bundles[peers[name]].pop())
    queues: dict[str, list[tuple[bytes, Ciphertext]]] = {"A": [], "B": []}  # by recipient
    number = 0
    for name, step in steps:
        device, peer = devices[name], devices[peers[name]]
        if step == "begin" and bundles[peers[name]]:
            device.begin(bundles[peers[name]].pop())
        elif step == "send":
            number += 1
            plaintext = b"%s %d" % (name.encode(), number)
            queues[peers[name]].append((plaintext, device.send(peer.address, plaintext)))
        elif step in ("receive", "last") and queues[name]:
            expected, message = queues[name].pop(0 if step == "receive" else -1)
            assert device.receive(peer.address, message) == expected
            assert isinstance(refused(device, peer, message), DuplicateMessage)
    for name, queue in queues.items():
        device, peer = devices[name], devices[peers[name]]
        for expected, message in queue:
            assert device.receive(peer.address, message) == expected
    for _ in range(2):  # one round trip, then both have one session
        for name, device in devices.items():
            peer = devices[peers[name]]
            assert peer.receive(device.address, device.send(peer.address, b"settle")) == b"settle"
    base_keys = {
        record.handshake.base_key
        for name, device in devices.items()
        if (record := device.record(devices[peers[name]].address)) is not None
    }
    assert len(base_keys) == 1


# --- archived sessions ---


def test_archived_sessions_are_bounded_and_expire() -> None:
    alice, bob = support.talking()
    late = []
    for number in range(limits.ARCHIVED_SESSIONS_MAX + 1):
        late.append(alice.send(bob.address, b"late %d" % number))
        alice.begin(bob.bundle())
        bob.receive(alice.address, alice.send(bob.address, b"again"))
    record = bob.record(alice.address)
    assert record is not None
    assert len(record.archived) == limits.ARCHIVED_SESSIONS_MAX
    refused(bob, alice, late[0])
    assert bob.decrypt(alice.address, late[1]).plaintext == b"late 1"
    bob.now_ms += limits.ARCHIVED_SESSION_DAYS * DAY_MS
    refused(bob, alice, late[1])
    assert bob.receive(alice.address, alice.send(bob.address, b"current")) == b"current"


def test_an_unanswered_session_stops_sending() -> None:
    alice, bob = support.pair()
    alice.send(bob.address, b"first")
    alice.now_ms += limits.UNACKNOWLEDGED_SESSION_DAYS * DAY_MS + 1
    record = alice.record(bob.address)
    assert record is not None
    assert not record.can_send(alice.now_ms)
    with pytest.raises(LocalError):
        alice.send(bob.address, b"second")


# --- 31: reflection and misdelivery ---


@pytest.mark.attack(31)
def test_reflected_messages_are_refused() -> None:
    alice, bob = support.pair()
    first = alice.send(bob.address, b"first")
    refused(alice, bob, first)
    with pytest.raises(KeyRefused):
        alice.decrypt(bob.address, first)
    bob.receive(alice.address, first)
    alice.receive(bob.address, bob.send(alice.address, b"answer"))
    for sender, receiver in ((alice, bob), (bob, alice)):
        message = sender.send(receiver.address, b"out")
        refused(sender, receiver, message)
        assert receiver.receive(sender.address, message) == b"out"


@pytest.mark.attack(31)
def test_our_own_identity_is_nobody_elses() -> None:
    alice, bob = support.pair()
    mirrored = alice.send(bob.address, b"first")
    del alice.records[bob.address]
    assert refused(alice, bob, mirrored).code == "own-identity"
    with pytest.raises(KeyRefused) as error:
        alice.begin(replace(alice.bundle(), address=bob.address))
    assert error.value.code == "own-identity"


@pytest.mark.attack(7, 31)
def test_a_known_device_with_another_identity_is_refused() -> None:
    """Its keys and signatures are in order, its name is Alice's: only the identity that we know tells."""
    alice, bob = support.talking()
    impostor = Device("impostor")
    impostor.local = replace(impostor.local, address=alice.address)
    impostor.begin(bob.bundle())
    assert refused(bob, alice, impostor.send(bob.address, b"posing")).code == "identity-changed"
    before = bob.records[alice.address]
    with pytest.raises(KeyRefused) as error:
        bob.begin(impostor.bundle())
    assert error.value.code == "identity-changed"
    assert bob.records[alice.address] == before
    assert bob.receive(alice.address, alice.send(bob.address, b"good")) == b"good"


@pytest.mark.attack(31)
def test_a_message_under_another_senders_name_is_refused() -> None:
    """The relay names the sender: whisper and prekey messages both say no to another name."""
    alice, bob = support.talking()
    carol, bob_too = Device("carol"), Device("bob", 2)
    carol.begin(bob.bundle())
    bob.receive(carol.address, carol.send(bob.address, b"from Carol"))
    refused(bob, carol, alice.send(bob.address, b"from Alice"))
    alice.begin(bob.bundle())
    first = alice.send(bob.address, b"for Bob's first device")
    refused(bob, carol, first)
    refused(bob, bob_too, first)
    stranger = Device("dave")
    assert refused(bob, stranger, first).code == "wrong-address"
    assert bob.receive(alice.address, first) == b"for Bob's first device"


@pytest.mark.attack(31)
def test_a_prekey_message_for_another_device_is_refused() -> None:
    """Even if that device held the same keys: the addresses are inside the MAC."""
    alice, bob = support.pair()
    message = alice.send(bob.address, b"first")
    clone = Device("bob")
    clone.store = bob.store
    clone.local = replace(bob.local, address=replace(bob.address, device=2))
    assert refused(clone, alice, message).code == "wrong-address"


@pytest.mark.attack(31)
def test_prekey_messages_without_addresses_are_refused_unless_interoperating() -> None:
    alice, bob = support.pair()
    message = alice.send(bob.address, b"first")
    inner = lenient.value(message.body[1:], 4)
    assert isinstance(inner, bytes)
    bare = b"\x44" + lenient.replaced(inner[1:-8], {6: None}) + inner[-8:]
    without = Ciphertext(message.kind, b"\x44" + lenient.replaced(message.body[1:], {4: bare}))
    assert refused(bob, alice, without).code == "no-addresses"


@pytest.mark.attack(31)
def test_a_prekey_messages_wrapper_cannot_be_exchanged() -> None:
    """The wrapper has no MAC of its own: what it repeats is compared with the session."""
    alice, bob = support.pair()
    bob.receive(alice.address, alice.send(bob.address, b"first"))
    second = alice.send(bob.address, b"second")
    other_kem = b"\x08" + bytes(1568)
    for changes in ({1: 99}, {1: None}, {6: 99}, {7: 99}, {8: other_kem}):
        body = b"\x44" + lenient.replaced(second.body[1:], dict(changes))
        refused(bob, alice, Ciphertext(second.kind, body))
    assert bob.receive(alice.address, second) == b"second"


# --- 33: one error ---


@pytest.mark.attack(33)
def test_bad_mac_comes_before_bad_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever lacks the keys sees one refusal, whatever the ciphertext; its padding is not reached."""
    alice, bob = support.talking()
    message = alice.send(bob.address, b"x" * 40)

    def unreachable(*_: bytes) -> bytes:
        pytest.fail("the ciphertext was decrypted before its MAC was checked")

    seen = set()
    with monkeypatch.context() as patched:
        patched.setattr(triple_ratchet, "aes_cbc_decrypt", unreachable)
        for ciphertext in (b"", bytes(15), bytes(16), bytes(48), bytes(4_096)):
            error = refused(bob, alice, forged(message, {4: ciphertext}))
            seen.add((type(error), error.code, str(error)))
    assert len(seen) == 1
    assert bob.receive(alice.address, message) == b"x" * 40


@pytest.mark.attack(33)
def test_an_insiders_bad_padding_is_a_refusal_too(monkeypatch: pytest.MonkeyPatch) -> None:
    alice, bob = support.talking()
    for ciphertext in (b"", bytes(15), bytes(16)):
        with monkeypatch.context() as patched:
            patched.setattr(triple_ratchet, "aes_cbc_encrypt", lambda *_, out=ciphertext: out)
            message = alice.send(bob.address, b"x")
        assert isinstance(refused(bob, alice, message), DecryptionFailed)
    assert bob.receive(alice.address, alice.send(bob.address, b"good")) == b"good"


@pytest.mark.attack(33)
@pytest.mark.parametrize("module", [triple_ratchet, braid], ids=lambda module: module.__name__)
def test_macs_are_compared_in_constant_time(module: object) -> None:
    """No ``==`` or ``!=`` on anything named mac: ``primitives.equal`` is ``hmac.compare_digest``."""
    assert "compare_digest" in inspect.getsource(primitives.equal)
    tree = ast.parse(inspect.getsource(module))  # type: ignore[arg-type]
    compared = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Compare)]
    assert not [text for text in compared if "mac" in text.lower()]
    assert "equal(" in inspect.getsource(module)  # type: ignore[arg-type]


@pytest.mark.attack(33)
def test_errors_and_values_show_no_secret() -> None:
    alice, bob = support.talking()
    record = bob.record(alice.address)
    assert record is not None
    message = alice.send(bob.address, b"a plaintext canary")
    decrypted = bob.decrypt(alice.address, message)
    private = bob.identity.seed
    shown: list[Callable[[], object]] = [
        lambda: record,
        lambda: record.current,
        lambda: decrypted,
        lambda: bob.identity,
        lambda: bob.local,
        lambda: refused(bob, alice, forged(message, {4: bytes(16)})),
    ]
    assert record.current is not None
    double = record.current.ratchet[0]
    secrets = [private, double.root, double.chain_key, double.own.private, b"a plaintext canary"]
    for value in shown:
        text = repr(value()) + str(value())
        for secret in filter(None, secrets):
            assert secret.hex() not in text
            assert repr(secret)[2:-1] not in text
