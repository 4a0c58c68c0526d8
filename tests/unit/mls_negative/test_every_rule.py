"""Each numbered rule of RFC 9420 has a test that breaks it, and no test names a rule that is none."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from pathlib import Path

import lokket.protocol.mls
from lokket.protocol.mls.rules import RULES

FOLDER = Path(__file__).parent
NUMBER = re.compile(r"\d+(\.\d+)*-\d+$")


def broken_in_tests() -> set[str]:
    """Every rule's number in the files beside this one: they go to ``refused`` and ``refuses`` alone."""
    found = set()
    for path in FOLDER.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and NUMBER.match(node.value):
                found.add(node.value)
    return found


def test_every_rule_is_broken_by_a_test() -> None:
    for module in pkgutil.iter_modules(lokket.protocol.mls.__path__):
        importlib.import_module(f"lokket.protocol.mls.{module.name}")
    assert broken_in_tests() == set(RULES)
