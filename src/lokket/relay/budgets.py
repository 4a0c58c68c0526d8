"""Rate limits: the generic cell rate algorithm (a token bucket kept as one number), bounded in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from lokket import limits

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS


@dataclass(frozen=True, slots=True)
class Rate:
    """``burst`` at once, then ``per_hour`` on average."""

    burst: int
    per_hour: int

    @property
    def full_ms(self) -> float:
        """From empty to full."""
        return self.burst * HOUR_MS / self.per_hour


# kind of request -> its rate. The subject is the requester's account unless said otherwise.
RATES: Final[Mapping[str, Rate]] = {
    "request": Rate(4_000, 720_000),  # device: anything but an acknowledgement
    "register": Rate(100, 3_600),  # subject: the whole relay
    "login": Rate(60, 1_200),  # device
    "publish": Rate(10, 12),  # device
    "account": Rate(600, 6_000),
    "bundle": Rate(60, 600),
    "bundle-target": Rate(60, 60),  # target device: beyond it bundles come without a one-time pair
    "list": Rate(30, 30),
    "chain": Rate(20, 60),  # before the login; subject: the account that is asked for
    "recover": Rate(5, 5),  # the account that is recovered
    "readmit": Rate(60, 1_200),  # the whole relay
    "meet": Rate(900, 3_600),  # asked about once a second while a device is being linked
    "knock": Rate(600, 3_600),  # the account whose meeting it is
    "claim": Rate(5, 2),
    "name": Rate(30, 600),
    "invite": Rate(30, 30),
    "blob": Rate(60, 240),  # account: begun, committed, listed, deleted
    "blob-bytes": Rate(512 * 1024 * 1024, 1024 * 1024 * 1024),  # account, both ways
    "send": Rate(2_000, 72_000),  # envelopes
    "send-bytes": Rate(64 * 1024 * 1024, 1024 * 1024 * 1024),
    "send-target": Rate(2_000, 3_600),  # sender's account and target device: one sender fills no mailbox
}


class Budgets:
    """Spent per (kind, subject). A dropped or lost entry only forgives."""

    def __init__(self, rates: Mapping[str, Rate] = RATES, entries_max: int = limits.BUDGETS_MAX) -> None:
        self._rates = rates
        self._entries_max = entries_max
        self._full_at_ms: OrderedDict[tuple[str, bytes], float] = OrderedDict()  # when it is full again

    def take(self, kind: str, subject: bytes, now_ms: int, cost: int = 1) -> int:
        """0 and spent, or nothing spent and the milliseconds until ``cost`` is there."""
        rate = self._rates[kind]
        per_unit_ms = HOUR_MS / rate.per_hour
        key = (kind, subject)
        full_at_ms = max(self._full_at_ms.get(key, 0.0), now_ms)
        if full_at_ms > now_ms + rate.full_ms + 1:
            full_at_ms = now_ms  # emptier than empty: the clock was set back, which must lock nobody out
        after_ms = full_at_ms + min(cost, rate.burst) * per_unit_ms
        wait_ms = after_ms - now_ms - rate.full_ms
        if wait_ms > 1e-6:
            return int(wait_ms) + 1
        self._full_at_ms[key] = after_ms
        self._full_at_ms.move_to_end(key)
        while len(self._full_at_ms) > self._entries_max:
            self._full_at_ms.popitem(last=False)
        return 0

    def forget_idle(self, now_ms: int, entries_max: int) -> int:
        """Drop those of the ``entries_max`` least recently used that are full again; how many went."""
        oldest = [key for key, _ in zip(self._full_at_ms, range(entries_max), strict=False)]
        idle = [key for key in oldest if self._full_at_ms[key] <= now_ms]
        for key in idle:
            del self._full_at_ms[key]
        return len(idle)

    def __len__(self) -> int:
        return len(self._full_at_ms)
