"""What several house tests share: the package as it would be published."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.house.tree import ROOT

Build = Callable[[Path], list[Path]]


def build_distributions(target: Path) -> list[Path]:
    """The wheel and the sdist of the tree as it is, made in ``target`` with a fixed date."""
    result = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(target)],
        cwd=ROOT,
        env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return sorted(target.iterdir())


@pytest.fixture(scope="session")
def build() -> Build:
    return build_distributions


@pytest.fixture(scope="session")
def unpacked_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds exactly what ``pip install --no-deps`` would put into site-packages."""
    wheel = build_distributions(tmp_path_factory.mktemp("dist"))[0]
    target = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target
