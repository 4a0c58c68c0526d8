"""Key pairs: what they are made of, what they refuse, and that they show nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lokket.crypto import keys
from lokket.crypto.keys import Ed25519KeyPair, MLDSAKeyPair, MLKEMKeyPair, X25519KeyPair
from lokket.crypto.primitives import aes_cbc_decrypt, aes_cbc_encrypt, aes_gcm_siv_open, aes_gcm_siv_seal
from lokket.crypto.xeddsa import IdentityKeyPair, check_identity_key, verify_xeddsa
from lokket.errors import DecryptionFailed, KeyRefused, LocalError, SignatureRefused
from lokket.system import SystemEntropy
from tests.support.refusals import refusal

SEED = bytes(range(32))
PAIRS: list[tuple[Callable[..., Any], int]] = [
    (X25519KeyPair, 32),
    (Ed25519KeyPair, 32),
    (lambda *seed: MLDSAKeyPair(44, *seed), 32),
    (lambda *seed: MLDSAKeyPair(65, *seed), 32),
    (lambda *seed: MLKEMKeyPair(768, *seed), 64),
    (lambda *seed: MLKEMKeyPair(1024, *seed), 64),
]


@pytest.mark.parametrize(("make", "size"), PAIRS)
def test_a_pair_is_made_of_its_seed_alone(make: Callable[..., Any], size: int) -> None:
    pair = make(bytes(size))
    assert pair.public == make(bytes(size)).public != make(b"\x01" * size).public
    assert make(bytes(size), b"given").public == b"given"  # nothing is loaded to answer
    for wrong in (size - 1, size + 1):
        with refusal(LocalError):
            make(bytes(wrong))


@pytest.mark.parametrize(("make", "size"), PAIRS)
def test_a_pair_shows_eight_digits_of_its_public_key(make: Callable[..., Any], size: int) -> None:
    pair = make(b"\x5a" * size)
    shown = repr(pair)
    assert shown.startswith(type(pair).__name__ + "(")
    assert shown.endswith(f"{pair.public.hex()[:8]}…)")
    assert "5a5a" not in shown


def test_a_pair_that_was_never_loaded_has_no_known_public_key() -> None:
    pair = X25519KeyPair(SEED)
    assert pair.known_public is None
    public = pair.public
    assert pair.known_public == public
    assert X25519KeyPair(SEED, b"p" * 32).known_public == b"p" * 32


@pytest.mark.parametrize("level", [43, 66, 768])
def test_levels_that_are_none(level: int) -> None:
    with refusal(LocalError):
        MLDSAKeyPair(level, SEED)
    with refusal(LocalError):
        MLKEMKeyPair(level - 256, 2 * SEED)


def test_exchanges_with_what_is_no_key() -> None:
    pair = X25519KeyPair(SEED)
    for public in (b"", bytes(31), bytes(33), bytes(32)):
        with refusal(KeyRefused):
            pair.exchange(public)
    with refusal(DecryptionFailed):
        MLKEMKeyPair(768, 2 * SEED).decapsulate(bytes(1087))


def test_a_signature_is_of_one_message_one_key_and_one_length() -> None:
    signer, other = Ed25519KeyPair(SEED), Ed25519KeyPair(bytes(32))
    signature = signer.sign(b"m")
    keys.verify_ed25519(signer.public, signature, b"m")
    for public, changed, message in (
        (signer.public, signature, b"n"),
        (other.public, signature, b"m"),
        (signer.public, signature[:-1], b"m"),
        (signer.public[:-1], signature, b"m"),
    ):
        with refusal(SignatureRefused):
            keys.verify_ed25519(public, changed, message)


@pytest.mark.parametrize("level", [44, 65])
def test_an_mldsa_signature_has_a_level_and_a_context(level: int) -> None:
    pair = MLDSAKeyPair(level, SEED)
    signature = SystemEntropy().sign_mldsa(pair, b"m", b"c")
    assert (len(pair.public), len(signature)) == (
        keys.MLDSA_PUBLIC_BYTES[level],
        keys.MLDSA_SIGNATURE_BYTES[level],
    )
    keys.check_mldsa_public(level, pair.public)
    keys.verify_mldsa(level, pair.public, signature, b"m", b"c")
    for other_level, public, changed, message, context in (
        (109 - level, pair.public, signature, b"m", b"c"),
        (level, MLDSAKeyPair(level, bytes(32)).public, signature, b"m", b"c"),
        (level, pair.public[:-1], signature, b"m", b"c"),
        (level, pair.public, signature[:-1], b"m", b"c"),
        (level, pair.public, signature, b"n", b"c"),
        (level, pair.public, signature, b"m", b"d"),
    ):
        with refusal(SignatureRefused):
            keys.verify_mldsa(other_level, public, changed, message, context)
    for public in (pair.public[:-1], pair.public + b"\x00", pair.public[:32] + bytes(len(pair.public) - 32)):
        with refusal(KeyRefused):
            keys.check_mldsa_public(level, public)
    keys.check_mldsa_public(level, bytes(len(pair.public) - 1) + b"\x01")
    keys.check_mldsa_public(level, bytes(32) + b"\x01" + bytes(len(pair.public) - 33))


def test_an_ed25519_key_of_either_sign_is_the_same_x25519_key() -> None:
    """The sign is no part of u; without it half of all identities would have another key."""
    signs = set()
    for number in range(20):
        seed = number.to_bytes(32, "big")
        public = Ed25519KeyPair(seed).public
        signs.add(public[31] >> 7)
        keys.check_ed25519_public(public)
        scalar = keys.x25519_scalar_from_ed25519_seed(seed)
        assert keys.montgomery_from_ed25519(public) == X25519KeyPair(scalar).public
        assert scalar[0] & 7 == 0
        assert scalar[31] >> 6 == 1  # clamped as stored, too: RFC 8032 section 5.1.5
    assert signs == {0, 1}


@pytest.mark.parametrize(
    "encoding",
    [
        (keys.P).to_bytes(32, "little"),
        (keys.P + 3).to_bytes(32, "little"),
        (keys.P - 1).to_bytes(32, "little"),
        (1).to_bytes(32, "little"),
        (1 | 1 << 255).to_bytes(32, "little"),
        (0).to_bytes(32, "little"),
        b"\x07" * 31,
    ],
)
def test_what_is_no_ed25519_key(encoding: bytes) -> None:
    with refusal(KeyRefused):
        keys.check_ed25519_public(encoding)


@pytest.mark.parametrize("number", [0, 1, keys.P - 1, keys.P, keys.P + 1, 2**255 + 9])
def test_what_is_no_x25519_key(number: int) -> None:
    with refusal(KeyRefused):
        keys.check_x25519_encoding(number.to_bytes(32, "little"))
    with refusal(KeyRefused):
        keys.check_x25519_public(number.to_bytes(32, "little"))


def test_the_largest_and_smallest_encodings_that_pass() -> None:
    """Canonical is all that the first check asks: 2 is on the twist, P - 2 on the curve."""
    for number in (2, keys.P - 2):
        keys.check_x25519_encoding(number.to_bytes(32, "little"))


def test_of_identities() -> None:
    identity = IdentityKeyPair(SEED)
    signature = identity.sign(b"m")
    assert identity.public[:1] == b"\x05"
    assert repr(identity) == f"IdentityKeyPair({identity.public.hex()[2:10]}…)"
    for key in (identity.public[1:], b"\x06" + identity.public[1:], identity.public + b"\x00", b""):
        with refusal(KeyRefused):
            check_identity_key(key)
        with refusal(KeyRefused):
            verify_xeddsa(key, signature, b"m")
    for changed in (signature[:-1], signature + b"\x00"):
        with refusal(SignatureRefused):
            verify_xeddsa(identity.public, changed, b"m")
    for u in (keys.P - 1, keys.P):
        with refusal(KeyRefused):
            verify_xeddsa(b"\x05" + u.to_bytes(32, "little"), signature, b"m")
    with refusal(SignatureRefused):
        verify_xeddsa(b"\x05" + (keys.P - 2).to_bytes(32, "little"), signature, b"m")


def test_of_ciphers() -> None:
    sealed = aes_gcm_siv_seal(SEED, b"text")
    assert aes_gcm_siv_open(SEED, sealed) == b"text"
    for key, changed in ((bytes(32), sealed), (SEED, sealed[:-1]), (SEED, b""), (SEED, sealed + b"\x00")):
        with refusal(DecryptionFailed, "bad-tag"):
            aes_gcm_siv_open(key, changed)
    for ciphertext in (b"", bytes(15), bytes(16)):
        with refusal(DecryptionFailed, "bad-padding"):
            aes_cbc_decrypt(SEED, bytes(16), ciphertext)
    for key in (SEED[:16], SEED + b"\x00"):
        with pytest.raises(ValueError, match="32 bytes"):
            aes_cbc_encrypt(key, bytes(16), b"text")
