"""One promise, over many seeds: ``python -m tests.reliability powercut-vault --seeds 0:200``.

Prints what failed with the command that replays it, then one line of figures.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Callable

from tests.reliability import corruption, diskfaults, powercut, relay_corruption

FAILURES_MAX = 5
CAMPAIGNS: dict[str, tuple[Callable[[int], int], str]] = {
    "powercut-relay": (powercut.relay, "answers before the cuts"),
    "corruption": (corruption.vault, "damages noticed"),
    "corruption-relay": (relay_corruption.relay, "damages that the relay noticed"),
    "salvage": (corruption.life, "salvaged accounts that went on"),
    "diskfaults-relay": (diskfaults.relay, "faults"),
    "diskfaults-client": (diskfaults.client, "faults"),
    "powercut-vault": (powercut.vault, f"messages; {powercut.CUTS_PER_VAULT} cuts for each seed"),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability")
    parser.add_argument("campaign", choices=CAMPAIGNS)
    parser.add_argument("--seeds", default="0:20", help="FIRST:BEFORE")
    chosen = parser.parse_args()
    first, _, last = chosen.seeds.partition(":")
    return run(chosen.campaign, range(int(first), int(last or int(first) + 1)))


def run(name: str, seeds: range) -> int:
    work, unit = CAMPAIGNS[name]
    failed = figure = 0
    began_s = time.monotonic()
    for seed in seeds:
        try:
            figure += work(seed)
        except Exception:
            failed += 1
            print(f"python -m tests.reliability {name} --seeds {seed}:{seed + 1}")
            print("  " + traceback.format_exc(limit=-3).strip().replace("\n", "\n  "), flush=True)
            if failed == FAILURES_MAX:
                print("enough of them")
                break
    spent_s = time.monotonic() - began_s
    print(
        f"{name}: seeds {seeds.start} to {seeds.stop - 1}, {failed} failed, {figure} {unit}, {spent_s:.0f} s"
    )
    for outcome, count in sorted((corruption.outcomes + relay_corruption.outcomes).items()):
        print(f"  {outcome}: {count}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
