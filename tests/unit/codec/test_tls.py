"""The TLS presentation language: bytes written out by hand, and every bound from both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Annotated, Any

import pytest

from lokket.codec import tls
from lokket.errors import DecodeError, LocalError
from tests.support.refusals import refusal


class Colour(IntEnum):
    RED = 1
    BLUE = 0x0203


@dataclass(frozen=True)
class Numbers:
    one: tls.U8
    two: tls.U16
    four: tls.U32
    eight: tls.U64
    colour: Annotated[Colour, tls.Uint(2)]


@dataclass(frozen=True)
class Short:
    text: Annotated[bytes, tls.OpaqueV(3)]


@dataclass(frozen=True)
class Long:
    text: tls.Opaque


@dataclass(frozen=True)
class Exact:
    key: tls.Bytes16


@dataclass(frozen=True)
class Maybe:
    number: tls.U8 | None
    short: Annotated[bytes, tls.OpaqueV(2)] | None
    flag: bool


@dataclass(frozen=True)
class Items:
    values: Annotated[tuple[Short, ...], tls.Vector(3, min_items=1)]


@dataclass(frozen=True)
class Sorted:
    values: Annotated[tuple[tls.U16, ...], tls.Vector(9, ascending=True)]


@dataclass(frozen=True)
class SortedItems:
    values: Annotated[tuple[Short, ...], tls.Vector(9, ascending=True)]


@dataclass(frozen=True)
class Lists:
    colours: tuple[Annotated[Colour, tls.Uint(2)], ...]
    odd: tuple[Annotated[int, tls.Uint(3)], ...]
    wide: Annotated[tuple[tls.U64, ...], tls.Vector(2, min_items=1)]


@dataclass(frozen=True)
class Nothing:
    """No field, no byte."""


@dataclass(frozen=True)
class Nothings:
    values: tuple[Nothing, ...]


@dataclass(frozen=True)
class Left:
    number: tls.U8


@dataclass(frozen=True)
class Right:
    number: tls.U16


Inner = Annotated[Left | Right, tls.Select(tls.Uint(1), {1: Left, 2: Right})]


@dataclass(frozen=True)
class Choice:
    value: Annotated[Exact | Left | Right, tls.Select(tls.Uint(2), {7: Exact, 0x0100: Inner})]


@dataclass(frozen=True)
class Picky:
    number: tls.U8

    def __post_init__(self) -> None:
        if self.number == 13:
            raise ValueError("thirteen")


@dataclass(frozen=True)
class Remembering(tls.Kept):
    short: Short
    number: tls.U8


@dataclass(frozen=True)
class Holder:
    before: tls.U8
    kept: Remembering


@dataclass(frozen=True)
class OfItsOwn:
    number: int

    def write_tls(self, out: bytearray) -> None:
        tls.write(Left(self.number), out)
        out += b"!"

    @classmethod
    def read_tls(cls, reader: tls.Reader) -> OfItsOwn:
        number = tls.read(Left, reader).number
        if reader.take(1) != b"!":
            raise DecodeError("no mark")
        return cls(number)


def both(value: Any, coded: str) -> None:
    """``value`` has this encoding, and the encoding this value."""
    data = bytes.fromhex(coded)
    assert tls.encode(value) == data
    assert tls.decode(type(value), data) == value
    for end in range(len(data)):
        with refusal(DecodeError):
            tls.decode(type(value), data[:end])
    with pytest.raises(DecodeError, match="trail"):
        tls.decode(type(value), data + b"\x00")


def refused(kind: type, coded: str, match: str) -> None:
    with pytest.raises(DecodeError, match=match):
        tls.decode(kind, bytes.fromhex(coded))


def test_numbers_are_big_endian() -> None:
    both(Numbers(1, 2, 3, 4, Colour.BLUE), "01 0002 00000003 0000000000000004 0203")
    largest = Numbers(0xFF, 0xFFFF, 0xFFFFFFFF, 2**64 - 1, Colour.RED)
    both(largest, "ff ffff ffffffff ffffffffffffffff 0001")
    decoded = tls.decode(Numbers, tls.encode(largest))
    assert isinstance(decoded.colour, Colour)
    assert type(decoded.one) is int


@pytest.mark.parametrize(
    "change", [{"one": 256}, {"two": -1}, {"four": 2**32}, {"eight": 2**64}, {"one": b"x"}]
)
def test_a_number_that_does_not_fit_is_our_mistake(change: dict[str, Any]) -> None:
    with refusal(LocalError):
        tls.encode(replace(Numbers(1, 2, 3, 4, Colour.RED), **change))


def test_an_unknown_enum_value_is_refused() -> None:
    refused(Numbers, "01 0002 00000003 0000000000000004 0002", "no Colour has the number 2")


@pytest.mark.parametrize(
    ("size", "length"), [(0, "00"), (63, "3f"), (64, "4040"), (16383, "7fff"), (16384, "80004000")]
)
def test_lengths_take_one_two_or_four_bytes(size: int, length: str) -> None:
    data = bytes.fromhex(length) + bytes(size)
    assert tls.encode(Long(bytes(size))) == tls.opaque(bytes(size)) == data
    assert tls.decode(Long, data) == Long(bytes(size))


@pytest.mark.attack(16)
@pytest.mark.parametrize("length", ["403f", "4000", "80003fff", "80000000", "c0000000"])
def test_other_forms_of_a_length_are_refused(length: str) -> None:
    with pytest.raises(DecodeError, match=r"shortest form|reserved prefix"):
        tls.decode(Long, bytes.fromhex(length) + bytes(0x4000))


def test_the_longest_length() -> None:
    out = bytearray()
    tls.write_length(2**30 - 1, out)
    assert out.hex() == "bfffffff"
    assert tls.Reader(bytes(out)).length() == 2**30 - 1
    with refusal(LocalError):
        tls.write_length(2**30, out)
    assert out.hex() == "bfffffff"


def test_opaque_up_to_its_bound() -> None:
    both(Short(b"abc"), "03616263")
    with pytest.raises(LocalError, match="at most 3 bytes was given 4"):
        tls.encode(Short(b"abcd"))
    refused(Short, "0461626364", "longer than 3 bytes")


def test_fixed_bytes() -> None:
    both(Exact(bytes(16)), "00" * 16)
    for size in (15, 17):
        with pytest.raises(LocalError, match=f"16 bytes was given {size}"):
            tls.encode(Exact(bytes(size)))


def test_optional_and_flags() -> None:
    both(Maybe(7, b"ab", True), "01 07 01 026162 01")
    both(Maybe(None, None, False), "00 00 00")
    refused(Maybe, "02 07 00 00", "neither 0 nor 1")
    refused(Maybe, "00 00 02", "neither 0 nor 1")
    refused(Maybe, "00 01 03616263 00", "longer than 2 bytes")


def test_vectors_within_their_bounds() -> None:
    both(Items((Short(b"a"),)), "02 0161")
    both(Items((Short(b""), Short(b"ab"), Short(b""))), "05 00 026162 00")
    for count in (0, 4):
        with pytest.raises(LocalError, match=f"1 to 3 items has {count}"):
            tls.encode(Items((Short(b""),) * count))
    refused(Items, "00", "fewer than 1 items")
    refused(Items, "04 00000000", "more than 3 items")


def test_vectors_of_numbers() -> None:
    """Of an enumeration, of a size that no machine word has, and of one that is read at once."""
    lists = Lists((Colour.BLUE, Colour.RED), (0x010203,), (2**64 - 1, 0))
    both(lists, "04 0203 0001  03 010203  10 ffffffffffffffff 0000000000000000")
    assert all(type(colour) is Colour for colour in tls.decode(Lists, tls.encode(lists)).colours)
    refused(Lists, "02 0002  00  08 0000000000000000", "no Colour has the number 2")
    refused(Lists, "00  00  18" + 24 * "00", "more than 2 items")
    refused(Lists, "00  00  00", "fewer than 1 items")
    refused(Lists, "00  00  07" + 7 * "00", "run past its length")
    refused(Lists, "00  00  08" + 7 * "00", "cut short")


def test_a_vectors_length_must_be_that_of_its_items() -> None:
    refused(Items, "03 0161", "cut short")
    refused(Items, "02 026162", "run past its length")
    refused(Nothings, "01 00", "no size")
    assert tls.decode(Nothings, b"\x00") == Nothings(())


@pytest.mark.parametrize("values", ["ba", "aa", "acb", "acc", ("", "")])
def test_a_sorted_vector_of_structures_rises_by_their_bytes(values: Sequence[str]) -> None:
    both(SortedItems(()), "00")
    both(SortedItems((Short(b"b"),)), "02 0162")
    both(SortedItems((Short(b""), Short(b"b"), Short(b"aa"))), "06 00 0162 026161")
    items = tuple(Short(text.encode()) for text in values)
    with pytest.raises(LocalError, match="out of order or has duplicates"):
        tls.encode(SortedItems(items))
    with pytest.raises(DecodeError, match="out of order or has duplicates"):
        tls.decode(SortedItems, tls.opaque(b"".join(tls.encode(item) for item in items)))


@pytest.mark.attack(16)
@pytest.mark.parametrize("values", [(2, 1), (1, 1), (0, 0), (1, 3, 2), (1, 3, 3)])
def test_a_sorted_vector_rises(values: tuple[int, ...]) -> None:
    both(Sorted((0, 1, 0x0200)), "06 0000 0001 0200")
    both(Sorted((5,)), "02 0005")
    with pytest.raises(LocalError, match="out of order or has duplicates"):
        tls.encode(Sorted(values))
    coded = b"".join(value.to_bytes(2, "big") for value in values)
    with pytest.raises(DecodeError, match="out of order or has duplicates"):
        tls.decode(Sorted, tls.opaque(coded))


def test_a_choice_is_tagged_also_within_a_choice() -> None:
    both(Choice(Exact(bytes(16))), "0007" + "00" * 16)
    both(Choice(Left(9)), "0100 01 09")
    both(Choice(Right(9)), "0100 02 0009")
    refused(Choice, "0008" + "00" * 16, "no choice has the tag 8")
    refused(Choice, "0100 03 09", "no choice has the tag 3")


def test_what_a_value_refuses_is_no_encoding() -> None:
    both(Picky(12), "0c")
    refused(Picky, "0d", "not a Picky: thirteen")


def test_kept_values_remember_their_bytes_and_a_changed_copy_does_not() -> None:
    holder = tls.decode(Holder, bytes.fromhex("09 016105"))
    assert holder.kept.encoded == bytes.fromhex("016105")
    assert holder.kept._encoded == holder.kept.encoded
    changed = replace(holder.kept, number=6)
    assert changed.encoded == tls.encode(changed) == bytes.fromhex("016106")
    both(Holder(1, changed), "01 016106")
    assert changed.keep(b"other") == changed.encoded == tls.encode(changed) == b"other"


def test_a_struct_may_write_itself() -> None:
    both(OfItsOwn(3), "0321")
    refused(OfItsOwn, "0322", "no mark")


@pytest.mark.parametrize(
    "hint", [str, int, tuple[int, int], tls.U8 | tls.U16, tls.U8 | bytes | None, list[bytes], tuple[str, ...]]
)
def test_a_type_without_an_encoding_is_our_mistake(hint: Any) -> None:
    kind = dataclass(frozen=True)(type("Odd", (), {"__annotations__": {"field": hint}}))
    with pytest.raises(LocalError, match="no encoding for"):
        tls.encode(kind(None))


def test_only_dataclasses_are_structs() -> None:
    with pytest.raises(LocalError, match="bytes is no dataclass"):
        tls.decode(bytes, b"")


def test_a_reader_takes_what_is_there_and_stays_where_it_was() -> None:
    reader = tls.Reader(b"\x02abc")
    assert (reader.opaque(), reader.position) == (b"ab", 3)
    with pytest.raises(DecodeError, match="cut short"):
        reader.take(2)
    assert reader.position == 3
    with pytest.raises(DecodeError, match="trail"):
        reader.end()
    assert reader.take(1) == b"c"
    reader.end()
