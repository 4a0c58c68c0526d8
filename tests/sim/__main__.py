"""``python -m tests.sim``: ``--seed N`` replays a world with a trace, ``--seeds 0:99`` looks for failures."""

from __future__ import annotations

import argparse
import sys
import time
import traceback

from .invariants import digest
from .profiles import PROFILES, of_seed
from .world import World

FAILURES_MAX = 10


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, help="replay this world and print its trace")
    parser.add_argument("--seeds", help="FIRST:LAST, without traces; prints what failed")
    parser.add_argument("--profile", choices=sorted(PROFILES), help="the kind of world; else the seed says")
    parser.add_argument("--quiet", action="store_true", help="with --seed: the result alone")
    options = parser.parse_args()
    if options.seeds:
        return many(options.seeds, options.profile)
    seed = options.seed or 0
    profile = PROFILES[options.profile] if options.profile else of_seed(seed)
    world = World(seed, profile)
    world.watching = not options.quiet
    world.run()
    print(f"seed {seed}, profile {profile.name}: {len(world.accepted)} texts, digest {digest(world)}")
    return 0


def many(seeds: str, name: str | None) -> int:
    first, _, last = seeds.partition(":")
    failed = []
    began_s = time.process_time()
    count = 0
    for seed in range(int(first), int(last)):
        count += 1
        profile = PROFILES[name] if name else of_seed(seed)
        try:
            World(seed, profile).run()
        except Exception:
            failed.append(seed)
            if len(failed) == FAILURES_MAX:
                print("enough of them")
                break
            print(f"python -m tests.sim --seed {seed} --profile {profile.name}")
            print("  " + traceback.format_exc(limit=-2).strip().replace("\n", "\n  "))
    spent_s = time.process_time() - began_s
    print(f"{count} worlds, {len(failed)} failed, {1000 * spent_s / max(count, 1):.0f} ms each")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
