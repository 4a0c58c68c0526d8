"""The split encapsulation against OpenSSL, which re-encrypts: equal secrets prove equal bytes.

FIPS 203 decapsulation compares the ciphertext with one of its own making and gives another secret if a
single bit differs, so each agreement here is agreement on every byte of the ciphertext.
"""

from __future__ import annotations

import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lokket.crypto import mlkem
from lokket.crypto.keys import MLKEMKeyPair
from lokket.errors import KeyRefused
from tests.support.refusals import refusal

SEEDS = st.binary(min_size=64, max_size=64)
MESSAGES = st.binary(min_size=32, max_size=32)


@given(SEEDS, MESSAGES)
def test_split_encapsulation_is_opened(seed: bytes, message: bytes) -> None:
    pair = MLKEMKeyPair(768, seed)
    header, vector = mlkem.header(pair.public), pair.public[: mlkem.VECTOR_768_BYTES]
    secret, ct1 = mlkem.encapsulate_1(header, message)
    mlkem.check_public_key(vector, header)
    ct2 = mlkem.encapsulate_2(vector, header, message)
    assert (len(ct1), len(ct2)) == (mlkem.CT1_768_BYTES, mlkem.CT2_768_BYTES)
    assert pair.decapsulate(ct1 + ct2) == secret


@pytest.mark.parametrize("level", [768, 1024])
@given(SEEDS, MESSAGES)
def test_whole_encapsulation_is_opened(level: int, seed: bytes, message: bytes) -> None:
    pair = MLKEMKeyPair(level, seed)
    secret, ciphertext = mlkem.encapsulate_with(pair.public, message)
    assert pair.decapsulate(ciphertext) == secret


def test_known_answer() -> None:
    """Fixed bytes, so that a change that OpenSSL would follow too does not pass unseen."""
    pair = MLKEMKeyPair(768, bytes(range(64)))
    secret, ciphertext = mlkem.encapsulate_with(pair.public, bytes(range(32)))
    assert hashlib.sha256(secret + ciphertext).hexdigest() == KNOWN_768


def test_the_parts_are_the_whole() -> None:
    pair = MLKEMKeyPair(768, b"\x07" * 64)
    header, vector = mlkem.header(pair.public), pair.public[: mlkem.VECTOR_768_BYTES]
    secret, ct1 = mlkem.encapsulate_1(header, b"m" * 32)
    whole = (secret, ct1 + mlkem.encapsulate_2(vector, header, b"m" * 32))
    assert whole == mlkem.encapsulate_with(pair.public, b"m" * 32)


def test_a_changed_ciphertext_gives_another_secret() -> None:
    pair = MLKEMKeyPair(768, b"\x01" * 64)
    secret, ciphertext = mlkem.encapsulate_with(pair.public, b"m" * 32)
    for place in (0, 500, 959, 960, 1087):
        changed = bytearray(ciphertext)
        changed[place] ^= 1
        assert pair.decapsulate(bytes(changed)) != secret


def test_a_key_must_match_its_header() -> None:
    pair, other = MLKEMKeyPair(768, b"\x01" * 64), MLKEMKeyPair(768, b"\x02" * 64)
    header, vector = mlkem.header(pair.public), pair.public[: mlkem.VECTOR_768_BYTES]
    with refusal(KeyRefused):
        mlkem.check_public_key(other.public[: mlkem.VECTOR_768_BYTES], header)
    with refusal(KeyRefused):
        mlkem.check_public_key(vector, mlkem.header(other.public))


@pytest.mark.parametrize("place", [0, 1, 255, 767])
def test_a_coefficient_of_q_or_more_is_refused(place: int) -> None:
    """FIPS 203 section 7.2, the modulus check: even when the hash of the header fits."""
    pair = MLKEMKeyPair(768, b"\x01" * 64)
    packed = int.from_bytes(pair.public[: mlkem.VECTOR_768_BYTES], "little")
    packed |= 0xFFF << 12 * place
    vector = packed.to_bytes(mlkem.VECTOR_768_BYTES, "little")
    header = mlkem.header(vector + pair.public[mlkem.VECTOR_768_BYTES :])
    with refusal(KeyRefused):
        mlkem.check_public_key(vector, header)
    with refusal(KeyRefused):
        mlkem.encapsulate_with(vector + pair.public[mlkem.VECTOR_768_BYTES :], b"m" * 32)


@pytest.mark.parametrize("size", [0, 1183, 1185, 1567, 1569])
def test_a_key_of_another_length_is_refused(size: int) -> None:
    with refusal(KeyRefused):
        mlkem.encapsulate_with(bytes(size), b"m" * 32)


@pytest.mark.parametrize("lanes", [1, 2, 6, 9, 12])
@pytest.mark.parametrize("forward", [True, False])
def test_no_lane_overflows(lanes: int, forward: bool) -> None:
    """The bounds that the plan assumes, recomputed from its own offsets and folds."""
    largest = mlkem.Q + 2 if forward else mlkem._PRODUCT_MAX
    for number, layer in enumerate(mlkem._plan(lanes, forward)):
        for bit, _, _, factor in layer.folds:
            largest = (1 << bit) - 1 + (largest >> bit) * factor
            assert factor == (1 << bit) % mlkem.Q
        offset = layer.offset & (1 << 64) - 1
        assert offset % mlkem.Q == 0
        if forward:
            assert offset >= largest * (mlkem.Q - 1)
            largest = (largest * mlkem._INVERSE_128 if number == 0 else largest) + offset
        else:
            assert offset >= largest
            largest = max(2 * largest, (largest + offset) * max(layer.zetas))
        assert largest < 1 << 64


@pytest.mark.parametrize("bits", [4, 5, 10, 11])
def test_rounding_is_exact_for_every_lane(bits: int) -> None:
    """Compress of FIPS 203 by multiplication and shift, up to the largest value that a lane can have."""
    shift, reciprocal, rounding, mask = mlkem._compression(1, bits)
    largest = mlkem._folds(mlkem._ROUNDED_BITS, 1, (1 << 64) - 1)[1] + 4 + (mlkem.Q + 1) // 2
    assert ((largest << bits) + rounding) * reciprocal < 1 << 64
    for value in (*range(3 * mlkem.Q), *range(largest - 3 * mlkem.Q, largest + 1)):
        exact = (((value - 2) % mlkem.Q << bits) + mlkem.Q // 2) // mlkem.Q % (1 << bits)
        assert (((value << bits) + rounding) * reciprocal >> shift) & mask == exact


@given(st.lists(st.integers(0, (1 << 64) - 1), min_size=1, max_size=9))
def test_folds_keep_values_modulo_q(values: list[int]) -> None:
    packed = sum(value << 64 * place for place, value in enumerate(values))
    for bits in (mlkem._LAYER_BITS, mlkem._ROUNDED_BITS, mlkem._FACTOR_BITS):
        bound = mlkem._folds(bits, 1, (1 << 64) - 1)[1]
        small = mlkem._shrunk(packed, len(values), bits)
        for place, value in enumerate(values):
            lane = small >> 64 * place & (1 << 64) - 1
            assert lane <= bound
            assert lane % mlkem.Q == value % mlkem.Q


def test_sampling_goes_on_when_three_blocks_do_not_suffice() -> None:
    """A cell in about a hundred needs more of its stream (FIPS 203 algorithm 7)."""
    for number in range(500):
        rho = number.to_bytes(32, "big")
        seeds = [rho + bytes((row, column)) for column in range(3) for row in range(3)]
        streams = [hashlib.shake_128(seed).digest(168 * 24) for seed in seeds]
        if all(len(reference_sample(stream[: 168 * 3])) == mlkem.N for stream in streams):
            continue
        wanted = [struct.pack("<256I", *reference_sample(stream)) for stream in streams]
        assert mlkem._matrix(rho, 3) == [wanted[:3], wanted[3:6], wanted[6:]]
        return
    pytest.fail("no such cell among 4500")


def reference_sample(stream: bytes) -> list[int]:
    out: list[int] = []
    for place in range(0, len(stream), 3):
        first, second, third = stream[place : place + 3]
        for value in (first + 256 * (second % 16), second // 16 + 16 * third):
            if value < mlkem.Q and len(out) < mlkem.N:
                out.append(value)
    return out


KNOWN_768 = "54ab783b8a72ffcb87976fb19668f6d20a05e7ea1bdc3fbf5151c9c8dea95fdf"
