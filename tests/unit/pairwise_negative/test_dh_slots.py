"""Row 1: every slot that takes a peer's X25519 key refuses degenerate ones, and nothing changes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lokket.crypto.keys import X25519KeyPair
from lokket.errors import KeyRefused, RemoteError
from lokket.protocol import pairwise
from lokket.protocol.pairwise import Ciphertext, PreKeyBundle
from tests.support import pairwise as support
from tests.support import points
from tests.support import protobuf as lenient
from tests.support.pairwise import Device

pytestmark = pytest.mark.attack(1)

BASE_KEY, IDENTITY_KEY = 2, 3  # fields of a prekey message


def degenerate(honest: bytes) -> list[bytes]:
    """33-byte keys that no slot may take in the place of ``honest`` (33 bytes)."""
    encodings = (*points.LOW_ORDER_X25519, points.BASE_POINT_PLUS_P, *points.non_canonical(honest[1:]))
    return [b"\x05" + key for key in encodings]


def torsioned(honest: bytes) -> list[bytes]:
    """33-byte keys outside the prime-order subgroup that give the same secrets as ``honest``."""
    return [b"\x05" + key for key in points.with_torsion(points.edwards(honest[1:]))]


def refused_bundle(bundle: PreKeyBundle) -> None:
    alice = support.talking()[0]
    (remote,) = alice.records
    before = alice.records[remote]
    record = alice.record(remote)
    for known in (None, record):
        with pytest.raises(KeyRefused):
            pairwise.begin(known, alice.local, bundle, alice.now_ms, alice.entropy)
    assert record is not None
    assert record.encode() == before


def refused_message(receiver: Device, sender: Device, body: Ciphertext) -> None:
    """KeyRefused, with record and prekeys as they were."""
    record = receiver.record(sender.address)
    before = receiver.records.get(sender.address)
    prekeys = (dict(receiver.store.signed), dict(receiver.store.one_time), dict(receiver.store.kem))
    with pytest.raises(KeyRefused):
        pairwise.decrypt(
            record,
            receiver.local,
            sender.address,
            body,
            receiver.store,
            receiver.now_ms,
            receiver.entropy,
        )
    assert (record and record.encode()) == before
    assert (receiver.store.signed, receiver.store.one_time, receiver.store.kem) == prekeys


def test_identity_key_of_a_bundle() -> None:
    bundle = Device("bob").bundle()
    for key in degenerate(bundle.identity_key) + torsioned(bundle.identity_key):
        refused_bundle(replace(bundle, identity_key=key))


def test_signed_prekey_of_a_bundle() -> None:
    bob = Device("bob")
    bundle = bob.bundle()
    for key in degenerate(bundle.signed_prekey):  # even signed by Bob himself
        refused_bundle(replace(bundle, signed_prekey=key, signed_prekey_signature=bob.identity.sign(key)))


def test_one_time_prekey_of_a_bundle() -> None:
    bundle = Device("bob").bundle()
    assert bundle.one_time_prekey is not None
    for key in degenerate(bundle.one_time_prekey):
        refused_bundle(replace(bundle, one_time_prekey=key))


@pytest.mark.parametrize("field", [BASE_KEY, IDENTITY_KEY])
@pytest.mark.parametrize("known", [False, True], ids=["first contact", "in a session"])
def test_keys_of_a_prekey_message(field: int, known: bool) -> None:
    if known:
        bob, alice = support.talking()
        alice.records.clear()
        alice.begin(bob.bundle())
    else:
        alice, bob = support.pair()
    message = alice.send(bob.address, b"first")
    honest = lenient.value(message.body[1:], field)
    assert isinstance(honest, bytes)
    for key in degenerate(honest) + torsioned(honest):
        changed = b"\x44" + lenient.replaced(message.body[1:], {field: key})
        refused_message(bob, alice, Ciphertext(message.kind, changed))
    assert bob.receive(alice.address, message) == b"first"


@pytest.mark.parametrize("first", [True, False], ids=["in the first message", "later"])
def test_ratchet_key(first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sent by Alice herself, so that everything but the key's encoding is right, the MAC included."""
    alice, bob = support.pair() if first else support.talking()
    if not first:
        alice.receive(bob.address, bob.send(alice.address, b"so that Alice's next key is new to Bob"))
    record = alice.record(bob.address)
    assert record is not None
    honest = _ratchet_key(pairwise.encrypt(record, alice.local, b"x", alice.now_ms, alice.entropy)[1])
    for key in degenerate(honest):
        with monkeypatch.context() as patched:
            patched.setattr(X25519KeyPair, "public", property(lambda _, key=key: key[1:]))
            message = pairwise.encrypt(record, alice.local, b"x", alice.now_ms, alice.entropy)[1]
        assert _ratchet_key(message) == key
        refused_message(bob, alice, message)
    assert bob.receive(alice.address, alice.send(bob.address, b"honest")) == b"honest"


def test_an_old_chain_under_another_encoding_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    alice, bob = support.talking()
    bob.receive(alice.address, alice.send(bob.address, b"makes the chain"))
    record = alice.record(bob.address)
    assert record is not None
    honest = _ratchet_key(alice.send(bob.address, b"x"))
    for encoding in points.non_canonical(honest[1:]):
        with monkeypatch.context() as patched:
            patched.setattr(X25519KeyPair, "public", property(lambda _, key=encoding: key))
            message = pairwise.encrypt(record, alice.local, b"x", alice.now_ms, alice.entropy)[1]
        with pytest.raises(RemoteError):
            bob.decrypt(alice.address, message)


def _ratchet_key(message: Ciphertext) -> bytes:
    """The 33-byte ratchet key of a message, also inside a prekey message."""
    body = message.body
    if message.kind == pairwise.MessageKind.PREKEY:
        inner = lenient.value(body[1:], 4)
        assert isinstance(inner, bytes)
        body = inner
    key = lenient.value(body[1:-8], 1)
    assert isinstance(key, bytes)
    return key
