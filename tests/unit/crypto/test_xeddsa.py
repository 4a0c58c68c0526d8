"""XEdDSA by Ed25519: our signatures verify under the X25519 key, and one identity serves both uses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lokket.crypto.keys import ORDER, Ed25519KeyPair, P, X25519KeyPair
from lokket.crypto.xeddsa import IdentityKeyPair, check_identity_key, verify_xeddsa
from lokket.errors import KeyRefused, LocalError, SignatureRefused
from tests.support.refusals import refusal

SEEDS = st.binary(min_size=32, max_size=32)


@given(SEEDS, st.binary(max_size=100))
def test_signatures_verify(seed: bytes, message: bytes) -> None:
    identity = IdentityKeyPair(seed)
    check_identity_key(identity.public)
    signature = identity.sign(message)
    verify_xeddsa(identity.public, signature, message)
    with refusal(SignatureRefused):
        verify_xeddsa(identity.public, signature, message + b"x")


def test_both_signs_of_the_edwards_key_occur() -> None:
    """The sign travels in the signature's top bit; without it half of all identities would not verify."""
    signs = set()
    for number in range(40):
        seed = number.to_bytes(32, "big")
        signs.add(IdentityKeyPair(seed).sign(b"m")[63] >> 7)
        assert IdentityKeyPair(seed).sign(b"m")[63] >> 7 == Ed25519KeyPair(seed).public[31] >> 7
    assert signs == {0, 1}


@given(SEEDS, SEEDS)
def test_an_identity_exchanges(seed: bytes, other: bytes) -> None:
    identity, peer = IdentityKeyPair(seed), X25519KeyPair(other)
    assert identity.exchange(peer.public) == peer.exchange(identity.public[1:])


def test_the_wrong_sign_is_refused() -> None:
    identity = IdentityKeyPair(b"\x05" * 32)
    signature = bytearray(identity.sign(b"m"))
    signature[63] ^= 0x80
    with refusal(SignatureRefused):
        verify_xeddsa(identity.public, bytes(signature), b"m")


@pytest.mark.attack(3)
def test_a_signature_has_one_form() -> None:
    """S + L is the same scalar; RFC 8032 section 5.1.7 refuses it."""
    identity = IdentityKeyPair(b"\x06" * 32)
    signature = identity.sign(b"m")
    scalar = int.from_bytes(signature[32:63] + bytes((signature[63] & 0x7F,)), "little") + ORDER
    other = bytearray(signature[:32] + scalar.to_bytes(32, "little"))
    other[63] |= signature[63] & 0x80
    with refusal(SignatureRefused):
        verify_xeddsa(identity.public, bytes(other), b"m")


@pytest.mark.parametrize("size", [0, 63, 65])
def test_a_signature_has_64_bytes(size: int) -> None:
    with refusal(SignatureRefused):
        verify_xeddsa(IdentityKeyPair(bytes(32)).public, bytes(size), b"m")


@pytest.mark.parametrize(
    "public",
    [
        b"",
        bytes(32),
        b"\x05" + bytes(31),
        b"\x06" + X25519KeyPair(b"\x01" * 32).public,
        b"\x05" + (P - 1).to_bytes(32, "little"),
        b"\x05" + P.to_bytes(32, "little"),
    ],
)
def test_keys_that_are_none(public: bytes) -> None:
    with refusal(KeyRefused):
        check_identity_key(public)
    with pytest.raises((KeyRefused, SignatureRefused)):
        verify_xeddsa(public, bytes(64), b"m")


def test_the_secret_hides() -> None:
    identity = IdentityKeyPair(b"\x07" * 32)
    assert b"\x07" * 32 not in repr(identity).encode()
    assert "07070707" not in repr(identity)
    with refusal(LocalError):
        IdentityKeyPair(b"short")
