"""``lokket.codec``, ``.crypto`` and ``.protocol`` where ``cryptography`` is installed and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.test_readme import blocks
from tests.house.tree import ROOT, modules

LIBRARY = ("lokket.codec", "lokket.crypto", "lokket.protocol")
OTHERS = (
    "msgspec",
    "apsw",
    "starlette",
    "uvicorn",
    "typer",
    "rich",
    "keyring",
    "structlog",
    "pytest",
    "hypothesis",
)


def run_bare(code: str, wheel: Path, *arguments: str) -> str:
    """What ``code`` prints there, with the unpacked wheel as the only thing beside ``cryptography``."""
    folder = "Scripts" if sys.platform == "win32" else "bin"
    python = ROOT / ".venv-bare" / folder / "python"
    if not python.exists():
        pytest.skip("no environment without other packages here; `make bare` makes it")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    result = subprocess.run(
        [str(python), "-c", code, *arguments],
        env={**environment, "PYTHONPATH": str(wheel), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=wheel,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_nothing_else_is_there(unpacked_wheel: Path) -> None:
    code = (
        "import importlib.util, json, sys; print(json.dumps("
        "[name for name in sys.argv[1:] if importlib.util.find_spec(name)]))"
    )
    assert json.loads(run_bare(code, unpacked_wheel, *OTHERS)) == []


def test_every_module_of_the_library_imports(unpacked_wheel: Path) -> None:
    names = [name for name in modules() if name.startswith(LIBRARY)]
    code = (
        "import importlib, json, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "print(json.dumps([name for name in sys.modules if name.split('.')[0] == 'lokket']))"
    )
    loaded = json.loads(run_bare(code, unpacked_wheel, *names))
    assert set(names) <= set(loaded)
    rooms = {name.split(".")[1] for name in loaded if "." in name}
    assert rooms <= {"codec", "crypto", "protocol", "errors", "limits"}


def test_a_group_lives(unpacked_wheel: Path) -> None:
    """The session of docs/mls.md, with a clock and a randomness that need nothing else either."""
    code = next(code for place, code in blocks() if place.startswith("docs/mls.md"))
    run_bare(code, unpacked_wheel)


def test_the_readme_session_runs(unpacked_wheel: Path) -> None:
    code = next(
        code for place, code in blocks() if place.startswith("README.md") and "pairwise.begin" in code
    )
    run_bare(code, unpacked_wheel)
