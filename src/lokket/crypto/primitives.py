"""Hashes, KDFs, MACs and ciphers, as plain functions of bytes.

Sources: RFC 5869 (HKDF), RFC 2104 (HMAC), FIPS 202 (SHAKE), SP 800-38A (AES-CTR, AES-CBC with PKCS #7),
RFC 8452 (AES-GCM-SIV).
HMAC is two SHA-256 calls here, and HKDF is made of it: on short inputs that takes half the time of
``hmac.digest`` and of OpenSSL's HKDF, to which the tests pin them.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from hashlib import sha256 as _sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

from lokket.errors import DecryptionFailed

_IV_BYTES = 16
_KEY_BYTES = 32  # of nearly every key here; others take a slower way
_INNER_PAD = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD = bytes(byte ^ 0x5C for byte in range(256))
_INNER_REST = bytes((0x36,)) * 32  # of a block of 64 bytes, after a key of 32
_OUTER_REST = bytes((0x5C,)) * 32
_ZERO_INNER = 2 * _INNER_REST
_ZERO_OUTER = 2 * _OUTER_REST
_HKDF_MAX_BYTES = 255 * 32
_COUNTERS = tuple(bytes((number,)) for number in range(2, 256))  # of HKDF's blocks after the first
_PADDING = tuple(bytes((size,)) * size for size in range(17))


def sha256(data: bytes) -> bytes:
    return _sha256(data).digest()


def hmac_sha256(key: bytes, data: bytes) -> bytes:
    """HMAC-SHA256, 32 bytes."""
    if len(key) != _KEY_BYTES:
        return hmac.digest(key, data, "sha256")
    inner, outer = key.translate(_INNER_PAD) + _INNER_REST, key.translate(_OUTER_PAD) + _OUTER_REST
    return _sha256(outer + _sha256(inner + data).digest()).digest()


def hmac_sha256_pair(key: bytes, first: bytes, second: bytes) -> tuple[bytes, bytes]:
    """HMAC-SHA256 of two inputs under one key."""
    if len(key) != _KEY_BYTES:
        return hmac_sha256(key, first), hmac_sha256(key, second)
    inner, outer = key.translate(_INNER_PAD) + _INNER_REST, key.translate(_OUTER_PAD) + _OUTER_REST
    return (
        _sha256(outer + _sha256(inner + first).digest()).digest(),
        _sha256(outer + _sha256(inner + second).digest()).digest(),
    )


def hkdf_sha256_pair(key_material: bytes, salt: bytes | None, info: bytes) -> tuple[bytes, bytes]:
    """The first two blocks of ``hkdf_sha256``, 32 bytes each."""
    inner, outer = _extract(key_material, salt)
    first = _sha256(outer + _sha256(inner + info + b"\x01").digest()).digest()
    return first, _sha256(outer + _sha256(inner + first + info + b"\x02").digest()).digest()


def hkdf_sha256_triple(key_material: bytes, salt: bytes | None, info: bytes) -> tuple[bytes, bytes, bytes]:
    """The first three blocks of ``hkdf_sha256``, 32 bytes each."""
    inner, outer = _extract(key_material, salt)
    first = _sha256(outer + _sha256(inner + info + b"\x01").digest()).digest()
    second = _sha256(outer + _sha256(inner + first + info + b"\x02").digest()).digest()
    return first, second, _sha256(outer + _sha256(inner + second + info + b"\x03").digest()).digest()


def hkdf_sha256(key_material: bytes, *, salt: bytes | None, info: bytes, length: int) -> bytes:
    """HKDF-SHA256 extract and expand; ``salt=None`` means 32 zero bytes. ValueError: ``length`` over 8160."""
    if length > _HKDF_MAX_BYTES:
        raise ValueError("HKDF-SHA256 gives at most 8160 bytes")
    inner, outer = _extract(key_material, salt)
    output = block = _sha256(outer + _sha256(inner + info + b"\x01").digest()).digest()
    for counter in _COUNTERS[: (length - 1) // 32]:
        block = _sha256(outer + _sha256(inner + block + info + counter).digest()).digest()
        output += block
    return output[:length]


def _extract(key_material: bytes, salt: bytes | None) -> tuple[bytes, bytes]:
    """The pads of HKDF's pseudorandom key, which every block of its expansion is made with."""
    if salt is None:
        key = _sha256(_ZERO_OUTER + _sha256(_ZERO_INNER + key_material).digest()).digest()
    else:
        key = hmac_sha256(salt, key_material)
    return key.translate(_INNER_PAD) + _INNER_REST, key.translate(_OUTER_PAD) + _OUTER_REST


def shake256(data: bytes, length: int) -> bytes:
    return hashlib.shake_256(data).digest(length)


def equal(left: bytes, right: bytes) -> bool:
    """Comparison in constant time, for MACs and tokens."""
    return hmac.compare_digest(left, right)


def aes_cbc_encrypt(key: bytes, iv: bytes, plaintext: bytes) -> bytes:
    """AES-256-CBC with PKCS #7 padding."""
    encryptor = _cbc(key, iv).encryptor()
    return encryptor.update(plaintext + _PADDING[16 - len(plaintext) % 16])  # whole blocks: all is out


def aes_cbc_decrypt(key: bytes, iv: bytes, ciphertext: bytes) -> bytes:
    """Inverse of ``aes_cbc_encrypt``, for authenticated ciphertexts. DecryptionFailed: length or padding."""
    if not ciphertext or len(ciphertext) % 16:
        raise DecryptionFailed("the ciphertext is not whole blocks", code="bad-padding")
    decryptor = _cbc(key, iv).decryptor()
    padded = decryptor.update(ciphertext)  # whole blocks: all is out
    size = padded[-1]
    if not 1 <= size <= 16 or not padded.endswith(_PADDING[size]):
        raise DecryptionFailed("the padding is wrong", code="bad-padding")
    return padded[:-size]


def _cbc(key: bytes, iv: bytes) -> Cipher[modes.CBC]:
    """ValueError: a key of other than 32 bytes, an IV of other than 16."""
    if len(key) != _KEY_BYTES or len(iv) != _IV_BYTES:
        raise ValueError("AES-256-CBC takes a key of 32 bytes and an IV of 16")
    return _make_cbc(key, iv)


def _usual_cbc(key: bytes, iv: bytes) -> Cipher[modes.CBC]:
    return Cipher(algorithms.AES256(key), modes.CBC(iv))


def _quick_cbc(key: bytes, iv: bytes) -> Cipher[modes.CBC]:
    """Without constructors, whose checks of types cost what the encryption does."""
    algorithm = object.__new__(algorithms.AES256)
    algorithm.key = key
    cipher: Cipher[modes.CBC] = object.__new__(Cipher)
    cipher.algorithm = algorithm
    cipher.mode = modes.CBC(iv)
    return cipher


def _choose_cbc() -> Callable[[bytes, bytes], Cipher[modes.CBC]]:
    """The quick way relies on how ``cryptography`` is made inside: not where a release has changed that."""
    key, block = bytes(range(32)), bytes(range(16))
    try:
        quick, usual = _quick_cbc(key, block), _usual_cbc(key, block)
        sealed = usual.encryptor().update(block)
        works = quick.encryptor().update(block) == sealed and quick.decryptor().update(sealed) == block
    except Exception:  # whatever it is then
        works = False
    return _quick_cbc if works else _usual_cbc


_make_cbc = _choose_cbc()


def aes_ctr(key: bytes, data: bytes) -> bytes:
    """AES-256-CTR from a counter block of zeros, its own inverse: for keys that are used once."""
    cipher = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()
    return cipher.update(data) + cipher.finalize()


def aes_gcm_siv_seal(key: bytes, plaintext: bytes) -> bytes:
    """AES-256-GCM-SIV with a nonce of zeros, for keys that are used once: the ciphertext and 16 bytes."""
    return AESGCMSIV(key).encrypt(bytes(12), plaintext, None)


def aes_gcm_siv_open(key: bytes, sealed: bytes) -> bytes:
    """Inverse of ``aes_gcm_siv_seal``. DecryptionFailed: damaged, or under another key."""
    try:
        return AESGCMSIV(key).decrypt(bytes(12), sealed, None)
    except (InvalidTag, ValueError):
        raise DecryptionFailed("a ciphertext is not authentic", code="bad-tag") from None
