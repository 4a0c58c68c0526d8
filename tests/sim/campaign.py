"""``python -m tests.sim.campaign --worlds 10000``: many worlds over processes, what failed, what it cost.

Every chunk of seeds that is done is a line of the state file; started again with the same file, it goes on.
A chunk is one process, so that what worlds share for speed does not grow for ever.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CHUNK = 100


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.campaign", description=__doc__)
    parser.add_argument("--worlds", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--state", type=Path, help="a file to go on from")
    options = parser.parse_args()
    done = _read(options.state)
    firsts = range(options.seed, options.seed + options.worlds, CHUNK)
    missing = [(first, min(CHUNK, options.seed + options.worlds - first)) for first in firsts]
    missing = [chunk for chunk in missing if f"{chunk[0]}+{chunk[1]}" not in done]
    with ThreadPoolExecutor(options.jobs) as pool:
        for name, found in pool.map(_run, missing):
            done[name] = found
            for seed in found["failed"]:
                print(f"failed: make sim SEED={seed}", flush=True)
            if options.state is not None:
                with options.state.open("a") as lines:
                    lines.write(json.dumps({name: found}) + "\n")
    return _report(options, done)


def _run(chunk: tuple[int, int]) -> tuple[str, dict[str, object]]:
    first, count = chunk
    ended = subprocess.run(
        [sys.executable, "-m", "tests.sim.chunk", str(first), str(count)],
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise RuntimeError(f"worlds {first} to {first + count - 1} ended in\n{ended.stderr[-2000:]}")
    return f"{first}+{count}", json.loads(ended.stdout.splitlines()[-1])


def _read(state: Path | None) -> dict[str, dict[str, object]]:
    done: dict[str, dict[str, object]] = {}
    if state is not None and state.exists():
        for line in state.read_text().splitlines():
            done.update(json.loads(line))
    return done


def _report(options: argparse.Namespace, done: dict[str, dict[str, object]]) -> int:
    total: Counter[str] = Counter()
    failed: list[int] = []
    for name, found in done.items():
        if options.seed <= int(name.partition("+")[0]) < options.seed + options.worlds:
            total.update(found["counts"])  # type: ignore[arg-type]
            failed += found["failed"]  # type: ignore[arg-type]
    cpu_ms = total.pop("cpu_ms")
    print(f"{total['worlds']} worlds from seed {options.seed}, {len(failed)} failed: {failed[:20]}")
    print(", ".join(f"{count} {what}" for what, count in sorted(total.items()) if what != "worlds"))
    print(f"{cpu_ms / max(total['worlds'], 1):.0f} ms of CPU each, {time.strftime('%Y-%m-%d')}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
