"""``bench-pairwise`` in one tiny round: its drivers run, what it writes has the promised shape."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import rounds
from bench.harness import MISSING
from bench.pairwise.__main__ import AIMS, BARS, DRIVERS, verdicts
from bench.pairwise.floor import COUNTS

TINY = {"BENCH_CHAIN": "4", "BENCH_MEMBERS": "2"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one round wrote."""
    out = tmp_path_factory.mktemp("out")
    run = subprocess.run(
        [sys.executable, "-m", "bench.pairwise", "--rounds", "1", "--out", str(out)],
        cwd=rounds.ROOT,
        env={**os.environ, **TINY},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return out


def test_the_written_medians_are_ns_by_driver_and_workload(folder: Path) -> None:
    medians = json.loads((folder / "pairwise.json").read_text())
    assert set(BARS) | set(AIMS) | set(COUNTS) <= set(medians["lokket"])
    assert set(medians) <= set(DRIVERS)
    for workloads in medians.values():
        assert all(isinstance(value, int | float) and value > 0 for value in workloads.values())


def test_every_driver_ran_or_is_said_to_be_missing(folder: Path) -> None:
    details = json.loads((folder / "pairwise-details.json").read_text())
    assert set(details["samples"]) | set(details["missing"]) == set(DRIVERS)
    assert not set(details["samples"]) & set(details["missing"])
    assert all(details["missing"].values())
    assert set(details["floor"]["ns"]) == set(COUNTS)


def test_the_braid_stands_where_libsignals_does(folder: Path) -> None:
    about = json.loads((folder / "pairwise-details.json").read_text())["about"]
    if "libsignal" not in about:
        pytest.skip("no libsignal-client here; `make interop` installs it")
    ours, theirs = about["lokket"]["facts"], about["libsignal"]["facts"]
    stood = {name: place for name, place in ours.items() if name.startswith("braid_")}
    assert stood
    assert stood == {name: theirs[name] for name in stood}


def test_a_driver_that_is_missing_or_fails() -> None:
    command = (
        sys.executable,
        "-c",
        f"import sys; print('no such thing', file=sys.stderr); sys.exit({MISSING})",
    )
    gathered = rounds.gather({"other": command}, 2, {})
    assert gathered.missing == {"other": "no such thing"}
    assert gathered.medians() == {}
    with pytest.raises(RuntimeError, match="other failed"):
        rounds.gather({"other": (sys.executable, "-c", "raise SystemExit(1)")}, 1, {})


def test_verdicts_say_which_bar_is_missed() -> None:
    bar = BARS["setup_accept"]
    medians = {"lokket": {"setup_accept": 100.0 * bar + 1}, "libsignal": {"setup_accept": 100.0}}
    minima = {"lokket": {"setup_accept": 30.0}, "libsignal": {"setup_accept": 60.0}}
    missed = verdicts(medians, minima)[0]
    assert missed.endswith("MISSED")
    assert "(least by least 0.50)" in missed
    medians["lokket"]["setup_accept"] = 100.0 * bar
    assert verdicts(medians, minima)[0].endswith("met")


def test_a_table_has_a_row_per_workload_and_a_ratio_per_other() -> None:
    lines = rounds.table({"lokket": {"x": 2000.0}, "other": {"x": 4000.0, "y": 1000.0}}, "lokket", {})
    assert lines[2:] == ["| x | 2.0 | 4.0 | 0.50 |", "| y |  | 1.0 |  |"]
