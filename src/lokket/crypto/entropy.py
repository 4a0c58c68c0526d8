"""Where randomness enters: one interface, handed in as an argument.

``cryptography`` draws inside ``encapsulate``, ``generate`` and ML-DSA ``sign``. Those calls stand behind
this interface and nowhere else, so that whole sessions replay byte for byte.
``lokket.system.SystemEntropy`` is the real one.
"""

from __future__ import annotations

from typing import Protocol

from lokket.crypto.keys import MLDSAKeyPair


class Entropy(Protocol):
    def draw(self, size: int) -> bytes:
        """``size`` unpredictable bytes: seeds, scalars, ids, nonces."""

    def encapsulate(self, public_key: bytes) -> tuple[bytes, bytes]:
        """FIPS 203 encapsulation to an ML-KEM-768 (1184 B) or ML-KEM-1024 (1568 B) public key.

        Returns (shared secret 32 B, ciphertext 1088 or 1568 B). KeyRefused: the key is not canonical.
        """

    def sign_mldsa(self, key: MLDSAKeyPair, message: bytes, context: bytes) -> bytes:
        """FIPS 204 signature, hedged: 2420 B (ML-DSA-44) or 3309 B (ML-DSA-65)."""
