"""Rows 4 to 11 and 17: what a relay or a thief can do to a handshake, and what each try gives."""

from __future__ import annotations

import os
from dataclasses import fields, replace

import pytest

from lokket.crypto.keys import MLKEMKeyPair, X25519KeyPair
from lokket.errors import (
    DecodeError,
    DecryptionFailed,
    DuplicateMessage,
    KeyRefused,
    RemoteError,
    SignatureRefused,
)
from lokket.protocol import pairwise
from lokket.protocol.pairwise import Ciphertext, IdentityKeyPair, LocalDevice, PreKeyBundle, pqxdh
from lokket.system import SystemEntropy
from tests.support import pairwise as support
from tests.support import points
from tests.support import protobuf as lenient
from tests.support.pairwise import Device
from tests.support.refusals import refusal

MESSAGE, KEM_ID, KEM_CIPHERTEXT = 4, 7, 8  # fields of a prekey message


def changed(message: Ciphertext, changes: dict[int, int | bytes | None]) -> Ciphertext:
    return Ciphertext(message.kind, b"\x44" + lenient.replaced(message.body[1:], changes))


def flipped(data: bytes, bit: int) -> bytes:
    out = bytearray(data)
    out[bit // 8] ^= 1 << bit % 8
    return bytes(out)


def field(message: Ciphertext, number: int) -> bytes:
    found = lenient.value(message.body[1:], number)
    assert isinstance(found, bytes)
    return found


def begin(bundle: PreKeyBundle, device: Device | None = None) -> pairwise.SessionRecord:
    alice = device or Device("alice")
    return pairwise.begin(None, alice.local, bundle, alice.now_ms, alice.entropy)


# --- 4: a KEM ciphertext was tampered with ---


@pytest.mark.attack(4)
@pytest.mark.parametrize("one_time", [True, False])
def test_a_tampered_kem_ciphertext_shows_as_a_bad_mac_and_costs_no_prekey(one_time: bool) -> None:
    alice, bob = support.pair(one_time=one_time)
    message = alice.send(bob.address, b"first")
    ciphertext = field(message, KEM_CIPHERTEXT)
    inner = field(message, MESSAGE)
    with pytest.raises(DecryptionFailed) as bad_mac:
        bob.decrypt(alice.address, changed(message, {MESSAGE: flipped(inner, 8 * len(inner) - 1)}))
    for bit in (8, 4_000, 8 * 1568 + 7):
        with pytest.raises(DecryptionFailed) as refused:
            bob.decrypt(alice.address, changed(message, {KEM_CIPHERTEXT: flipped(ciphertext, bit)}))
        assert (refused.value.code, str(refused.value)) == (bad_mac.value.code, str(bad_mac.value))
    assert not bob.records
    assert len(bob.store.one_time) == one_time
    decrypted = bob.decrypt(alice.address, message)
    assert (decrypted.plaintext, decrypted.new_session) == (b"first", True)
    assert (decrypted.used.one_time_prekey_id is not None) is one_time


# --- 5: a KEM secret was moved to another KEM key ---


@pytest.mark.attack(5)
def test_reencapsulation_changes_the_transcript(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a KEM that binds nothing, libsignal's key schedule agrees and only the transcript tells."""
    monkeypatch.setattr(MLKEMKeyPair, "decapsulate", lambda _, __: b"k" * 32)
    monkeypatch.setattr(SystemEntropy, "encapsulate", lambda _, __: (b"k" * 32, bytes(1568)))
    monkeypatch.setattr(pqxdh, "_kyber_secret", lambda secret, _: secret)
    alice, bob = Device("alice"), Device("bob")
    first, second = bob.bundle(), bob.bundle()
    alice.begin(first)
    message = alice.send(bob.address, b"first")
    moved = changed(message, {KEM_ID: second.kem_prekey_id, KEM_CIPHERTEXT: b"\x08" + b"\x01" * 1568})
    decrypted = bob.decrypt(alice.address, moved)
    assert decrypted.plaintext == b"first"  # nothing in libsignal's bytes stops it
    record = alice.record(bob.address)
    assert record is not None
    ours, theirs = record.handshake, decrypted.handshake
    assert theirs is not None
    differing = {one.name for one in fields(ours) if getattr(ours, one.name) != getattr(theirs, one.name)}
    assert differing == {"kem_prekey_id", "kem_prekey_hash", "kem_ciphertext_hash"}


@pytest.mark.attack(5)
def test_both_sides_have_one_transcript() -> None:
    for one_time in (True, False):
        alice, bob = support.pair(one_time=one_time)
        decrypted = bob.decrypt(alice.address, alice.send(bob.address, b"first"))
        record = alice.record(bob.address)
        assert record is not None
        assert record.handshake == decrypted.handshake
        assert record.handshake == decrypted.record.handshake
        assert (record.handshake.one_time_prekey is not None) is one_time


# --- 6: a key in the wrong slot ---


@pytest.mark.attack(6)
def test_keys_and_signatures_of_other_slots() -> None:
    bob = Device("bob")
    honest = bob.bundle()
    begin(honest)
    ec, kem, one_time = honest.signed_prekey, honest.kem_prekey, honest.one_time_prekey
    of_ec, of_kem = honest.signed_prekey_signature, honest.kem_prekey_signature
    sign = bob.identity.sign
    wrong = [
        replace(honest, signed_prekey=kem, signed_prekey_signature=of_kem),
        replace(honest, kem_prekey=ec, kem_prekey_signature=of_ec),
        replace(honest, one_time_prekey=kem),
        replace(honest, signed_prekey_signature=of_kem),
        replace(honest, kem_prekey_signature=of_ec),
        replace(honest, signed_prekey=one_time),  # an unsigned key in a signed slot
        replace(honest, signed_prekey=honest.identity_key),
        replace(honest, kem_prekey=b"\x08" + ec + bytes(1535)),
        # an EC key, an ML-KEM type byte or a Kyber-768 key in the KEM slot, even signed
        replace(honest, kem_prekey=ec, kem_prekey_signature=sign(ec)),
        replace(honest, kem_prekey=b"\x0a" + kem[1:], kem_prekey_signature=sign(b"\x0a" + kem[1:])),
        replace(honest, kem_prekey=kem[:1185], kem_prekey_signature=sign(kem[:1185])),
        # a KEM key or a bare key in an EC slot, even signed
        replace(honest, signed_prekey=b"\x08" + ec[1:], signed_prekey_signature=sign(b"\x08" + ec[1:])),
        replace(honest, signed_prekey=ec[1:], signed_prekey_signature=sign(ec[1:])),
        replace(honest, identity_key=honest.identity_key[1:]),
        replace(honest, identity_key=b"\x08" + honest.identity_key[1:]),
        replace(honest, one_time_prekey=None),
        replace(honest, one_time_prekey_id=None),
    ]
    for bundle in wrong:
        with pytest.raises(RemoteError):
            begin(bundle)


def test_numbers_of_a_bundle_are_in_their_range() -> None:
    honest = Device("bob").bundle()
    ids = ("signed_prekey_id", "kem_prekey_id", "one_time_prekey_id")
    for name, most in (("registration_id", 0x3FFF), *((name, 2**32 - 1) for name in ids)):
        for number in (0, most):
            begin(replace(honest, **{name: number}))
        for number in (-1, most + 1):
            with refusal(DecodeError):
                begin(replace(honest, **{name: number}))


@pytest.mark.attack(6)
def test_a_kem_key_that_is_not_reduced_is_refused_even_signed() -> None:
    bob = Device("bob")
    key = b"\x08" + b"\xff" * 1536 + bytes(32)
    with pytest.raises(KeyRefused):
        begin(replace(bob.bundle(), kem_prekey=key, kem_prekey_signature=bob.identity.sign(key)))


@pytest.mark.attack(6)
def test_an_ed25519_key_is_no_identity_key() -> None:
    """The same 32 bytes mean another point: about half are off the curve, the rest fail the signatures."""
    for number in range(20):
        bob = Device(f"bob {number}")
        bundle = bob.bundle()
        as_ed25519 = b"\x05" + points.edwards(bundle.identity_key[1:])
        with pytest.raises((KeyRefused, SignatureRefused)):
            begin(replace(bundle, identity_key=as_ed25519))


@pytest.mark.attack(6)
def test_prekey_ids_of_other_slots_open_nothing() -> None:
    alice, bob = support.pair()
    message = alice.send(bob.address, b"first")
    ids = {number: lenient.value(message.body[1:], number) for number in (1, 6, 7)}
    for number, honest in ids.items():
        for other in ids.values():
            if other != honest:
                assert isinstance(other, int)
                with pytest.raises(DecryptionFailed):
                    bob.decrypt(alice.address, changed(message, {number: other}))
    assert bob.receive(alice.address, message) == b"first"


# --- 7: signatures over prekeys ---


@pytest.mark.attack(7)
@pytest.mark.parametrize("slot", ["signed_prekey_signature", "kem_prekey_signature"])
def test_every_bit_of_a_prekey_signature_counts(slot: str) -> None:
    bundle = Device("bob").bundle()
    honest = getattr(bundle, slot)
    for bit in range(512):
        with pytest.raises(SignatureRefused):
            begin(replace(bundle, **{slot: flipped(honest, bit)}))


@pytest.mark.attack(7)
@pytest.mark.parametrize("slot", ["signed_prekey", "kem_prekey"])
def test_signatures_that_are_not_this_identitys(slot: str) -> None:
    bundle, other = Device("bob").bundle(), Device("mallory")
    key = getattr(bundle, slot)
    for signature in (
        b"",
        bytes(64),
        other.identity.sign(key),
        getattr(bundle, slot + "_signature") + b"\x00",
    ):
        with pytest.raises(SignatureRefused):
            begin(replace(bundle, **{slot + "_signature": signature}))
    with pytest.raises(SignatureRefused):
        begin(replace(bundle, identity_key=other.identity.public))


@pytest.mark.attack(7)
@pytest.mark.parametrize("slot", ["signed_prekey", "kem_prekey"])
def test_a_changed_prekey_is_refused(slot: str) -> None:
    bundle = Device("bob").bundle()
    other = Device("mallory").bundle()
    with pytest.raises(SignatureRefused):
        begin(replace(bundle, **{slot: getattr(other, slot)}))


# --- 9: key-compromise impersonation ---


class Impostor(IdentityKeyPair):
    """Claims Alice's identity key; for her half of the first exchange uses what was stolen from Bob."""

    def __init__(self, claimed: bytes, stolen: X25519KeyPair | IdentityKeyPair) -> None:
        super().__init__(b"\x66" * 32)
        self.__dict__["public"] = claimed
        self._stolen = stolen

    def exchange(self, their_public: bytes) -> bytes:
        return self._stolen.exchange(self.public[1:])


def impersonation(stolen_prekey: bool) -> bytes:
    """What Bob reads when a thief of his identity key (and his signed prekey) poses as Alice."""
    alice, bob = Device("alice"), Device("bob")
    bundle = bob.bundle(one_time=False)
    stolen = bob.store.signed[bundle.signed_prekey_id] if stolen_prekey else bob.identity
    thief = LocalDevice(Impostor(alice.identity.public, stolen), alice.local.registration_id, alice.address)
    entropy = SystemEntropy()
    record = pairwise.begin(None, thief, bundle, bob.now_ms, entropy)
    _, message = pairwise.encrypt(record, thief, b"it is me, Alice", bob.now_ms, entropy)
    return bob.decrypt(alice.address, message).plaintext


@pytest.mark.attack(9)
def test_bobs_identity_key_alone_does_not_let_a_thief_pose_as_alice() -> None:
    with pytest.raises(DecryptionFailed):
        impersonation(stolen_prekey=False)


@pytest.mark.attack(9)
def test_the_known_limit_identity_and_signed_prekey_do() -> None:
    """X3DH section 4.6: the reason why signed prekeys are rotated weekly and deleted after 45 days."""
    assert impersonation(stolen_prekey=True) == b"it is me, Alice"


# --- 10: the first message again ---


@pytest.mark.attack(10)
@pytest.mark.parametrize("one_time", [True, False])
def test_a_first_message_again_in_its_session_shows_nothing(one_time: bool) -> None:
    alice, bob = support.pair(one_time=one_time)
    messages = [alice.send(bob.address, b"%d" % number) for number in range(3)]
    for message in messages:
        bob.receive(alice.address, message)
    before = bob.records[alice.address]
    for message in messages:
        with pytest.raises(DuplicateMessage):
            bob.decrypt(alice.address, message)
    assert bob.records[alice.address] == before


@pytest.mark.attack(10)
def test_a_first_message_again_after_its_session_was_archived_makes_no_session() -> None:
    alice, bob = support.pair(one_time=False)
    first = alice.send(bob.address, b"first")
    bob.receive(alice.address, first)
    alice.begin(bob.bundle())
    bob.receive(alice.address, alice.send(bob.address, b"a newer session"))
    with pytest.raises(DuplicateMessage):
        bob.decrypt(alice.address, first)


@pytest.mark.attack(10)
def test_first_messages_can_be_remembered() -> None:
    """Without a one-time prekey, and its session gone, a copy opens again: that is the store's to stop.

    ``first_message_id`` is what it remembers: the same for every prekey message of a session, whatever
    a relay changes around it, and another one for every other session.
    """
    alice, bob = support.pair(one_time=False)
    first, second = alice.send(bob.address, b"1"), alice.send(bob.address, b"2")
    bob.receive(alice.address, first)
    del bob.records[alice.address]
    assert bob.decrypt(alice.address, first).new_session
    identifier = pairwise.inspect_prekey_message(first.body).first_message_id
    for same in (second, changed(first, {5: 1}), changed(first, {100: b"unknown field"})):
        assert pairwise.inspect_prekey_message(same.body).first_message_id == identifier
    alice.begin(bob.bundle(one_time=False))
    other = alice.send(bob.address, b"3")
    assert pairwise.inspect_prekey_message(other.body).first_message_id != identifier


# --- 11: one one-time prekey for two senders ---


@pytest.mark.attack(11)
def test_the_second_user_of_a_one_time_prekey_is_told_apart_and_harms_nothing() -> None:
    alice, carol, bob = Device("alice"), Device("carol"), Device("bob")
    bundle = bob.bundle()
    alice.begin(bundle)
    carol.begin(bundle)
    assert bob.receive(alice.address, alice.send(bob.address, b"from Alice")) == b"from Alice"
    assert not bob.store.one_time
    with pytest.raises(DecryptionFailed) as refused:
        bob.decrypt(carol.address, carol.send(bob.address, b"from Carol"))
    assert refused.value.code == "unknown-prekey"
    assert carol.address not in bob.records
    assert bob.receive(alice.address, alice.send(bob.address, b"still here")) == b"still here"
    carol.begin(bob.bundle())
    assert bob.receive(carol.address, carol.send(bob.address, b"again")) == b"again"


@pytest.mark.attack(11)
def test_a_one_time_prekey_is_consumed_only_by_a_message_that_opens() -> None:
    alice, bob = support.pair()
    message = alice.send(bob.address, b"first")
    for spoiled in (flipped(field(message, MESSAGE), 8 * 80), field(message, MESSAGE)[:-1]):
        with pytest.raises(RemoteError):
            bob.decrypt(alice.address, changed(message, {MESSAGE: spoiled}))
    decrypted = bob.decrypt(alice.address, message)
    assert decrypted.used.one_time_prekey_id in bob.store.one_time
    bob.receive(alice.address, message)
    assert not bob.store.one_time
    again = bob.decrypt(alice.address, alice.send(bob.address, b"second"))
    assert again.used.one_time_prekey_id is None


# --- 17: forked senders ---


@pytest.mark.attack(17)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_fork_repeats_nothing() -> None:
    entropy = SystemEntropy()
    alice, bob = Device("alice"), Device("bob")
    bundle = bob.bundle()

    def keys() -> bytes:
        record = pairwise.begin(None, alice.local, bundle, alice.now_ms, entropy)
        return record.handshake.base_key + record.handshake.kem_ciphertext_hash + entropy.draw(32)

    keys()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, keys())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    theirs = os.read(reading, 97)
    os.close(reading)
    ours = keys()
    assert len(theirs) == len(ours) == 97
    for part in (slice(0, 33), slice(33, 65), slice(65, 97)):
        assert theirs[part] != ours[part]
