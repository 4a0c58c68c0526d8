"""Entropy from a seed, so that a world replays byte for byte."""

from __future__ import annotations

import hashlib
from functools import lru_cache

from lokket.crypto import mlkem
from lokket.crypto.keys import MLDSAKeyPair

from . import mldsa


class SeededEntropy:
    """``Entropy``: the stream of SHAKE-256 over the seed and a counter.

    What costs much and depends on its inputs alone is kept for all worlds of the process.
    """

    def __init__(self, seed: str) -> None:
        self._seed = seed.encode()
        self._drawn = 0

    def draw(self, size: int) -> bytes:
        self._drawn += 1
        return hashlib.shake_256(self._seed + b"/" + str(self._drawn).encode()).digest(size)

    def encapsulate(self, public_key: bytes) -> tuple[bytes, bytes]:
        return _encapsulate(public_key, self.draw(32))

    def sign_mldsa(self, key: MLDSAKeyPair, message: bytes, context: bytes) -> bytes:
        return mldsa.sign(key.level, key.seed, key.public, message, context)


@lru_cache(maxsize=4096)
def _encapsulate(public_key: bytes, message: bytes) -> tuple[bytes, bytes]:
    return mlkem.encapsulate_with(public_key, message)
