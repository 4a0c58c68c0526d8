"""The relay's files are damaged: its start says so, or what is read does, or every client finds it out.

1. Real requests fill a relay: accounts, names, prekeys, mail. Its files are copied as a killed process leaves
   them, with a log.
2. A seed damages the copy in one way. A relay is started on it: if it refuses, its files are as they were.
3. If it starts, everybody logs in and asks for everything. Each answer is what the whole relay gives, or a
   refusal, or something whose signatures do not verify; mail is what was sent to this device, or bytes of it
   that are spoilt, which its seal tells. Nothing of another account is in it. The relay goes on: new mail
   arrives, unless it said that its disk fails.

What no client can tell, because nothing is there: mail that vanished with a page. Its sender, who gets no
receipt, offers it again after a day (``outgoing.offer_again``); here it is counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import random
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from lokket.codec import tls
from lokket.errors import LocalError, RemoteError
from lokket.protocol import identity, prekeys
from lokket.relay.storage.base import StorageBroken, StorageDamaged
from lokket.relay.storage.sqlite import SQLiteStorage
from lokket.wire import api
from tests.reliability.corruption import WAYS, harm
from tests.support.relay import Desk, Member

NAMES = ("alice", "bob", "carol")
MAIL = 60
FILES = ("relay.db", "relay.db-wal")
outcomes: Counter[str] = Counter()


@dataclass(frozen=True)
class Original:
    files: dict[str, bytes]
    foreign_log: bytes
    older_log: bytes
    mail: dict[str, tuple[bytes, ...]]  # encoded, by who is to have it
    members: dict[str, Member]


@functools.cache
def original() -> Original:
    """Made once, before any loop runs."""
    return asyncio.run(_made())


async def _made() -> Original:
    with tempfile.TemporaryDirectory(prefix="lokket-corrupt-") as name:
        folder = Path(name)
        storage = SQLiteStorage(folder / "relay.db")
        desk = Desk(storage=storage, seed="corrupt")
        members = {each: await desk.join(each, name=each) for each in NAMES}
        for member in members.values():
            await member.ask(api.Publish(member.encoded_batch(1, 12)))
        mail: dict[str, list[bytes]] = {each: [] for each in NAMES}
        chance = random.Random(7)
        older = b""
        for number in range(MAIL):
            sender, to = chance.sample(NAMES, 2)
            letter = members[sender].envelope(members[to], chance.randbytes(chance.choice((60, 900, 6_000))))
            assert await members[sender].send(letter) == ("",)
            mail[to].append(api.encode(letter))
            if number == MAIL // 3:
                storage._connection.pragma("wal_checkpoint", "TRUNCATE")
            if number == MAIL // 2:
                older = (folder / "relay.db-wal").read_bytes()
        other = SQLiteStorage(folder / "other.db")
        stranger = Desk(storage=other, seed="another relay")
        await stranger.join("mallory", name="mallory")
        foreign = (folder / "other.db-wal").read_bytes()
        files = {each: (folder / each).read_bytes() for each in FILES}
        await other.close()
        await storage.close()
        return Original(files, foreign, older, {each: tuple(all_) for each, all_ in mail.items()}, members)


def relay(seed: int) -> int:
    """1 when the relay itself said that it is damaged."""
    chance, whole = random.Random(seed), original()
    way = WAYS[seed % len(WAYS)]
    files = harm(way, chance, whole.files, FILES, (whole.foreign_log, whole.older_log))
    logging.disable(logging.CRITICAL)  # of the relay, which has much to say
    try:
        with tempfile.TemporaryDirectory(prefix="lokket-corrupt-") as name:
            folder = Path(name)
            for each, data in files.items():
                (folder / each).write_bytes(data)
            outcome = asyncio.run(_tried(folder, files, whole))
    finally:
        logging.disable(logging.NOTSET)
    outcomes[f"relay, {way}: {outcome}"] += 1
    return int(outcome in ("refused at the start", "said so when read"))


async def _tried(folder: Path, files: dict[str, bytes], whole: Original) -> str:
    try:
        storage = SQLiteStorage(folder / "relay.db")
    except (StorageDamaged, LocalError):
        kept = {each: (folder / each).read_bytes() for each in FILES if (folder / each).exists()}
        assert {each: data for each, data in kept.items() if data} == {
            each: data for each, data in files.items() if data
        }, "the original was touched"
        return "refused at the start"
    try:
        return await _asked(Town.on(storage), whole)
    finally:
        with contextlib.suppress(StorageBroken, LocalError):
            await storage.close()


class Town:
    """The same people, before a relay of whose data they know nothing."""

    def __init__(self, desk: Desk, members: dict[str, Member]) -> None:
        self.desk = desk
        self.members = {each: replace(one, desk=desk) for each, one in members.items()}
        self.said_so = False
        self.refusals: list[str] = []
        self.spoilt = 0
        self.missing = 0

    @classmethod
    def on(cls, storage: SQLiteStorage) -> Town:
        return cls(Desk(storage=storage, seed="corrupt"), original().members)

    async def log_in(self, name: str) -> bool:
        member = self.members[name]
        member.caller = self.desk.connect()
        reply = await self.ask(name, member.login(member.caller.hello))
        if isinstance(reply, api.LoggedIn):
            await self.ask(name, api.Ping())
        return isinstance(reply, api.LoggedIn)

    async def ask(self, name: str, request: api.Request) -> api.Reply:
        """Always an answer of the interface: ``handle`` gives nothing else, and must not raise."""
        reply = await self.members[name].ask(request)
        if isinstance(reply, api.Refused):
            self.said_so = True
            self.refusals.append(f"{type(request).__name__}: {reply.code}, {reply.sentence}")
        return reply


async def undamaged() -> list[str]:
    """What is refused although nothing is wrong: nothing, or the campaign could not bite."""
    with tempfile.TemporaryDirectory(prefix="lokket-corrupt-") as name:
        for each, data in original().files.items():
            (Path(name) / each).write_bytes(data)
        storage = SQLiteStorage(Path(name) / "relay.db")
        town = Town.on(storage)
        outcome = await _asked(town, original())
        await storage.close()
        return [*town.refusals, *([outcome] if outcome != "harmless" else [])]


async def _asked(town: Town, whole: Original) -> str:
    for name in NAMES:
        if not await town.log_in(name):
            continue
        await _mail(town, name, whole)
        for other in NAMES:
            await _account(town, name, other)
            await _bundle(town, name, other)
            await _name(town, name, other)
    await _goes_on(town)
    if town.said_so:
        return "said so when read"
    if town.spoilt:
        return "found out by clients"
    return "mail vanished, to be offered again" if town.missing else "harmless"


async def _mail(town: Town, name: str, whole: Original) -> None:
    expected = set(whole.mail[name])
    others = {data for each in NAMES if each != name for data in whole.mail[each]}
    got: list[bytes] = []
    while (deliver := await town.desk.relay.drain(town.members[name].caller, town.desk.now_ms)) is not None:
        got += deliver.envelopes
        ids = []
        for data in deliver.envelopes:
            assert data not in others, "another account's mail"
            try:
                ids.append(api.decode_envelope(data).envelope_id)
            except RemoteError:
                town.spoilt += 1
        reply = await town.ask(name, api.Acknowledge(tuple(ids)))
        if not ids or isinstance(reply, api.Refused):
            break
    town.spoilt += len(set(got) - expected)
    town.missing += len(expected - set(got))


async def _account(town: Town, name: str, other: str) -> None:
    genesis_hash = town.members[other].genesis_hash
    reply = await town.ask(name, api.FetchAccount(genesis_hash, 0, 0))
    if isinstance(reply, api.Account):
        try:
            state = identity.first_contact(reply.chain, genesis_hash, town.desk.now_s)
        except RemoteError:
            town.spoilt += 1
        else:
            assert state == town.members[other].state, "an account that its owner never signed"


async def _bundle(town: Town, name: str, other: str) -> None:
    member = town.members[other]
    reply = await town.ask(name, api.FetchBundle(member.genesis_hash, member.device_hash))
    if isinstance(reply, api.Bundle):
        try:
            prekeys.check_bundle(reply.bundle, member.state, member.device_hash, 1, town.desk.now_s)
        except RemoteError:
            town.spoilt += 1


async def _name(town: Town, name: str, other: str) -> None:
    reply = await town.ask(name, api.LookupName(other))
    if isinstance(reply, api.NameRecord):
        member = town.members[other]
        try:
            signed = tls.decode(identity.SignedNameClaim, reply.claim)
            identity.check_name_of(signed, other, member.genesis_hash)
            identity.check_name_claim(member.state, signed)
        except RemoteError:
            town.spoilt += 1


async def _goes_on(town: Town) -> None:
    """It still takes and gives, or says why not."""
    if not (await town.log_in("alice") and await town.log_in("bob")):
        return
    alice, bob = town.members["alice"], town.members["bob"]
    letter = alice.envelope(bob, random.Random(1).randbytes(80))
    reply = await town.ask("alice", api.Send((letter,)))
    if not isinstance(reply, api.Sent):
        return
    if reply.results[0].code:
        town.said_so = True
        return
    waiting: list[bytes] = []
    while (deliver := await town.desk.relay.drain(bob.caller, town.desk.now_ms)) is not None:
        waiting += deliver.envelopes
    assert api.encode(letter) in waiting, "an answer that was false"
