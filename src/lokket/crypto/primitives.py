"""Hashes, KDFs, MACs and ciphers, as plain functions of bytes.

Sources: RFC 5869 (HKDF), RFC 2104 (HMAC), FIPS 202 (SHAKE), SP 800-38A (AES-CTR, AES-CBC with PKCS #7),
RFC 8452 (AES-GCM-SIV).
HMAC is two SHA-256 calls here, and HKDF is made of it: on short inputs that takes half the time of
``hmac.digest`` and of OpenSSL's HKDF, to which the tests pin them.
"""

from __future__ import annotations

import hashlib
import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

from lokket.errors import DecryptionFailed

_BLOCK_BYTES = 64
_INNER_PAD = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD = bytes(byte ^ 0x5C for byte in range(256))
_ZERO_INNER = bytes((0x36,)) * _BLOCK_BYTES
_ZERO_OUTER = bytes((0x5C,)) * _BLOCK_BYTES
_PADDING = tuple(bytes((size,)) * size for size in range(17))


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def hmac_sha256(key: bytes, data: bytes) -> bytes:
    """HMAC-SHA256, 32 bytes."""
    if len(key) > _BLOCK_BYTES:
        return hmac.digest(key, data, "sha256")
    block = key.ljust(_BLOCK_BYTES, b"\x00")
    inner = hashlib.sha256(block.translate(_INNER_PAD) + data).digest()
    return hashlib.sha256(block.translate(_OUTER_PAD) + inner).digest()


def hmac_sha256_pair(key: bytes, first: bytes, second: bytes) -> tuple[bytes, bytes]:
    """HMAC-SHA256 of two inputs under one key of at most 64 bytes."""
    sha = hashlib.sha256
    block = key.ljust(_BLOCK_BYTES, b"\x00")
    inner, outer = block.translate(_INNER_PAD), block.translate(_OUTER_PAD)
    return (
        sha(outer + sha(inner + first).digest()).digest(),
        sha(outer + sha(inner + second).digest()).digest(),
    )


def hkdf_sha256_pair(key_material: bytes, info: bytes) -> tuple[bytes, bytes]:
    """HKDF-SHA256 with a zero salt, 64 bytes in two halves."""
    sha = hashlib.sha256
    key = sha(_ZERO_OUTER + sha(_ZERO_INNER + key_material).digest()).digest().ljust(_BLOCK_BYTES, b"\x00")
    inner, outer = key.translate(_INNER_PAD), key.translate(_OUTER_PAD)
    first = sha(outer + sha(b"".join((inner, info, b"\x01"))).digest()).digest()
    return first, sha(outer + sha(b"".join((inner, first, info, b"\x02"))).digest()).digest()


def hkdf_sha256(key_material: bytes, *, salt: bytes | None, info: bytes, length: int) -> bytes:
    """HKDF-SHA256 extract and expand; ``salt=None`` means 32 zero bytes; ``length`` up to 8160."""
    sha = hashlib.sha256
    key = hmac_sha256(salt or b"", key_material).ljust(_BLOCK_BYTES, b"\x00")
    inner, outer = key.translate(_INNER_PAD), key.translate(_OUTER_PAD)
    output = block = sha(outer + sha(b"".join((inner, info, b"\x01"))).digest()).digest()
    for number in range(2, -(-length // 32) + 1):
        block = sha(outer + sha(b"".join((inner, block, info, bytes((number,))))).digest()).digest()
        output += block
    return output[:length]


def shake256(data: bytes, length: int) -> bytes:
    return hashlib.shake_256(data).digest(length)


def equal(left: bytes, right: bytes) -> bool:
    """Comparison in constant time, for MACs and tokens."""
    return hmac.compare_digest(left, right)


def aes_cbc_encrypt(key: bytes, iv: bytes, plaintext: bytes) -> bytes:
    """AES-256-CBC with PKCS #7 padding."""
    encryptor = Cipher(algorithms.AES256(key), modes.CBC(iv)).encryptor()
    return encryptor.update(plaintext + _PADDING[16 - len(plaintext) % 16]) + encryptor.finalize()


def aes_cbc_decrypt(key: bytes, iv: bytes, ciphertext: bytes) -> bytes:
    """Inverse of ``aes_cbc_encrypt``, for authenticated ciphertexts. DecryptionFailed: length or padding."""
    if not ciphertext or len(ciphertext) % 16:
        raise DecryptionFailed("the ciphertext is not whole blocks", code="bad-padding")
    decryptor = Cipher(algorithms.AES256(key), modes.CBC(iv)).decryptor()
    padded = decryptor.update(ciphertext) + decryptor.finalize()
    size = padded[-1]
    if not 1 <= size <= 16 or not padded.endswith(_PADDING[size]):
        raise DecryptionFailed("the padding is wrong", code="bad-padding")
    return padded[:-size]


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
