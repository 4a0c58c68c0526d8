"""The session binding: whatever the two sides do not share, their session ids do not share (attacks 5, 8)."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from lokket.crypto.keys import MLKEMKeyPair, X25519KeyPair
from lokket.crypto.primitives import sha256
from lokket.protocol.pairwise import Address, Handshake, IdentityKeyPair, PreKeyBundle
from lokket.protocol.pairwise.messages import PreKeyMessage
from lokket.protocol.pairwise.pqxdh import OurPreKeys, initiate, respond
from lokket.protocol.prekeys import session_id
from tests.support.entropy import SeededEntropy

INITIATOR = (b"a" * 32, b"A" * 32)
RESPONDER = (b"b" * 32, b"B" * 32)
MANIFEST = b"m" * 32
HANDSHAKE = Handshake(
    base_key=b"\x05" + b"1" * 32,
    signed_prekey_id=1,
    signed_prekey=b"\x05" + b"2" * 32,
    one_time_prekey_id=2,
    one_time_prekey=b"\x05" + b"3" * 32,
    kem_prekey_id=3,
    kem_prekey_hash=b"4" * 32,
    kem_ciphertext_hash=b"5" * 32,
    initiator_identity=b"\x05" + b"6" * 32,
    responder_identity=b"\x05" + b"7" * 32,
)


@pytest.mark.attack(5)
@pytest.mark.attack(8)
@pytest.mark.attack(31)
def test_every_input_changes_the_binding() -> None:
    ids = {session_id(HANDSHAKE, INITIATOR, RESPONDER, MANIFEST)}
    count = 1
    for changed in (
        {"base_key": b"\x05" + b"x" * 32},
        {"signed_prekey_id": 9},
        {"signed_prekey": b"\x05" + b"x" * 32},
        {"one_time_prekey_id": 9},
        {"one_time_prekey": b"\x05" + b"x" * 32},
        {"one_time_prekey_id": None, "one_time_prekey": None},
        {"kem_prekey_id": 9},
        {"kem_prekey_hash": b"x" * 32},
        {"kem_ciphertext_hash": b"x" * 32},
    ):
        ids.add(session_id(replace(HANDSHAKE, **changed), INITIATOR, RESPONDER, MANIFEST))
        count += 1
    for initiator, responder, manifest in (
        ((b"x" * 32, INITIATOR[1]), RESPONDER, MANIFEST),
        ((INITIATOR[0], b"x" * 32), RESPONDER, MANIFEST),  # device confusion
        (INITIATOR, (b"x" * 32, RESPONDER[1]), MANIFEST),  # unknown key share
        (INITIATOR, (RESPONDER[0], b"x" * 32), MANIFEST),
        (RESPONDER, INITIATOR, MANIFEST),  # reflection
        ((INITIATOR[1], INITIATOR[0]), RESPONDER, MANIFEST),
        (INITIATOR, RESPONDER, b"x" * 32),
    ):
        ids.add(session_id(HANDSHAKE, initiator, responder, manifest))
        count += 1
    assert len(ids) == count
    covered = {"initiator_identity", "responder_identity"}  # by the device hashes
    assert {field.name for field in fields(Handshake)} - covered == {
        "base_key", "signed_prekey_id", "signed_prekey", "one_time_prekey_id", "one_time_prekey",
        "kem_prekey_id", "kem_prekey_hash", "kem_ciphertext_hash",
    }  # fmt: skip


class NonBindingKEM(MLKEMKeyPair):
    """A KEM whose secret depends on the ciphertext alone: who knows it moves it to any other key."""

    def decapsulate(self, ciphertext: bytes) -> bytes:
        return sha256(ciphertext)


class NonBindingEntropy(SeededEntropy):
    def encapsulate(self, public_key: bytes) -> tuple[bytes, bytes]:
        ciphertext = self.draw(1568)
        return sha256(ciphertext), ciphertext


@pytest.mark.attack(5)
def test_re_encapsulation_to_another_kem_key_is_caught() -> None:
    """libsignal's key schedule agrees on every secret; the KEM keys differ, and so do the session ids."""
    entropy = NonBindingEntropy("re-encapsulation")
    alice, bob = IdentityKeyPair(entropy.draw(32)), IdentityKeyPair(entropy.draw(32))
    signed_prekey = X25519KeyPair(entropy.draw(32))
    compromised, other = NonBindingKEM(1024, entropy.draw(64)), NonBindingKEM(1024, entropy.draw(64))
    kem_prekey = b"\x08" + compromised.public
    spk = b"\x05" + signed_prekey.public
    bundle = PreKeyBundle(
        registration_id=1,
        address=Address(bytes(16), 1),
        identity_key=bob.public,
        signed_prekey_id=1,
        signed_prekey=spk,
        signed_prekey_signature=bob.sign(spk),
        kem_prekey_id=3,
        kem_prekey=kem_prekey,
        kem_prekey_signature=bob.sign(kem_prekey),
        one_time_prekey_id=None,
        one_time_prekey=None,
    )
    begun = initiate(alice, bundle, entropy)
    message = PreKeyMessage(
        registration_id=1,
        one_time_prekey_id=None,
        signed_prekey_id=1,
        kem_prekey_id=3,
        kem_ciphertext=begun.kem_ciphertext,
        base_key=begun.handshake.base_key,
        identity_key=alice.public,
        message=b"",
    )
    secrets, handshake = respond(bob, OurPreKeys(signed_prekey, None, other), message)
    assert secrets == begun.secrets, "the mock KEM is meant not to bind"
    ours = session_id(begun.handshake, INITIATOR, RESPONDER, MANIFEST)
    assert session_id(handshake, INITIATOR, RESPONDER, MANIFEST) != ours
    honest_secrets, honest = respond(bob, OurPreKeys(signed_prekey, None, compromised), message)
    assert honest_secrets == begun.secrets
    assert session_id(honest, INITIATOR, RESPONDER, MANIFEST) == ours
