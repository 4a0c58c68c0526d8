"""The disk fails, once, at each place in turn: under a running relay and under a running client.

The same process lives through every fault: it may refuse, it may not answer falsely, and within five seconds
it works again, without a restart. Now and then the power goes as well, and takes everything that the disk
was never made to keep: what was answered must be there still. That is what tells a failed fsync (row 41).

A seed is one kind of fault, at every n-th of the operations of a short script.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from lokket.client.direct import DirectClient
from lokket.client.happenings import Stopped
from lokket.client.surroundings import Surroundings
from lokket.client.vault import VaultFailing, VaultFull
from lokket.errors import LocalError
from lokket.relay.storage.sqlite import SQLiteStorage
from tests.reliability.disk import FAULTS, FORGOTTEN_SYNC, FULL, IO_ERROR, LOST_SYNC, TORN, Disk, disk
from tests.reliability.relay_world import World, abandon
from tests.support.client import KEY, Town

RECOVERY_MAX_S = 5.0
KINDS = tuple(FAULTS)
PLACES = {IO_ERROR: 60, TORN: 36, FULL: 40, LOST_SYNC: 12, FORGOTTEN_SYNC: 12}  # operations of one round
ROUNDS_UNTIL_CUT = 12


class Once:
    """One fault, at the ``at``-th operation that it can happen to; with ``lasting`` more of them after it."""

    def __init__(self, made: Disk, kind: str, at: int, lasting: int = 1) -> None:
        self._kind, self._left, self._more = kind, at, lasting
        made.fault = self.meet
        self.met = 0

    def meet(self, number: int, kind: str, name: str) -> str | None:
        if kind not in FAULTS[self._kind]:
            return None
        self._left -= 1
        if self._left >= 0 or self._more == 0:
            return None
        self._more -= 1
        self.met += 1
        return self._kind


def places(seed: int, sparse: int = 0) -> range:
    """All of this seed's kind of fault, or only a few of them."""
    count = PLACES[KINDS[seed % len(KINDS)]]
    return range(0, count, -(-count // sparse) if sparse else 1)


# --- the relay ---


def relay(seed: int, chosen: range | None = None) -> int:
    """How many faults happened."""
    with tempfile.TemporaryDirectory(prefix="lokket-faults-") as name:
        return asyncio.run(_relay(seed, Path(name), disk("disk-faults"), chosen or places(seed)))


async def _relay(seed: int, root: Path, made: Disk, places: range) -> int:
    chance = random.Random(seed)
    kind = KINDS[seed % len(KINDS)]
    happened = 0
    world: World | None = None
    storage: SQLiteStorage | None = None
    for round_, place in enumerate(places):
        if storage is None or world is None:
            folder = root / f"data-{round_}"
            folder.mkdir()
            made.platters.clear()
            made.reset()
            storage = SQLiteStorage(folder / "relay.db", vfs=made.name)
            world = World(storage, seed * 1000 + round_)
            await world.found()
        made.reset()
        once = Once(made, kind, place, lasting=chance.choice((1, 1, 3)))
        for _ in range(4):
            await world.step()
        storage._writer._settle()
        await asyncio.sleep(0)
        made.fault = lambda number, kind, name: None
        happened += once.met
        await _recovers(_appends(world), f"{kind} at {place}")
        if round_ % ROUNDS_UNTIL_CUT == ROUNDS_UNTIL_CUT - 1 or round_ == len(places) - 1:
            made.plug_out()
            made.survivors(root / f"after-{round_}", chance)
            await abandon(storage)
            again = SQLiteStorage(root / f"after-{round_}" / "relay.db")
            await world.check(again)
            await again.close()
            storage = None
    return happened


def _appends(world: World) -> Callable[[], Awaitable[bool]]:
    async def accepted() -> bool:
        before = world.ledger.answers
        await world.send()
        return world.ledger.answers > before and bool(await world.storage.counts())

    return accepted


# --- the client ---


def client(seed: int, chosen: range | None = None) -> int:
    """How many faults happened."""
    with tempfile.TemporaryDirectory(prefix="lokket-faults-") as name:
        return asyncio.run(_Talk(seed, Path(name), disk("disk-faults")).through(chosen or places(seed)))


class _Talk:
    """Alice's vault is on the disk that fails; Bob's is not."""

    def __init__(self, seed: int, root: Path, made: Disk) -> None:
        self.chance = random.Random(seed)
        self.kind = KINDS[seed % len(KINDS)]
        self.root, self.disk = root, made
        self.town = Town(root)
        self.accepted: dict[str, list[str]] = {"alice": [], "bob": []}
        self.open: set[str] = set()  # LocalError was said of them: they may turn up all the same
        self.place = root / "alice-vault"
        self.alice: DirectClient
        self.bob: DirectClient

    async def through(self, places: range) -> int:
        happened = 0
        self.bob = await self.town.join("bob")
        self.alice = await self._open(create=True)
        desk = self.town.desk
        await self.alice.create_account(name="alice", origin=desk.config.origin, relay_key=desk.key.public)
        await self.alice.add_contact("bob", name="bob")
        await self.say("alice", "bob")
        await _recovers(self._equal, "the beginning")
        await self.bob.accept("alice")
        for round_, place in enumerate(places):
            self.disk.reset()
            once = Once(self.disk, self.kind, place, lasting=self.chance.choice((1, 1, 3)))
            await self._round()
            self.disk.fault = lambda number, kind, name: None
            happened += once.met
            await _recovers(self._works, f"{self.kind} at {place}")
            await _recovers(self._equal, f"{self.kind} at {place}")
            if round_ % ROUNDS_UNTIL_CUT == ROUNDS_UNTIL_CUT - 1 or round_ == len(places) - 1:
                await self._power_cut(round_)
        await self.alice.close()
        await self.town.close()
        return happened

    async def _open(self, *, create: bool = False) -> DirectClient:
        around = self.town.surroundings("alice")
        around = Surroundings(transport=around.transport, vfs=self.disk.name)
        return await DirectClient.begin(self.place, KEY, create=create, surroundings=around)

    async def _round(self) -> None:
        """Both talk; Alice's log is folded in, in between."""
        await self.say("alice", "bob")
        await self.say("bob", "alice")
        await asyncio.sleep(0.02)
        with contextlib.suppress(LocalError):
            self.alice._driver.vault.tidy()
        await self.say("alice", "bob")
        await asyncio.sleep(0.02)

    async def say(self, who: str, to: str) -> bool:
        number = sum(map(len, self.accepted.values())) + len(self.open)
        text = f"{who} {number}"
        sender = self.alice if who == "alice" else self.bob
        self.open.add(text)
        try:
            await sender.send(to, text)
        except (VaultFull, VaultFailing):
            return False
        self.open.discard(text)
        self.accepted[who].append(text)
        return True

    async def _works(self) -> bool:
        self._alive()
        return await self.say("alice", "bob")

    async def _equal(self) -> bool:
        """Everything accepted is at both, once, in order."""
        self._alive()
        try:
            here = [message.text for message in self.alice.history("bob", 10_000)]
            there = [message.text for message in self.bob.history("alice", 10_000)]
        except LocalError:
            return False
        said = {text for texts in self.accepted.values() for text in texts}
        if said - set(here) or set(here) != set(there):
            return False
        for texts in (here, there):
            assert len(texts) == len(set(texts)), "a message is there twice"
            assert set(texts) - said <= self.open, "a message that nobody wrote"
            for sender, mine in self.accepted.items():
                assert [text for text in texts if text in set(mine)] == mine, f"{sender}'s are out of order"
        return True

    def _alive(self) -> None:
        self.alice._driver.raise_failure()
        with self.alice._driver.listening() as queue:
            assert queue.empty() or not isinstance(queue.get_nowait(), Stopped)

    async def _power_cut(self, round_: int) -> None:
        self.disk.plug_out()
        old, self.place = self.place, self.root / f"alice-{round_}"
        self.disk.survivors(self.place, self.chance)
        mark = old / "vault.mark"
        if self.chance.random() < 0.7:
            (self.place / mark.name).write_bytes(mark.read_bytes())
        with contextlib.suppress(LocalError):
            await self.alice.close()
        self.disk.platters.clear()
        self.disk.reset()
        self.alice = await self._open()
        assert self.alice.vault_faults() == ()
        await _recovers(self._equal, f"power cut after {self.kind}")


async def _recovers(works: Callable[[], Awaitable[bool]], after: str) -> None:
    """Within the promised time. A machine that is slow today is granted its own processor time."""
    began_s, began_cpu_s = time.monotonic(), time.process_time()
    while not await works():
        spent_s = time.monotonic() - began_s
        assert spent_s < RECOVERY_MAX_S + 20 * (time.process_time() - began_cpu_s), f"stuck after {after}"
        await asyncio.sleep(0.02)
