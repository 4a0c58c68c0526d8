"""Any n chunks give the message; the field is the one that libsignal's chunks were recorded with."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lokket.crypto import erasure
from lokket.errors import DecodeError
from tests.support.refusals import refusal

SIZES = [3, 5, 30, 36]  # chunks of a header, of ct2, of ct1, of a key


def multiply(left: int, right: int) -> int:
    """GF(2^16) by the school method."""
    product = 0
    while right:
        if right & 1:
            product ^= left
        right >>= 1
        left <<= 1
        if left >> 16:
            left ^= 0x1100B
    return product


def inverse(element: int) -> int:
    result = 1
    for _ in range(15):
        element = multiply(element, element)
        result = multiply(result, element)
    return result


def lagrange(points: dict[int, int], at: int) -> int:
    """The value at ``at`` of the polynomial through ``points``, straight from the formula."""
    total = 0
    for place, value in points.items():
        term = value
        for other in points:
            if other != place:
                term = multiply(term, multiply(at ^ other, inverse(place ^ other)))
        total ^= term
    return total


def columns(chunk: bytes) -> list[int]:
    return [int.from_bytes(chunk[place : place + 2], "big") for place in range(0, 32, 2)]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9])
def test_later_chunks_are_the_polynomial(count: int) -> None:
    chance = random.Random(count)
    message = chance.randbytes(32 * count)
    given_ = [columns(erasure.chunk(message, index)) for index in range(count)]
    for index in (count, count + 1, 100, 65_535):
        wanted = [lagrange(dict(enumerate(column)), index) for column in zip(*given_, strict=True)]
        assert columns(erasure.chunk(message, index)) == wanted


def test_the_first_chunks_are_the_message() -> None:
    message = random.Random(1).randbytes(32 * 36)
    assert b"".join(erasure.chunk(message, index) for index in range(36)) == message


@given(st.sampled_from(SIZES), st.randoms(use_true_random=False))
def test_any_chunks_decode(count: int, chance: random.Random) -> None:
    message = chance.randbytes(32 * count)
    reach = chance.choice([count + 1, 2 * count, 65_536])
    indices = chance.sample(range(reach), count)
    chunks = {index: erasure.chunk(message, index) for index in indices}
    assert erasure.decode(chunks, count) == message


@pytest.mark.parametrize("count", SIZES)
def test_more_than_enough_decodes(count: int) -> None:
    message = random.Random(2).randbytes(32 * count)
    chunks = {index: erasure.chunk(message, index) for index in range(1, 2 * count)}
    assert erasure.decode(chunks, count) == message


@pytest.mark.parametrize("count", SIZES)
def test_too_few_are_refused(count: int) -> None:
    message = bytes(32 * count)
    with refusal(DecodeError):
        erasure.decode({index: erasure.chunk(message, index) for index in range(count - 1)}, count)


def test_one_wrong_chunk_changes_the_message() -> None:
    """The code corrects losses, not errors: the MAC around it is what notices."""
    message = random.Random(3).randbytes(96)
    chunks = {index: erasure.chunk(message, index) for index in (1, 3, 4)}
    chunks[3] = bytes(32)
    assert erasure.decode(chunks, 3) != message


def test_the_tables_are_the_field() -> None:
    powers, logs = erasure._powers()
    assert len(powers) == 65_535
    assert len(set(powers)) == 65_535  # x generates the multiplicative group
    element = 1
    for exponent in range(0, 65_535):
        assert powers[exponent] == element
        assert logs[element] == exponent
        element = multiply(element, 2)
