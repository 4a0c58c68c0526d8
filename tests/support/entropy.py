"""Entropy that is a function of a seed, so a failure can be run again."""

from __future__ import annotations

import hashlib

from lokket.system import SystemEntropy


class SeededEntropy(SystemEntropy):
    """Draws are a function of the seed; only encapsulation still asks OpenSSL."""

    def __init__(self, seed: object) -> None:
        self.seed = str(seed).encode()
        self.drawn = 0

    def draw(self, size: int) -> bytes:
        self.drawn += 1
        return hashlib.shake_256(self.seed + b"|" + str(self.drawn).encode()).digest(size)
