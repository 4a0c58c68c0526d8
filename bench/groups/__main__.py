"""``make bench-groups``: lokket beside mls-rs and ts-mls in one group, every step in turn.

Writes ``groups.json`` as ``{driver: {workload@members: least_ns}}``. The least of the rounds is taken: what
disturbs a step only ever adds to it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from bench import rounds

sys.path.insert(0, str(rounds.ROOT / "tests" / "interop"))

import libsignal_peer
from bench.groups.drivers import Driver, Lokket, available
from bench.groups.world import World, key_package

OURS: Final = "lokket"
TEXT: Final = bytes(100)
BARS: Final = (
    ("join", "mls-rs", 1.5),
    ("process_commit", "mls-rs", 1.5),
    ("join", "ts-mls", 1 / 3),
    ("process_commit", "ts-mls", 1 / 3),
)
"""Workload, peer, and the ratio at 1,000 members that lokket shall not exceed."""
GROWTH: Final = ("process_commit", "application_encrypt", "application_decrypt")
"""What shall grow no faster than the logarithm of the members, from 100 to the most."""
SLOW: Final = ("ts-mls",)
"""Who leaves after the rounds of all, so that the others take more of them: a step of theirs is a blink."""
PEER_MOST: Final = {"ts-mls": 1_000}  # above, one step of its takes ten seconds and more
BULK_MOST: Final = {"mls-rs": 1_000}  # above, half a minute; it joins and follows larger groups all the same


Makers = dict[str, Callable[[str], Driver]]


class Least:
    """Least ns by driver and workload, and bytes by workload."""

    def __init__(self) -> None:
        self.times: dict[str, dict[str, float]] = {}
        self.bytes: dict[str, dict[str, int]] = {}

    def time(self, driver: str, workload: str, took_ns: int) -> None:
        known = self.times.setdefault(driver, {})
        known[workload] = min(known.get(workload, math.inf), took_ns)

    def size(self, driver: str, workload: str, size: int) -> None:
        known = self.bytes.setdefault(driver, {})
        known[workload] = max(known.get(workload, 0), size)


def own_groups(size: int, makers: Makers, count: int, least: Least) -> None:
    """Each driver adds everybody in one commit, to a group of its own, and renews its keys there."""
    for number in range(count):
        packages = [key_package(f"bulk {one}").message for one in range(size - 1)]
        for driver, make in makers.items():
            if size > BULK_MOST.get(driver, size):
                continue
            client = make(f"{driver} {number}")
            client.key_package()
            (commit, welcome), took = client.bulk_add(packages)
            least.time(driver, f"bulk_add@{size}", took)
            least.size(driver, f"bulk_add@{size}", len(commit))
            least.size(driver, f"welcome@{size}", len(welcome))
            commit, took = client.update()
            least.time(driver, f"self_commit_bare@{size}", took)
            least.size(driver, f"self_commit_bare@{size}", len(commit))


class Shared:
    """One world that clients of all drivers join, of each ``count``; the first of each then follows."""

    def __init__(self, size: int, makers: Makers, count: int, least: Least, *, bare: bool) -> None:
        self.size, self.count, self.least, self.bare = size, count, least, bare
        self.world = World(size - count * len(makers) if bare else size)
        if not bare:
            self.world.warm()
        self.makers = makers
        self.clients: dict[str, Driver] = {}
        self.names = itertools.count()  # mls-rs takes no name twice
        self.removed = 0  # of the members at odd places, from the left

    def at(self, workload: str) -> str:
        return f"{workload}@{self.size}"

    def join(self, workload: str) -> None:
        made = {
            (driver, number): make(f"{driver} {number}")
            for number in range(self.count)
            for driver, make in self.makers.items()
        }
        packages = [client.key_package() for client in made.values()]
        welcome = self.world.add(packages) if self.bare else self.world.replace_last(packages)
        for (driver, number), client in made.items():
            _, took = client.join(welcome)
            self.least.time(driver, self.at(workload), took)
            if number == 0:
                self.clients[driver] = client

    def everyone(self, message: bytes, workload: str | None, author: str = "") -> None:
        """All clients but ``author`` take it, in turn."""
        for driver, client in self.clients.items():
            if driver != author:
                _, took = client.process(message)
                if workload is not None:
                    self.least.time(driver, self.at(workload), took)

    def follow(self, workload: str, count: int) -> None:
        """Commits of other members; in a tree that is warm, of one that is far from all clients."""
        for number in range(count):
            others = len(self.world.packages) - 1
            leaf = 2 + 2 * ((others // 3 + number) % (others // 2))
            self.everyone(self.world.commit_of(leaf), workload)
            ours = self.clients[OURS]
            assert isinstance(ours, Lokket)
            self.least.size(OURS, self.at(f"{workload}_rows"), ours.written)

    def renew(self, count: int) -> None:
        """Every client commits, everyone else follows; the first time its own path is still blank."""
        for number in range(count + 1):
            for driver, client in self.clients.items():
                commit, took = client.update()
                if number:
                    self.least.time(driver, self.at("self_commit"), took)
                    self.least.size(driver, self.at("self_commit"), len(commit))
                self.world.process(commit)
                self.everyone(commit, None, driver)

    def change(self, count: int) -> None:
        """Every client adds one and removes one, everyone else follows."""
        for _ in range(count):
            for driver, client in self.clients.items():
                commit, took = client.add(key_package(f"added {next(self.names)}").message)
                self.least.time(driver, self.at("add_one"), took)
                self.least.size(driver, self.at("add_one"), len(commit))
                self.world.process(commit)
                self.everyone(commit, "process_add", driver)
                if self.removed + 2 < len(self.world.packages):
                    self.removed += 2
                    self._remove(driver, client, self.removed - 1)

    def _remove(self, driver: str, client: Driver, leaf: int) -> None:
        message = self.world.say(leaf, b"the last word")
        commit, took = client.remove(leaf, message)
        self.least.time(driver, self.at("remove_one"), took)
        self.least.size(driver, self.at("remove_one"), len(commit))
        self.world.process(commit)
        self.everyone(commit, "process_remove", driver)

    def talk(self, count: int) -> None:
        """Texts of 100 bytes: of the first member, and of every client."""
        for _ in range(count):
            self.everyone(self.world.group_say(TEXT), "application_decrypt")
            for driver, client in self.clients.items():
                message, took = client.encrypt(TEXT)
                self.least.time(driver, self.at("application_encrypt"), took)
                self.least.size(driver, self.at("application"), len(message))
                self.everyone(message, None, driver)


def measure(size: int, makers: Makers, count: int, least: Least) -> None:
    here = {driver: make for driver, make in makers.items() if size <= PEER_MOST.get(driver, size)}
    joiners = min(count, max(1, (size - 2) // (2 * len(here))))
    rounds.progress(f"{size} members: bulk")
    own_groups(size, here, 1 if size > 1_000 else min(count, 2), least)
    rounds.progress(f"{size} members: bare")
    bare = Shared(size, here, joiners, least, bare=True)
    bare.join("join_bare")
    bare.follow("process_commit_bare", min(count, 3))
    rounds.progress(f"{size} members: warm")
    warm = Shared(size, here, joiners, least, bare=False)
    warm.join("join")
    least.size(OURS, f"tree@{size}", len(warm.world.group.ratchet_tree()))
    warm.renew(count)
    warm.follow("process_commit", 3 * count)
    warm.talk(5 * count)
    warm.change(min(count, 3))
    for driver in SLOW:
        warm.clients.pop(driver, None)
    warm.renew(count)
    warm.follow("process_commit", 10 * count)
    warm.talk(10 * count)
    warm.change(min(count, 3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 100, 1_000, 10_000])
    parser.add_argument("--without", nargs="*", default=[], help="drivers to leave out")
    parser.add_argument("--out", type=Path, default=rounds.OUT)
    arguments = parser.parse_args()
    libsignal_peer.REPLY_TIMEOUT_S = 900.0
    makers, missing, end = available()
    makers = {name: make for name, make in makers.items() if name not in arguments.without}
    least = Least()
    try:
        for size in arguments.sizes:
            measure(size, makers, arguments.rounds if size <= 1_000 else 2, least)
            rounds.progress("")
    finally:
        end()
    for driver, why in missing.items():
        print(f"{driver} is missing: {why}")
    versions = {"lokket": version("lokket"), "mls-rs": version("agentvault-mls-rs-uniffi"), "ts-mls": "1.6.4"}
    print(
        ", ".join(f"{name} {versions[name]}" for name in makers),
        f"; {rounds.machine()}; load {rounds.load():.1f}",
    )
    print("\nMicroseconds, the least of the rounds; suite 1, trees inside the Welcome.\n")
    print("\n".join(rounds.table(least.times, OURS, {})))
    print("\nBytes.\n")
    print("\n".join(sizes(least.bytes)))
    print()
    print("\n".join(verdicts(least.times)))
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "groups.json"
    path.write_text(json.dumps(least.times, indent=1) + "\n")
    details: dict[str, Any] = {"machine": rounds.machine(), "versions": versions, "bytes": least.bytes}
    (arguments.out / "groups-details.json").write_text(json.dumps(details, indent=1) + "\n")
    print(f"\n{os.path.relpath(path)} written")


def sizes(found: dict[str, dict[str, int]]) -> list[str]:
    names = list(dict.fromkeys(name for known in found.values() for name in known))
    lines = ["| what | " + " | ".join(found) + " |", "|---|" + "---:|" * len(found)]
    for name in names:
        cells = [str(known.get(name, "")) for known in found.values()]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return lines


def verdicts(times: dict[str, dict[str, float]]) -> list[str]:
    lines = []
    ours = times[OURS]
    for workload, peer, most in BARS:
        name = f"{workload}@1000"
        if name in ours and name in times.get(peer, {}):
            ratio = ours[name] / times[peer][name]
            word = "met" if ratio <= most else "MISSED"
            lines.append(f"bar {name:22} {ratio:5.2f} x {peer}, at most {most:.2f}: {word}")
    for workload in GROWTH:
        known = sorted(int(name.split("@")[1]) for name in ours if name.split("@")[0] == workload)
        if len(known) > 1 and known[-1] > 100:
            first, last = max(100, known[0]), known[-1]
            grown = ours[f"{workload}@{last}"] / ours[f"{workload}@{first}"]
            allowed = math.log2(last) / math.log2(first)
            word = "met" if grown <= allowed else "MISSED"
            lines.append(
                f"bar {workload} from {first} to {last}: {grown:.2f} x, the logarithm {allowed:.2f} x: {word}"
            )
    return lines


if __name__ == "__main__":
    main()
