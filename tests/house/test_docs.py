"""The documentation: drawings and tables are what the code says, and the site builds without a warning."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house import diagrams
from tests.house.tree import ROOT

CHECKS = ROOT / "docs" / "library" / "checks.md"
SEALED = ROOT / "docs" / "library" / "sealed.md"
SEALING = ("protocol/sealed.py", "protocol/certificates.py", "protocol/sender_keys.py")
REFUSING = ("protocol/pairwise", "errors.py", "crypto/primitives.py")
_CODE = re.compile(r"\bcode ?= ?\"([a-z-]+)\"")
_NOT_A_CHECK = {"refused", "undecryptable"}  # the bases: every check has a word of its own


@pytest.mark.parametrize("name", diagrams.DRAWINGS)
def test_a_drawing_is_what_the_code_says(name: str) -> None:
    drawn = (diagrams.FOLDER / name).read_text(encoding="utf-8")
    assert drawn == diagrams.DRAWINGS[name](), "run 'python -m tests.house.diagrams'"


def test_every_refusal_is_explained() -> None:
    assert explained(CHECKS) == codes(REFUSING) - _NOT_A_CHECK


def test_every_refusal_of_sealed_sender_is_explained() -> None:
    assert explained(SEALED) == codes(SEALING) - explained(CHECKS)


def explained(document: Path) -> set[str]:
    """The codes in the first column of its table."""
    return {
        code
        for line in document.read_text(encoding="utf-8").splitlines()
        if line.startswith("| `") and "| Refused |" not in line
        for code in re.findall(r"`([a-z-]+)`", line.split("|")[1])
    }


def codes(places: tuple[str, ...]) -> set[str]:
    """The codes that these files refuse with."""
    source = ROOT / "src" / "lokket"
    files = [
        path
        for place in places
        for path in (
            sorted((source / place).rglob("*.py")) if (source / place).is_dir() else [source / place]
        )
    ]
    return {code for path in files for code in _CODE.findall(path.read_text(encoding="utf-8"))}


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert built.returncode == 0, built.stderr[-4000:]
    page = (tmp_path / "site" / "library" / "reference.html").read_text(encoding="utf-8")
    for name in ("begin", "encrypt", "decrypt", "PreKeyBundle"):
        assert f'id="lokket.protocol.pairwise.{name}"' in page
