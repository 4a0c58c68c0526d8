"""The public surface of the protocol library as text; ``python -m tests.house.surface`` records it anew."""

from __future__ import annotations

import ast
import importlib
import inspect
from enum import Enum
from pathlib import Path
from typing import Final

from tests.house.tree import ROOT, modules

RECORD: Final = ROOT / "tests" / "house" / "surface.txt"


def public_modules() -> list[str]:
    """What a user of the library imports: each module or package directly below ``lokket.protocol``."""
    return [name for name in modules() if name.startswith("lokket.protocol.") and name.count(".") == 2]


def exported(module: str) -> list[str]:
    """``__all__``, or else what the module itself defines without an underscore."""
    loaded = importlib.import_module(module)
    if hasattr(loaded, "__all__"):
        return sorted(loaded.__all__)
    own = [target.id for node in modules()[module].tree.body
           for target in ast.walk(node) if isinstance(node, ast.Assign | ast.AnnAssign)
           if isinstance(target, ast.Name) and isinstance(target.ctx, ast.Store)]  # fmt: skip
    own += [node.name for node in modules()[module].tree.body
            if isinstance(node, ast.ClassDef | ast.FunctionDef)]  # fmt: skip
    return sorted(name for name in own if not name.startswith("_"))


def describe(module: str, name: str) -> str:
    value = getattr(importlib.import_module(module), name)
    if inspect.isclass(value):
        if issubclass(value, Enum):
            return f"{module}.{name}[{', '.join(value.__members__)}]"
        if issubclass(value, BaseException) or getattr(value, "_is_protocol", False):
            return f"{module}.{name}"
        return f"{module}.{name}{parameters(value)}"
    return f"{module}.{name}{parameters(value)}" if inspect.isfunction(value) else f"{module}.{name}"


def parameters(value: object) -> str:
    """The parameters by name, with a mark for those that may be left out."""
    try:
        signature = inspect.signature(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return ""
    empty = inspect.Parameter.empty
    named = (name + ("" if item.default is empty else "?") for name, item in signature.parameters.items())
    return f"({', '.join(named)})"


def surface() -> list[str]:
    return [describe(module, name) for module in public_modules() for name in exported(module)]


def undocumented() -> list[str]:
    """Exported functions and classes without a docstring of their own."""
    silent = []
    for module in public_modules():
        for name in exported(module):
            value = getattr(importlib.import_module(module), name)
            if not (inspect.isclass(value) or inspect.isfunction(value)):
                continue
            text = value.__doc__ or ""
            if not text.strip() or text.startswith(f"{name}("):  # a dataclass writes the latter itself
                silent.append(f"{module}.{name}")
    return silent


def record(path: Path = RECORD) -> None:
    path.write_text("\n".join(surface()) + "\n")


if __name__ == "__main__":
    record()
