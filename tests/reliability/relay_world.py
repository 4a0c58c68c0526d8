"""A relay's storage under real requests: what was answered is written down, and looked for afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass, field
from pathlib import Path

from lokket.relay.storage.base import Waiting
from lokket.relay.storage.sqlite import SQLiteStorage
from lokket.wire import api
from tests.support.relay import Desk, Member

BODIES = (40, 500, 3_900, 9_000)


@dataclass(slots=True)
class Ledger:
    """By envelope id: the bytes that a mailbox must hold, must not hold, or may hold."""

    stored: dict[bytes, bytes] = field(default_factory=dict)  # answered "": there until acknowledged
    unanswered: dict[bytes, bytes] = field(default_factory=dict)  # sent, and never answered
    leaving: set[bytes] = field(default_factory=set)  # acknowledged, and not answered
    deleted: set[bytes] = field(default_factory=set)
    batches: int = 0  # number of the last batch that was taken for published
    batches_asked: int = 0
    pairs_left: int = 0
    answers: int = 0


class World:
    """Alice sends to Bob over a real ``Relay`` on ``storage``."""

    def __init__(self, storage: SQLiteStorage, seed: int) -> None:
        self.storage = storage
        self.chance = random.Random(seed)
        self.desk = Desk(storage=storage, seed=f"reliability {seed}")
        self.ledger = Ledger()
        self.alice: Member
        self.bob: Member
        self.refused = 0

    async def found(self) -> None:
        self.alice = await self.desk.join("alice", name="alice")
        self.bob = await self.desk.join("bob", name="bob")
        await self.publish()

    async def step(self) -> None:
        """Several requests at once; each is answered, or it is open what became of it."""
        pick = self.chance.random()
        if pick < 0.7:
            await asyncio.gather(*(self.send() for _ in range(self.chance.randrange(1, 4))))
        elif pick < 0.9:
            await asyncio.gather(self.acknowledge(), self.send())
        else:
            await self.publish()

    async def send(self) -> None:
        body = self.chance.randbytes(self.chance.choice(BODIES))
        envelope = self.alice.envelope(self.bob, body)
        data = api.encode(envelope)
        self.ledger.unanswered[envelope.envelope_id] = data
        reply = await self.alice.ask(api.Send((envelope,)))
        if isinstance(reply, api.Sent):
            assert reply.results[0].code == "", reply
            del self.ledger.unanswered[envelope.envelope_id]
            self.ledger.stored[envelope.envelope_id] = data
            self.ledger.answers += 1
        else:
            self._refused(reply)

    async def acknowledge(self) -> None:
        waiting = sorted(self.ledger.stored)
        ids = tuple(self.chance.sample(waiting, min(len(waiting), 3)))
        for each in ids:
            del self.ledger.stored[each]
        self.ledger.leaving |= set(ids)
        reply = await self.bob.ask(api.Acknowledge(ids))
        if isinstance(reply, api.Ok):
            self.ledger.leaving -= set(ids)
            self.ledger.deleted |= set(ids)
            self.ledger.answers += 1
        else:
            self._refused(reply)

    async def publish(self) -> None:
        number = self.ledger.batches_asked = self.ledger.batches_asked + 1
        reply = await self.bob.ask(api.Publish(self.bob.encoded_batch(self.desk.now_s + number)))
        if isinstance(reply, api.Ok):
            self.ledger.batches = number
            self.ledger.answers += 1
        elif not (isinstance(reply, api.Refused) and reply.code == api.RATE_LIMITED):  # some lives are long
            self._refused(reply)

    def _refused(self, reply: api.Reply) -> None:
        assert isinstance(reply, api.Refused), reply
        assert reply.code in (api.UNAVAILABLE, api.STORAGE_FULL), reply
        self.refused += 1
        assert not self.desk.relay.counters["fault"], "a traceback in the relay"

    async def check(self, storage: SQLiteStorage) -> None:
        """Everything that was answered is there, nothing is there by halves."""
        ledger = self.ledger
        waiting = {item.envelope_id: item.envelope for item in await everything(storage, self.bob)}
        known = {**ledger.stored, **ledger.unanswered}
        for envelope_id, data in ledger.stored.items():
            assert waiting.get(envelope_id) == data, "an accepted message is lost"
        assert not ledger.deleted & waiting.keys(), "a deleted message is back"
        for envelope_id, data in waiting.items():
            assert envelope_id in ledger.leaving or known.get(envelope_id) == data, "half a message"
        row = await storage.device(self.bob.device_hash)
        assert row is not None, "a device is lost"
        assert (row.mail_count, row.mail_bytes) == (len(waiting), sum(map(len, waiting.values())))
        number = row.manifest_number - self.desk.now_s
        assert ledger.batches <= number <= ledger.batches_asked, "a batch of prekeys is lost"
        assert await storage.account(self.alice.genesis_hash) is not None
        assert storage._connection.pragma("integrity_check") == "ok"


async def everything(storage: SQLiteStorage, member: Member) -> list[Waiting]:
    return list(await storage.waiting(member.device_hash, 0, 1_000_000, 2**40))


async def abandon(storage: SQLiteStorage) -> None:
    """As a process that ends with the power."""
    with contextlib.suppress(Exception):
        await storage.close()


def reopened(folder: Path) -> SQLiteStorage:
    return SQLiteStorage(folder / "relay.db")
