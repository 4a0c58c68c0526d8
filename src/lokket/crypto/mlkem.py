"""ML-KEM encapsulation (FIPS 203) in two parts and with a chosen message, which OpenSSL does not offer.

The ML-KEM Braid sends the first part of a ciphertext before it has the whole public key. ``encapsulate_1``
needs the seed rho and the key's hash; ``encapsulate_2`` needs the rest. ``encapsulate_with`` is both at
once, for replayable tests. Python integers do not run in constant time: the secrets here (m, y, e) serve
one encapsulation each and are never used again.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

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
_INVERSE_128: Final = 3303


def _bit_reverse_7(value: int) -> int:
    return int(f"{value:07b}"[::-1], 2)


_ZETAS: Final = tuple(pow(17, _bit_reverse_7(index), Q) for index in range(128))
_GAMMAS: Final = tuple(pow(17, 2 * _bit_reverse_7(index) + 1, Q) for index in range(128))


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
    return secret, _compress_vector(_u(_768, key_header[:SEED_BYTES], coins), _768.du)


def encapsulate_2(vector: bytes, key_header: bytes, message: bytes) -> bytes:
    """ct2, 128 B, for the same header and message; ``vector`` must have passed ``check_public_key``."""
    _, coins = _derive(message, key_header[SEED_BYTES:])
    return _compress_vector([_v(_768, vector, coins, message)], _768.dv)


def encapsulate_with(public_key: bytes, message: bytes) -> tuple[bytes, bytes]:
    """(shared secret 32 B, ciphertext) of FIPS 203 ML-KEM.Encaps_internal for ML-KEM-768 or ML-KEM-1024.

    KeyRefused: the public key (1184 or 1568 B) is malformed.
    """
    parameters = {1184: _768, 1568: _1024}.get(len(public_key))
    if parameters is None:
        raise KeyRefused("a KEM public key has the wrong length")
    secret, coins = _derive(message, hashlib.sha3_256(public_key).digest())
    vector, rho = public_key[:-SEED_BYTES], public_key[-SEED_BYTES:]
    v = _v(parameters, vector, coins, message)
    u = _u(parameters, rho, coins)
    return secret, _compress_vector(u, parameters.du) + _compress_vector([v], parameters.dv)


def _derive(message: bytes, key_hash: bytes) -> tuple[bytes, bytes]:
    """(K, r) = G(m || H(ek)), FIPS 203 algorithm 17."""
    digest = hashlib.sha3_512(message + key_hash).digest()
    return digest[:32], digest[32:]


def _u(parameters: Parameters, rho: bytes, coins: bytes) -> list[list[int]]:
    k = parameters.k
    y = [_ntt(_noise(coins, index)) for index in range(k)]
    u = []
    for row in range(k):
        total = [0] * N
        for column in range(k):
            total = _multiply_add(total, _sample(rho + bytes((row, column))), y[column])
        noise = _noise(coins, k + row)
        u.append([(a + b) % Q for a, b in zip(_inverse_ntt(total), noise, strict=True)])
    return u


def _v(parameters: Parameters, vector: bytes, coins: bytes, message: bytes) -> list[int]:
    k = parameters.k
    total = [0] * N
    for index, t in enumerate(_decode_vector(vector)):
        total = _multiply_add(total, t, _ntt(_noise(coins, index)))
    noise = _noise(coins, 2 * k)
    mu = [(message[index >> 3] >> (index & 7) & 1) * 1665 for index in range(N)]
    return [(a + b + c) % Q for a, b, c in zip(_inverse_ntt(total), noise, mu, strict=True)]


def _sample(seed: bytes) -> list[int]:
    """SampleNTT, FIPS 203 algorithm 7."""
    stream = hashlib.shake_128(seed).digest(168 * 12)
    packed = int.from_bytes(stream, "little")
    out: list[int] = []
    for index in range(len(stream) * 2 // 3):
        value = packed >> 12 * index & 0xFFF
        if value < Q:
            out.append(value)
            if len(out) == N:
                break
    return out


def _noise(coins: bytes, nonce: int) -> list[int]:
    """SamplePolyCBD for eta 2, FIPS 203 algorithm 8."""
    packed = int.from_bytes(hashlib.shake_256(coins + bytes((nonce,))).digest(128), "little")
    out = []
    for index in range(N):
        bits = packed >> 4 * index & 15
        out.append((bits & 1) + (bits >> 1 & 1) - (bits >> 2 & 1) - (bits >> 3))
    return out


def _ntt(values: list[int]) -> list[int]:
    out = list(values)
    zeta, length = 1, 128
    while length >= 2:
        for start in range(0, N, 2 * length):
            z = _ZETAS[zeta]
            zeta += 1
            for j in range(start, start + length):
                t = z * out[j + length] % Q
                out[j + length] = (out[j] - t) % Q
                out[j] = (out[j] + t) % Q
        length //= 2
    return out


def _inverse_ntt(values: list[int]) -> list[int]:
    out = list(values)
    zeta, length = 127, 2
    while length <= 128:
        for start in range(0, N, 2 * length):
            z = _ZETAS[zeta]
            zeta -= 1
            for j in range(start, start + length):
                t = out[j]
                out[j] = (t + out[j + length]) % Q
                out[j + length] = z * (out[j + length] - t) % Q
        length *= 2
    return [value * _INVERSE_128 % Q for value in out]


def _multiply_add(total: list[int], a: list[int], b: list[int]) -> list[int]:
    out = list(total)
    for i in range(128):
        a0, a1, b0, b1 = a[2 * i], a[2 * i + 1], b[2 * i], b[2 * i + 1]
        out[2 * i] = (out[2 * i] + a0 * b0 + a1 * b1 * _GAMMAS[i]) % Q
        out[2 * i + 1] = (out[2 * i + 1] + a0 * b1 + a1 * b0) % Q
    return out


def _decode_vector(vector: bytes) -> list[list[int]]:
    """ByteDecode_12; KeyRefused for a coefficient of q or more."""
    packed = int.from_bytes(vector, "little")
    values = [packed >> 12 * index & 0xFFF for index in range(len(vector) * 2 // 3)]
    if max(values) >= Q:
        raise KeyRefused("a KEM key has a coefficient that is not reduced")
    return [values[start : start + N] for start in range(0, len(values), N)]


def _compress_vector(polynomials: list[list[int]], bits: int) -> bytes:
    packed = shift = 0
    for polynomial in polynomials:
        for value in polynomial:
            packed |= ((value << bits) + Q // 2) // Q % (1 << bits) << shift
            shift += bits
    return packed.to_bytes(shift // 8, "little")
