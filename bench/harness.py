"""What the drivers written in Python share: timed spans of named workloads, and the object they print."""

from __future__ import annotations

import gc
import json
import os
import platform
import sys
from importlib.metadata import version
from time import perf_counter_ns
from types import TracebackType
from typing import Any, Final

CHAIN: Final = int(os.environ.get("BENCH_CHAIN", "1000"))
"""Messages of a chain; the tests set a small one."""
MEMBERS: Final = int(os.environ.get("BENCH_MEMBERS", "300"))
SETUPS: Final = max(2, CHAIN // 10)
MISSING: Final = 3
"""Exit status of a driver whose library is not installed."""


class Span:
    """A timed block of ``operations`` equal operations."""

    def __init__(self, results: dict[str, float], name: str, operations: int) -> None:
        self._results = results
        self._name = name
        self._operations = operations

    def __enter__(self) -> None:
        gc.collect()
        self._start = perf_counter_ns()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._results[self._name] = (perf_counter_ns() - self._start) / self._operations


class Workloads:
    """Nanoseconds per operation by workload; facts are what is not a time."""

    def __init__(self) -> None:
        self.results: dict[str, float] = {}
        self.facts: dict[str, Any] = {}

    def __call__(self, name: str, operations: int) -> Span:
        return Span(self.results, name, operations)

    def add(self, name: str, total_ns: int, operations: int) -> None:
        self.results[name] = total_ns / operations


def emit(driver: str, packages: tuple[str, ...], workloads: Workloads) -> None:
    """Print what ``rounds`` reads."""
    made = {
        "driver": driver,
        "runtime": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": {name: version(name) for name in packages},
        "results": {name: round(value, 1) for name, value in workloads.results.items()},
        "facts": workloads.facts,
    }
    print(json.dumps(made))


def missing(error: ImportError) -> None:
    """Leave, saying which package is not here."""
    print(f"{error.name} is not installed (requirements/bench.lock)", file=sys.stderr)
    sys.exit(MISSING)
