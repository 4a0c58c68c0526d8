"""A lenient protobuf reader and writer of our own, so that tests can build what the codec must refuse."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Field = tuple[int, int | bytes]  # number; a varint or the bytes of a length-delimited field


def varint(value: int, *, padding: int = 0) -> bytes:
    """``value``, with ``padding`` bytes more than it needs."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    for _ in range(padding):
        out[-1] |= 0x80
        out.append(0)
    return bytes(out)


def read(data: bytes) -> list[Field]:
    """The fields in their order; only varints and bytes, which is all that Signal's messages use."""
    fields: list[Field] = []
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        value, position = _varint(data, position)
        if key & 7 == 0:
            fields.append((key >> 3, value))
        else:
            assert key & 7 == 2
            fields.append((key >> 3, data[position : position + value]))
            position += value
    return fields


def write(fields: Iterable[Field]) -> bytes:
    out = bytearray()
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            out += varint(number << 3 | 2) + varint(len(value)) + value
    return bytes(out)


def replaced(data: bytes, changes: Mapping[int, int | bytes | None]) -> bytes:
    """``data`` with other values in some fields; None removes the field, a number not there is added."""
    fields = [(number, changes.get(number, value)) for number, value in read(data)]
    there = {number for number, _ in fields}
    fields += [(number, value) for number, value in changes.items() if number not in there]
    return write(sorted(((n, v) for n, v in fields if v is not None), key=lambda field: field[0]))


def value(data: bytes, wanted: int) -> int | bytes:
    return next(item for number, item in read(data) if number == wanted)


def _varint(data: bytes, position: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
        shift += 7
