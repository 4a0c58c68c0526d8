"""``python -m tests.reliability.soak --minutes 5 --seed 0``: a relay and three daemons for as long as wanted.

1. Alice talks with Bob and with Carol through their daemons: short and long texts, both ways, while all read.
2. In the first third the relay ends in the middle, killed or stopped, and starts anew; Bob's daemon does so
   to the end.
3. From two fifths on it is measured: memory, open files and data of the relay and of the two daemons that
   run on. At the end they may have grown by the bounds that are printed, and by no more.
4. Everything that was said is in both histories, once, in its sender's order, and confirmed.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from lokket.client.client import Client
from lokket.client.rpc import remote
from lokket.errors import LokketError
from tests.support.machine import Machine, Process, RelayMachine, eventually, machines

BARE = "--insecure-no-passphrase"
SIZES = (8, 200, 200, 4_000, 20_000)
PAUSE_S = (0.1, 0.6)  # between two texts of one person
UNREST_S = 20.0  # between two ends of a process
CALM_S = 120.0
RESIDENT_GROWTH_BYTES = 24 << 20
FILES_GROWTH = 8
DATA_GROWTH_BYTES = 2 << 20  # of the relay, which has delivered all
VAULT_GROWTH_FACTOR = 4  # over the texts' own bytes: history, receipts, indices
VAULT_GROWTH_BYTES = 4 << 20


@dataclass
class Person:
    name: str
    machine: Machine
    peers: tuple[str, ...]
    daemon: Process
    said: dict[str, list[str]] = field(default_factory=dict)
    said_bytes: int = 0
    read: int = 0

    @property
    def folder(self) -> Path:
        return self.machine.home / "profiles" / "default"


@dataclass(frozen=True)
class Reading:
    """What one process holds. Data: its database with its log, at a quiet moment."""

    pid: int
    resident_bytes: int
    files: int
    data_bytes: int

    @classmethod
    def of(cls, pid: int, data: Path) -> Reading:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        [resident] = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")]
        size = sum(path.stat().st_size for path in data.parent.glob(data.name + "*"))
        return cls(pid, int(resident) * 1024, len(list(Path(f"/proc/{pid}/fd").iterdir())), size)


class Soak:
    def __init__(self, relay: RelayMachine, people: list[Person], seed: int) -> None:
        self.relay = relay
        self.people = people
        self.chance = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.saying = asyncio.Event()
        self.saying.set()
        self.over = False

    async def run(self, seconds: float) -> tuple[dict[str, Reading], dict[str, Reading], dict[str, int]]:
        """Readings before and after, and the bytes of texts that each person's vault took in between."""
        readers = [asyncio.create_task(self._read(person)) for person in self.people]
        talkers = [asyncio.create_task(self._talk(person)) for person in self.people]
        began_s = time.monotonic()
        await self._disturb(began_s + seconds / 3, with_relay=True)
        await self._quiet(began_s + 0.4 * seconds)
        before, texts_before = self._readings(), self._texts_bytes()
        await self._disturb(began_s + seconds, with_relay=False)
        self.over = True
        await asyncio.gather(*talkers)
        await self._quiet(0.0)
        after, texts_after = self._readings(), self._texts_bytes()
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        return before, after, {name: texts_after[name] - texts_before[name] for name in texts_after}

    async def _disturb(self, until_s: float, *, with_relay: bool) -> None:
        while (left_s := until_s - time.monotonic()) > 0:
            await asyncio.sleep(min(left_s, UNREST_S))
            if with_relay and self.chance.random() < 0.5:
                await asyncio.to_thread(self._end, self.relay.serving, "relay")
                await asyncio.to_thread(self.relay.serve)
            else:
                bob = self.people[1]
                await asyncio.to_thread(self._end, bob.daemon, "daemon")
                bob.daemon = await asyncio.to_thread(bob.machine.daemon)

    def _end(self, process: Process, what: str) -> None:
        if self.chance.random() < 0.5:
            process.kill()
            self.counts[f"{what} killed"] += 1
        else:
            assert process.stop() == 0
            self.counts[f"{what} stopped"] += 1

    async def _quiet(self, not_before_s: float) -> None:
        """Nobody says anything until all of it is confirmed and the logs are cut."""
        await asyncio.sleep(max(0.0, not_before_s - time.monotonic()))
        self.saying.clear()
        await asyncio.to_thread(eventually, self._all_read, CALM_S)
        for person in self.people:
            client = await self._attached(person)
            try:
                assert await client.settle(CALM_S), f"something of {person.name} is on its way for too long"
            finally:
                await client.close()
        await asyncio.sleep(5.0)
        self.saying.set()

    def _all_read(self) -> bool:
        said = sum(len(texts) for person in self.people for texts in person.said.values())
        return sum(person.read for person in self.people) >= said

    def _readings(self) -> dict[str, Reading]:
        found = {"relay": Reading.of(self.relay.serving.pid, self.relay.home / "relay" / "relay.db")}
        for person in (self.people[0], self.people[2]):
            found[person.name] = Reading.of(person.daemon.pid, person.folder / "vault.db")
        return found

    def _texts_bytes(self) -> dict[str, int]:
        """Of each person's conversations, in and out: both ends keep them."""
        return {
            one.name: one.said_bytes
            + sum(len(text) for other in self.people for text in other.said.get(one.name, ()))
            for one in self.people
        }

    async def _attached(self, person: Person) -> Client:
        while (client := await _attach(person.folder)) is None:
            await asyncio.sleep(0.2)
        return client

    async def _talk(self, person: Person) -> None:
        client = await self._attached(person)
        number = 0
        while not self.over:
            await asyncio.sleep(self.chance.uniform(*PAUSE_S))
            await self.saying.wait()
            if self.over:
                break
            peer, mid = self.chance.choice(person.peers), self.chance.randbytes(16)
            text = f"{person.name} {number} " + "x" * self.chance.choice(SIZES)
            number += 1
            person.said.setdefault(peer, []).append(text)  # before it leaves: a reader may be quicker
            person.said_bytes += len(text)
            while True:  # under one id, it is said once
                try:
                    await client.send(peer, text, mid=mid)
                    break
                except LokketError:
                    self.counts["sends repeated"] += 1
                    await client.close()
                    client = await self._attached(person)
        await client.close()

    async def _read(self, person: Person) -> None:
        while True:
            client = await self._attached(person)
            try:
                async for shown in client.messages("soak", oldest=True):
                    if not shown.outgoing:
                        person.read += 1
                    await client.handled(shown.order, "soak")
            except LokketError:
                self.counts["readers came back"] += 1
            finally:
                await client.close()


async def _attach(folder: Path) -> Client | None:
    try:
        return remote.attach(folder)
    except LokketError:
        return None


def verdict(before: Reading, after: Reading, data_bytes: int) -> list[str]:
    """One line a measure; those over their bound begin with a mark."""
    lines = [] if before.pid == after.pid else ["! it is another process"]
    for what, was, now, bound in (
        ("resident bytes", before.resident_bytes, after.resident_bytes, RESIDENT_GROWTH_BYTES),
        ("open files", before.files, after.files, FILES_GROWTH),
        ("data bytes", before.data_bytes, after.data_bytes, data_bytes),
    ):
        mark = "!" if now - was > bound else " "
        lines.append(f"{mark} {what}: {was} before, {now} after, {now - was:+} of at most {bound:+}")
    return lines


def equal(people: list[Person]) -> int:
    """How many texts; all daemons have ended. AssertionError: somebody's history is another."""
    count = 0
    for one in people:
        for peer, said in one.said.items():
            other = next(person for person in people if person.name == peer)
            sent = [r for r in one.machine.json("history", peer, "-n", "100000") if r["outgoing"]]
            got = [r for r in other.machine.json("history", one.name, "-n", "100000") if not r["outgoing"]]
            assert [record["text"] for record in sent] == said, f"what {one.name} said to {peer}"
            assert [record["text"] for record in got] == said, f"what {peer} has of {one.name}"
            assert {record["state"] for record in sent} <= {"delivered"}, f"{one.name} waits for a receipt"
            count += len(said)
    return count


def meet(relay: RelayMachine, machines: list[Machine]) -> list[Person]:
    relay.serve()
    alice, *others = machines
    alice.json("join", relay.invite, "--name", "alice", BARE)
    for name, machine in zip(("bob", "carol"), others, strict=True):
        link = alice.json("invite")[0]["link"]
        machine.json("join", link, "--name", name, "--inviter", "alice", BARE)
        alice.json("listen", "--once")
    peers = (("bob", "carol"), ("alice",), ("alice",))
    return [
        Person(name, machine, known, machine.daemon())
        for name, machine, known in zip(("alice", "bob", "carol"), machines, peers, strict=True)
    ]


def soak(seconds: float, seed: int) -> bool:
    """Whether all bounds held."""
    with (
        tempfile.TemporaryDirectory(prefix="lokket-soak-") as root,
        machines(Path(root), "alice", "bob", "carol") as (relay, *others),
    ):
        assert isinstance(relay, RelayMachine)
        people = meet(relay, others)
        run = Soak(relay, people, seed)
        before, after, texts = asyncio.run(run.run(seconds))
        for person in people:
            assert person.daemon.stop() == 0
        count = equal(people)
        lines = []
        for name in before:
            bound = DATA_GROWTH_BYTES
            if name != "relay":
                bound = VAULT_GROWTH_BYTES + VAULT_GROWTH_FACTOR * texts[name]
            lines += [f"{name}:", *verdict(before[name], after[name], bound)]
        print(f"seed {seed}, {seconds:.0f} s: {count} texts, all in both histories and confirmed; ", end="")
        print(", ".join(f"{number} {what}" for what, number in sorted(run.counts.items())))
        print("\n".join(lines), flush=True)
        return not any(line.startswith("!") for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not sys.platform.startswith("linux"):
        print("memory and open files are read where Linux shows them: /proc")
        return 2
    return 0 if soak(options.minutes * 60, options.seed) else 1


if __name__ == "__main__":
    sys.exit(main())
