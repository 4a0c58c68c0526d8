"""The public surface of the protocol library as text; ``python -m tests.house.surface`` records it anew."""

from __future__ import annotations

import importlib
import inspect
from enum import Enum
from pathlib import Path
from typing import Final

from tests.house.tree import ROOT, modules

RECORD: Final = ROOT / "tests" / "house" / "surface.txt"
ROOMS: Final = frozenset({"codec", "crypto", "protocol"})


def public_modules() -> list[str]:
    """Packages and modules that say what they export by ``__all__``."""
    return [name for name, module in modules().items() if module.room in ROOMS and "\n__all__" in module.text]


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
    return [
        describe(module, name)
        for module in public_modules()
        for name in sorted(importlib.import_module(module).__all__)
    ]


def undocumented() -> list[str]:
    """Exported functions and classes without a docstring of their own."""
    silent = []
    for module in public_modules():
        for name in importlib.import_module(module).__all__:
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
