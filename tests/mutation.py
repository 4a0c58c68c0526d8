"""How many changes of the protocol library's code do the tests notice? ``make mutation`` asks mutmut.

1. mutmut makes all mutants of ``codec``, ``crypto`` and ``protocol/pairwise``, and learns each one's tests.
2. A sample is drawn by the seed, the same share from every file; ``--sample 0`` takes all (hours).
3. Each is tried. ``build/mutation.md`` gets the table by room and every survivor's change; docs/mutation.md
   says what they mean.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import subprocess
import sys
from collections import Counter
from typing import Final

from tests.house.tree import ROOT

MUTANTS: Final = ROOT / "mutants"
REPORT: Final = ROOT / "build" / "mutation.md"
ROOMS: Final = ("codec", "crypto", "protocol/pairwise")
_VERDICTS: Final = {0: "survived", 5: "no test", 33: "no test", 35: "not tried", None: "not tried"}
"""By mutmut's exit code; every other is a kill: a test failed, or the tests did not end or did not begin."""
_TIMES_OUT: Final = {24, -24, 36, 152}


def main() -> None:
    parser = argparse.ArgumentParser(description="Mutation testing of the protocol library.")
    parser.add_argument("--sample", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    shutil.rmtree(MUTANTS, ignore_errors=True)  # which tests reach which code is learnt once, for these tests
    jobs = ("--max-children", str(arguments.jobs))
    # mutmut stops at a name that is none, after it made the mutants: only then is there a list to draw from.
    made = _mutmut("run", *jobs, "none", quiet=True)
    if not outcomes():
        sys.exit(made.stdout + made.stderr)
    names = drawn(arguments.sample, arguments.seed)
    print(f"{len(names)} of {sum(map(len, outcomes().values()))} mutants, seed {arguments.seed}", flush=True)
    again = names
    for _ in range(
        2
    ):  # whose tests did not end in time has a second chance: the machine may have stood still
        if again and _mutmut("run", *jobs, *again).returncode:
            sys.exit("mutmut stopped; see above")
        codes = {name: code for of_file in outcomes().values() for name, code in of_file.items()}
        again = [name for name in names if codes[name] in _TIMES_OUT]
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text("\n".join(report(names)) + "\n", encoding="utf-8")
    print(REPORT.read_text(encoding="utf-8"))


def _mutmut(*arguments: str, quiet: bool = False) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mutmut", *arguments]
    return subprocess.run(command, cwd=ROOT, text=True, capture_output=quiet, check=False)


def outcomes() -> dict[str, dict[str, int | None]]:
    """File -> mutant -> mutmut's exit code; None: not tried."""
    found: dict[str, dict[str, int | None]] = {}
    for path in sorted(MUTANTS.rglob("*.py.meta")):
        codes = json.loads(path.read_text(encoding="utf-8"))["exit_code_by_key"]
        found.update({path.relative_to(MUTANTS / "src" / "lokket").as_posix(): codes} if codes else {})
    return found


def drawn(size: int, seed: int) -> list[str]:
    """Names of about ``size`` mutants, of each file its share."""
    files = outcomes()
    total = sum(map(len, files.values()))
    chance = random.Random(seed)
    share = min(size / total, 1) if size else 1
    return [
        name
        for file in sorted(files)
        for name in chance.sample(sorted(files[file]), round(share * len(files[file])))
    ]


def report(names: list[str]) -> list[str]:
    """The table, then the survivors."""
    verdicts = {
        room: {
            name: _VERDICTS.get(codes[name], "killed")
            for file, codes in outcomes().items()
            for name in names
            if name in codes and file.startswith(room)
        }
        for room in ROOMS
    }
    lines = ["| Room | Tried | Killed | Survived | No test reaches it |", "|---|---|---|---|---|"]
    lines += [_row(room, Counter(of_room.values())) for room, of_room in verdicts.items()]
    lines.append(_row("all", Counter(verdict for room in verdicts.values() for verdict in room.values())))
    for of_room in verdicts.values():
        for name in sorted(name for name, verdict in of_room.items() if verdict != "killed"):
            shown = _mutmut("show", name, quiet=True).stdout.splitlines()
            change = [line for line in shown if line[:1] in "+-@"]
            lines += ["", f"## {name}: {of_room[name]}", "```diff", *change[2:], "```"]
    return lines


def _row(room: str, counts: Counter[str]) -> str:
    tried = counts.total() - counts["not tried"]
    share = counts["killed"] / max(tried, 1)
    spread = 1.96 * math.sqrt(share * (1 - share) / max(tried, 1))
    killed = f"{counts['killed']}, {100 * share:.1f} % ± {100 * spread:.1f}"
    return f"| {room} | {tried} | {killed} | {counts['survived']} | {counts['no test']} |"


if __name__ == "__main__":
    main()
