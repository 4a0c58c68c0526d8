"""Files and functions of a size to be read, every module with a sentence, every bound with a use."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final

from tests.house.tree import SOURCE, modules

FILE_LINES_MAX: Final = 500
FUNCTION_LINES_MAX: Final = 70

# Name: why it is better long. An entry that is no longer needed fails.
LONG_FILES: Final[dict[str, str]] = {}
LONG_FUNCTIONS: Final[dict[str, str]] = {}


def functions() -> Iterator[tuple[str, str, int]]:
    """Qualified name, place and number of lines of every function and method."""
    for module in modules().values():
        stack: list[tuple[str, ast.AST]] = [(module.name, module.tree)]
        while stack:
            name, node = stack.pop()
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    inner = f"{name}.{child.name}"
                    stack.append((inner, child))
                    if not isinstance(child, ast.ClassDef):
                        yield inner, module.at(child.lineno), (child.end_lineno or 0) - child.lineno + 1
                else:
                    stack.append((name, child))


def test_files_can_be_read_in_one_go() -> None:
    long = {module.name: module.text.count("\n") for module in modules().values()
            if module.text.count("\n") > FILE_LINES_MAX}  # fmt: skip
    assert long.keys() == LONG_FILES.keys(), f"over {FILE_LINES_MAX} lines: {long}; known: {LONG_FILES}"


def test_functions_can_be_read_in_one_go() -> None:
    long = {name: f"{place} has {lines}" for name, place, lines in functions() if lines > FUNCTION_LINES_MAX}
    assert long.keys() == LONG_FUNCTIONS.keys(), (
        f"over {FUNCTION_LINES_MAX} lines: {long}; known: {LONG_FUNCTIONS}"
    )


def test_every_module_says_what_it_is() -> None:
    silent = [str(module.path.relative_to(SOURCE)) for module in modules().values()
              if not ast.get_docstring(module.tree)]  # fmt: skip
    assert not silent, f"without a docstring: {silent}"


def test_nothing_is_left_for_later() -> None:
    words = ("TODO", "FIXME", "XXX", "HACK")
    left = [f"{module.at(number)}: {line.strip()}" for module in modules().values()
            for number, line in enumerate(module.text.splitlines(), 1)
            if any(word in line for word in words)]  # fmt: skip
    assert not left, "\n".join(left)


def test_every_limit_is_used() -> None:
    limits = modules()["lokket.limits"]
    names = {
        target.id
        for node in limits.tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    elsewhere = {
        word
        for module in modules().values()
        if module is not limits
        for node in ast.walk(module.tree)
        for word in words_of(node)
    }
    unused = sorted(name for name in names - elsewhere if not feeds(name))
    assert not unused, f"in limits.py, but nothing keeps them: {unused}"


def words_of(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute):
        return [node.attr]
    if isinstance(node, ast.ImportFrom):
        return [alias.name for alias in node.names]
    return []


def feeds(name: str) -> bool:
    """Whether another bound of limits.py is computed from ``name`` (an assertion alone keeps nothing)."""
    return any(
        isinstance(node, ast.Assign | ast.AnnAssign)
        and node.value is not None
        and any(isinstance(inner, ast.Name) and inner.id == name for inner in ast.walk(node.value))
        for node in modules()["lokket.limits"].tree.body
    )
