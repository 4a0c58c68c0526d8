"""Rows 1 to 3 at the root: the import checks of ``lokket.crypto.keys``, for every degenerate encoding."""

from __future__ import annotations

import pytest

from lokket.crypto.keys import (
    ORDER,
    Ed25519KeyPair,
    X25519KeyPair,
    check_ed25519_public,
    check_x25519_encoding,
    check_x25519_public,
    montgomery_from_ed25519,
    verify_ed25519,
    x25519_scalar_from_ed25519_seed,
)
from lokket.errors import KeyRefused, SignatureRefused
from tests.support import points
from tests.support.refusals import refusal

SIGNER = Ed25519KeyPair(bytes(range(32)))
AGREER = X25519KeyPair(bytes(range(1, 33)))
HONEST_U = montgomery_from_ed25519(SIGNER.public)


def test_honest_keys_pass() -> None:
    check_ed25519_public(SIGNER.public)
    check_x25519_public(HONEST_U)
    check_x25519_public(AGREER.public)
    assert X25519KeyPair(x25519_scalar_from_ed25519_seed(SIGNER.seed)).public == HONEST_U


@pytest.mark.attack(1)
@pytest.mark.parametrize("point", points.LOW_ORDER_X25519, ids=bytes.hex)
def test_low_order_x25519_is_refused(point: bytes) -> None:
    with refusal(KeyRefused):
        check_x25519_encoding(point)
    with refusal(KeyRefused):
        check_x25519_public(point)
    with refusal(KeyRefused):
        AGREER.exchange(point)


@pytest.mark.attack(1)
def test_other_encodings_of_an_honest_key_are_refused() -> None:
    for encoding in (*points.non_canonical(HONEST_U), points.BASE_POINT_PLUS_P):
        with refusal(KeyRefused):
            check_x25519_encoding(encoding)
    assert AGREER.exchange(points.non_canonical(HONEST_U)[0]) == AGREER.exchange(HONEST_U)  # why it matters


@pytest.mark.attack(1)
def test_torsion_is_refused_where_the_subgroup_is_asked() -> None:
    for key in points.with_torsion(SIGNER.public):
        check_x25519_encoding(key)
        assert AGREER.exchange(key) == AGREER.exchange(HONEST_U)  # why it matters
        with refusal(KeyRefused):
            check_x25519_public(key)


@pytest.mark.attack(1)
def test_points_of_the_twist_are_refused_where_the_subgroup_is_asked() -> None:
    with refusal(KeyRefused):
        check_x25519_public((2).to_bytes(32, "little"))


@pytest.mark.attack(1)
@pytest.mark.parametrize("size", [0, 31, 33])
def test_wrong_lengths_are_refused(size: int) -> None:
    for check in (check_x25519_encoding, check_x25519_public, check_ed25519_public):
        with refusal(KeyRefused):
            check(b"\x09" * size)


@pytest.mark.attack(2)
@pytest.mark.parametrize("point", points.low_order_ed25519(), ids=bytes.hex)
def test_low_order_ed25519_is_refused(point: bytes) -> None:
    with refusal(KeyRefused):
        check_ed25519_public(point)


@pytest.mark.attack(2)
def test_mixed_order_ed25519_is_refused() -> None:
    for key in points.ed25519_with_torsion(SIGNER.public):
        with refusal(KeyRefused):
            check_ed25519_public(key)


@pytest.mark.attack(2)
def test_the_import_check_is_what_stops_a_forgery_for_every_message() -> None:
    neutral = (1).to_bytes(32, "little")
    forged = neutral + bytes(32)  # R neutral, S = 0: S*B = R + h*A for every h when A is neutral
    for message in (b"one", b"two"):
        verify_ed25519(neutral, forged, message)  # OpenSSL alone accepts
    with refusal(KeyRefused):
        check_ed25519_public(neutral)


@pytest.mark.attack(3)
def test_a_malleable_ed25519_signature_is_refused() -> None:
    signature = SIGNER.sign(b"message")
    verify_ed25519(SIGNER.public, signature, b"message")
    scalar = int.from_bytes(signature[32:], "little")
    for factor in (1, 2, 7, 15):
        moved = scalar + factor * ORDER
        if moved >= 1 << 256:
            continue
        with refusal(SignatureRefused):
            verify_ed25519(SIGNER.public, signature[:32] + moved.to_bytes(32, "little"), b"message")
