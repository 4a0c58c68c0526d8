"""Virtual time: what is to happen, in the order in which it happens."""

from __future__ import annotations

import heapq
from collections.abc import Callable

START_MS = 1_800_000_000_000  # 2027-01-15, where every world begins


class Clock:
    def __init__(self, now_ms: int = START_MS) -> None:
        self.now_ms = now_ms
        self._plans: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0

    def at(self, when_ms: int, act: Callable[[], None]) -> None:
        """Plans of one instant happen in the order in which they were made."""
        self._order += 1
        heapq.heappush(self._plans, (max(when_ms, self.now_ms), self._order, act))

    def after(self, delay_ms: int, act: Callable[[], None]) -> None:
        self.at(self.now_ms + delay_ms, act)

    def run_until(self, when_ms: int) -> None:
        while self._plans and self._plans[0][0] <= when_ms:
            self.now_ms, _, act = heapq.heappop(self._plans)
            act()
        self.now_ms = max(self.now_ms, when_ms)
