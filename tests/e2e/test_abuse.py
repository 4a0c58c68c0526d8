"""Hostile load on a relay process: honest mail arrives, and the limits hold. Times are for ``make abuse``."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from lokket.wire import api
from tests.e2e import abuse


@pytest.mark.attack(12, 49, 50)
def test_honest_mail_arrives_beside_every_attack(tmp_path: Path) -> None:
    with abuse.relay(tmp_path) as town:
        alone, beside = asyncio.run(abuse.under_load(town, 20))
    assert len(alone) == 20
    assert beside
    counts = town.counts
    assert counts["slow requests closed"] + counts["silent sockets closed"] == abuse.SLOW_SOCKETS
    closed = sum(count for what, count in counts.items() if what.startswith("bombs closed"))
    assert closed == abuse.BOMBS + 1
    assert counts["bombs closed with 1006"] == 0
    assert counts["bundles"] < abuse.FETCHES
    assert counts["fetches refused"]
    assert counts[f"flood: {api.RATE_LIMITED}"]
    assert counts["letters of a friend behind the flood"] == 1
