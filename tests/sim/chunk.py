"""``python -m tests.sim.chunk FIRST COUNT``: some worlds in this process; its last line is the result."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections import Counter

from .profiles import of_seed
from .world import World


def main(first: int, count: int) -> None:
    counts: Counter[str] = Counter()
    failed = []
    for seed in range(first, first + count):
        world = World(seed, of_seed(seed))
        try:
            world.run()
        except Exception:
            failed.append(seed)
            traceback.print_exc(limit=-1)
        counts.update(
            worlds=1,
            texts=len(world.accepted),
            crashes=world.crashes,
            restores=world.restores,
            recoveries=len(world.recovered),
            handovers=len(world.handed_over),
            devices_lost=len(world.lost),
        )
    counts["cpu_ms"] = round(1000 * time.process_time())
    print(json.dumps({"counts": counts, "failed": failed}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
