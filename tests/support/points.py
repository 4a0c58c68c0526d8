"""Curve points that an honest peer never sends, for X25519 and Ed25519 (RFC 7748, RFC 8032)."""

from __future__ import annotations

from typing import Final

from lokket.crypto.keys import ORDER, P

HIGH_BIT: Final = 1 << 255
_D: Final = -121665 * pow(121666, -1, P) % P
_SQRT_MINUS_ONE: Final = pow(2, (P - 1) // 4, P)

_EIGHTH_ORDER_U: Final = (
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
)
_LOW_ORDER_U: Final = (0, 1, P - 1, P, P + 1, *_EIGHTH_ORDER_U)

LOW_ORDER_X25519: Final = tuple(
    (value | bit).to_bytes(32, "little") for bit in (0, HIGH_BIT) for value in _LOW_ORDER_U
)
"""Every encoding of a point of order 1, 2, 4 or 8 on the curve or its twist: 14."""


def non_canonical(public: bytes) -> tuple[bytes, ...]:
    """Other encodings of the same u-coordinate: with the high bit set, and plus p where that still fits."""
    value = int.from_bytes(public, "little")
    other = [value | HIGH_BIT]
    if value + P < HIGH_BIT:
        other += [value + P, value + P | HIGH_BIT]
    return tuple(item.to_bytes(32, "little") for item in other)


BASE_POINT_PLUS_P: Final = (9 + P).to_bytes(32, "little")


def with_torsion(ed25519_public: bytes) -> tuple[bytes, ...]:
    """X25519 keys of ``ed25519_public`` plus each of the 7 other points of order dividing 8.

    A clamped scalar is a multiple of 8, so every one of them gives the same shared secret.
    """
    point = _decompress(ed25519_public)
    return tuple(_montgomery(_add(point, torsion)) for torsion in _torsion() if torsion != (0, 1))


def edwards(u: bytes) -> bytes:
    """An Ed25519 encoding of the point with this u-coordinate."""
    number = int.from_bytes(u, "little")
    return ((number - 1) * pow(number + 1, -1, P) % P).to_bytes(32, "little")


def ed25519_with_torsion(ed25519_public: bytes) -> tuple[bytes, ...]:
    """Ed25519 encodings of mixed order: the key plus each of the 7 other points of order dividing 8."""
    point = _decompress(ed25519_public)
    return tuple(compress(_add(point, torsion)) for torsion in _torsion() if torsion != (0, 1))


def low_order_ed25519() -> tuple[bytes, ...]:
    """Every encoding of the 8 points of small order: canonical, y + p where it fits, either sign bit."""
    found = set()
    for _, y in _torsion():
        for value in (y, y + P):
            if value < HIGH_BIT:
                found |= {value.to_bytes(32, "little"), (value | HIGH_BIT).to_bytes(32, "little")}
    return tuple(sorted(found))


Point = tuple[int, int]


def _torsion() -> tuple[Point, ...]:
    """All multiples of a point of order 8."""
    y = 5
    while True:
        y += 1
        candidate = _recover(y)
        if candidate is None:
            continue
        generator = _multiply(ORDER, candidate)
        if _multiply(4, generator) != (0, 1):
            return tuple(_multiply(factor, generator) for factor in range(8))


def _recover(y: int, sign: int = 0) -> Point | None:
    squared = (y * y - 1) * pow(_D * y * y + 1, -1, P) % P
    x = pow(squared, (P + 3) // 8, P)
    if (x * x - squared) % P:
        x = x * _SQRT_MINUS_ONE % P
    if (x * x - squared) % P:
        return None
    return (P - x if x & 1 != sign else x, y)


def _decompress(encoded: bytes) -> Point:
    value = int.from_bytes(encoded, "little")
    point = _recover(value & HIGH_BIT - 1, value >> 255)
    assert point is not None
    return point


def compress(point: Point) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def _montgomery(point: Point) -> bytes:
    return ((1 + point[1]) * pow(1 - point[1], -1, P) % P).to_bytes(32, "little")


def _add(left: Point, right: Point) -> Point:
    (a, b), (c, d) = left, right
    product = _D * a * b * c * d % P
    return (
        (a * d + b * c) * pow(1 + product, -1, P) % P,
        (b * d + a * c) * pow(1 - product, -1, P) % P,
    )


def _multiply(factor: int, point: Point) -> Point:
    result: Point = (0, 1)
    while factor:
        if factor & 1:
            result = _add(result, point)
        point = _add(point, point)
        factor >>= 1
    return result
