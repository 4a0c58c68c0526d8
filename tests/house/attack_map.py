"""docs/attacks.md's third column: for each row the tests that carry its ``attack(row)`` marker.

``python -m tests.house.attack_map`` writes the column anew from the markers; the rest is written by hand.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent.parent
DOCUMENT = TESTS.parent / "docs" / "attacks.md"

ROW = re.compile(r"^\| *(\d+) *\|([^|]*)\|([^|]*)\|([^|]*)\|$", re.MULTILINE)


def cell(tests: list[str]) -> str:
    return " ".join(f"`{test}`" for test in sorted(tests))


def record() -> None:
    found = marked()

    def anew(row: re.Match[str]) -> str:
        number, attack, _, note = row.groups()
        tests = cell(found.get(int(number), []))
        return f"| {number} |{attack}|{' ' + tests if tests else ''} |{note}|"

    DOCUMENT.write_text(ROW.sub(anew, text()), encoding="utf-8")


def text() -> str:
    return DOCUMENT.read_text(encoding="utf-8")


def marked() -> dict[int, list[str]]:
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


if __name__ == "__main__":
    record()
