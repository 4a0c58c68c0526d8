"""What the house tests look at: the package's modules, their syntax trees and what they import."""

from __future__ import annotations

import ast
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent.parent
SOURCE: Final = ROOT / "src"


@dataclass(frozen=True, slots=True)
class Import:
    """One import as written: ``module`` absolute, ``names`` empty for ``import module``."""

    module: str
    names: tuple[str, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Module:
    name: str  # lokket.protocol.pairwise.sesame; a package's __init__ has the package's name
    path: Path
    text: str
    tree: ast.Module
    imports: tuple[Import, ...]

    @property
    def room(self) -> str:
        """The first part below ``lokket``: ``protocol``, ``limits``; empty for the package itself."""
        return room_of(self.name)

    def at(self, line: int) -> str:
        return f"{self.path.relative_to(ROOT)}:{line}"


def room_of(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


@cache
def modules() -> dict[str, Module]:
    found = (read(path, module_name(path), path.name == "__init__.py") for path in SOURCE.rglob("*.py"))
    return {module.name: module for module in sorted(found, key=lambda module: module.name)}


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def read(path: Path, name: str, is_package: bool) -> Module:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text, str(path))
    return Module(name, path, text, tree, tuple(imports_of(tree, name, is_package)))


def imports_of(tree: ast.AST, name: str, is_package: bool) -> list[Import]:
    """All imports, those inside functions and under ``TYPE_CHECKING`` too; relative ones made absolute."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, (), node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = name.split(".")
            if node.level:
                base = base[: len(base) - node.level + is_package]
                module = ".".join([*base, *([node.module] if node.module else [])])
            else:
                module = node.module or ""
            found.append(Import(module, tuple(alias.name for alias in node.names), node.lineno))
    return found


def targets(module: Module, known: frozenset[str]) -> list[tuple[str, int]]:
    """Our modules that ``module`` names, with lines: ``from lokket import limits`` names lokket.limits."""
    found = []
    for item in module.imports:
        if item.module.split(".")[0] != "lokket":
            continue
        submodules = [f"{item.module}.{name}" for name in item.names if f"{item.module}.{name}" in known]
        found += [(name, item.line) for name in submodules]
        if len(submodules) < max(1, len(item.names)):
            found.append((item.module, item.line))
    return found


@cache
def tracked_files() -> tuple[Path, ...]:
    """What git tracks, or is about to; outside a checkout (an unpacked sdist), every file here."""
    try:
        listing = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, check=True, capture_output=True, text=True,
        ).stdout.split("\0")  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        listing = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*")]
    hidden = {".git", ".venv", ".venv-bare", "node_modules", "mutants", "__pycache__"}
    names = (name for name in listing if name and not hidden & set(Path(name).parts))
    return tuple(path for name in names if (path := ROOT / name).is_file())
