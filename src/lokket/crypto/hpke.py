"""HPKE (RFC 9180, base mode, one message) to X-Wing keys: opening, and the suite that sealing uses too.

KEM 0x647a, X-Wing (draft-connolly-cfrg-xwing-kem); KDF 0x0001, HKDF-SHA256; AEAD 0x0003, ChaCha20-Poly1305.
Sealing draws: see ``Entropy.seal``.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from lokket.crypto.keys import MLKEM_768_PUBLIC_BYTES
from lokket.crypto.primitives import shake256
from lokket.errors import DecryptionFailed, KeyRefused, LocalError

XWING_PUBLIC_BYTES: Final = MLKEM_768_PUBLIC_BYTES + 32  # ML-KEM-768 encapsulation key || X25519
SEAL_OVERHEAD_BYTES: Final = 1088 + 32 + 16  # both encapsulations and the tag, in front and behind
SUITE: Final = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


def load_public(public_key: bytes) -> MLKEM768X25519PublicKey:
    """For ``Entropy`` alone. KeyRefused: not 1216 bytes, or not canonical."""
    kem, exchange = public_key[:MLKEM_768_PUBLIC_BYTES], public_key[MLKEM_768_PUBLIC_BYTES:]
    try:
        return MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(kem), X25519PublicKey.from_public_bytes(exchange)
        )
    except ValueError:
        raise KeyRefused("an X-Wing public key is malformed") from None


def open_sealed(seed: bytes, info: bytes, sealed: bytes) -> bytes:
    """The plaintext of what was sealed to the X-Wing key of this 32-byte seed, under this ``info``.

    DecryptionFailed: sealed to another key, under another info, or damaged. LocalError: the seed's length.
    """
    if len(seed) != 32:
        raise LocalError("an X-Wing seed has 32 bytes")
    expanded = shake256(seed, 96)
    private = MLKEM768X25519PrivateKey(
        MLKEM768PrivateKey.from_seed_bytes(expanded[:64]),
        X25519PrivateKey.from_private_bytes(expanded[64:]),
    )
    try:
        return SUITE.decrypt(sealed, private, info)
    except (InvalidTag, ValueError):
        raise DecryptionFailed("a sealed text does not open", code="not-sealed-to-us") from None
