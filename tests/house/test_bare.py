"""``lokket.codec``, ``.crypto`` and ``.protocol`` where ``cryptography`` is installed and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.house.conftest import build_distributions
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


# what `pip install cryptography` brings, as it stands in the environment that `make bare` makes
CRYPTOGRAPHY = ("cryptography", "cffi", "pycparser", "_cffi_backend")


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment, after ``pip install --no-deps`` of the wheel."""
    bare = _python(ROOT / ".venv-bare")
    if not bare.exists():
        pytest.skip("no environment without other packages here; `make bare` makes it")
    wheel = build_distributions(tmp_path_factory.mktemp("dist"))[0]
    place = tmp_path_factory.mktemp("bare") / "env"
    _run(bare, "-m", "venv", "--without-pip", str(place))
    python = _python(place)
    for path in _site_packages(bare).iterdir():
        if path.name.startswith(CRYPTOGRAPHY):
            into = _site_packages(python) / path.name
            shutil.copytree(path, into) if path.is_dir() else shutil.copy(path, into)
    install = ("install", "--quiet", "--isolated", "--no-index", "--no-deps")
    _run(bare, "-m", "pip", "--disable-pip-version-check", "--python", str(python), *install, str(wheel))
    return python


def _python(environment: Path) -> Path:
    folder, name = ("Scripts", "python.exe") if sys.platform == "win32" else ("bin", "python")
    return environment / folder / name


def _site_packages(python: Path) -> Path:
    return Path(_run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())


def _run(python: Path, *arguments: str) -> str:
    """What the interpreter prints, knowing nothing of this tree: no PYTHONPATH, another folder."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP"))
    }
    result = subprocess.run(
        [str(python), *arguments],
        env={**environment, "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=python.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def run_bare(code: str, python: Path, *arguments: str) -> str:
    """What ``code`` prints there."""
    return _run(python, "-I", "-c", code, *arguments)


def test_it_is_installed_and_not_only_found(installed: Path) -> None:
    """The two lines of the README, and where they come from."""
    code = (
        "import importlib.metadata as metadata, json, lokket\n"
        "from lokket.protocol import pairwise\n"
        "print(json.dumps([metadata.version('lokket'), lokket.__file__, pairwise.__file__,"
        " sorted(one.metadata['Name'] for one in metadata.distributions())]))"
    )
    version, package, room, distributions = json.loads(run_bare(code, installed))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert version == project["version"]
    assert distributions == ["cffi", "cryptography", "lokket", "pycparser"]
    for path in (package, room):
        assert Path(path).is_relative_to(_site_packages(installed))


def test_nothing_else_is_there(installed: Path) -> None:
    code = (
        "import importlib.util, json, sys; print(json.dumps("
        "[name for name in sys.argv[1:] if importlib.util.find_spec(name)]))"
    )
    assert json.loads(run_bare(code, installed, *OTHERS)) == []


def test_every_module_of_the_library_imports(installed: Path) -> None:
    names = [name for name in modules() if name.startswith(LIBRARY)]
    code = (
        "import importlib, json, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "print(json.dumps([name for name in sys.modules if name.split('.')[0] == 'lokket']))"
    )
    loaded = json.loads(run_bare(code, installed, *names))
    assert set(names) <= set(loaded)
    rooms = {name.split(".")[1] for name in loaded if "." in name}
    assert rooms <= {"codec", "crypto", "protocol", "errors", "limits"}


def test_a_group_lives(installed: Path) -> None:
    """The session of docs/mls.md, with a clock and a randomness that need nothing else either."""
    code = next(code for place, code in blocks() if place.startswith("docs/mls.md"))
    run_bare(code, installed)


def test_the_readme_session_runs(installed: Path) -> None:
    code = next(
        code for place, code in blocks() if place.startswith("README.md") and "pairwise.begin" in code
    )
    run_bare(code, installed)
