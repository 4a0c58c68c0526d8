"""The driver, with an engine and a relay that the test plays: order, commits, reconnecting, bad frames."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from lokket import limits
from lokket.client import driver as driver_module
from lokket.client.driver import Driver, HungUp, Offline, Stopped
from lokket.client.link import Link
from lokket.client.transport import Unreachable
from lokket.client.vault import Transaction, Vault, open_vault
from lokket.crypto.entropy import Entropy
from lokket.engine import events
from lokket.engine.store import SEEN
from lokket.errors import LocalError, RemoteError
from lokket.system import SystemEntropy, now_ms
from lokket.wire import api
from tests.support.client import KEY, MemoryConnection, PlayedTransport

HELLO = api.Hello((1,), "ws://relay.test", bytes(32), bytes(32), bytes(64), 0, open=True)
PING = api.Ping()


class PlayedEngine:
    """Notes every event in the vault and in a list; answers with what ``answers`` says."""

    def __init__(self) -> None:
        self.seen: list[events.Event] = []
        self.answers: Callable[[events.Event], list[events.Effect]] = lambda event: []

    def handle(
        self, tx: Transaction, event: events.Event, now_ms: int, entropy: Entropy
    ) -> list[events.Effect]:
        effects = self.answers(event)
        tx.put(SEEN, len(self.seen).to_bytes(4, "big"), type(event).__name__.encode())
        self.seen.append(event)
        return effects

    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.seen if not isinstance(event, events.Tick)]


class Scene:
    """A driver at work."""

    def __init__(self, vault: Vault) -> None:
        self.vault = vault
        self.engine = PlayedEngine()
        self.transport = PlayedTransport()
        self.driver = Driver(vault, self.engine, SystemEntropy(), now_ms)

    async def connected(self) -> MemoryConnection:
        """The relay's end of the next connection, after the greeting."""
        async with asyncio.timeout(10):
            connection = await self.transport.taken.get()
        connection.push(HELLO)
        return connection

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not true():
                await asyncio.sleep(0.005)

    def rows(self) -> list[str]:
        with self.vault.transaction() as tx:
            return [value.decode() for _, value in tx.scan(SEEN) if value != b"Tick"]


@contextlib.asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[Scene]:
    vault = open_vault(folder, KEY, create=True)
    made = Scene(vault)
    made.driver.start()
    try:
        yield made
    finally:
        await made.driver.close()
        vault.close()


Play = Callable[[Callable[[Scene], Awaitable[None]]], None]


@pytest.fixture
def play(tmp_path: Path) -> Play:
    def run(body: Callable[[Scene], Awaitable[None]]) -> None:
        async def whole() -> None:
            async with scene(tmp_path / "profile") as made:
                await body(made)

        asyncio.run(whole())

    return run


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RECONNECT_FIRST_MS", 4)


def test_a_command_gets_the_outcome_of_its_own_step(play: Play) -> None:
    async def body(made: Scene) -> None:
        state = events.MessageState("bob", bytes(16), "queued")
        made.engine.answers = lambda event: (
            [events.Wake(0), state] if isinstance(event, events.SendText) else []
        )
        outcomes = await asyncio.gather(
            made.driver.command(events.SendText("bob", "hi")),
            made.driver.command(events.CreateInvite()),
        )
        assert outcomes == [[state], []]

    play(body)


def test_a_refused_command_changes_nothing_and_is_told_to_its_caller_alone(play: Play) -> None:
    class Careless(PlayedEngine):
        def handle(
            self, tx: Transaction, event: events.Event, now_ms: int, entropy: Entropy
        ) -> list[events.Effect]:
            super().handle(tx, event, now_ms, entropy)
            if isinstance(event, events.SendText):
                raise {"local": LocalError, "remote": RemoteError, "bug": ZeroDivisionError}[event.text]("no")
            return []

    async def body(made: Scene) -> None:
        made.driver._engine = Careless()
        for text in ("local", "remote", "bug"):
            with pytest.raises((LocalError, RemoteError)):
                await made.driver.command(events.SendText("bob", text))
        await made.driver.command(events.CreateInvite())
        assert made.rows() == ["CreateInvite"]

    play(body)


@pytest.mark.attack(95, 96)
def test_nothing_leaves_before_the_commit(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """COMMIT fails: no frame, no acknowledgement, no notice; the person is told, the driver stops."""

    async def body(made: Scene) -> None:
        made.driver.go_online(made.transport)
        relay = await made.connected()
        await made.until(lambda: made.rows() == ["Connected"])
        made.engine.answers = lambda event: [
            events.Call("ping", PING),
            events.Acknowledge((bytes(16),)),
            events.TrustNotice("missing", "", "too early"),
        ]
        whole = made.vault.transaction

        @contextlib.contextmanager
        def failing() -> Iterator[Transaction]:
            with whole() as tx:
                yield tx
                raise LocalError("the disk is full")

        monkeypatch.setattr(made.vault, "transaction", failing)
        with made.driver.listening() as queue:
            relay.push(api.Deliver((b"mail",)))
            async with asyncio.timeout(10):
                assert await queue.get() == Stopped("the disk is full")
        with pytest.raises(LocalError, match="disk is full"):
            await made.driver.command(events.CreateInvite())
        monkeypatch.undo()
        assert made.rows() == ["Connected"]
        async with asyncio.timeout(10):
            assert await relay.to_relay.get() is None  # hung up, without a word
        assert relay.to_relay.empty()

    play(body)


def test_effects_leave_in_order_after_the_commit(play: Play) -> None:
    async def body(made: Scene) -> None:
        def answers(event: events.Event) -> list[events.Effect]:
            if isinstance(event, events.Arrived):
                return [
                    events.Call("first", PING),
                    events.Acknowledge(tuple(at.to_bytes(16, "big") for at in range(300))),
                    events.Call("last", PING),
                ]
            return []

        made.engine.answers = answers
        made.driver.go_online(made.transport)
        relay = await made.connected()
        relay.push(api.Deliver((b"mail",)))
        frames = [await relay.asked() for _ in range(4)]
        assert "Arrived" in made.rows()  # on disk by then
        assert [type(frame.request).__name__ for frame in frames] == [
            "Ping",
            "Acknowledge",
            "Acknowledge",
            "Ping",
        ]
        acknowledged = [
            each for f in frames if isinstance(f.request, api.Acknowledge) for each in f.request.envelope_ids
        ]
        assert acknowledged == [at.to_bytes(16, "big") for at in range(300)]
        for frame in reversed(frames):
            relay.answer(frame.number, api.Refused("unknown", f"to {frame.number}"))
        await made.until(lambda: len(made.engine.kinds()) == 4)
        answers_seen = [event for event in made.engine.seen if isinstance(event, events.Answered)]
        assert {(a.call, a.reply.sentence) for a in answers_seen if isinstance(a.reply, api.Refused)} == {
            ("first", f"to {frames[0].number}"),
            ("last", f"to {frames[3].number}"),
        }

    play(body)


def test_waiting_deliveries_share_a_transaction(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(made: Scene) -> None:
        counted = 0
        whole = made.vault.transaction

        @contextlib.contextmanager
        def counting() -> Iterator[Transaction]:
            nonlocal counted
            counted += 1
            with whole() as tx:
                yield tx

        monkeypatch.setattr(made.vault, "transaction", counting)
        connection = object()
        for at in range(40):
            made.driver._items.put_nowait(
                driver_module._Item(events.Arrived((bytes([at]),)), connection)  # type: ignore[arg-type]
            )
        await made.driver.command(events.CreateInvite())
        arrived = [event.envelopes[0][0] for event in made.engine.seen if isinstance(event, events.Arrived)]
        assert arrived == list(range(40))
        assert counted == 3  # 32 deliveries, 8 deliveries, the command

    play(body)


def test_reconnecting_waits_longer_each_time_and_starts_short_after_a_login(play: Play) -> None:
    async def body(made: Scene) -> None:
        made.transport.refuse = lambda: Unreachable("nobody is there")
        waits: list[int] = []
        with made.driver.listening() as queue:
            made.driver.go_online(made.transport)
            while len(waits) < 6:
                happening = await queue.get()
                assert isinstance(happening, Offline)
                assert happening.sentence == "nobody is there"
                waits.append(happening.retry_ms)
            for at, wait_ms in enumerate(waits):
                assert 4 * 2**at // 2 <= wait_ms < 4 * 2**at * 1.5
            made.engine.answers = lambda event: (
                [events.Online(0)] if isinstance(event, events.Connected) else []
            )
            made.transport.refuse = None
            relay = await made.connected()
            await made.until(lambda: made.driver.online == 0)
            await relay.close()
            while not (isinstance(happening := await queue.get(), Offline) and made.driver.online is None):
                pass
            assert happening.retry_ms < 8
        assert made.engine.kinds()[:2] == ["Connected", "Disconnected"]

    play(body)


def test_no_call_of_one_connection_goes_out_on_the_next(play: Play) -> None:
    """The engine hears ``Disconnected`` and asks again; an answer from before must not send early."""

    async def body(made: Scene) -> None:
        made.driver.go_online(made.transport)
        first = await made.connected()
        await made.until(lambda: made.engine.kinds() == ["Connected"])
        await first.close()
        second = await made.connected()
        made.engine.answers = lambda event: (
            [events.Call("late", PING)] if isinstance(event, events.Disconnected) else []
        )
        await made.until(lambda: made.engine.kinds() == ["Connected", "Disconnected", "Connected"])
        await asyncio.sleep(0.02)
        assert second.to_relay.empty()

    play(body)


@pytest.mark.attack(62)
def test_an_envelope_that_breaks_a_step_does_not_block_those_behind_it(play: Play) -> None:
    async def body(made: Scene) -> None:
        def answers(event: events.Event) -> list[events.Effect]:
            if isinstance(event, events.Arrived):
                if b"poison" in event.envelopes:
                    raise RecursionError("poison")
                return [events.Acknowledge(tuple(each.ljust(16) for each in event.envelopes))]
            return []

        made.engine.answers = answers
        made.driver.go_online(made.transport)
        first = await made.connected()
        first.push(api.Deliver((b"before", b"poison", b"behind")))
        acknowledged = []
        for _ in range(2):
            frame = await first.asked()
            assert isinstance(frame.request, api.Acknowledge)
            acknowledged += frame.request.envelope_ids
        assert acknowledged == [b"before".ljust(16), b"behind".ljust(16)]
        second = await made.connected()  # the connection starts anew, as the engine's own view of it does
        second.push(api.Deliver((b"poison", b"later")))
        frame = await second.asked()
        assert isinstance(frame.request, api.Acknowledge)
        assert frame.request.envelope_ids == (b"later".ljust(16),)
        assert "poison" not in repr(made.driver._set_aside)

    play(body)


@pytest.mark.parametrize("frame", [b"", b"\xc1", b"\x93\x00\x01\x02", b"x" * 1000])
def test_a_frame_that_is_none_ends_the_connection_and_not_the_client(play: Play, frame: bytes) -> None:
    async def body(made: Scene) -> None:
        made.driver.go_online(made.transport)
        first = await made.connected()
        first.to_client.put_nowait(frame)
        await made.connected()
        await made.driver.command(events.CreateInvite())

    play(body)


def test_an_answer_to_nothing_is_dropped(play: Play) -> None:
    async def body(made: Scene) -> None:
        made.driver.go_online(made.transport)
        relay = await made.connected()
        relay.answer(77, api.Ok())
        relay.push(api.PairsLow(3))
        await made.until(lambda: "PairsLow" in made.engine.kinds())
        assert made.engine.kinds() == ["Connected", "PairsLow"]

    play(body)


def test_whoever_greets_as_no_relay_does_is_left(play: Play) -> None:
    async def body(made: Scene) -> None:
        with made.driver.listening() as queue:
            made.driver.go_online(made.transport)
            connection = await made.transport.taken.get()
            connection.push(api.PairsLow(1))
            happening = await queue.get()
            assert isinstance(happening, Offline)
            assert "not as a relay does" in happening.sentence
        assert made.engine.kinds() == []

    play(body)


def test_the_relays_reason_for_closing_is_passed_on(play: Play) -> None:
    async def body(made: Scene) -> None:
        with made.driver.listening() as queue:
            made.driver.go_online(made.transport)
            relay = await made.connected()
            relay.push(api.Closing("conflict", "this device has connected anew"))
            happening = await queue.get()
            assert isinstance(happening, Offline)
            assert "this device has connected anew" in happening.sentence

    play(body)


def test_a_hang_up_is_final_and_told_to_who_asks_later(play: Play) -> None:
    async def body(made: Scene) -> None:
        made.engine.answers = lambda event: (
            [events.HangUp("not this relay")] if isinstance(event, events.Connected) else []
        )
        made.driver.go_online(made.transport)
        relay = await made.connected()
        await made.until(lambda: "Disconnected" in made.engine.kinds())
        assert relay.closed
        with made.driver.listening() as queue:
            assert await queue.get() == HungUp("not this relay")
        await asyncio.sleep(0.05)
        assert made.transport.taken.empty()

    play(body)


def test_a_redial_waits_as_long_as_asked(play: Play) -> None:
    async def body(made: Scene) -> None:
        at_ms = now_ms() + 150
        made.engine.answers = lambda event: (
            [events.Redial(at_ms)] if isinstance(event, events.Connected) else []
        )
        made.driver.go_online(made.transport)
        await made.connected()
        await made.connected()
        assert now_ms() >= at_ms - 5

    play(body)


def test_a_relay_that_leaves_a_call_unanswered_is_hung_up_on(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ANSWER_WAIT_S", 0.05)
    monkeypatch.setattr(driver_module, "_LOOK_AT_CLOCK_S", 0.05)
    monkeypatch.setattr(limits, "TIDY_IDLE_S", 0.02)

    async def body(made: Scene) -> None:
        made.engine.answers = lambda event: (
            [events.Call("login", PING)] if isinstance(event, events.Connected) else []
        )
        made.driver.go_online(made.transport)
        await made.connected()
        await made.connected()

    play(body)


def test_a_wake_brings_a_tick_when_it_is_time(play: Play) -> None:
    async def body(made: Scene) -> None:
        at_ms = now_ms() + 60
        ticks: list[int] = []

        def answers(event: events.Event) -> list[events.Effect]:
            if isinstance(event, events.Tick):
                ticks.append(now_ms())
            wanted = isinstance(event, events.SendText)
            return [events.Wake(at_ms + 5_000), events.Wake(at_ms)] if wanted else []

        made.engine.answers = answers
        await made.driver.command(events.SendText("bob", "hi"))
        await made.until(lambda: bool(ticks))
        assert at_ms <= ticks[0] < at_ms + 2_000

    play(body)


def test_the_log_is_cut_when_there_is_nothing_to_do(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TIDY_IDLE_S", 0.02)

    async def body(made: Scene) -> None:
        await made.driver.command(events.CreateInvite())
        log = made.vault.path.with_name("vault.db-wal")
        assert log.stat().st_size > 0
        await made.until(lambda: log.stat().st_size == 0)

    play(body)


def test_who_waits_when_the_client_closes_is_told(tmp_path: Path) -> None:
    async def run() -> None:
        async with scene(tmp_path / "profile") as made:
            command = asyncio.ensure_future(made.driver.command(events.CreateInvite()))
            await asyncio.sleep(0)
            await made.driver.close()
            with contextlib.suppress(LocalError):
                await asyncio.wait_for(command, 5)
            with pytest.raises(LocalError, match="closed"):
                await made.driver.command(events.CreateInvite())

    asyncio.run(run())


class _SlowToCancel:
    """A connection whose writing takes a moment to be given up."""

    def __init__(self) -> None:
        self.let_go = asyncio.Event()

    async def receive(self) -> bytes:
        return await asyncio.Future()

    async def send(self, frame: bytes) -> None:
        try:
            await asyncio.Future()
        finally:
            await self.let_go.wait()

    async def close(self) -> None:
        pass


def test_who_is_told_to_stop_while_a_link_closes_does_stop() -> None:
    async def body() -> None:
        connection = _SlowToCancel()
        link = Link(connection)
        link.call("ping", api.Ping())
        await asyncio.sleep(0)
        closing = asyncio.create_task(link.close())
        await asyncio.sleep(0)
        closing.cancel()
        connection.let_go.set()
        with pytest.raises(asyncio.CancelledError):
            await closing

    asyncio.run(body())
