"""The official MLS vectors, read where they lie: ../shared/vectors/mls beside the repository."""

from __future__ import annotations

import json
import os
from typing import Any, Final

import pytest

from tests.house.tree import ROOT

FOLDER: Final = ROOT.parent / "shared" / "vectors" / "mls"


WHOLE: Final = bool(os.environ.get("MLS_VECTORS_WHOLE"))  # what `make test-mls-vectors` sets


def load(name: str, folder: str = "test-vectors", every: int = 1) -> list[dict[str, Any]]:
    """The cases of one file; of the largest each ``every``-th, unless whole files are asked for.

    Skips where the file is absent.
    """
    path = FOLDER / folder / f"{name}.json"
    if not path.exists():
        pytest.skip(f"the MLS vectors (shared/vectors/mls/{folder}/{name}.json) are not here")
    cases: list[dict[str, Any]] = json.loads(path.read_text())
    return cases if WHOLE else cases[::every]


def raw(text: str) -> bytes:
    return bytes.fromhex(text)
