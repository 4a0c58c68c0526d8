"""All targets in turn: ``python fuzz/campaign.py --seconds 600 [NAME ...]``, or ``make fuzz-all``.

1. Each target runs in a process of its own for as long as it is given (``run.py``), from the corpus of the
   tree and from what earlier campaigns found in ``build/fuzz/NAME``.
2. Of what was found, the inputs that reach something new go to ``fuzz/corpus/NAME``: minimised and bounded.
3. The report goes to ``build/fuzz/report.md`` after every target; a crash ends nothing, but the status is 1.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, NamedTuple

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
WORK = HERE.parent / "build" / "fuzz"
sys.path[:0] = [str(HERE), str(HERE.parent)]

from minimise import minimised  # noqa: E402
from targets import TARGETS  # noqa: E402

_RUNS: Final = re.compile(r"stat::number_of_executed_units: *(\d+)")
_COVERAGE: Final = re.compile(r"cov: (\d+) ft: (\d+)")
_GRACE_S: Final = 300  # for loading, and for the input under way at the end


class Ran(NamedTuple):
    name: str
    seconds: float
    runs: int
    edges: int
    features: int
    kept: int
    crashes: tuple[str, ...]


def inputs(folder: Path) -> list[bytes]:
    if not folder.is_dir():
        return []
    return [
        path.read_bytes()
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith("crash-")
    ]


def run(name: str, seconds: int) -> Ran:
    """Fuzz one target and keep what is new."""
    folder = WORK / name
    folder.mkdir(parents=True, exist_ok=True)
    known = {path.name for path in folder.glob("crash-*")}
    started = time.monotonic()
    command = [sys.executable, str(HERE / "run.py"), name, "--seconds", str(seconds)]
    log = WORK / f"{name}.log"
    with log.open("w", encoding="utf-8", errors="replace") as output:
        try:
            ended = subprocess.run(
                command, stdout=output, stderr=output, timeout=seconds + _GRACE_S, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            ended = -1
    text = log.read_text(encoding="utf-8", errors="replace")
    crashes = sorted({path.name for path in folder.glob("crash-*")} - known)
    if ended and not crashes:
        crashes = [f"no input, but status {ended}: see {log.name}"]
    runs, coverage = _RUNS.findall(text), _COVERAGE.findall(text)
    edges, features = coverage[-1] if coverage else (0, 0)
    kept = keep(name)
    spent = time.monotonic() - started
    return Ran(name, spent, int(runs[-1]) if runs else 0, int(edges), int(features), kept, tuple(crashes))


def keep(name: str) -> int:
    """Move what is new into the tree's corpus; how many inputs that were."""
    corpus = CORPUS / name
    corpus.mkdir(parents=True, exist_ok=True)
    new = minimised(TARGETS[name], inputs(corpus), inputs(WORK / name))
    for data in new:
        (corpus / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    return len(new)


def report(ran: list[Ran], seconds: int) -> str:
    lines = [
        f"{seconds} seconds for each target.",
        "",
        "| target | runs | runs/s | edges | features | new inputs kept | crashes |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in ran:
        rate = one.runs / max(seconds, 1)
        crashes = ", ".join(one.crashes) or "none"
        cells = (one.name, one.runs, f"{rate:.0f}", one.edges, one.features, one.kept, crashes)
        lines.append("".join(f"| {cell} " for cell in cells) + "|")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Fuzz all targets, one after the other.")
    parser.add_argument("names", nargs="*", choices=[*sorted(TARGETS), []], metavar="NAME")
    parser.add_argument("--seconds", type=int, default=600, help="for each target")
    arguments = parser.parse_args()
    names = arguments.names or sorted(TARGETS)
    WORK.mkdir(parents=True, exist_ok=True)
    ran = []
    for name in names:
        print(f"{name} ({len(ran) + 1} of {len(names)})", flush=True)
        ran.append(run(name, arguments.seconds))
        (WORK / "report.md").write_text(report(ran, arguments.seconds), encoding="utf-8")
        if ran[-1].crashes:
            print(f"  CRASH: {', '.join(ran[-1].crashes)}", flush=True)
    print(report(ran, arguments.seconds))
    sys.exit(any(one.crashes for one in ran))


if __name__ == "__main__":
    main()
