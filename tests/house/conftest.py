"""What several house tests share: the package as it would be published."""

from __future__ import annotations

import os
import subprocess
import sys
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
