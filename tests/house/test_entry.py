"""``lokket --version`` is quick: it loads neither typer nor the client."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from lokket import __version__
from tests.house.tree import SOURCE

HEAVY = ("typer", "rich", "click", "asyncio", "apsw", "msgspec", "cryptography", "starlette", "uvicorn")
CODE = """
import json, sys
sys.argv = ["lokket", "--version"]
from lokket.apps.entry import main
try:
    code = main()
except SystemExit as exit:
    code = exit.code
print(json.dumps([code, sorted(sys.modules)]))
"""


def test_version_imports_neither_typer_nor_the_client() -> None:
    if not (SOURCE / "lokket" / "apps" / "entry.py").exists():
        pytest.skip("there is no command line yet")
    result = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    *printed, last = result.stdout.splitlines()
    code, loaded = json.loads(last)
    assert not code
    assert __version__ in "\n".join(printed)
    assert not [name for name in loaded if name.split(".")[0] in HEAVY]
    ours = {name.split(".")[1] for name in loaded if name.startswith("lokket.")}
    assert ours <= {"apps", "errors", "limits"}
