"""``python -m tests.e2e.kills --kills 3000 --seed N``: kill -9 of sender, reader, daemon, relay, at random.

Each round is that of ``test_kill``: its messages, some kills of one kind of process, and the count of all
that was accepted, in order and once. A round that fails is printed with its seed.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

from lokket.client.rpc import place
from tests.e2e.test_kill import Street, kill_round
from tests.support.machine import RelayMachine, machines

MESSAGES = (30, 60)
KILLS_A_ROUND = 12
ROUNDS_A_STREET = 25  # then new accounts, so that histories stay short


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=3_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    victims = ["sender", "reader", "relay"] + (["daemon"] if place.has_sockets() else [])
    counts: Counter[str] = Counter()
    number = 0
    while sum(counts[victim] for victim in victims) < options.kills:
        with (
            tempfile.TemporaryDirectory() as root,
            machines(Path(root), "alice", "bob") as (relay, alice, bob),
        ):
            assert isinstance(relay, RelayMachine)
            street = Street(relay, alice, bob)
            for _ in range(ROUNDS_A_STREET):
                seed = f"{options.seed} {number}"
                number += 1
                draw = random.Random(seed)
                victim = draw.choice(victims)
                messages = draw.randint(*MESSAGES)
                moments = sorted(draw.sample(range(messages), KILLS_A_ROUND))
                try:
                    kill_round(
                        street, victim, [f"round {number} line {at}" for at in range(messages)], moments
                    )
                except Exception:
                    print(f"round {seed!r}, kills of the {victim} after {moments}:", flush=True)
                    traceback.print_exc()
                    return 1
                counts[victim] += len(moments)
                counts["messages"] += messages
                print(f"round {seed!r}: {len(moments)} kills of the {victim}", flush=True)
                if sum(counts[victim] for victim in victims) >= options.kills:
                    break
        print(", ".join(f"{count} {what}" for what, count in counts.items()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
