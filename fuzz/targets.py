"""Every decoder as a function of bytes: it returns, or raises ``RemoteError``, and nothing else.

A new decoder adds one line to ``TARGETS``, here or in a file beside, and its starting values to ``SEEDS``.
``run.py`` drives one target under atheris; ``tests/unit/test_fuzz_corpus.py`` replays
``corpus/NAME`` and mutations of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from enum import IntEnum
from typing import Annotated, Any, Final

from fuzz import archives, daemon, frames, identity, mls, mls_groups, sealing, sessions
from lokket.codec import tls
from lokket.protocol import fingerprint

Target = Callable[[bytes], object]


class Colour(IntEnum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass(frozen=True, slots=True)
class Leaf:
    number: tls.U16
    name: Annotated[bytes, tls.OpaqueV(40)]


@dataclasses.dataclass(frozen=True, slots=True)
class Everything:
    """One field of every type that the presentation language has."""

    small: tls.U8
    large: tls.U64
    flag: bool
    fixed: tls.Bytes16
    opaque: tls.Opaque
    leaves: tuple[Leaf, ...]
    sorted: Annotated[tuple[Leaf, ...], tls.Vector(3, ascending=True)]
    maybe: tls.U32 | None
    colour: Annotated[Colour, tls.Uint(1)]
    choice: Annotated[Leaf | int, tls.Select(tls.Uint(1), {1: Leaf})]


def canonical(kind: type[Any]) -> Target:
    """A decoder of ``codec.tls``: what it accepts has no other encoding."""

    def target(data: bytes) -> object:
        value = tls.decode(kind, data)
        assert tls.encode(value) == data, f"{kind.__name__} accepts a second encoding"
        return value

    return target


OWN_FINGERPRINT: Final = fingerprint.scannable(
    2, b"own", b"\x05" + bytes(32), b"their", b"\x05" + bytes(32), 1
)

TARGETS: Final[dict[str, Target]] = {
    "tls": canonical(Everything),
    "fingerprint": lambda data: fingerprint.compare_scannable(OWN_FINGERPRINT, data),
    **sessions.TARGETS,
    **sealing.TARGETS,
    **identity.TARGETS,
    **frames.TARGETS,
    **archives.TARGETS,
    **mls.TARGETS,
    **mls_groups.TARGETS,
    **daemon.TARGETS,
}
