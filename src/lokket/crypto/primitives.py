"""Hashes, KDFs, MACs and ciphers, as plain functions of bytes.

Sources: RFC 5869 (HKDF), RFC 2104 (HMAC), FIPS 202 (SHAKE), SP 800-38A with PKCS #7 (AES-CBC).
"""

from __future__ import annotations

import hashlib
import hmac

from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from lokket.errors import DecryptionFailed

_SHA256 = SHA256()


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def hmac_sha256(key: bytes, data: bytes) -> bytes:
    """HMAC-SHA256, 32 bytes."""
    return hmac.digest(key, data, "sha256")


def hkdf_sha256(key_material: bytes, *, salt: bytes | None, info: bytes, length: int) -> bytes:
    """HKDF-SHA256 extract and expand; ``salt=None`` means 32 zero bytes."""
    return HKDF(algorithm=_SHA256, length=length, salt=salt, info=info).derive(key_material)


def shake256(data: bytes, length: int) -> bytes:
    return hashlib.shake_256(data).digest(length)


def equal(left: bytes, right: bytes) -> bool:
    """Comparison in constant time, for MACs and tokens."""
    return hmac.compare_digest(left, right)


def aes_cbc_encrypt(key: bytes, iv: bytes, plaintext: bytes) -> bytes:
    """AES-256-CBC with PKCS #7 padding."""
    padder = padding.PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    return encryptor.update(padder.update(plaintext) + padder.finalize()) + encryptor.finalize()


def aes_cbc_decrypt(key: bytes, iv: bytes, ciphertext: bytes) -> bytes:
    """Inverse of ``aes_cbc_encrypt``. DecryptionFailed: length or padding is wrong."""
    if not ciphertext or len(ciphertext) % 16:
        raise DecryptionFailed("the ciphertext is not whole blocks")
    decryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor()
    unpadder = padding.PKCS7(128).unpadder()
    try:
        return unpadder.update(decryptor.update(ciphertext) + decryptor.finalize()) + unpadder.finalize()
    except ValueError:
        raise DecryptionFailed("the padding is wrong") from None
