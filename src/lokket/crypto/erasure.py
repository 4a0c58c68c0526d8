"""The erasure code of the ML-KEM Braid: any n of the chunks give the n chunks of the message back.

Source: signal.org/docs/specifications/mlkembraid, section on chunking. A message is n chunks of 32
bytes; each 16-bit big-endian column is a polynomial over GF(2^16) = GF(2)[x] / 0x1100B with the value
of chunk i at x = i. Chunk k < n is the message itself, a later one is interpolated at x = k. Carries
public data only, so table look-ups may depend on it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache, reduce
from itertools import compress
from operator import xor
from typing import Final

from lokket.errors import DecodeError

CHUNK_BYTES: Final = 32
CHUNK_INDEX_MAX: Final = 65_535

_POLYNOMIAL: Final = 0x1100B
_GROUP: Final = 65_535  # order of the multiplicative group; x generates it
_LOW_BITS: Final = int.from_bytes(b"\x00\x01" * 16, "big")
_BELOW_TOP: Final = int.from_bytes(b"\x7f\xff" * 16, "big")
_BITS: Final = tuple(tuple(byte >> bit & 1 for bit in range(8)) for byte in range(256))


def chunk(message: bytes, index: int) -> bytes:
    """Chunk ``index`` (0..65535), 32 bytes, of a message of whole chunks."""
    start = CHUNK_BYTES * index
    if start < len(message):
        return message[start : start + CHUNK_BYTES]
    count = len(message) // CHUNK_BYTES
    values = [
        int.from_bytes(message[place : place + CHUNK_BYTES], "big")
        for place in range(0, len(message), CHUNK_BYTES)
    ]
    weights = _message_weights(count)
    return _interpolate(range(count), weights, values, index)


def decode(chunks: Mapping[int, bytes], count: int) -> bytes:
    """The message of ``count`` chunks from that many chunks by index. DecodeError: too few."""
    if len(chunks) < count:
        raise DecodeError("an erasure-coded message lacks chunks")
    points = sorted(chunks)[:count]
    missing = [index for index in range(count) if index not in chunks]
    if not missing:
        return b"".join(chunks[index] for index in range(count))
    values = [int.from_bytes(chunks[point], "big") for point in points]
    weights = _weights(points)
    return b"".join(
        chunks[index] if index in chunks else _interpolate(points, weights, values, index)
        for index in range(count)
    )


def _interpolate(points: Sequence[int], weights: Sequence[int], values: Sequence[int], at: int) -> bytes:
    """Lagrange: sum over i of value_i * weight_i * product over j of (at - j) / (at - i), column by column."""
    powers, logs = _tables()
    differences = [logs[at ^ point] for point in points]
    product = sum(differences)
    rows = [
        powers[(product + weight - difference) % _GROUP]
        for weight, difference in zip(weights, differences, strict=True)
    ]
    bits = [_BITS[row & 0xFF] + _BITS[row >> 8] for row in rows]
    total = 0
    for selected in reversed(tuple(zip(*bits, strict=True))):  # Horner over the bits of the coefficients
        top = total >> 15 & _LOW_BITS
        total = (total & _BELOW_TOP) << 1 ^ top * (_POLYNOMIAL & 0xFFFF)
        total ^= reduce(xor, compress(values, selected), 0)
    return total.to_bytes(CHUNK_BYTES, "big")


@lru_cache(maxsize=64)
def _message_weights(count: int) -> tuple[int, ...]:
    return _weights(range(count))


def _weights(points: Iterable[int]) -> tuple[int, ...]:
    """Logarithms of 1 / product over j != i of (i - j)."""
    _, logs = _tables()
    places = list(points)
    return tuple(-sum(logs[point ^ other] for other in places if other != point) % _GROUP for point in places)


@lru_cache(maxsize=1)
def _tables() -> tuple[array[int], array[int]]:
    """Powers of x, and logarithms to base x, in GF(2^16). Made at first use: it takes 10 ms."""
    powers, logs = array("H", bytes(2 * (_GROUP + 1))), array("H", bytes(2 * (_GROUP + 1)))
    element = 1
    for exponent in range(_GROUP):
        powers[exponent] = element
        logs[element] = exponent
        element <<= 1
        if element > _GROUP:
            element ^= _POLYNOMIAL
    return powers, logs
