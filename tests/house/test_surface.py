"""What the protocol library exports is written down: a change of it is seen, and meant."""

from __future__ import annotations

from tests.house.surface import RECORD, surface, undocumented


def test_the_public_surface_is_the_recorded_one() -> None:
    recorded = set(RECORD.read_text().splitlines())
    current = set(surface())
    assert current == recorded, (
        f"new: {sorted(current - recorded)}\ngone: {sorted(recorded - current)}\n"
        "If that is meant: `.venv/bin/python -m tests.house.surface`, and a line in CHANGELOG.md."
    )


def test_everything_public_is_documented() -> None:
    silent = undocumented()
    assert not silent, f"exported without a docstring: {silent}"
