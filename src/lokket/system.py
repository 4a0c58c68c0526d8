"""The operating system's randomness and clock: what the pure layers are handed as arguments."""

from __future__ import annotations

import os
import time

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey, MLKEM1024PublicKey

from lokket.crypto.keys import MLKEM_768_PUBLIC_BYTES, MLDSAKeyPair
from lokket.errors import KeyRefused


class SystemEntropy:
    """``Entropy`` from the kernel and OpenSSL. Keeps no state, so a forked process repeats nothing."""

    def draw(self, size: int) -> bytes:
        return os.urandom(size)

    def encapsulate(self, public_key: bytes) -> tuple[bytes, bytes]:
        kind = MLKEM768PublicKey if len(public_key) == MLKEM_768_PUBLIC_BYTES else MLKEM1024PublicKey
        try:
            return kind.from_public_bytes(public_key).encapsulate()
        except ValueError:
            raise KeyRefused("a KEM public key is malformed") from None

    def sign_mldsa(self, key: MLDSAKeyPair, message: bytes, context: bytes) -> bytes:
        return key.key.sign(message, context)


def now_ms() -> int:
    """Wall-clock time in milliseconds since 1970."""
    return time.time_ns() // 1_000_000
