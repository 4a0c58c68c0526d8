"""Spin over ``models/*.pml``: every state up to a bound, one random run, or the run that breaks a rule."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.house.tree import ROOT

MODELS = ROOT / "models"
SPIN, CC = shutil.which("spin"), shutil.which("cc") or shutil.which("gcc")
needs_spin = pytest.mark.skipif(
    SPIN is None or CC is None, reason="the models need spin and a C compiler (Debian: apt install spin gcc)"
)
_TRACE = re.compile(r"^\s*TRACE (?P<event>\w+) (?P<numbers>[\d ]+?) (?P<state>[a-z]+=.*)$", re.MULTILINE)
_BY_HAND = os.environ.get("LOKKET_MODELS") == "large"
Defines = dict[str, int]


@dataclass(frozen=True)
class Event:
    """One line of a run: what happened, to whom, and the model's state after it."""

    name: str
    numbers: tuple[int, ...]
    state: dict[str, str]


@dataclass(frozen=True)
class Search:
    """``broken`` is the run that violates an assertion; empty: none does."""

    states: int
    broken: tuple[Event, ...]


def bounds(small: Defines, *large: Defines) -> list[Defines]:
    """The bounds to search within: the large ones by hand only (``make models``)."""
    return [small, *large] if _BY_HAND else [small]


def runs(few: int) -> int:
    """How many random runs: ten times as many by hand."""
    return 10 * few if _BY_HAND else few


def search(model: str, folder: Path, **defines: int) -> Search:
    """All states. AssertionError: the search did not end within its bounds."""
    source, flags = MODELS / f"{model}.pml", _flags(defines)
    _run(folder, str(SPIN), "-a", *flags, str(source))
    _run(folder, str(CC), "-O2", "-w", "-DSAFETY", "-o", "pan", "pan.c")
    said = _run(folder, "./pan", "-m1000000")
    assert "truncated" not in said, f"the search was cut short: {said}"
    assert "max search depth too small" not in said, said
    states = int(_found(r"(\d+) states, stored", said))
    if int(_found(r"errors: (\d+)", said)) == 0:
        return Search(states, ())
    trail = next(folder.glob("*.trail"))
    run = _run(folder, str(SPIN), "-k", str(trail), "-t", *flags, str(source))
    return Search(states, _events(run))


def simulate(model: str, folder: Path, seed: int, **defines: int) -> tuple[Event, ...]:
    """One run, its choices from the seed."""
    return _events(_run(folder, str(SPIN), f"-n{seed}", *_flags(defines), str(MODELS / f"{model}.pml")))


def _flags(defines: Defines) -> list[str]:
    return [f"-D{name}={value}" for name, value in defines.items()]


def _run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=3600)
    assert done.returncode == 0, f"{command[0]} failed: {done.stdout[-2000:]} {done.stderr[-2000:]}"
    return done.stdout


def _found(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    assert found is not None, f"no {pattern!r} in {text}"
    return found[1]


def _events(text: str) -> tuple[Event, ...]:
    return tuple(
        Event(
            found["event"],
            tuple(int(number) for number in found["numbers"].split()),
            dict(part.split("=") for part in found["state"].split()),
        )
        for found in _TRACE.finditer(text)
    )
