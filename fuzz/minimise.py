"""Which inputs are worth keeping: the smallest ones that reach lines of lokket, and ways between them, anew.

Needs no fuzzer, only ``sys.settrace``, so anyone can repeat the choice: the same inputs give the same answer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from types import CodeType, FrameType
from typing import Any, Final

from lokket.errors import RemoteError

Arc = tuple[CodeType, int, int]

KEPT_MAX: Final = 48  # new inputs of one target in one campaign
INPUT_MAX_BYTES: Final = 16_384


def arcs(target: Callable[[bytes], object], data: bytes) -> frozenset[Arc]:
    """The steps from line to line inside lokket that ``target`` takes on ``data``."""
    found: set[Arc] = set()

    def enter(frame: FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        if event != "call" or "/lokket/" not in code.co_filename.replace("\\", "/"):
            return None
        last = 0

        def step(inner: FrameType, what: str, _: Any) -> Any:
            nonlocal last
            if what == "line":
                found.add((code, last, inner.f_lineno))
                last = inner.f_lineno
            return step

        return step

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        target(data)
    except RemoteError:
        pass
    finally:
        sys.settrace(before)
    return frozenset(found)


def minimised(
    target: Callable[[bytes], object], kept: Iterable[bytes], candidates: Iterable[bytes]
) -> list[bytes]:
    """Those of ``candidates`` that reach what neither ``kept`` nor a smaller candidate does."""
    reached: set[Arc] = set()
    for data in kept:
        reached |= arcs(target, data)
    chosen: list[bytes] = []
    for data in sorted(set(candidates), key=lambda one: (len(one), one)):
        if len(chosen) == KEPT_MAX:
            break
        if len(data) > INPUT_MAX_BYTES:
            continue
        new = arcs(target, data) - reached
        if new:
            reached |= new
            chosen.append(data)
    return chosen
