"""``bench-groups`` in one tiny round: its drivers run, what it writes has the promised shape."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import rounds

WORKLOADS = [
    "bulk_add",
    "join_bare",
    "join",
    "self_commit_bare",
    "self_commit",
    "process_commit_bare",
    "process_commit",
    "add_one",
    "remove_one",
    "process_add",
    "process_remove",
    "application_encrypt",
    "application_decrypt",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one round in a group of ten wrote."""
    out = tmp_path_factory.mktemp("out")
    run = subprocess.run(
        [sys.executable, "-m", "bench.groups", "--rounds", "1", "--sizes", "10", "--out", str(out)],
        cwd=rounds.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return out


def test_the_written_times_are_ns_by_driver_and_workload(folder: Path) -> None:
    times = json.loads((folder / "groups.json").read_text())
    assert set(times["lokket"]) == {f"{workload}@10" for workload in WORKLOADS}
    assert set(times) <= {"lokket", "mls-rs", "ts-mls"}
    for workloads in times.values():
        assert set(workloads) == set(times["lokket"])
        assert all(isinstance(value, int | float) and value > 0 for value in workloads.values())
    sizes = json.loads((folder / "groups-details.json").read_text())["bytes"]
    assert {"welcome@10", "self_commit@10", "process_commit_rows@10"} <= set(sizes["lokket"])
