"""A relay process under hostile load, bounded and on loopback, with two honest people beside it.

1. Slowloris: sockets that never finish their request, and WebSockets that never log in.
2. Frame bombs: frames beyond the bound, before and after the login, and nested arrays.
3. Prekey drain: one account fetches a victim's bundle as often as it is let.
4. Mailbox flood: one account fills a victim's mailbox as fast as it is let.

``make abuse`` prints the honest people's times without and with it; the test asserts that all their mail
arrives and that the limits hold, and no time.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from lokket import limits
from lokket.wire import api
from tests.support.machine import Machine
from tests.support.relay import Member
from tests.support.served import LONG_S, Wire, person

SLOW_SOCKETS = 40
BOMBS = 12
FETCHES = 150
FLOOD = 2_600  # more than the burst that one sender has towards one device
PAIRS = 100


@dataclass
class Town:
    url: str
    port: int
    counts: Counter[str] = field(default_factory=Counter)

    @contextlib.asynccontextmanager
    async def wire(self) -> AsyncIterator[tuple[Wire, api.Hello]]:
        async with connect(f"{self.url}/v1", compression=None, max_size=limits.FRAME_MAX_BYTES) as socket:
            one = Wire(socket)
            hello = (await one.push()).message
            assert isinstance(hello, api.Hello)
            yield one, hello

    @contextlib.asynccontextmanager
    async def member(self, name: str) -> AsyncIterator[tuple[Wire, Member]]:
        """Registered and logged in."""
        who = await asyncio.to_thread(person, name)
        async with self.wire() as (one, hello):
            assert isinstance(await one.ask(who.registration(hello)), api.LoggedIn)
            yield one, who


@contextlib.contextmanager
def relay(root: Path) -> Iterator[Town]:
    machine = Machine(root)
    settings = root / "relay.toml"
    settings.write_text("open = true\n")
    process = machine.start("serve", "--port", "0", "--json", "--config", str(settings))
    try:
        record = process.record("relay")
        yield Town(f"ws://127.0.0.1:{record['port']}", record["port"])
    finally:
        machine.stop_all()


# --- the honest ---


async def honest(town: Town, messages: int, name: str) -> list[float]:
    """Seconds from each send to its delivery; all arrive, in order."""
    times = []
    async with town.member(f"{name} ann") as (ann_wire, ann), town.member(f"{name} bob") as (bob_wire, bob):
        for number in range(messages):
            letter = ann.envelope(bob, b"honest %d" % number)
            began_s = time.perf_counter()
            sent = await ann_wire.ask(api.Send((letter,)))
            assert sent == api.Sent((api.Deposited(letter.envelope_id, ""),)), sent
            frame = await bob_wire.push()
            assert isinstance(frame.message, api.Deliver)
            assert api.decode_envelope(frame.message.envelopes[0]) == letter
            times.append(time.perf_counter() - began_s)
            assert await bob_wire.ask(api.Acknowledge((letter.envelope_id,))) == api.Ok()
            await asyncio.sleep(0.005)
    return times


# --- the hostile ---


async def slowloris(town: Town) -> None:
    """Each is closed by the relay, and not by us."""

    async def request() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", town.port)
        writer.write(b"GET /v1 HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(LONG_S):
                await reader.read()
            town.counts["slow requests closed"] += 1
        writer.close()

    async def login() -> None:
        async with town.wire() as (one, _):
            assert await one.closed() != 1006
            town.counts["silent sockets closed"] += 1

    async with asyncio.TaskGroup() as tasks:
        for number in range(SLOW_SOCKETS):
            tasks.create_task(login() if number % 2 else request())


async def frame_bombs(town: Town) -> None:
    nested = b"\x91" * 50_000
    for number in range(BOMBS):
        size = (limits.FRAME_BEFORE_LOGIN_MAX_BYTES + 1, limits.FRAME_MAX_BYTES + 1)[number % 2]
        async with town.wire() as (one, _):
            with contextlib.suppress(ConnectionClosed):
                await one.socket.send(nested if number % 3 == 2 else bytes(size))
            code = await one.closed()
            town.counts[f"bombs closed with {code}"] += 1
    async with town.member("bomber") as (one, _):
        with contextlib.suppress(ConnectionClosed):
            await one.socket.send(bytes(limits.FRAME_MAX_BYTES + 1))
        town.counts[f"bombs closed with {await one.closed()}"] += 1


async def prekey_drain(town: Town) -> None:
    async with town.member("drained") as (theirs, victim), town.member("drainer") as (one, _):
        published = api.Publish(await asyncio.to_thread(victim.encoded_batch, 1, PAIRS))
        assert await theirs.ask(published) == api.Ok()
        for _ in range(FETCHES):
            reply = await one.ask(api.FetchBundle(victim.genesis_hash, victim.device_hash))
            limited = isinstance(reply, api.Refused) and reply.code == api.RATE_LIMITED
            town.counts["fetches refused" if limited else "bundles"] += 1


async def flood(town: Town) -> None:
    """The honest friend's letter comes after the flood, and gets in."""
    async with town.member("flooded") as (theirs, victim), town.member("flooder") as (one, sender):
        for _ in range(FLOOD // limits.SEND_BATCH_MAX):
            batch = tuple(sender.envelope(victim, bytes(200)) for _ in range(limits.SEND_BATCH_MAX))
            reply = await one.ask(api.Send(batch))
            if isinstance(reply, api.Sent):
                town.counts.update(f"flood: {result.code or 'taken'}" for result in reply.results)
            else:
                assert isinstance(reply, api.Refused)
                town.counts[f"flood: {reply.code}"] += len(batch)
        async with town.member("friend of the flooded") as (friends, friend):
            letter = friend.envelope(victim, b"honest")
            assert await friends.ask(api.Send((letter,))) == api.Sent(
                (api.Deposited(letter.envelope_id, ""),)
            )
            while True:
                frame = await theirs.push() if not theirs.pushes else api.RelayFrame(0, theirs.pushes.pop(0))
                if not isinstance(frame.message, api.Deliver):
                    continue
                arrived = [api.decode_envelope(data) for data in frame.message.envelopes]
                if letter in arrived:
                    town.counts["letters of a friend behind the flood"] += 1
                    return
                ids = tuple(one.envelope_id for one in arrived)
                assert await theirs.ask(api.Acknowledge(ids)) == api.Ok()


async def hostile(town: Town) -> None:
    async with asyncio.TaskGroup() as tasks:
        for attack in (slowloris, frame_bombs, prekey_drain, flood):
            tasks.create_task(attack(town))


def hostile_process(town: Town) -> Counter[str]:
    """In a process of its own: what an attack costs its attacker is no delay of the relay's."""
    asyncio.run(hostile(town))
    return town.counts


async def under_load(town: Town, messages: int) -> tuple[list[float], list[float]]:
    """The honest people's times: alone, and beside all attacks at once for as long as these last."""
    alone = await honest(town, messages, "alone")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as others:
        attack = asyncio.get_running_loop().run_in_executor(others, hostile_process, town)
        beside: list[float] = []
        turn = 0
        while not attack.done() or not beside:
            turn += 1
            beside += await honest(town, max(10, messages // 10), f"beside {turn}")
        town.counts.update(await attack)
    return alone, beside


def main() -> int:
    with tempfile.TemporaryDirectory() as root, relay(Path(root)) as town:
        alone, beside = asyncio.run(under_load(town, 500))
    first, second = (sorted(times)[int(len(times) * 0.99)] for times in (alone, beside))
    print(f"honest mail: {len(alone)} alone, {len(beside)} under load, all delivered")
    print(f"p99 {1000 * first:.1f} ms alone, {1000 * second:.1f} ms under load: {second / first:.1f} times")
    for what, count in sorted(town.counts.items()):
        print(f"{count:6} {what}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
