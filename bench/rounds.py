"""Runs drivers in turn, round by round, and puts their medians side by side."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.harness import MISSING

ROOT: Final = Path(__file__).resolve().parent.parent
OUT: Final = ROOT / "bench" / "out"


@dataclass
class Gathered:
    """What the drivers printed: samples in ns by driver and workload, and the last round's facts."""

    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    about: dict[str, dict[str, Any]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    loads: list[float] = field(default_factory=list)

    def medians(self) -> dict[str, dict[str, float]]:
        return {
            driver: {name: round(statistics.median(values), 1) for name, values in workloads.items()}
            for driver, workloads in self.samples.items()
        }

    def minima(self) -> dict[str, dict[str, float]]:
        return {
            driver: {name: min(values) for name, values in workloads.items()}
            for driver, workloads in self.samples.items()
        }


def gather(drivers: Mapping[str, Sequence[str]], rounds: int, environment: Mapping[str, str]) -> Gathered:
    """A B C A B C ...: every round starts every driver anew. RuntimeError: a driver failed."""
    gathered, full = Gathered(), {**os.environ, **environment}
    for number in range(rounds):
        for driver, command in drivers.items():
            if driver in gathered.missing:
                continue
            progress(f"round {number + 1} of {rounds}: {driver}")
            gathered.loads.append(load())
            run = subprocess.run(command, cwd=ROOT, env=full, capture_output=True, text=True, check=False)
            if run.returncode == MISSING:
                gathered.missing[driver] = run.stderr.strip()
                continue
            if run.returncode:
                raise RuntimeError(f"{driver} failed: {run.stderr[-2000:]}")
            printed = json.loads(run.stdout.splitlines()[-1])
            gathered.about[driver] = {key: printed[key] for key in ("runtime", "versions", "facts")}
            for name, value in printed["results"].items():
                gathered.samples.setdefault(driver, {}).setdefault(name, []).append(value)
    progress("")
    return gathered


def progress(line: str) -> None:
    """On a terminal one line that is written over."""
    if sys.stderr.isatty():
        print(f"\r{line:<40}", end="" if line else "\r", file=sys.stderr, flush=True)


def load() -> float:
    """Runnable processes, the last minute's average; 0 where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def machine() -> str:
    return f"{os.cpu_count()} processors, {platform.machine()}, {platform.system()} {platform.release()}"


def table(
    medians: Mapping[str, Mapping[str, float]], ours: str, extra: Mapping[str, Mapping[str, float]]
) -> list[str]:
    """Markdown: microseconds per driver, then our ratio to each other one, then ``extra`` columns."""
    others = [driver for driver in medians if driver != ours]
    names = list(dict.fromkeys(name for workloads in medians.values() for name in workloads))
    heads = ["workload", *medians, *(f"{ours} / {other}" for other in others), *extra]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    for name in names:
        mine = medians.get(ours, {}).get(name)
        cells = [microseconds(workloads.get(name)) for workloads in medians.values()]
        cells += [ratio(mine, medians[other].get(name)) for other in others]
        cells += [f"{values[name]:.2f}" if name in values else "" for values in extra.values()]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return lines


def microseconds(value: float | None) -> str:
    return "" if value is None else f"{value / 1000:.1f}"


def ratio(mine: float | None, theirs: float | None) -> str:
    return "" if mine is None or theirs is None else f"{mine / theirs:.2f}"


def write(folder: Path, name: str, gathered: Gathered, more: Mapping[str, Any]) -> Path:
    """``NAME.json`` and ``NAME-details.json``, the former's path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(gathered.medians(), indent=1) + "\n")
    details = {
        "machine": machine(),
        "load": {"least": min(gathered.loads), "most": max(gathered.loads)},
        "about": gathered.about,
        "missing": gathered.missing,
        "samples": gathered.samples,
        **more,
    }
    (folder / f"{name}-details.json").write_text(json.dumps(details, indent=1) + "\n")
    return path
