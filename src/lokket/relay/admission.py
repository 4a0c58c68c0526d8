"""New accounts only while this machine has room: who is there is served longer than who is new."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lokket.relay.config import Admission

_MEMORY: Final = Path("/proc/meminfo")


@dataclass(frozen=True, slots=True)
class Readings:
    """None: this system does not tell."""

    load: float | None = None  # per processor, the average of five minutes
    memory_bytes: int | None = None  # available
    disk_bytes: int | None = None  # free, where the data is


Read = Callable[[], Readings]


def nothing_to_read() -> Readings:
    return Readings()


def of_this_machine(data: Path | None) -> Read:
    def read() -> Readings:
        return Readings(_load(), _memory_bytes(), _disk_bytes(data))

    return read


def shortage(admission: Admission, readings: Readings) -> str:
    """What there is too little of, as the end of a sentence; empty: of nothing."""
    if admission.load_max and readings.load is not None and readings.load > admission.load_max:
        return "its processor is busy"
    if readings.memory_bytes is not None and readings.memory_bytes < admission.memory_min_bytes:
        return "its memory is short"
    if readings.disk_bytes is not None and readings.disk_bytes < admission.disk_min_bytes:
        return "its disk is nearly full"
    return ""


def _load() -> float | None:
    try:
        return os.getloadavg()[1] / (os.cpu_count() or 1)
    except (AttributeError, OSError):
        return None


def _memory_bytes() -> int | None:
    try:
        lines = _MEMORY.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _disk_bytes(data: Path | None) -> int | None:
    try:
        return shutil.disk_usage(data).free if data is not None else None
    except OSError:
        return None
