"""The real world of a client that has its vault itself, and what a test puts in its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from lokket.client.driver import EngineLike
from lokket.client.transport import Transport
from lokket.crypto.entropy import Entropy
from lokket.disk import PLAIN_VFS
from lokket.engine.engine import Engine
from lokket.system import SystemEntropy, now_ms


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a test or a simulator puts in place of the real world."""

    entropy: Entropy = field(default_factory=SystemEntropy)
    now_ms: Callable[[], int] = now_ms
    transport: Callable[[str], Transport] | None = None  # from a relay's origin
    engine: Callable[[], EngineLike] = Engine
    vfs: str = PLAIN_VFS  # of the vault's disk
