"""A short soak, and that its bounds bite; ``make soak MINUTES=60`` is a long one."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from lokket.client.rpc import place
from tests.reliability import soak

READING = soak.Reading(pid=7, resident_bytes=50 << 20, files=12, data_bytes=1 << 20)


@pytest.mark.parametrize("measure", ["resident_bytes", "files", "data_bytes"])
def test_growth_beyond_its_bound_is_marked(measure: str) -> None:
    grown = replace(READING, **{measure: getattr(READING, measure) + (64 << 20)})
    marked = [line for line in soak.verdict(READING, grown, 2 << 20) if line.startswith("!")]
    assert len(marked) == 1
    assert not [line for line in soak.verdict(READING, READING, 2 << 20) if line.startswith("!")]


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or not place.has_sockets(),
    reason="needs /proc and Unix sockets",
)
def test_a_short_soak_ends_with_equal_histories(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "UNREST_S", 2.0)
    assert soak.soak(8.0, seed=3)
