"""ML-KEM encapsulation (FIPS 203) in two parts and with a chosen message, which OpenSSL does not offer.

The ML-KEM Braid sends the first part of a ciphertext before it has the whole public key. ``encapsulate_1``
needs the seed rho and the key's hash; ``encapsulate_2`` needs the rest. ``encapsulate_with`` is both at
once, for replayable tests.

1. ``_noise`` draws y, e1 and e2; ``_factors`` takes y to the NTT domain.
2. ``_sample`` draws the matrix from rho; ``_rows`` multiplies it (or the key's vector) by y.
3. ``_inverse`` takes the products back; ``_compressed`` adds noise and packs bits.

To be quick in Python, an integer holds many coefficients, each in a lane of 64 bits: the transform of all
k polynomials begins as one integer that is halved seven times, and one multiplication by zeta serves a
whole block. Lanes are reduced only before they could overflow. Python integers do not run in constant
time: the secrets here (m, y, e) serve one encapsulation each and are never used again.
"""

from __future__ import annotations

import hashlib
import sys
from array import array
from collections.abc import Iterable, Sequence
from functools import lru_cache
from operator import add, mul
from typing import Final, NamedTuple, TypeAlias

from lokket.errors import KeyRefused

Q: Final = 3329
N: Final = 256
SEED_BYTES: Final = 32
MESSAGE_BYTES: Final = 32
HEADER_BYTES: Final = 64  # rho || SHA3-256(ek)
VECTOR_768_BYTES: Final = 1152  # the encoded vector t of an ML-KEM-768 key: ek = t || rho
CT1_768_BYTES: Final = 960
CT2_768_BYTES: Final = 128


class Parameters(NamedTuple):
    """FIPS 203 section 8; eta is 2 for both sets."""

    k: int
    du: int
    dv: int


_768: Final = Parameters(3, 10, 4)
_1024: Final = Parameters(4, 11, 5)
_HALF: Final = N // 2
_LANE_BYTES: Final = 8
_INVERSE_128: Final = 3303


def _bit_reverse_7(value: int) -> int:
    return int(f"{value:07b}"[::-1], 2)


_ZETAS: Final = tuple(pow(17, _bit_reverse_7(index), Q) for index in range(_HALF))
_SCALED_GAMMAS: Final = tuple(
    pow(17, 2 * _bit_reverse_7(index) + 1, Q) * _INVERSE_128 % Q for index in range(_HALF)
)

Halves: TypeAlias = tuple[Sequence[int], Sequence[int]]
"""A polynomial: its 128 even and its 128 odd coefficients."""


def rho_of_seed(seed: bytes) -> bytes:
    """rho, 32 bytes, of the ML-KEM-768 key of a 64-byte seed d || z: all of a key that takes no arithmetic.

    FIPS 203 algorithm 13, line 1: (rho, sigma) = G(d || k).
    """
    return hashlib.sha3_512(seed[:32] + bytes((_768.k,))).digest()[:SEED_BYTES]


def header(public_key: bytes) -> bytes:
    """rho || SHA3-256(ek), 64 bytes, of an ML-KEM-768 public key (1184 B)."""
    return public_key[VECTOR_768_BYTES:] + hashlib.sha3_256(public_key).digest()


def check_public_key(vector: bytes, key_header: bytes) -> None:
    """KeyRefused unless ``vector`` (1152 B) completes the header to a valid key (FIPS 203 section 7.2)."""
    if hashlib.sha3_256(vector + key_header[:SEED_BYTES]).digest() != key_header[SEED_BYTES:]:
        raise KeyRefused("a KEM key does not match its header")
    _decode_vector(vector)


def encapsulate_1(key_header: bytes, message: bytes) -> tuple[bytes, bytes]:
    """(shared secret 32 B, ct1 960 B) for ML-KEM-768, from the 64-byte header and 32 random bytes."""
    secret, coins = _derive(message, key_header[SEED_BYTES:])
    return secret, _u(_768, key_header[:SEED_BYTES], coins, _factors(_768.k, coins))


def encapsulate_2(vector: bytes, key_header: bytes, message: bytes) -> bytes:
    """ct2, 128 B, for the same header and message; ``vector`` must have passed ``check_public_key``."""
    _, coins = _derive(message, key_header[SEED_BYTES:])
    return _v(_768, vector, coins, message, _factors(_768.k, coins))


def encapsulate_with(public_key: bytes, message: bytes) -> tuple[bytes, bytes]:
    """(shared secret 32 B, ciphertext) of FIPS 203 ML-KEM.Encaps_internal for ML-KEM-768 or ML-KEM-1024.

    KeyRefused: the public key (1184 or 1568 B) is malformed.
    """
    parameters = {1184: _768, 1568: _1024}.get(len(public_key))
    if parameters is None:
        raise KeyRefused("a KEM public key has the wrong length")
    secret, coins = _derive(message, hashlib.sha3_256(public_key).digest())
    factors = _factors(parameters.k, coins)
    u = _u(parameters, public_key[-SEED_BYTES:], coins, factors)
    return secret, u + _v(parameters, public_key[:-SEED_BYTES], coins, message, factors)


def _derive(message: bytes, key_hash: bytes) -> tuple[bytes, bytes]:
    """(K, r) = G(m || H(ek)), FIPS 203 algorithm 17."""
    digest = hashlib.sha3_512(message + key_hash).digest()
    return digest[:32], digest[32:]


def _u(parameters: Parameters, rho: bytes, coins: bytes, factors: list[list[int]]) -> bytes:
    """Compress_du of the inverse NTT of A^T y, plus e1."""
    k = parameters.k
    columns = [[_sample(rho + bytes((row, column))) for row in range(k)] for column in range(k)]
    noise = [_noise(coins, k + row) for row in range(k)]
    return _compressed(_inverse(_rows(columns, factors)), noise, parameters.du)


def _v(
    parameters: Parameters, vector: bytes, coins: bytes, message: bytes, factors: list[list[int]]
) -> bytes:
    """Compress_dv of the inverse NTT of t y, plus e2 and the message's bits times (q + 1) / 2."""
    columns = [[polynomial] for polynomial in _decode_vector(vector)]
    bits = [(byte >> bit & 1) * 1665 for byte in message for bit in range(8)]
    even, odd = _noise(coins, 2 * parameters.k)
    error = (list(map(add, even, bits[::2])), list(map(add, odd, bits[1::2])))
    return _compressed(_inverse(_rows(columns, factors)), [error], parameters.dv)


# --- sampling ---


def _sample(seed: bytes) -> Halves:
    """SampleNTT, FIPS 203 algorithm 7: three blocks of SHAKE128 suffice in 99 of 100 cases."""
    for blocks in (3, 6, 24):
        stream = hashlib.shake_128(seed).digest(168 * blocks)
        values = [value for value in _twelve_bits(stream) if value < Q]
        if len(values) >= N:
            break
    return values[:N:2], values[1:N:2]


def _twelve_bits(data: bytes) -> list[int]:
    """ByteDecode_12: two values of three bytes, without a Python step for each."""
    low, middle, high = data[::3], int.from_bytes(data[1::3], "little"), int.from_bytes(data[2::3], "little")
    size = len(low)
    nibbles = int.from_bytes(b"\x0f" * size, "little")
    out = bytearray(4 * size)
    out[0::4] = low
    out[1::4] = (middle & nibbles).to_bytes(size, "little")
    out[2::4] = (middle >> 4 & nibbles | (high & nibbles) << 4).to_bytes(size, "little")
    out[3::4] = (high >> 4 & nibbles).to_bytes(size, "little")
    return _lanes("H", bytes(out)).tolist()


def _decode_vector(vector: bytes) -> list[Halves]:
    """The polynomials of an encoded vector. KeyRefused: a coefficient of q or more."""
    values = _twelve_bits(vector)
    if max(values) >= Q:
        raise KeyRefused("a KEM key has a coefficient that is not reduced")
    return [
        (values[start : start + N : 2], values[start + 1 : start + N : 2])
        for start in range(0, len(values), N)
    ]


_BINOMIAL: Final = tuple(
    (bits & 1) + (bits >> 1 & 1) - (bits >> 2 & 1) - (bits >> 3) + 2 for bits in range(16)
)
_EVEN_NOISE: Final = bytes(_BINOMIAL[byte & 15] for byte in range(256))
_ODD_NOISE: Final = bytes(_BINOMIAL[byte >> 4] for byte in range(256))
_NOISE_OFFSET: Final = 2


def _noise(coins: bytes, nonce: int) -> tuple[bytes, bytes]:
    """SamplePolyCBD for eta 2, FIPS 203 algorithm 8, plus 2: values 0..4."""
    stream = hashlib.shake_256(coins + bytes((nonce,))).digest(128)
    return stream.translate(_EVEN_NOISE), stream.translate(_ODD_NOISE)


# --- the number-theoretic transform, on packed polynomials ---


class _Layer(NamedTuple):
    """One layer: every block of twice ``bits`` bits is halved (or made) by a butterfly with its zeta."""

    bits: int
    mask: int
    zetas: tuple[int, ...]
    offset: int  # in every lane a multiple of q that keeps differences positive
    folds: tuple[tuple[int, int, int, int], ...]  # reductions before the layer, see ``_fold``


def _repeat(value: int, lanes: int) -> int:
    return int.from_bytes(value.to_bytes(_LANE_BYTES, "little") * lanes, "little")


@lru_cache(maxsize=8)
def _plan(lanes: int, forward: bool) -> tuple[_Layer, ...]:
    """The seven layers of FIPS 203 algorithm 9 (``forward``) or 10, with what bounds their lanes."""
    largest = 2 * _NOISE_OFFSET if forward else Q - 1
    layers = []
    for step in range(7):
        distance = 64 >> step if forward else 1 << step
        half = lanes * distance  # lanes in half a block
        whole = 2 * half if forward else half  # lanes in the integers that the layer begins with
        folds = []
        for bit in (32, 24):
            if (2 * largest + Q) * Q >= 1 << 8 * _LANE_BYTES:
                factor = (1 << bit) % Q
                folds.append(
                    (bit, _repeat((1 << bit) - 1, whole), _repeat((1 << 64 - bit) - 1, whole), factor)
                )
                largest = (1 << bit) - 1 + (largest >> bit) * factor
        if forward:
            offset = -(-largest * (Q - 1) // Q) * Q
            largest += offset
        else:
            offset = -(-largest // Q) * Q
            largest = (largest + offset) * (Q - 1)
        count = _HALF // (2 * distance)
        zetas = _ZETAS[count : 2 * count] if forward else _ZETAS[count : 2 * count][::-1]
        bits = 8 * _LANE_BYTES * half
        layers.append(_Layer(bits, (1 << bits) - 1, zetas, _repeat(offset, half), tuple(folds)))
    return tuple(layers)


def _fold(blocks: list[int], fold: tuple[int, int, int, int]) -> list[int]:
    """Lanes made smaller: what lies above a bit comes back times 2^bit modulo q."""
    bit, low, high, factor = fold
    return [(block & low) + (block >> bit & high) * factor for block in blocks]


def _transform(packed: bytes, lanes: int) -> list[int]:
    """The NTT of packed polynomials, from one block to 128."""
    blocks = [int.from_bytes(packed, "little")]
    for bits, mask, zetas, offset, folds in _plan(lanes, True):
        for fold in folds:
            blocks = _fold(blocks, fold)
        halves = []
        for block, zeta in zip(blocks, zetas, strict=True):
            low, product = block & mask, (block >> bits) * zeta
            halves.append(low + product)
            halves.append(low + offset - product)
        blocks = halves
    return blocks


def _inverse(products: list[Halves]) -> list[Halves]:
    """The inverse NTT without its scale, from 128 blocks to one."""
    lanes = 2 * len(products)
    size = _LANE_BYTES * lanes
    packed = _pack(products)
    blocks = [int.from_bytes(packed[place : place + size], "little") for place in range(0, len(packed), size)]
    for bits, _, zetas, offset, folds in _plan(lanes, False):
        for fold in folds:
            blocks = _fold(blocks, fold)
        blocks = [
            low + high + ((high + offset - low) * zeta << bits)
            for low, high, zeta in zip(blocks[::2], blocks[1::2], zetas, strict=True)
        ]
    return _unpack(blocks[0].to_bytes(len(packed), "little"), len(products))


def _factors(k: int, coins: bytes) -> list[list[int]]:
    """What ``_rows`` multiplies by: of each polynomial of y, (gamma * odd, even, odd) in lanes of 32 bits.

    y is in the NTT domain and divided by 128, the scale that ``_inverse`` leaves out.
    """
    packed = _pack([_noise(coins, index) for index in range(k)])
    entries = map(add, _transform(packed, 2 * k), _noise_correction(k))
    size = 2 * k * _LANE_BYTES
    out = []
    for even, odd in _unpack(b"".join([entry.to_bytes(size, "little") for entry in entries]), k):
        lanes = array("I", bytes(12 * _HALF))
        lanes[0::3] = array(
            "I", [value * gamma % Q for value, gamma in zip(odd, _SCALED_GAMMAS, strict=True)]
        )
        lanes[1::3] = array("I", [value * _INVERSE_128 % Q for value in even])
        lanes[2::3] = array("I", [value * _INVERSE_128 % Q for value in odd])
        out.append(_entries(lanes, 12))
    return out


@lru_cache(maxsize=4)
def _noise_correction(k: int) -> list[int]:
    """Minus the transform of the offset that ``_noise`` adds to every coefficient, per entry."""
    offsets = bytes((_NOISE_OFFSET,)) * _HALF
    lane = (1 << 8 * _LANE_BYTES) - 1
    return [_repeat(-(entry & lane) % Q, 2 * k) for entry in _transform(_pack([(offsets, offsets)]), 2)]


def _rows(columns: list[list[Halves]], factors: list[list[int]]) -> list[Halves]:
    """Per row the sum over columns of polynomial times factor, FIPS 203 algorithms 11 and 12.

    One multiplication does an entry of a whole column: (a0, a1) times (g b1, b0, b1) has
    a0 b0 + a1 g b1 in lane 1 and a0 b1 + a1 b0 in lane 2; lanes 0 and 3 are thrown away.
    """
    rows = len(columns[0])
    total: Iterable[int] = ()
    for index, column in enumerate(columns):
        lanes = array("I", bytes(12 * rows * _HALF))
        for row, (even, odd) in enumerate(column):
            lanes[3 * row :: 3 * rows] = array("I", even)
            lanes[3 * row + 1 :: 3 * rows] = array("I", odd)
        products = map(mul, _entries(lanes, 12 * rows), factors[index])
        total = list(map(add, total, products)) if index else list(products)
    size = 4 * (3 * rows + 1)
    data = _lanes("I", b"".join([entry.to_bytes(size, "little") for entry in total]))
    stride = 3 * rows + 1
    return [
        (
            [value % Q for value in data[3 * row + 1 :: stride]],
            [value % Q for value in data[3 * row + 2 :: stride]],
        )
        for row in range(rows)
    ]


# --- lanes and bytes ---


def _pack(polynomials: Sequence[Halves]) -> bytes:
    """k polynomials side by side: coefficients 2i and 2i + 1 of each, then 2i + 2 and 2i + 3 of each."""
    stride = 2 * len(polynomials)
    lanes = array("Q", bytes(_LANE_BYTES * stride * _HALF))
    for index, (even, odd) in enumerate(polynomials):
        lanes[2 * index :: stride] = array("Q", list(even))
        lanes[2 * index + 1 :: stride] = array("Q", list(odd))
    if sys.byteorder == "big":
        lanes.byteswap()
    return lanes.tobytes()


def _unpack(data: bytes, count: int) -> list[Halves]:
    stride = 2 * count
    lanes = _lanes("Q", data)
    return [(lanes[2 * index :: stride], lanes[2 * index + 1 :: stride]) for index in range(count)]


def _entries(lanes: array[int], size: int) -> list[int]:
    """Integers of ``size`` bytes each, the first lane lowest."""
    if sys.byteorder == "big":
        lanes.byteswap()
    data = lanes.tobytes()
    return [int.from_bytes(data[place : place + size], "little") for place in range(0, len(data), size)]


def _lanes(kind: str, data: bytes) -> array[int]:
    lanes: array[int] = array(kind, data)
    if sys.byteorder == "big":
        lanes.byteswap()
    return lanes


def _compressed(products: list[Halves], errors: Sequence[Halves], bits: int) -> bytes:
    """Compress and ByteEncode (FIPS 203 section 4.2.1) of product + error."""
    table = _compression(bits)
    out = array("H", bytes(2 * N * len(products)))
    for index, (product, error) in enumerate(zip(products, errors, strict=True)):
        for half in (0, 1):
            start = index * N + half
            values = map(add, product[half], error[half])
            out[start : (index + 1) * N : 2] = array("H", [table[value % Q] for value in values])
    if sys.byteorder == "big":
        out.byteswap()
    return _squeeze(out.tobytes(), bits)


@lru_cache(maxsize=8)
def _compression(bits: int) -> tuple[int, ...]:
    """Compress of every value less the noise's offset."""
    values = ((value - _NOISE_OFFSET) % Q for value in range(Q))
    return tuple(((value << bits) + Q // 2) // Q % (1 << bits) for value in values)


def _squeeze(data: bytes, bits: int) -> bytes:
    """Values of ``bits`` bits in every two bytes, packed without gaps: eight of them fill ``bits`` bytes."""
    packed = int.from_bytes(data, "little")
    for used, lane, low in _squeezing(len(data), bits):
        packed = packed & low | packed >> lane - used & low << used
    spread = packed.to_bytes(len(data), "little")
    return b"".join([spread[place : place + bits] for place in range(0, len(spread), 16)])


@lru_cache(maxsize=8)
def _squeezing(size: int, bits: int) -> tuple[tuple[int, int, int], ...]:
    """Three times two lanes become one: (bits used, bits of a lane, the used bits of every other lane)."""
    steps = []
    for double in range(3):
        used, lane = bits << double, 16 << double
        low = ((1 << used) - 1).to_bytes(lane // 4, "little") * (4 * size // lane)
        steps.append((used, lane, int.from_bytes(low, "little")))
    return tuple(steps)
