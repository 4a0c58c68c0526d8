"""Fingerprints: symmetric, sensitive to every input, and scanned codes are decoded strictly."""

from __future__ import annotations

import pytest

from lokket.crypto.xeddsa import IdentityKeyPair
from lokket.errors import DecodeError, LocalError
from lokket.protocol import fingerprint

ALICE = (b"alice", IdentityKeyPair(b"\x01" * 32).public)
BOB = (b"bob", IdentityKeyPair(b"\x02" * 32).public)
MALLORY = (b"bob", IdentityKeyPair(b"\x03" * 32).public)
FEW = 8  # iterations, so that the test is quick


def test_both_sides_show_the_same_digits() -> None:
    shown = fingerprint.displayable(2, *ALICE, *BOB, FEW)
    assert (
        shown
        == fingerprint.displayable(2, *BOB, *ALICE, FEW)
        == fingerprint.displayable(1, *BOB, *ALICE, FEW)
    )
    assert len(shown) == 60
    assert shown.isdecimal()


def test_every_input_counts() -> None:
    shown = {
        fingerprint.displayable(2, *ALICE, *BOB, FEW),
        fingerprint.displayable(2, *ALICE, *MALLORY, FEW),
        fingerprint.displayable(2, *ALICE, b"bop", BOB[1], FEW),
        fingerprint.displayable(2, *ALICE, *BOB, FEW + 1),
    }
    assert len(shown) == 4


def test_codes_compare_mirrored() -> None:
    own, their = fingerprint.scannable(2, *ALICE, *BOB, FEW), fingerprint.scannable(2, *BOB, *ALICE, FEW)
    assert fingerprint.compare_scannable(own, their)
    assert not fingerprint.compare_scannable(own, own)
    assert not fingerprint.compare_scannable(own, fingerprint.scannable(2, *MALLORY, *ALICE, FEW))
    with pytest.raises(DecodeError):
        fingerprint.compare_scannable(own, fingerprint.scannable(1, *BOB, *ALICE, FEW))


def test_malformed_codes_are_refused() -> None:
    own = fingerprint.scannable(2, *ALICE, *BOB, FEW)
    for size in range(len(own)):
        with pytest.raises(DecodeError):
            fingerprint.compare_scannable(own, own[:size])
    with pytest.raises(DecodeError):
        fingerprint.compare_scannable(own, own + own)


@pytest.mark.parametrize(("version", "iterations"), [(0, FEW), (3, FEW), (2, 0), (2, 1_000_001)])
def test_our_own_misuse(version: int, iterations: int) -> None:
    with pytest.raises(LocalError):
        fingerprint.scannable(version, *ALICE, *BOB, iterations)
    with pytest.raises(LocalError):
        fingerprint.displayable(version, *ALICE, *BOB, iterations)
