"""docs/attacks.md is complete and true: its rows name exactly the tests that carry ``attack(row)`` markers.

A test says ``@pytest.mark.attack(4)`` (or a module ``pytestmark = pytest.mark.attack(4)``); the row's
third cell then holds its id, written there by ``python -m tests.house.attack_map``. A row without tests
says why in its fourth cell.
"""

from __future__ import annotations

import re

import pytest

from tests.house.attack_map import DOCUMENT, ROW, cell, marked, text

ROWS = range(1, 121)
FACTS = DOCUMENT.parents[2] / "shared" / "facts" / "attacks.md"
LAYERS = frozenset("PSKCGMABUO")  # protocol, relay, log, client, groups, devices, files, backup, face, build
BUILT = frozenset("PSCMBO")
NOT_BUILT = (
    "sealed",
    "key transparency",
    "groups",
    "the release",
    "franking",
    "PostgreSQL",
)
_FACT = re.compile(r"^\| (\d+) \|.*?\| ([A-Z](?: [A-Z])*) \|", re.MULTILINE)
_TEST_ID = re.compile(r"`([^`]+\.py::\w+)`")


def test_every_row_stands_once_and_in_order() -> None:
    assert [int(number) for number, *_ in ROW.findall(text())] == list(ROWS)


def test_rows_name_exactly_the_marked_tests() -> None:
    found = marked()
    wrong = []
    for number, _, tests, _ in ROW.findall(text()):
        expected = sorted(found.pop(int(number), ()))
        if sorted(_TEST_ID.findall(tests)) != expected:
            wrong.append(f"row {number}: {cell(expected)}")
    assert not found, f"markers name rows that do not exist: {sorted(found)}"
    assert not wrong, "run 'python -m tests.house.attack_map': docs/attacks.md should say\n" + "\n".join(
        wrong
    )


def test_a_row_without_tests_says_why() -> None:
    silent = [
        int(number)
        for number, _, tests, reason in ROW.findall(text())
        if not _TEST_ID.findall(tests) and len(reason.split()) < 3
    ]
    assert not silent


@pytest.mark.skipif(not FACTS.exists(), reason="the list of attacks is not beside this checkout")
def test_the_map_covers_the_list_it_was_made_from() -> None:
    """Each number, of known layers; a row of what is built here that has no test names what is not built."""
    layers = {int(number): set(found.split()) for number, found in _FACT.findall(FACTS.read_text("utf-8"))}
    assert sorted(layers) == list(ROWS)
    assert set().union(*layers.values()) <= LAYERS
    for number, _, tests, reason in ROW.findall(text()):
        if not _TEST_ID.findall(tests) and layers[int(number)] & BUILT:
            assert any(word in reason for word in NOT_BUILT), f"row {number} has neither a test nor a reason"
