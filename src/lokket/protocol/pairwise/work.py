"""How much key derivation a decrypt did, counted so that its bounds are tested without a clock."""

from __future__ import annotations


class Work:
    """Chain steps (one message key derived each) of both ratchets, DH exchanges, and sessions tried."""

    __slots__ = ("chain_steps", "exchanges", "sessions")

    def __init__(self) -> None:
        self.chain_steps = 0
        self.exchanges = 0
        self.sessions = 0
