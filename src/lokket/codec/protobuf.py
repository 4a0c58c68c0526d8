"""Protocol Buffers as libsignal's formats use them: varints and byte strings, strict where that is free.

Source: protobuf.dev, "Encoding". Fields are written in ascending order. A reader takes any order and
unknown fields, as libsignal's does; it refuses what no honest writer makes: a known field twice or with
the wrong wire type, a varint longer than it needs, a number above its field's range, a group, bytes
that trail. Knows no message type.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from lokket.errors import DecodeError

VARINT: Final = 0  # here always a uint32
FIXED64: Final = 1
BYTES: Final = 2
FIXED32: Final = 5

_FIXED_SIZES: Final = {FIXED64: 8, FIXED32: 4}
_FIELD_NUMBER_MAX: Final = (1 << 29) - 1
_ONE_BYTE: Final = tuple(bytes((value,)) for value in range(0x80))


def varint(value: int) -> bytes:
    """``value`` >= 0 in base 128, least significant group first, shortest form."""
    if value < 0x80:
        return _ONE_BYTE[value]
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """(value below 2^64, position after it). DecodeError: cut short, too long, or not the shortest form."""
    try:  # the usual ones, of one byte or two
        first = data[position]
        if first < 0x80:
            return first, position + 1
        second = data[position + 1]
        if 0 < second < 0x80:
            return first & 0x7F | second << 7, position + 2
    except IndexError:
        pass
    value = shift = 0
    for byte in data[position : position + 10]:
        position += 1
        if byte < 0x80:
            value |= byte << shift
            if byte == 0 or value >> 64:
                break
            return value, position
        value |= (byte & 0x7F) << shift
        shift += 7
    raise DecodeError("a varint is cut short, too long or not in its shortest form")


def encode(fields: Iterable[tuple[int, int | bytes | None]]) -> bytes:
    """Field numbers with their values: a uint32 as varint, bytes with their length, None left out."""
    parts: list[bytes] = []
    for number, value in fields:
        if value is None:
            continue
        if isinstance(value, int):
            parts += (varint(number << 3), varint(value))
        else:
            parts += (varint(number << 3 | BYTES), varint(len(value)), value)
    return b"".join(parts)


class Fields:
    """The known fields of one message, by number, each at most once."""

    __slots__ = ("numbers", "strings")

    def __init__(self) -> None:
        self.numbers: dict[int, int] = {}
        self.strings: dict[int, bytes] = {}

    def number(self, field: int) -> int:
        """The uint32 (or fixed64) of a required field. DecodeError: missing."""
        value = self.numbers.get(field)
        if value is None:
            raise DecodeError(f"field {field} is missing")
        return value

    def string(self, field: int, size: int | None = None) -> bytes:
        """The bytes of a required field. DecodeError: missing, or not ``size`` bytes."""
        value = self.strings.get(field)
        if value is None:
            raise DecodeError(f"field {field} is missing")
        if size is not None and len(value) != size:
            raise DecodeError(f"field {field} has {len(value)} bytes, not {size}")
        return value


def decode(data: bytes, wire_types: Mapping[int, int]) -> Fields:
    """The known fields of ``data``: ``wire_types`` gives VARINT, BYTES or FIXED64 by number. DecodeError."""
    fields = Fields()
    numbers, strings = fields.numbers, fields.strings
    position, end = 0, len(data)
    while position < end:
        tag = data[position]
        if tag < 0x80:  # most tags and many values are one byte
            position += 1
        else:
            tag, position = read_varint(data, position)
        number, wire_type = tag >> 3, tag & 7
        expected = wire_types.get(number)
        if expected != wire_type:
            if expected is not None:
                raise DecodeError(f"field {number} has the wrong wire type")
            position = _skip(data, position, tag)
            continue
        if wire_type == FIXED64:
            value, position = int.from_bytes(data[position : position + 8], "little"), position + 8
        elif position < end and data[position] < 0x80:
            value = data[position]
            position += 1
        else:
            value, position = read_varint(data, position)
        if wire_type == BYTES:
            start, position = position, position + value
            if position > end or number in strings:
                raise DecodeError(f"field {number} is repeated or runs past the end")
            strings[number] = data[start:position]
        elif number in numbers or position > end or (wire_type == VARINT and value >> 32):
            raise DecodeError(f"field {number} is repeated, out of range or runs past the end")
        else:
            numbers[number] = value
    return fields


def _skip(data: bytes, position: int, tag: int) -> int:
    """The position after the value of an unknown field."""
    number, wire_type = tag >> 3, tag & 7
    if not 0 < number <= _FIELD_NUMBER_MAX:
        raise DecodeError("a field has an impossible number")
    if wire_type == VARINT:
        return read_varint(data, position)[1]
    if wire_type == BYTES:
        size, position = read_varint(data, position)
    elif wire_type in _FIXED_SIZES:
        size = _FIXED_SIZES[wire_type]
    else:
        raise DecodeError("a field has a wire type that is not in use")
    if position + size > len(data):
        raise DecodeError("a field runs past the end")
    return position + size
