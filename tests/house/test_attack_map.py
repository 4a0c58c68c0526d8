"""docs/attacks.md is complete and true: its rows name exactly the tests that carry ``attack(row)`` markers.

A test says ``@pytest.mark.attack(4)`` (or a module ``pytestmark = pytest.mark.attack(4)``); the row's
third cell then holds its id. A row without tests says why in its fourth cell. When this fails, it
prints the cells as they should be.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent.parent
DOCUMENT = TESTS.parent / "docs" / "attacks.md"
ROWS = range(1, 121)

_ROW = re.compile(r"^\| *(\d+) *\|([^|]*)\|([^|]*)\|([^|]*)\|$", re.MULTILINE)
_TEST_ID = re.compile(r"`([^`]+\.py::\w+)`")


def test_every_row_stands_once_and_in_order() -> None:
    assert [int(number) for number, *_ in _ROW.findall(_text())] == list(ROWS)


def test_rows_name_exactly_the_marked_tests() -> None:
    marked = _marked()
    wrong = []
    for number, _, tests, _ in _ROW.findall(_text()):
        expected = sorted(marked.pop(int(number), ()))
        if sorted(_TEST_ID.findall(tests)) != expected:
            wrong.append(f"row {number}: " + " ".join(f"`{test}`" for test in expected))
    assert not marked, f"markers name rows that do not exist: {sorted(marked)}"
    assert not wrong, "docs/attacks.md should say\n" + "\n".join(wrong)


def test_a_row_without_tests_says_why() -> None:
    silent = [
        int(number)
        for number, _, tests, reason in _ROW.findall(_text())
        if not _TEST_ID.findall(tests) and len(reason.split()) < 3
    ]
    assert not silent


def _text() -> str:
    return DOCUMENT.read_text(encoding="utf-8")


def _marked() -> dict[int, list[str]]:
    """Row number -> test ids, read from the sources without importing them."""
    found: dict[int, list[str]] = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        if "node_modules" in path.parts:
            continue
        name = path.relative_to(TESTS).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for test, rows in _tests(tree.body, _module_rows(tree)):
            for row in rows:
                found[row].append(f"{name}::{test}")
    return found


def _tests(body: list[ast.stmt], inherited: set[int]) -> Iterator[tuple[str, set[int]]]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from _tests(node.body, inherited | _rows(node.decorator_list))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
            yield node.name, inherited | _rows(node.decorator_list)


def _module_rows(tree: ast.Module) -> set[int]:
    rows: set[int] = set()
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "pytestmark" for target in node.targets
        ):
            values = node.value.elts if isinstance(node.value, ast.List | ast.Tuple) else [node.value]
            rows |= _rows(values)
    return rows


def _rows(expressions: list[ast.expr]) -> set[int]:
    """The arguments of every ``pytest.mark.attack(...)`` among the expressions."""
    rows: set[int] = set()
    for call in expressions:
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.attack":
            rows |= {ast.literal_eval(argument) for argument in call.args}
    return rows
