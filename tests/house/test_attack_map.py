"""docs/attacks.md is complete and true: its rows name exactly the tests that carry ``attack(row)`` markers.

A test says ``@pytest.mark.attack(4)`` (or a module ``pytestmark = pytest.mark.attack(4)``); the row's
third cell then holds its id, written there by ``python -m tests.house.attack_map``. A row without tests
says why in its fourth cell.
"""

from __future__ import annotations

import re

from tests.house.attack_map import ROW, cell, marked, text

ROWS = range(1, 121)
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
