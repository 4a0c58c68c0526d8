"""``make bench-pairwise``: lokket beside libsignal-client, vodozemac and doubleratchet, interleaved."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bench import rounds
from bench.harness import CHAIN
from bench.pairwise.floor import floor

OURS: Final = "lokket"
DRIVERS: Final = {
    "lokket": (sys.executable, "-m", "bench.pairwise.lokket_driver"),
    "libsignal": ("node", "bench/pairwise/libsignal_driver.mjs"),
    "vodozemac": (sys.executable, "-m", "bench.pairwise.vodozemac_driver"),
    "doubleratchet": (sys.executable, "-m", "bench.pairwise.doubleratchet_driver"),
}
PEER_FOLDER: Final = "tests/interop/libsignal"

BARS: Final = {
    "oneway_encrypt": 0.45,
    "oneway_decrypt": 0.45,
    "oneway_encrypt_persist": 0.50,
    "oneway_decrypt_persist": 0.50,
    "ooo100_decrypt": 0.45,
    "pingpong_message": 0.70,
    "setup_initiate": 1.00,
    "setup_accept": 0.70,
}
"""The ratio to libsignal that lokket's median shall not exceed."""

AIMS: Final = {"oneway_encrypt": 1.5, "oneway_decrypt": 1.5, "pingpong_message": 2.0}
"""The ratio to vodozemac that is aimed at: it does no post-quantum work."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=rounds.OUT)
    arguments = parser.parse_args()
    count = arguments.rounds
    print(f"{count} rounds, chains of {CHAIN}, texts of 100 bytes; {rounds.machine()}")
    gathered = rounds.gather(DRIVERS, count, {"LIBSIGNAL_DIR": PEER_FOLDER})
    for driver, why in gathered.missing.items():
        print(f"{driver} is missing: {why}")
    for driver, about in gathered.about.items():
        versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
        print(f"{driver}: {about['runtime']}, {versions}")
    print_braid({driver: about["facts"] for driver, about in gathered.about.items()})
    how, floors = floor()
    medians = gathered.medians()
    print(f"load average {min(gathered.loads):.1f} to {max(gathered.loads):.1f}; floor: {how}")
    print("\nMicroseconds per operation, medians; ratios of medians; `floor` is our median over the floor.\n")
    above = {name: medians[OURS][name] / value for name, value in floors.items() if name in medians[OURS]}
    print("\n".join(rounds.table(medians, OURS, {"floor": above})))
    print()
    print("\n".join(verdicts(medians, gathered.minima())))
    path = rounds.write(arguments.out, "pairwise", gathered, {"floor": {"how": how, "ns": floors}})
    print(f"\n{os.path.relpath(path)} written")


def print_braid(facts: Mapping[str, Mapping[str, object]]) -> None:
    """Where the post-quantum ratchet stood at the end of each workload, and whether it was the same."""
    for name in ("braid_oneway", "braid_ooo100", "braid_pingpong"):
        stood = {driver: known[name] for driver, known in facts.items() if name in known}
        same = "the same" if len(set(stood.values())) == 1 else "NOT the same"
        where = "; ".join(f"{driver} {place}" for driver, place in stood.items())
        print(f"Braid after {name.removeprefix('braid_')}, {same}: {where}")


def verdicts(
    medians: Mapping[str, Mapping[str, float]], minima: Mapping[str, Mapping[str, float]]
) -> list[str]:
    """One line for every bar and every aim. Medians decide; the least of the rounds tells of noise."""
    lines = []
    for peer, word, wanted in (("libsignal", "bar", BARS), ("vodozemac", "aim", AIMS)):
        for name, most in wanted.items():
            if name not in medians.get(peer, {}):
                continue
            ratio = medians[OURS][name] / medians[peer][name]
            least = minima[OURS][name] / minima[peer][name]
            result = "met" if ratio <= most else "MISSED"
            measured = f"{ratio:5.2f} x {peer} (least by least {least:.2f})"
            lines.append(f"{word} {name:24} {measured}, at most {most:.2f}: {result}")
    return lines


if __name__ == "__main__":
    main()
