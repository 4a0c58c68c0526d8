"""The power goes: under the relay's data, and under a vault in the middle of real engine steps.

1. A world of real requests or real engine steps runs on a disk that loses what was not synced.
2. The power goes in the middle of one of the disk's operations. Of the writes not synced, any survive, also
   in sectors and out of order.
3. What is left is opened as after any start. What was answered must be there, nothing may be there by halves,
   and the world must go on: for a vault that means that its peer understands everything, once.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lokket.client import vault as vault_module
from lokket.engine import events, views
from lokket.engine.engine import Engine
from lokket.errors import LocalError
from lokket.relay.storage import sqlite
from lokket.relay.storage.sqlite import SQLiteStorage
from tests.reliability.disk import Disk, disk
from tests.reliability.relay_world import World, abandon
from tests.reliability.vault_world import DiskVault
from tests.unit.engine.town import Device, Town

RELAY_OPERATIONS, VAULT_OPERATIONS = 400, 600  # a cut falls within so many
CUTS_PER_VAULT = 10


# --- the relay ---


def relay(seed: int) -> int:
    """One cut. How many answers the relay had given."""
    with tempfile.TemporaryDirectory(prefix="lokket-cut-") as name:
        return asyncio.run(_relay(seed, Path(name), disk("power-cut")))


async def _relay(seed: int, folder: Path, made: Disk) -> int:
    chance = random.Random(seed)
    data = folder / "data"
    data.mkdir()
    storage = SQLiteStorage(data / "relay.db", vfs=made.name)
    world = World(storage, seed)
    await world.found()
    made.cut_at = made.operations + chance.randrange(1, RELAY_OPERATIONS)
    while not made.dead:
        await world.step()
        if chance.random() < 0.05:
            storage._writer._settle()  # the log is folded in, as when nothing happens for a while
    made.survivors(folder / "after", chance)
    await abandon(storage)
    again = SQLiteStorage(folder / "after" / "relay.db")
    try:
        await world.check(again)
        world.storage = world.desk.relay._office.storage = again
        for _ in range(3):
            await world.step()
        await world.check(again)
    finally:
        await again.close()
    return world.ledger.answers


# --- a vault ---


def vault(seed: int) -> int:
    """Ten cuts in the life of one vault. How many messages went to and fro."""
    with tempfile.TemporaryDirectory(prefix="lokket-cut-") as name:
        return _Life(seed, Path(name), disk("power-cut")).live()


class _Life:
    def __init__(self, seed: int, root: Path, made: Disk) -> None:
        self.chance = random.Random(seed)
        self.root, self.disk = root, made
        self.town = Town()
        self.bob = self.town.account("bob")
        self.folder = root / "alice-0"
        self.alice = self.town.account("alice", DiskVault.create(self.folder, made.name))
        self.alice.handle(events.AddContact("bob", name="bob"))
        self.town.settle()
        self.accepted: dict[int, list[str]] = {0: [], 1: []}  # by sender: alice, bob
        self.open: set[str] = set()  # whether they were accepted was never said
        self.number = 0
        self._say(self.alice, "bob", 0)
        self.town.settle()
        self.bob.handle(events.AcceptContact("alice"))
        self.town.settle()

    def live(self) -> int:
        for cut in range(CUTS_PER_VAULT):
            self.disk.reset()
            self.disk.cut_at = self.chance.randrange(1, VAULT_OPERATIONS)
            try:
                while not self.disk.dead:
                    self._turn()
            except LocalError:
                assert self.disk.dead, "it failed before the power went"
            self._power_is_back(cut)
        return sum(map(len, self.accepted.values()))

    def _turn(self) -> None:
        match self.chance.randrange(5):
            case 0 | 1:
                self._say(self.alice, "bob", 0)
            case 2:
                self._say(self.bob, "alice", 1)
            case 3:
                self.alice.vault.vault.tidy()
            case 4:
                self.town.settle(within_ms=1_000)
        for _ in range(self.chance.randrange(4)):
            for device in (self.alice, self.bob):
                device.act()

    def _say(self, who: Device, to: str, sender: int) -> None:
        self.number += 1
        text = f"message {self.number} " + "x" * self.chance.choice((0, 10, 2_000))
        self.open.add(text)
        who.handle(events.SendText(to, text))
        self.open.discard(text)
        self.accepted[sender].append(text)

    def _power_is_back(self, cut: int) -> None:
        old, self.folder = self.folder, self.root / f"alice-{cut + 1}"
        self.disk.survivors(self.folder, self.chance)
        mark = old / "vault.mark"
        if self.chance.random() < 0.7 and mark.exists():  # it is never synced: there, or empty, or not there
            (self.folder / mark.name).write_bytes(mark.read_bytes())
        self.alice.vault.abandon()
        self.disk.platters.clear()
        self.disk.reset()
        if self.alice.caller is not None:
            self.town.relay.disconnect(self.alice.caller)
        self.alice.caller = None
        self.alice.outgoing.clear()
        self.alice.vault = DiskVault.open(self.folder, self.disk.name)
        self.alice.engine = Engine(prekey_pairs=4)
        assert self.alice.vault.vault.faults() == ()
        self.alice.connect()
        self.town.settle()
        self._check()

    def _check(self) -> None:
        for who, name in ((self.alice, "bob"), (self.bob, "alice")):
            texts = texts_of(who, name)
            assert len(texts) == len(set(texts)), "a message is there twice"
            said = {text for texts in self.accepted.values() for text in texts}
            assert said - set(texts) == set(), f"lost: {len(said - set(texts))} messages"
            assert set(texts) - said <= self.open, "a message that nobody wrote"
            for sender in (0, 1):
                mine = [text for text in texts if text in set(self.accepted[sender])]
                assert mine == self.accepted[sender], "out of order"
            assert who.held() == [], "something did not open"
            bad = set(who.trust_kinds()) & {"clone-alarm", "restored", "missing", "session-reset"}
            assert not bad, bad
        assert set(texts_of(self.alice, "bob")) == set(texts_of(self.bob, "alice")), "the two differ"


def texts_of(who: Device, petname: str) -> list[str]:
    return [message.text for message in who.ask(views.history, petname, 1_000_000)]


# --- does it bite? ---


@contextlib.contextmanager
def with_synchronous(level: str) -> Iterator[None]:
    """Both databases under a weaker setting."""
    pragmas, before = sqlite._PRAGMAS, vault_module._SYNCHRONOUS
    sqlite._PRAGMAS = tuple(each.replace("synchronous = FULL", f"synchronous = {level}") for each in pragmas)
    vault_module._SYNCHRONOUS = level  # type: ignore[misc]
    try:
        yield
    finally:
        sqlite._PRAGMAS, vault_module._SYNCHRONOUS = pragmas, before  # type: ignore[misc]
