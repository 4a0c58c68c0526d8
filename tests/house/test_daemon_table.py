"""docs/using.md names every method of the daemon's socket as the code has it."""

from __future__ import annotations

from tests.house.daemon_table import DOCUMENT, written


def test_the_documented_methods_are_the_ones_there_are() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == written(), "run: python -m tests.house.daemon_table"
