"""How many changes of the protocol library's code do the tests notice? ``make mutation`` asks mutmut.

1. mutmut makes all mutants of ``codec``, ``crypto`` and ``protocol/pairwise``, and learns each one's tests.
2. A sample is drawn by the seed, the same share from every file; ``--sample 0`` takes all (hours).
3. Each is tried by the tests that reach its function.
4. Who survives is tried, in a process of its own, by all other tests that reach its module: what runs at
   import, or once in a process, is reached by more tests than mutmut sees.
5. ``build/mutation.md`` gets the table by room and every survivor's change. docs/mutation.md says more.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import resource
import shutil
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from tests.house.tree import ROOT

MUTANTS: Final = ROOT / "mutants"
REPORT: Final = ROOT / "build" / "mutation.md"
ROOMS: Final = ("codec", "crypto", "protocol/pairwise")
_SURVIVED: Final = 0
_OPEN: Final = {_SURVIVED, 5, 33, 35, None, 24, -24, 36, 152}
"""mutmut's exit codes for: survived, no test, not tried, out of time. Else a test failed or did not begin."""
_CPU_MAX_S, _MEMORY_MAX_BYTES = 300, 4 << 30  # the tests take up to 60 s; some mutants never end, and grow


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
    if _mutmut("run", *jobs, *names).returncode:
        sys.exit("mutmut stopped; see above")
    verdicts = first_verdicts(names)
    left = {name: others(name) for name, verdict in verdicts.items() if verdict != "killed"}
    print(f"{len(left)} are tried by other tests", flush=True)
    if not _pass("", set().union(*left.values())):
        sys.exit("the tests fail without a mutant")
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for name, passed in zip(left, pool.map(_pass, left, left.values()), strict=True):
            verdicts[name] = "survived" if passed else "killed"
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text("\n".join(report(verdicts)) + "\n", encoding="utf-8")
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


def first_verdicts(names: list[str]) -> dict[str, str]:
    codes = {name: code for of_file in outcomes().values() for name, code in of_file.items()}
    return {name: "open" if codes[name] in _OPEN else "killed" for name in names}


def others(mutant: str) -> set[str]:
    """The tests that reach its module, but not its function. All of them, if mutmut came to no end."""
    function, module = mutant.rpartition("__mutmut_")[0], mutant.rpartition(".")[0]
    found = {test for one, tests in _reaching().items() if one.rpartition(".")[0] == module for test in tests}
    codes = {name: code for of_file in outcomes().values() for name, code in of_file.items()}
    return found - set(_reaching().get(function, ())) if codes[mutant] == _SURVIVED else found


def _reaching() -> dict[str, list[str]]:
    stats = json.loads((MUTANTS / "mutmut-stats.json").read_text(encoding="utf-8"))
    reaching: dict[str, list[str]] = stats["tests_by_mangled_function_name"]
    return reaching


def _pass(mutant: str, tests: set[str]) -> bool:
    """Whether these tests pass with ``mutant``, or with none."""
    if not tests:
        return True
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *sorted(tests)]
    environment = {**os.environ, "MUTANT_UNDER_TEST": mutant, "PYTHONPATH": str(MUTANTS / "src")}
    done = subprocess.run(
        command, cwd=MUTANTS, env=environment, capture_output=True, check=False, preexec_fn=_bound
    )
    return done.returncode == 0


def _bound() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_MAX_S, _CPU_MAX_S))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_MAX_BYTES, _MEMORY_MAX_BYTES))


def report(verdicts: dict[str, str]) -> list[str]:
    """The table, then the survivors."""
    lines = ["| Room | Tried | Killed | Survived |", "|---|---|---|---|"]
    for room in ROOMS:
        of_room = "lokket." + room.replace("/", ".")
        lines.append(_row(room, Counter(v for name, v in verdicts.items() if name.startswith(of_room))))
    lines.append(_row("all", Counter(verdicts.values())))
    for name in sorted(name for name, verdict in verdicts.items() if verdict != "killed"):
        shown = _mutmut("show", name, quiet=True).stdout.splitlines()
        change = [line for line in shown if line[:1] in "+-@"]
        lines += ["", f"## {name}", "```diff", *change[2:], "```"]
    return lines


def _row(room: str, counts: Counter[str]) -> str:
    tried = max(counts.total(), 1)
    share = counts["killed"] / tried
    spread = 1.96 * math.sqrt(share * (1 - share) / tried)
    killed = f"{counts['killed']}, {100 * share:.1f} % ± {100 * spread:.1f}"
    return f"| {room} | {counts.total()} | {killed} | {counts['survived']} |"


if __name__ == "__main__":
    main()
