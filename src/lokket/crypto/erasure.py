"""The erasure code of the ML-KEM Braid: any n of the chunks give the n chunks of the message back.

Source: signal.org/docs/specifications/mlkembraid, section on chunking. A message is n chunks of 32
bytes; each 16-bit big-endian column is a polynomial over GF(2^16) = GF(2)[x] / 0x1100B with the value
of chunk i at x = i. Chunk k < n is the message itself, a later one is interpolated at x = k. Carries
public data only, so table look-ups may depend on it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final

from lokket.errors import DecodeError

CHUNK_BYTES: Final = 32
CHUNK_INDEX_MAX: Final = 65_535

_POLYNOMIAL: Final = 0x1100B
_GROUP: Final = 65_535  # order of the multiplicative group; x generates it
_LANES: Final = int.from_bytes(b"\x00\x00\xff\xff" * 16, "big")
_ONES: Final = int.from_bytes(b"\x00\x01" * 16, "big")  # the lowest bit of every column of a chunk
_FEW: Final = (
    5  # chunks of a header or a ct2: they go round until somebody answers, so their multiples are kept
)
_TOGETHER: Final = 4  # chunks whose sums are tabled: 2^4 sums serve each of 16 bits of four coefficients
_BIT_PLANES: Final = tuple(
    sum((byte >> bit & 1) << 8 * bit for bit in range(8)) for byte in range(256)
)  # bit i of a byte moved to byte i


def chunk(message: bytes, index: int) -> bytes:
    """Chunk ``index`` (0..65535), 32 bytes, of a message of whole chunks."""
    start = CHUNK_BYTES * index
    if start < len(message):
        return message[start : start + CHUNK_BYTES]
    count = len(message) // CHUNK_BYTES
    if count <= _FEW:
        total = 0
        for multiples, nibble in zip(_multiples_of(message), _message_nibbles(count, index), strict=True):
            total ^= multiples[nibble]
        return total.to_bytes(CHUNK_BYTES, "big")
    return _combine(_tables_of(message), _message_selectors(count, index))


def decode(chunks: Mapping[int, bytes], count: int) -> bytes:
    """The message of ``count`` chunks from that many chunks by index. DecodeError: too few."""
    if len(chunks) < count:
        raise DecodeError("an erasure-coded message lacks chunks")
    points = sorted(chunks)[:count]
    if points[-1] < count:
        return b"".join(chunks[index] for index in points)
    tables = _tables_of(b"".join(chunks[point] for point in points))
    weights = _weights(points)
    return b"".join(
        chunks[index] if index in chunks else _combine(tables, _selectors(points, weights, index))
        for index in range(count)
    )


@lru_cache(maxsize=16)
def _multiples_of(message: bytes) -> list[list[int]]:
    """For every chunk and every four bits of a coefficient, lowest first, the chunk's 16 multiples."""
    tables = []
    for start in range(0, len(message), CHUNK_BYTES):
        value = int.from_bytes(message[start : start + CHUNK_BYTES], "big")
        for _ in range(4):
            multiples = [0]
            for _ in range(4):
                multiples += [value ^ other for other in multiples]
                carries = value >> 15 & _ONES
                value = (value << 1) - (carries << 16) ^ carries * (_POLYNOMIAL & _GROUP)
            tables.append(multiples)
    return tables


@lru_cache(maxsize=16)
def _tables_of(chunks: bytes) -> list[list[int]]:
    """For every four chunks all sums of some of them: bit i of a sum's place says whether chunk i is in it.

    A chunk is one integer, a column in every 32 bits: room for products before they are reduced.
    """
    spread = bytearray(2 * len(chunks))
    spread[2::4] = chunks[::2]
    spread[3::4] = chunks[1::2]
    size = 2 * CHUNK_BYTES
    values = [int.from_bytes(spread[place : place + size], "big") for place in range(0, len(spread), size)]
    tables = []
    for start in range(0, len(values), _TOGETHER):
        sums = [0]
        for value in values[start : start + _TOGETHER]:
            sums += [value ^ other for other in sums]
        tables.append(sums)
    return tables


def _combine(tables: list[list[int]], selectors: Sequence[bytes]) -> bytes:
    """The chunk that is the sum of all chunks, each times its coefficient.

    Products are carry-less: from the highest bit down, the sum of the chunks whose coefficients have the
    bit is added to twice what there is, four chunks at once.
    """
    total = 0
    for sums, selector in zip(tables, selectors, strict=True):
        part = 0
        for selected in selector:
            part = part << 1 ^ sums[selected]
        total ^= part
    return _reduce(total)


def _selectors(points: Sequence[int], weights: Sequence[int], at: int) -> tuple[bytes, ...]:
    """Coefficients bit by bit.

    For every four points 16 bytes, highest bit first, each saying whose coefficients have that bit.
    """
    coefficients = _coefficients(points, weights, at)
    selectors = []
    for start in range(0, len(points), _TOGETHER):
        planes = 0
        for bit, coefficient in enumerate(coefficients[start : start + _TOGETHER]):
            planes |= (_BIT_PLANES[coefficient >> 8] << 64 | _BIT_PLANES[coefficient & 0xFF]) << bit
        selectors.append(planes.to_bytes(16, "big"))
    return tuple(selectors)


def _coefficients(points: Sequence[int], weights: Sequence[int], at: int) -> list[int]:
    """Lagrange's: weight_i * product over j of (at - j) / (at - i)."""
    powers, logs = _powers()
    differences = [logs[at ^ point] for point in points]
    product = sum(differences)
    return [
        powers[(product + weight - difference) % _GROUP]
        for weight, difference in zip(weights, differences, strict=True)
    ]


@lru_cache(maxsize=1024)
def _message_selectors(count: int, index: int) -> tuple[bytes, ...]:
    """Coefficients of chunk ``index`` in the ``count`` chunks of a message: the same for every message."""
    return _selectors(range(count), _message_weights(count), index)


@lru_cache(maxsize=2048)
def _message_nibbles(count: int, index: int) -> bytes:
    """The same coefficients, four bits at a time, lowest first."""
    coefficients = _coefficients(range(count), _message_weights(count), index)
    return bytes(value >> shift & 15 for value in coefficients for shift in (0, 4, 8, 12))


def _reduce(total: int) -> bytes:
    """Every 32-bit lane modulo the polynomial p: x^16 / p begins 1 + x^-4 + x^-8 + x^-12 + x^-13."""
    high = total >> 16 & _LANES
    quotient = (high ^ high >> 4 ^ high >> 8 ^ high >> 12 ^ high >> 13) & _LANES
    total = (total ^ quotient ^ quotient << 1 ^ quotient << 3 ^ quotient << 12) & _LANES
    spread = total.to_bytes(2 * CHUNK_BYTES, "big")
    out = bytearray(CHUNK_BYTES)
    out[::2] = spread[2::4]
    out[1::2] = spread[3::4]
    return bytes(out)


@lru_cache(maxsize=64)
def _message_weights(count: int) -> tuple[int, ...]:
    return _weights(range(count))


def _weights(points: Iterable[int]) -> tuple[int, ...]:
    """Logarithms of 1 / product over j != i of (i - j)."""
    _, logs = _powers()
    places = list(points)
    return tuple(-sum(logs[point ^ other] for other in places if other != point) % _GROUP for point in places)


@lru_cache(maxsize=1)
def _powers() -> tuple[array[int], array[int]]:
    """Powers of x, and logarithms to base x, in GF(2^16). Made at first use: it takes 6 ms."""
    block = [1]
    for _ in range(255):
        double = block[-1] << 1
        block.append(double ^ _POLYNOMIAL if double > _GROUP else double)
    last = block[-1] << 1
    step = last ^ _POLYNOMIAL if last > _GROUP else last  # x^256, by which a block becomes the next
    low = [_multiply(byte, step) for byte in range(256)]
    high = [_multiply(byte << 8, step) for byte in range(256)]
    powers = array("H")
    for _ in range(256):
        powers.extend(block)
        block = [low[element & 0xFF] ^ high[element >> 8] for element in block]
    powers.pop()  # x^65535 is 1 again
    logs = array("H", bytes(2 * (_GROUP + 1)))
    for exponent, element in enumerate(powers):
        logs[element] = exponent
    return powers, logs


def _multiply(left: int, right: int) -> int:
    product = 0
    for bit in range(16):
        if right >> bit & 1:
            product ^= left << bit
    for bit in range(30, 15, -1):
        if product >> bit & 1:
            product ^= _POLYNOMIAL << bit - 16
    return product
