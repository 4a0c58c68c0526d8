"""ML-KEM encapsulation (FIPS 203) in two parts and with a chosen message, which OpenSSL does not offer.

The ML-KEM Braid sends the first part of a ciphertext before it has the whole public key. ``encapsulate_1``
needs the seed rho and the key's hash; ``encapsulate_2`` needs the rest. ``encapsulate_with`` is both at
once, for replayable tests.

1. ``_factors`` draws y by ``_noise`` and takes it to the NTT domain.
2. ``_sample`` draws the matrix from rho; ``_rows`` multiplies it (or the key's vector) by y.
3. ``_inverse`` takes the products back; ``_compressed`` adds noise, rounds and packs bits.

To be quick in Python, an integer holds many coefficients, each in a lane of 64 bits: the transform of all
polynomials begins as one integer that is halved seven times, and one multiplication by zeta serves a
whole block. Lanes are made smaller only before they could overflow, and bytes move between lanes by strided
copies, so that only the matrix, which is public, is looked at number by number. Python integers do not run
in constant time: the secrets here (m, y, e) serve one encapsulation each and are never used again.
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
_SAMPLED_BYTES: Final = 3 * 168  # three blocks of SHAKE128, which suffice in 99 of 100 cases
_INVERSE_128: Final = 3303


def _bit_reverse_7(value: int) -> int:
    return int(f"{value:07b}"[::-1], 2)


_ZETAS: Final = tuple(pow(17, _bit_reverse_7(index), Q) for index in range(_HALF))


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
    error = _lanes([half for row in range(k) for half in _noise(coins, k + row)])
    return _compressed(_inverse(_rows(_matrix(rho, k), factors), k), error, k, parameters.du)


def _v(
    parameters: Parameters, vector: bytes, coins: bytes, message: bytes, factors: list[list[int]]
) -> bytes:
    """Compress_dv of the inverse NTT of t y, plus e2 and the message's bits times (q + 1) / 2."""
    columns = [[polynomial] for polynomial in _decode_vector(vector)]
    bits = bytes(byte >> bit & 1 for byte in message for bit in range(8))
    error = _lanes(_noise(coins, 2 * parameters.k)) + _lanes((bits[::2], bits[1::2])) * ((Q + 1) // 2)
    return _compressed(_inverse(_rows(columns, factors), 1), error, 1, parameters.dv)


# --- sampling ---


def _matrix(rho: bytes, k: int) -> list[list[bytes]]:
    """The matrix A, FIPS 203 algorithm 14 lines 4 to 6, by columns of its transpose."""
    seeds = [rho + bytes((row, column)) for column in range(k) for row in range(k)]
    values = _twelve_bits(b"".join([hashlib.shake_128(seed).digest(_SAMPLED_BYTES) for seed in seeds]))
    size = len(values) // len(seeds)
    cells = []
    for index, seed in enumerate(seeds):
        below = [value for value in values[size * index : size * (index + 1)] if value < Q]
        cells.append(_words(below[:N]) if len(below) >= N else _sample(seed))
    return [cells[start : start + k] for start in range(0, len(cells), k)]


def _sample(seed: bytes) -> bytes:
    """SampleNTT, FIPS 203 algorithm 7, for the one seed in a hundred that needs more of its stream."""
    stream = hashlib.shake_128(seed).digest(8 * _SAMPLED_BYTES)
    return _words([value for value in _twelve_bits(stream) if value < Q][:N])


def _words(values: list[int]) -> bytes:
    """Every value in four bytes."""
    words = array("I", values)
    if sys.byteorder == "big":
        words.byteswap()
    return words.tobytes()


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
    values = array("H", bytes(out))
    if sys.byteorder == "big":
        values.byteswap()
    return values.tolist()


def _decode_vector(vector: bytes) -> list[bytes]:
    """The polynomials of an encoded vector. KeyRefused: a coefficient of q or more."""
    values = _twelve_bits(vector)
    if max(values) >= Q:
        raise KeyRefused("a KEM key has a coefficient that is not reduced")
    return [_words(values[start : start + N]) for start in range(0, len(values), N)]


_BINOMIAL: Final = tuple(
    (bits & 1) + (bits >> 1 & 1) - (bits >> 2 & 1) - (bits >> 3) + 2 for bits in range(16)
)
_EVEN_NOISE: Final = bytes(_BINOMIAL[byte & 15] for byte in range(256))
_ODD_NOISE: Final = bytes(_BINOMIAL[byte >> 4] for byte in range(256))
_NOISE_OFFSET: Final = 2


def _noise(coins: bytes, nonce: int) -> tuple[bytes, bytes]:
    """SamplePolyCBD for eta 2, FIPS 203 algorithm 8, plus 2: 128 even and 128 odd values, each 0..4."""
    stream = hashlib.shake_256(coins + bytes((nonce,))).digest(128)
    return stream.translate(_EVEN_NOISE), stream.translate(_ODD_NOISE)


# --- the number-theoretic transform, on packed polynomials ---


Fold: TypeAlias = tuple[int, int, int, int]
"""The bit; masks of what lies below and above it, in every lane; 2^bit modulo q."""


class _Layer(NamedTuple):
    """One layer: every block of twice ``bits`` bits is halved (or made) by a butterfly with its zeta."""

    bits: int
    mask: int
    zetas: tuple[int, ...]
    offset: int  # in every lane a multiple of q that keeps differences positive
    folds: tuple[Fold, ...]  # reductions before the layer


_LANE_MAX: Final = (1 << 8 * _LANE_BYTES) - 1
_LAYER_BITS: Final = (37, 24)  # 2^37 is 19 modulo q: a fold there costs no room
_ROUNDED_BITS: Final = (*_LAYER_BITS, 17)
_FACTOR_BITS: Final = (*_ROUNDED_BITS, 16)


def _repeat(value: int, lanes: int) -> int:
    return int.from_bytes(value.to_bytes(_LANE_BYTES, "little") * lanes, "little")


@lru_cache(maxsize=8)
def _plan(lanes: int, forward: bool) -> tuple[_Layer, ...]:
    """The seven layers of FIPS 203 algorithm 9 (``forward``) or 10, with what bounds their lanes."""
    largest = Q + _NOISE_OFFSET if forward else _PRODUCT_MAX
    layers = []
    for step in range(7):
        distance = 64 >> step if forward else 1 << step
        half = lanes * distance  # lanes in half a block
        whole = 2 * half if forward else half  # lanes in the integers that the layer begins with
        folds: tuple[Fold, ...] = ()
        if (2 * largest + Q) * Q >= 1 << 8 * _LANE_BYTES:
            folds, largest = _folds(_LAYER_BITS, whole, largest)
        if forward:
            offset = -(-largest * (Q - 1) // Q) * Q
            largest = (largest if step else largest * _INVERSE_128) + offset
        else:
            offset = -(-largest // Q) * Q
            largest = (largest + offset) * (Q - 1)
        count = _HALF // (2 * distance)
        zetas = _ZETAS[count : 2 * count] if forward else _ZETAS[count : 2 * count][::-1]
        bits = 8 * _LANE_BYTES * half
        layers.append(_Layer(bits, (1 << bits) - 1, zetas, _repeat(offset, half), folds))
    return tuple(layers)


def _fold(blocks: list[int], fold: Fold) -> list[int]:
    """Lanes made smaller: what lies above a bit comes back times 2^bit modulo q."""
    bit, low, high, factor = fold
    return [(block & low) + (block >> bit & high) * factor for block in blocks]


@lru_cache(maxsize=64)
def _folds(bits: tuple[int, ...], lanes: int, largest: int) -> tuple[tuple[Fold, ...], int]:
    """Folds at ``bits`` of lanes of at most ``largest``, and the largest that is left."""
    folds = []
    for bit in bits:
        factor = (1 << bit) % Q
        folds.append((bit, _repeat((1 << bit) - 1, lanes), _repeat((1 << 64 - bit) - 1, lanes), factor))
        largest = (1 << bit) - 1 + (largest >> bit) * factor
    return tuple(folds), largest


def _shrunk(value: int, lanes: int, bits: tuple[int, ...]) -> int:
    """All lanes of an integer, whatever is in them, folded at ``bits``."""
    for fold in _folds(bits, lanes, _LANE_MAX)[0]:
        (value,) = _fold([value], fold)
    return value


_COLUMNS_MAX: Final = 4
_PRODUCT_MAX: Final = _COLUMNS_MAX * 2 * (Q - 1) * _folds(_FACTOR_BITS, 1, _LANE_MAX)[1]
assert _PRODUCT_MAX < 1 << 32, "a lane of _rows would overflow"


def _transform(packed: int, lanes: int) -> list[int]:
    """The NTT of ``lanes`` sequences of 128 side by side, from one block to 128, divided by 128.

    The division, which ``_inverse`` leaves out, costs nothing together with the first layer's zeta.
    """
    first, *layers = _plan(lanes, True)
    low = (packed & first.mask) * _INVERSE_128
    product = (packed >> first.bits) * (first.zetas[0] * _INVERSE_128 % Q)
    blocks = [low + product, low + first.offset - product]
    for bits, mask, zetas, offset, folds in layers:
        for fold in folds:
            blocks = _fold(blocks, fold)
        halves = []
        for block, zeta in zip(blocks, zetas, strict=True):
            low, product = block & mask, (block >> bits) * zeta
            halves.append(low + product)
            halves.append(low + offset - product)
        blocks = halves
    return blocks


def _inverse(packed: bytes, count: int) -> int:
    """The inverse NTT of ``count`` polynomials without its scale, from 128 blocks to one."""
    lanes = 2 * count
    blocks = _entries(packed, _LANE_BYTES * lanes)
    for bits, _, zetas, offset, folds in _plan(lanes, False):
        for fold in folds:
            blocks = _fold(blocks, fold)
        blocks = [
            low + high + ((high + offset - low) * zeta << bits)
            for low, high, zeta in zip(blocks[::2], blocks[1::2], zetas, strict=True)
        ]
    return blocks[0]


def _factors(k: int, coins: bytes) -> list[list[int]]:
    """What ``_rows`` multiplies by: of each polynomial of y, (gamma * odd, even, odd) in lanes of 32 bits.

    Even and odd coefficients are transformed apart, and x * y has gamma * odd where y has even: so the even
    coefficients of x * y, which are -y_255, y_1, y_3, ..., are a third sequence beside the two of y.
    """
    sequences: list[bytes] = []
    for index in range(k):
        even, odd = _noise(coins, index)
        sequences += (bytes((2 * _NOISE_OFFSET - odd[-1],)) + odd[:-1], even, odd)
    lanes = len(sequences)
    packed = _lanes(sequences) + _repeat(Q - _NOISE_OFFSET, lanes * _HALF)
    data = _joined(_transform(packed, lanes), _LANE_BYTES * lanes)
    small = _shrunk(int.from_bytes(data, "little"), lanes * _HALF, _FACTOR_BITS).to_bytes(len(data), "little")
    words = memoryview(small).cast("I")[::2].tobytes()
    return [
        [int.from_bytes(words[at : at + 12], "little") for at in range(12 * index, len(words), 12 * k)]
        for index in range(k)
    ]


def _rows(columns: list[list[bytes]], factors: list[list[int]]) -> bytes:
    """Per row the sum over columns of polynomial times factor, FIPS 203 algorithms 11 and 12, packed.

    One multiplication does an entry of a whole column: (a0, a1) times (g b1, b0, b1) has
    a0 b0 + a1 g b1 in lane 1 and a0 b1 + a1 b0 in lane 2; lanes 0 and 3 are thrown away.
    """
    rows = len(columns[0])
    size = 16 * rows
    total: Iterable[int] = ()
    for index, column in enumerate(columns):
        pairs = array("Q", bytes(size * _HALF))
        for row, polynomial in enumerate(column):
            pairs[2 * row :: 2 * rows] = array("Q", polynomial)
        products = map(mul, _entries(pairs.tobytes(), size), factors[index])
        total = list(map(add, total, products)) if index else list(products)
    source = memoryview(_joined(total, size)).cast("I")
    packed = bytearray(size * _HALF)
    target = memoryview(packed).cast("I")
    for row in range(rows):
        for half in (0, 1):
            target[4 * row + 2 * half :: 4 * rows] = source[4 * row + 1 + half :: 4 * rows]
    return bytes(packed)


# --- lanes and bytes: what is moved is a whole byte, word or lane, so their order inside does not matter ---


def _lanes(sequences: Sequence[bytes]) -> int:
    """Sequences of 128 small values side by side, the first value of each, then the second of each."""
    size = _LANE_BYTES * len(sequences)
    packed = bytearray(size * _HALF)
    for place, sequence in enumerate(sequences):
        packed[_LANE_BYTES * place :: size] = sequence
    return int.from_bytes(packed, "little")


def _entries(data: bytes, size: int) -> list[int]:
    """Integers of ``size`` bytes each, the first lane lowest."""
    return [int.from_bytes(data[place : place + size], "little") for place in range(0, len(data), size)]


def _joined(entries: Iterable[int], size: int) -> bytes:
    return b"".join([entry.to_bytes(size, "little") for entry in entries])


def _compressed(product: int, error: int, count: int, bits: int) -> bytes:
    """Compress and ByteEncode (FIPS 203 section 4.2.1) of product + error.

    Lanes need not be below q: a multiple of q more is a multiple of 2^bits more, and is cut off.
    """
    lanes = 2 * count * _HALF
    shift, reciprocal, rounding, mask = _compression(lanes, bits)
    value = _shrunk(product, lanes, _ROUNDED_BITS) + error
    quotients = ((value << bits) + rounding) * reciprocal >> shift & mask
    data = quotients.to_bytes(_LANE_BYTES * lanes, "little")
    pairs = memoryview(memoryview(data).cast("H")[::4].tobytes()).cast("I")
    return _squeeze(b"".join([pairs[index::count].tobytes() for index in range(count)]), bits)


@lru_cache(maxsize=8)
def _compression(lanes: int, bits: int) -> tuple[int, int, int, int]:
    """(shift, reciprocal, rounding, mask): floor of x / q is x * reciprocal >> shift for every x there is.

    ``rounding`` takes the noise's offset away, plus q so that nothing is negative.
    """
    largest = _folds(_ROUNDED_BITS, 1, _LANE_MAX)[1] + 2 * Q  # with errors, a message's bit and rounding
    numerator = (largest + 1) << bits
    shift = (numerator * Q).bit_length()
    reciprocal = -(-(1 << shift) // Q)
    assert numerator * reciprocal <= _LANE_MAX
    rounding = ((Q - _NOISE_OFFSET) << bits) + Q // 2
    return shift, reciprocal, _repeat(rounding, lanes), _repeat((1 << bits) - 1, lanes)


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
