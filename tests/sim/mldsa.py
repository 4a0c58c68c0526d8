"""ML-DSA signatures without hedging (FIPS 204, deterministic variant), because OpenSSL always draws.

For replayable worlds only: slow, not constant in time. ``test_entropy.py`` has OpenSSL verify it.
Polynomials are multiplied as one large integer each (Kronecker substitution), which suits Python better
than an NTT: 64 bits hold a signed coefficient of any product that occurs here.
"""

from __future__ import annotations

import hashlib
from array import array
from functools import lru_cache
from typing import Final, NamedTuple

Q: Final = 8_380_417
D: Final = 13
Polynomial = list[int]


class Parameters(NamedTuple):
    """FIPS 204 table 1."""

    k: int
    l: int  # noqa: E741
    eta: int
    tau: int
    gamma_1_bits: int
    gamma_2: int
    omega: int
    challenge_bytes: int

    @property
    def beta(self) -> int:
        return self.tau * self.eta


PARAMETERS: Final = {
    44: Parameters(4, 4, 2, 39, 17, (Q - 1) // 88, 80, 32),
    65: Parameters(6, 5, 4, 49, 19, (Q - 1) // 32, 55, 48),
}


class Expanded(NamedTuple):
    """A private key as signing wants it, polynomials packed; ``a[row][column]``."""

    key: bytes
    hash_of_public: bytes
    a: list[list[int]]
    s1: list[int]
    s2: list[int]
    t0: list[int]


@lru_cache(maxsize=4096)
def sign(level: int, seed: bytes, public: bytes, message: bytes, context: bytes) -> bytes:
    """Algorithm 2 with rnd = 0: 2420 B (level 44) or 3309 B (level 65)."""
    p = PARAMETERS[level]
    key = expand(level, seed, public)
    mu = _h(key.hash_of_public + bytes((0, len(context))) + context + message, 64)
    rho = _h(key.key + bytes(32) + mu, 64)
    kappa = 0
    while True:
        found = _attempt(p, key, mu, rho, kappa)
        if found is not None:
            return found
        kappa += p.l


def _attempt(p: Parameters, key: Expanded, mu: bytes, rho: bytes, kappa: int) -> bytes | None:
    """One turn of the loop of algorithm 7."""
    gamma_1 = 1 << p.gamma_1_bits
    y = [_mask(p, rho, kappa + index) for index in range(p.l)]
    y_packed = [_pack(polynomial) for polynomial in y]
    w = [_unpack(_inner_product(row, y_packed)) for row in key.a]
    w = [[value % Q for value in polynomial] for polynomial in w]
    w_1 = [_high_bits(polynomial, p.gamma_2) for polynomial in w]
    bits = ((Q - 1) // (2 * p.gamma_2) - 1).bit_length()
    challenge = _h(mu + b"".join(_encode(polynomial, bits) for polynomial in w_1), p.challenge_bytes)
    c = _pack(_ball(p, challenge))
    z = []
    for s, mask in zip(key.s1, y, strict=True):
        z.append([a + b for a, b in zip(_unpack(c * s), mask, strict=True)])
        if max(map(abs, z[-1])) >= gamma_1 - p.beta:
            return None
    hint_bytes = bytearray(p.omega + p.k)
    hints = 0
    for row in range(p.k):
        r = [(a - b) % Q for a, b in zip(w[row], _unpack(c * key.s2[row]), strict=True)]
        if max(map(abs, _low_bits(r, p.gamma_2))) >= p.gamma_2 - p.beta:
            return None
        c_t0 = _unpack(c * key.t0[row])
        if max(map(abs, c_t0)) >= p.gamma_2:
            return None
        moved = _high_bits([(a + b) % Q for a, b in zip(r, c_t0, strict=True)], p.gamma_2)
        changed = [index for index, high in enumerate(_high_bits(r, p.gamma_2)) if high != moved[index]]
        if hints + len(changed) > p.omega:
            return None
        hint_bytes[hints : hints + len(changed)] = bytes(changed)
        hints += len(changed)
        hint_bytes[p.omega + row] = hints
    width = p.gamma_1_bits + 1
    encoded = b"".join(_encode([gamma_1 - value for value in polynomial], width) for polynomial in z)
    return challenge + encoded + bytes(hint_bytes)


@lru_cache(maxsize=256)
def expand(level: int, seed: bytes, public: bytes) -> Expanded:
    """Algorithm 6, from the 32-byte seed."""
    p = PARAMETERS[level]
    stream = _h(seed + bytes((p.k, p.l)), 128)
    rho, rho_prime, key = stream[:32], stream[32:96], stream[96:]
    uniform = [[_uniform(rho + bytes((column, row))) for column in range(p.l)] for row in range(p.k)]
    a = [[_pack(_inverse_ntt(polynomial)) for polynomial in row] for row in uniform]
    short = [_short(p.eta, rho_prime + index.to_bytes(2, "little")) for index in range(p.l + p.k)]
    s1 = [_pack(polynomial) for polynomial in short[: p.l]]
    t0 = []
    for row, s2 in zip(a, short[p.l :], strict=True):
        t = [(x + e) % Q for x, e in zip(_unpack(_inner_product(row, s1)), s2, strict=True)]
        t0.append(_pack([value - (value + (1 << D - 1) - 1 >> D << D) for value in t]))
    return Expanded(key, _h(public, 64), a, s1, [_pack(polynomial) for polynomial in short[p.l :]], t0)


def _h(data: bytes, size: int) -> bytes:
    return hashlib.shake_256(data).digest(size)


def _uniform(seed: bytes) -> Polynomial:
    """RejNTTPoly, algorithm 30."""
    stream = hashlib.shake_128(seed).digest(3 * 400)
    values = (int.from_bytes(stream[at : at + 3], "little") & 0x7FFFFF for at in range(0, len(stream), 3))
    return [value for value in values if value < Q][:256]


def _short(eta: int, seed: bytes) -> Polynomial:
    """RejBoundedPoly, algorithm 31."""
    out: Polynomial = []
    for byte in _h(seed, 512):
        for half in (byte & 15, byte >> 4):
            if eta == 2 and half < 15:
                out.append(2 - half % 5)
            elif eta == 4 and half < 9:
                out.append(4 - half)
    return out[:256]


def _mask(p: Parameters, rho: bytes, nonce: int) -> Polynomial:
    """ExpandMask, algorithm 34."""
    width = p.gamma_1_bits + 1
    packed = int.from_bytes(_h(rho + nonce.to_bytes(2, "little"), 32 * width), "little")
    limit, top = (1 << width) - 1, 1 << p.gamma_1_bits
    return [top - (packed >> shift & limit) for shift in range(0, 256 * width, width)]


def _ball(p: Parameters, challenge: bytes) -> Polynomial:
    """SampleInBall, algorithm 29."""
    stream = _h(challenge, 1024)
    signs = int.from_bytes(stream[:8], "little")
    c = [0] * 256
    at = 8
    for index in range(256 - p.tau, 256):
        while stream[at] > index:
            at += 1
        chosen = stream[at]
        at += 1
        c[index] = c[chosen]
        c[chosen] = 1 - 2 * (signs >> (index + p.tau - 256) & 1)
    return c


def _high_bits(values: Polynomial, gamma_2: int) -> Polynomial:
    """Algorithm 37, on values in 0..Q-1."""
    count = (Q - 1) // (2 * gamma_2)
    return [(value + gamma_2 - 1) // (2 * gamma_2) % count for value in values]


def _low_bits(values: Polynomial, gamma_2: int) -> Polynomial:
    """Algorithm 38; what rounds up to Q - 1 counts as rounding to 0."""
    return [(v + gamma_2 - 1) % (2 * gamma_2) - gamma_2 + 1 - (v >= Q - gamma_2) for v in values]


def _encode(values: Polynomial, bits: int) -> bytes:
    packed = 0
    for value in reversed(values):
        packed = packed << bits | value
    return packed.to_bytes(32 * bits, "little")


# --- polynomials as integers: the value at X = 2^64 ---

_OFFSET: Final = 1 << 62
_OFFSETS: Final = sum(_OFFSET << 64 * index for index in range(511))


def _pack(values: Polynomial) -> int:
    shifted = array("Q", [value + _OFFSET for value in values])
    return int.from_bytes(shifted.tobytes(), "little") - (_OFFSETS & (1 << 64 * 256) - 1)


def _unpack(product: int) -> Polynomial:
    """The coefficients modulo X^256 + 1, signed."""
    digits = array("Q", (product + _OFFSETS).to_bytes(8 * 512, "little"))
    return [low - high for low, high in zip(digits[:255], digits[256:511], strict=True)] + [
        digits[255] - _OFFSET
    ]


def _inner_product(row: list[int], vector: list[int]) -> int:
    return sum(a * b for a, b in zip(row, vector, strict=True))


# --- the inverse NTT (algorithm 42): the matrix A is sampled in the NTT domain ---

_ZETAS: Final = [pow(1753, int(f"{index:08b}"[::-1], 2), Q) for index in range(256)]
_INVERSE_256: Final = pow(256, -1, Q)


def _inverse_ntt(values: Polynomial) -> Polynomial:
    out = list(values)
    length, zeta = 1, 256
    while length < 256:
        for start in range(0, 256, 2 * length):
            zeta -= 1
            factor = Q - _ZETAS[zeta]
            for j in range(start, start + length):
                low, high = out[j], out[j + length]
                out[j] = low + high
                out[j + length] = factor * (low - high) % Q
        length *= 2
    return [value * _INVERSE_256 % Q for value in out]
