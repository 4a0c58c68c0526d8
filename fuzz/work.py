"""How much key derivation an input causes, counted from outside: in calls, not in time.

``Work`` is what a decrypt says of itself. Here the derivations themselves are counted while a target runs,
and the two must agree, so that neither a forgotten line nor a forged number hides work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Final

from lokket.limits import ARCHIVED_SESSIONS_MAX, SKIP_AHEAD_MAX
from lokket.protocol import sender_keys
from lokket.protocol.pairwise import Work, braid, double_ratchet, pqxdh, spqr, triple_ratchet

CHAIN_STEPS_MAX: Final = 2 * (SKIP_AHEAD_MAX + 1)  # of one session: both ratchets as far as they go
DERIVATIONS_MAX: Final = 6  # of one session besides: two roots, an epoch of the Braid (three), message keys
HANDSHAKE_DERIVATIONS_MAX: Final = 3  # PQXDH, the first link, the first authenticator
HANDSHAKE_EXCHANGES_MAX: Final = 4
EXCHANGES_MAX: Final = 2  # of one session
SESSIONS_MAX: Final = 1 + ARCHIVED_SESSIONS_MAX

_CHAIN_STEPS: Final[tuple[tuple[ModuleType, str], ...]] = (
    (double_ratchet, "_chain_step"),
    (spqr, "_chain_step"),
    (sender_keys, "_chain_step"),
)
_DERIVATIONS: Final[tuple[tuple[ModuleType, str], ...]] = (
    (pqxdh, "hkdf_sha256_triple"),
    (double_ratchet, "hkdf_sha256_pair"),
    (triple_ratchet, "hkdf_sha256_triple"),
    (spqr, "hkdf_sha256_triple"),  # its pairs are chain steps
    (braid, "hkdf_sha256"),
    (braid, "hkdf_sha256_pair"),
    (sender_keys, "hkdf_sha256"),
)


class Counted:
    """Calls made while it was watched."""

    def __init__(self) -> None:
        self.chain_steps = 0
        self.derivations = 0

    def check(self, work: Work) -> None:
        """The bounds of ``limits.py`` on one decrypt, and that it counted its own steps rightly."""
        assert work.chain_steps == self.chain_steps, "a decrypt does not count its own chain steps"
        assert work.sessions <= SESSIONS_MAX
        sessions = max(work.sessions, 1)
        assert self.chain_steps <= sessions * CHAIN_STEPS_MAX, f"{self.chain_steps} chain steps"
        assert self.derivations <= sessions * DERIVATIONS_MAX + HANDSHAKE_DERIVATIONS_MAX, self.derivations
        assert work.exchanges <= sessions * EXCHANGES_MAX + HANDSHAKE_EXCHANGES_MAX, work.exchanges


@contextmanager
def counted() -> Iterator[Counted]:
    """Count every chain step and every other derivation of the pairwise room and of sender keys."""
    found, honest = Counted(), []
    for places, name in ((_CHAIN_STEPS, "chain_steps"), (_DERIVATIONS, "derivations")):
        for module, function in places:
            original = getattr(module, function)
            honest.append((module, function, original))
            setattr(module, function, _counting(original, found, name))
    try:
        yield found
    finally:
        for module, function, original in honest:
            setattr(module, function, original)


def _counting(original: Callable[..., Any], found: Counted, name: str) -> Callable[..., Any]:
    def call(*values: Any, **named: Any) -> Any:
        setattr(found, name, getattr(found, name) + 1)
        return original(*values, **named)

    return call
