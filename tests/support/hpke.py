"""HPKE to X-Wing from given randomness (RFC 9180 section 5; draft-connolly-cfrg-xwing-kem section 5.4).

For replayable worlds only. ``unit/crypto/test_hpke.py`` holds it against OpenSSL and published vectors.
"""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from lokket.crypto import mlkem
from lokket.crypto.keys import MLKEM_768_PUBLIC_BYTES, X25519KeyPair
from lokket.crypto.primitives import hmac_sha256

RANDOM_BYTES = 64  # the message of ML-KEM, and a scalar
_SUITE = b"HPKE" + bytes.fromhex("647a00010003")
_XWING_LABEL = b"\\.//^\\"


def seal(public_key: bytes, info: bytes, plaintext: bytes, randomness: bytes, aad: bytes = b"") -> bytes:
    secret, encapsulated = encapsulate(public_key, randomness)
    context = b"\x00" + _extract(b"", b"psk_id_hash", b"") + _extract(b"", b"info_hash", info)
    prk = _extract(secret, b"secret", b"")
    key, nonce = _expand(prk, b"key", context, 32), _expand(prk, b"base_nonce", context, 12)
    return encapsulated + ChaCha20Poly1305(key).encrypt(nonce, plaintext, aad)


def encapsulate(public_key: bytes, randomness: bytes) -> tuple[bytes, bytes]:
    """(shared secret 32 B, encapsulation 1120 B) of X-Wing."""
    kem, exchange = public_key[:MLKEM_768_PUBLIC_BYTES], public_key[MLKEM_768_PUBLIC_BYTES:]
    ephemeral = X25519KeyPair(randomness[32:])
    kem_secret, ciphertext = mlkem.encapsulate_with(kem, randomness[:32])
    parts = (kem_secret, ephemeral.exchange(exchange), ephemeral.public, exchange, _XWING_LABEL)
    return hashlib.sha3_256(b"".join(parts)).digest(), ciphertext + ephemeral.public


def _extract(salt: bytes, label: bytes, key_material: bytes) -> bytes:
    return hmac_sha256(salt, b"HPKE-v1" + _SUITE + label + key_material)


def _expand(prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    """One block is enough: 32 bytes at most."""
    labelled = length.to_bytes(2, "big") + b"HPKE-v1" + _SUITE + label + info
    return hmac_sha256(prk, labelled + b"\x01")[:length]
