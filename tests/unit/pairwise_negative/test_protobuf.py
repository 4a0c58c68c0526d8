"""Row 16 for Signal's formats: what the protobuf codec must refuse, and what it must let pass."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lokket.codec import protobuf
from lokket.errors import DecodeError, RemoteError
from tests.support import protobuf as lenient
from tests.support.refusals import refusal

KNOWN = {1: protobuf.BYTES, 2: protobuf.VARINT, 5: protobuf.BYTES, 200: protobuf.VARINT}
GOOD = lenient.write([(1, b"key"), (2, 300), (5, b""), (200, 0)])

fields = st.fixed_dictionaries(
    {},
    optional={
        1: st.binary(max_size=300),
        2: st.integers(0, 2**32 - 1),
        5: st.binary(max_size=3),
        200: st.integers(0, 2**32 - 1),
    },
)


@pytest.mark.attack(16)
@given(fields)
def test_what_is_written_is_read_and_written_again(values: dict[int, int | bytes]) -> None:
    encoded = protobuf.encode(sorted(values.items()))
    assert encoded == lenient.write(sorted(values.items()))
    decoded = protobuf.decode(encoded, KNOWN)
    assert {**decoded.numbers, **decoded.strings} == values


@pytest.mark.attack(16)
@given(st.binary(max_size=200))
def test_whatever_is_accepted_reads_the_same_when_written_anew(data: bytes) -> None:
    try:
        decoded = protobuf.decode(data, KNOWN)
    except RemoteError:
        return
    values = {**decoded.numbers, **decoded.strings}
    again = protobuf.decode(protobuf.encode(sorted(values.items())), KNOWN)
    assert {**again.numbers, **again.strings} == values


def test_order_is_free_and_unknown_fields_are_ignored() -> None:
    shuffled = lenient.write([(200, 0), (9, b"news"), (5, b""), (10, 7), (2, 300), (1, b"key")])
    fixed = bytes((11 << 3 | 1,)) + bytes(8) + bytes((12 << 3 | 5,)) + bytes(4)
    decoded = protobuf.decode(shuffled + fixed, KNOWN)
    assert decoded.numbers == {2: 300, 200: 0}
    assert decoded.strings == {1: b"key", 5: b""}


@pytest.mark.parametrize("number", [1, 2, 15, 16, (1 << 29) - 1])
def test_the_numbers_that_an_unknown_field_may_have(number: int) -> None:
    for value in (7, b"news"):
        assert not protobuf.decode(lenient.write([(number, value)]), {}).numbers
    assert protobuf.decode(
        lenient.varint(number << 3 | 1) + bytes(8), {number: protobuf.FIXED64}
    ).numbers == {number: 0}


@pytest.mark.attack(16)
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(GOOD + lenient.write([(1, b"again")]), id="bytes twice"),
        pytest.param(GOOD + lenient.write([(2, 300)]), id="number twice"),
        pytest.param(lenient.write([(1, 5)]), id="number for bytes"),
        pytest.param(lenient.write([(2, b"12")]), id="bytes for number"),
        pytest.param(bytes((2 << 3 | 1,)) + bytes(8), id="fixed64 for number"),
        pytest.param(bytes((2 << 3 | 5,)) + bytes(4), id="fixed32 for number"),
        pytest.param(lenient.varint(2 << 3) + lenient.varint(3, padding=1), id="padded number"),
        pytest.param(lenient.varint(2 << 3, padding=1) + lenient.varint(3), id="padded tag"),
        pytest.param(lenient.varint(1 << 3 | 2) + lenient.varint(1, padding=1) + b"x", id="padded length"),
        pytest.param(lenient.write([(2, 2**32)]), id="number above 32 bits"),
        pytest.param(lenient.varint(2 << 3) + b"\xff" * 9 + b"\x02", id="number above 64 bits"),
        pytest.param(lenient.varint(2 << 3) + b"\x80" * 10 + b"\x01", id="varint of eleven bytes"),
        pytest.param(GOOD[:-1], id="cut in a number"),
        pytest.param(lenient.varint(1 << 3 | 2) + lenient.varint(4) + b"abc", id="bytes cut short"),
        pytest.param(lenient.varint(1 << 3 | 2) + lenient.varint(2**63), id="a length of 2^63"),
        pytest.param(lenient.varint(9 << 3 | 2) + lenient.varint(4) + b"abc", id="unknown bytes cut short"),
        pytest.param(bytes((9 << 3 | 1,)) + bytes(7), id="unknown fixed64 cut short"),
        pytest.param(bytes((9 << 3 | 3,)), id="group"),
        pytest.param(bytes((9 << 3 | 4,)), id="end of group"),
        pytest.param(bytes((9 << 3 | 6,)), id="wire type 6"),
        pytest.param(bytes((9 << 3 | 7,)), id="wire type 7"),
        pytest.param(lenient.write([(0, b"zero")]), id="field zero, bytes"),
        pytest.param(lenient.write([(0, 1)]), id="field zero, number"),
        pytest.param(lenient.write([(1 << 29, 1)]), id="field number of 30 bits"),
        pytest.param(b"\x00", id="a lone zero"),
    ],
)
def test_refused(data: bytes) -> None:
    with refusal(DecodeError):
        protobuf.decode(data, KNOWN)


@pytest.mark.attack(16)
def test_every_cut_of_a_message_is_refused_or_a_shorter_message() -> None:
    ends = {0}
    position = 0
    for number, value in lenient.read(GOOD):
        position += len(lenient.write([(number, value)]))
        ends.add(position)
    for size in range(len(GOOD)):
        if size in ends:
            protobuf.decode(GOOD[:size], KNOWN)
        else:
            with refusal(DecodeError):
                protobuf.decode(GOOD[:size], KNOWN)
