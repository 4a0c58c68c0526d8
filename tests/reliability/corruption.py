"""A vault's files are damaged: that is noticed, or does no harm; the original is kept, the rest salvaged.

1. Real engines talk; Alice's vault is copied as a killed process leaves it, with a log.
2. A seed damages the copy in one way. Opened and read whole, it has every row as it was, or says that it is
   damaged: a wrong or a missing row without a word is what must not be.
3. Noticed damage is salvaged: the damaged files are kept byte for byte, the new vault is whole,
   holds only rows that were there, no session, no prekey. In ``life`` the account goes on with it: its peer
   understands it without anybody doing anything.
"""

from __future__ import annotations

import functools
import random
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from lokket.client.salvage import Salvaged, salvage_vault
from lokket.client.vault import Vault, VaultDamaged, open_vault
from lokket.client.vault_schema import TABLES_NOW
from lokket.engine import events, salvage, views
from lokket.engine.engine import Engine
from lokket.engine.records import Message, unpack
from lokket.engine.store import ACCOUNT, MESSAGE, OUTBOX
from lokket.errors import LocalError
from lokket.system import SystemEntropy
from tests.reliability.vault_world import KEY, DiskVault
from tests.unit.engine.town import Device, Town

PAGE_BYTES = 4096
MESSAGES = 40
WAYS = (
    "bit", "bits", "page-zeroed", "pages-swapped", "page-random", "cut", "longer",
    "log-bit", "log-cut", "log-missing", "log-zeroed", "log-foreign", "log-older",
)  # fmt: skip
Rows = dict[str, dict[bytes, bytes]]
outcomes: Counter[str] = Counter()


@dataclass(frozen=True)
class Original:
    files: dict[str, bytes]
    foreign_log: bytes
    older_log: bytes
    rows: Rows


@functools.cache
def original() -> Original:
    with tempfile.TemporaryDirectory(prefix="lokket-corrupt-") as name:
        world = _Two(Path(name))
        for number in range(MESSAGES):
            world.say(number)
            if number == MESSAGES // 3:
                world.alice.vault.vault.tidy()
            if number == MESSAGES // 2:
                older = (world.folder / "vault.db-wal").read_bytes()
        other = open_vault(Path(name) / "other", bytes(32), create=True)
        for number in range(30):
            with other.transaction() as tx:
                tx.put(MESSAGE, bytes([number]), bytes(900))
        foreign = (Path(name) / "other" / "vault.db-wal").read_bytes()
        other.close()
        files = {
            each: (world.folder / each).read_bytes() for each in ("vault.db", "vault.db-wal", "vault.mark")
        }
        rows = read(world.alice.vault.vault)
        world.alice.vault.abandon()
        return Original(files, foreign, older, rows)


class _Two:
    """Alice on a real vault, Bob in memory."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "alice"
        self.town = Town()
        self.bob = self.town.account("bob")
        self.alice: Device = self.town.account("alice", DiskVault.create(self.folder))
        self.alice.handle(events.AddContact("bob", name="bob"))
        self.town.settle()
        self.say(0)
        self.bob.handle(events.AcceptContact("alice"))
        self.town.settle()

    def say(self, number: int) -> None:
        self.alice.handle(events.SendText("bob", f"from alice {number} " + "x" * (37 * number % 1500)))
        if "alice" in [view.petname for view in self.bob.ask(views.contacts)]:
            self.bob.handle(events.SendText("alice", f"from bob {number}"))
        self.town.settle(1_000)


def read(opened: Vault) -> Rows:
    with opened.transaction() as tx:
        return {table: dict(tx.scan(table)) for table in TABLES_NOW}


def damage(way: str, chance: random.Random, whole: Original) -> dict[str, bytes]:
    """The files after it."""
    logs = (whole.foreign_log, whole.older_log)
    return harm(way, chance, whole.files, ("vault.db", "vault.db-wal"), logs)


def harm(
    way: str,
    chance: random.Random,
    whole: dict[str, bytes],
    names: tuple[str, str],
    logs: tuple[bytes, bytes],
) -> dict[str, bytes]:
    """The files after it. ``names``: of the database and its log; ``logs``: another's, and an older one."""
    files = dict(whole)
    name = names[way.startswith("log")]
    data = bytearray(files[name])
    pages = len(data) // PAGE_BYTES
    page = chance.randrange(pages) * PAGE_BYTES
    match way:
        case "bit" | "bits" | "log-bit":
            for _ in range(1 if way != "bits" else 30):
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        case "page-zeroed" | "log-zeroed":
            data[page : page + PAGE_BYTES] = bytes(PAGE_BYTES)
        case "page-random":
            data[page : page + PAGE_BYTES] = chance.randbytes(PAGE_BYTES)
        case "pages-swapped":
            other = chance.randrange(pages) * PAGE_BYTES
            one, two = data[page : page + PAGE_BYTES], data[other : other + PAGE_BYTES]
            data[page : page + PAGE_BYTES], data[other : other + PAGE_BYTES] = two, one
        case "cut" | "log-cut":
            del data[chance.randrange(len(data)) :]
        case "longer":
            data += chance.randbytes(chance.randrange(1, 3 * PAGE_BYTES))
        case "log-missing":
            del files[name]
            return files
        case "log-foreign":
            data = bytearray(logs[0])
        case "log-older":
            data = bytearray(logs[1])
    files[name] = bytes(data)
    return files


def vault(seed: int) -> int:
    """1 when the damage was noticed."""
    chance, whole = random.Random(seed), original()
    way = WAYS[seed % len(WAYS)]
    files = damage(way, chance, whole)
    with tempfile.TemporaryDirectory(prefix="lokket-corrupt-") as name:
        folder = Path(name) / "vault"
        folder.mkdir()
        for each, data in files.items():
            (folder / each).write_bytes(data)
        tried = Path(name) / "tried"
        shutil.copytree(folder, tried)
        if not noticed(tried, whole):
            outcomes[f"{way}: harmless"] += 1
            return 0
        try:
            made = salvage_vault(folder, KEY, 1_800_000_000_000, SystemEntropy())
        except LocalError:
            outcomes[f"{way}: nothing readable"] += 1
            _kept(folder / "damaged-1", files)
            return 1
        outcomes[f"{way}: salvaged"] += 1
        _kept(made.kept, files)
        _salvaged(folder, made, whole, older=way.startswith("log"))
    return 1


def noticed(folder: Path, whole: Original) -> bool:
    """Whether it says so. AssertionError: it is wrong and says nothing."""
    try:
        opened = open_vault(folder, KEY)
    except VaultDamaged:
        return True
    try:
        rows = read(opened)
    except VaultDamaged:
        return True
    finally:
        faults = opened.faults()
        opened.close()
    assert rows == whole.rows, "a row is missing or wrong, and nobody says so"
    return bool(faults)


def _kept(kept: Path, files: dict[str, bytes]) -> None:
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == files, "the original was touched"


def _salvaged(folder: Path, made: Salvaged, whole: Original, *, older: bool) -> None:
    """``older``: without its log, rows are there as they once were."""
    opened = open_vault(folder, KEY)
    try:
        assert opened.faults() == ()
        rows = read(opened)
    finally:
        opened.close()
    for table in salvage.LEFT_BEHIND:
        assert not rows[table], f"{table} was carried over"
    for table in set(TABLES_NOW) - salvage.LEFT_BEHIND - {ACCOUNT, OUTBOX}:
        if not older:
            assert rows[table].items() <= whole.rows[table].items(), f"{table} has rows that were never there"
    texts = [{unpack(Message, data).text for data in each[MESSAGE].values()} for each in (rows, whole.rows)]
    assert texts[0] <= texts[1], "a message that nobody wrote"
    assert made.messages == len(rows[MESSAGE])


def life(seed: int) -> int:
    """A world of its own, whose vault is damaged and salvaged, and which goes on."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="lokket-corrupt-") as name:
        world = _Two(Path(name))
        for number in range(1, 12):
            world.say(number)
        before = set(world.alice.texts("bob"))
        files = {each: (world.folder / each).read_bytes() for each in ("vault.db", "vault.db-wal")}
        world.alice.vault.abandon()
        world.town.relay.disconnect(world.alice.caller)
        world.alice.caller = None
        world.alice.outgoing.clear()
        if chance.random() < 0.5:
            (world.folder / "vault.db-wal").write_bytes(files["vault.db-wal"][: -chance.randrange(1, 9_000)])
            (world.folder / "vault.db").write_bytes(files["vault.db"])
        else:
            data = bytearray((world.folder / "vault.db").read_bytes())
            page = chance.randrange(30, len(data) // PAGE_BYTES) * PAGE_BYTES
            data[page : page + PAGE_BYTES] = bytes(PAGE_BYTES)
            (world.folder / "vault.db").write_bytes(data)
        try:
            salvage_vault(world.folder, KEY, world.town.now_ms, SystemEntropy())
        except LocalError:
            return 0
        world.alice.vault = DiskVault.open(world.folder)
        world.alice.engine = Engine(prekey_pairs=4)
        world.alice.connect()
        world.town.settle()
        try:
            assert set(world.alice.texts("bob")) <= before, "a message that nobody wrote"
            world.alice.handle(events.SendText("bob", "after the damage"))
        except LocalError:
            return 0  # the contact is among what was lost
        world.town.settle()
        world.bob.handle(events.SendText("alice", "heard you"))
        world.town.settle()
        assert world.bob.texts("alice").count("after the damage") == 1
        assert world.alice.texts("bob").count("heard you") == 1
        assert "clone-alarm" not in world.bob.trust_kinds()
        world.alice.vault.abandon()
    return 1
