"""The relay's front door: whatever is asked gets a typed answer, and mistakes of ours tell nothing."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lokket import limits
from lokket.errors import DecodeError
from lokket.relay.budgets import HOUR_MS, Budgets, Rate
from lokket.relay.bus import LocalBus
from lokket.relay.storage.base import StorageBroken, StorageFull
from lokket.relay.storage.memory import MemoryStorage
from lokket.wire import api
from tests.support.relay import Desk


def code(reply: api.Reply) -> str:
    assert isinstance(reply, api.Refused), reply
    return reply.code


class Failing(MemoryStorage):
    """Its mailboxes raise what they are told to."""

    error: Exception | None = None

    async def append(self, *arguments: Any) -> tuple[str, ...]:
        if self.error is not None:
            raise self.error
        return await super().append(*arguments)


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (StorageFull("full"), api.STORAGE_FULL),
        (StorageBroken("broken"), api.UNAVAILABLE),
        (KeyError("a secret of somebody"), api.UNAVAILABLE),
    ],
)
@pytest.mark.attack(42)
@pytest.mark.attack(120)
async def test_failures_are_answered_and_tell_nothing(
    error: Exception, answer: str, caplog: pytest.LogCaptureFixture
) -> None:
    storage = Failing()
    desk = Desk(storage=storage)
    alice, bob = await desk.join("alice"), await desk.join("bob")
    storage.error = error
    with caplog.at_level(logging.DEBUG):
        reply = await alice.ask(api.Send((alice.envelope(bob),)))
    assert code(reply) == answer
    assert "secret" not in str(reply)
    assert "secret" not in caplog.text
    assert "Traceback" not in caplog.text
    assert desk.relay.counters["fault"] == isinstance(error, KeyError)
    storage.error = None
    assert await alice.send(alice.envelope(bob)) == ("",)


async def test_frames_of_later_versions_are_refused_by_their_number() -> None:
    import msgspec

    later = msgspec.msgpack.encode([7, ["a-request-of-later", 1, 2]])
    with pytest.raises(DecodeError):
        api.decode_client_frame(later)
    assert api.frame_number(later) == 7
    for garbage in (b"", b"\xff", msgspec.msgpack.encode([0, ["ping"]]), msgspec.msgpack.encode("x")):
        assert api.frame_number(garbage) is None


@pytest.mark.attack(50)
@given(st.binary(max_size=300))
@settings(max_examples=300)
def test_any_bytes_are_a_frame_or_a_decode_error(data: bytes) -> None:
    try:
        api.decode_client_frame(data)
    except DecodeError:
        api.frame_number(data)


@pytest.mark.attack(50)
def test_deep_nesting_is_a_decode_error() -> None:
    for nested in (b"\x91" * 100_000, b"\x81\xa1a" * 100_000, b"\x92\x01" * 100_000):
        with pytest.raises(DecodeError):
            api.decode_client_frame(nested)
        assert api.frame_number(nested) is None or api.frame_number(nested) == 1


@pytest.mark.attack(58)
async def test_counters_name_no_one(desk: Desk) -> None:
    alice, bob = await desk.join("alice", name="al"), await desk.join("bob")
    await alice.send(alice.envelope(bob))
    await bob.ask(api.LookupName("nobody-has-this"))
    text = repr(desk.relay.counters)
    for secret in (alice.genesis_hash.hex(), "nobody-has-this", "al'", repr(alice.genesis_hash)):
        assert secret not in text


async def test_stopping_tells_every_connection(desk: Desk) -> None:
    alice = await desk.join("alice")
    waiting = desk.connect()
    desk.relay.close_all(api.UNAVAILABLE, "the relay stops")
    for caller in (alice.caller, waiting):
        assert desk.relay.notices(caller) == (api.Closing(api.UNAVAILABLE, "the relay stops"),)
        assert code(await desk.ask(caller, api.Ping())) == api.UNAVAILABLE
    assert await desk.drained(alice.caller) == []


async def test_any_request_is_limited(desk: Desk) -> None:
    alice = await desk.join("alice")
    burst = desk.config.rates["request"].burst
    answers = [await alice.ask(api.Ping()) for _ in range(burst + 1)]
    assert answers[:-1] == [api.Ok()] * burst
    assert code(answers[-1]) == api.RATE_LIMITED
    assert await alice.ask(api.Acknowledge((bytes(16),))) == api.Ok(), "acknowledging always goes on"


# --- budgets ---


def test_a_budget_is_spent_and_comes_back() -> None:
    budgets = Budgets({"kind": Rate(3, 60)})
    assert [budgets.take("kind", b"a", 0) for _ in range(3)] == [0, 0, 0]
    wait_ms = budgets.take("kind", b"a", 0)
    assert 59_000 < wait_ms <= 60_001
    assert budgets.take("kind", b"b", 0) == 0, "each subject has its own"
    assert budgets.take("kind", b"a", wait_ms - 2) > 0
    assert budgets.take("kind", b"a", wait_ms) == 0
    assert budgets.take("kind", b"a", wait_ms) > 0


def test_a_refused_request_spends_nothing() -> None:
    budgets = Budgets({"kind": Rate(10, 60)})
    assert budgets.take("kind", b"a", 0, cost=8) == 0
    assert budgets.take("kind", b"a", 0, cost=8) > 0
    assert budgets.take("kind", b"a", 0, cost=2) == 0


def test_a_cost_above_the_burst_passes_a_full_budget() -> None:
    budgets = Budgets({"kind": Rate(10, 60)})
    assert budgets.take("kind", b"a", 0, cost=1_000) == 0
    assert budgets.take("kind", b"a", 0) > 0


@pytest.mark.attack(61)
def test_a_clock_set_back_locks_nobody_out() -> None:
    budgets = Budgets({"kind": Rate(3, 60)})
    ten_years_ms = 10 * 365 * limits.DAY_S * 1000
    for _ in range(3):
        budgets.take("kind", b"a", ten_years_ms)
    assert budgets.take("kind", b"a", 0) <= HOUR_MS
    assert budgets.take("kind", b"a", 3 * 60_000) == 0


@pytest.mark.attack(51)
def test_budgets_take_bounded_memory() -> None:
    budgets = Budgets({"kind": Rate(2, 1)}, entries_max=100)
    budgets.take("kind", b"kept", 0)
    budgets.take("kind", b"kept", 0)
    for number in range(1_000):
        budgets.take("kind", str(number).encode(), 0)
        assert budgets.take("kind", b"kept", 0) > 0 or number > 98
    assert len(budgets) == 100


def test_full_budgets_are_forgotten() -> None:
    budgets = Budgets({"kind": Rate(2, 3_600)})
    for number in range(10):
        budgets.take("kind", str(number).encode(), number * 1_000)
    assert budgets.forget_idle(5_500, 100) == 5
    assert budgets.forget_idle(20_000, 2) == 2
    assert len(budgets) == 3


@given(st.lists(st.tuples(st.integers(0, 5_000), st.integers(1, 5)), max_size=60))
def test_no_window_passes_more_than_burst_and_rate(steps: list[tuple[int, int]]) -> None:
    rate = Rate(7, 3_600)
    budgets = Budgets({"kind": rate})
    now_ms = 0
    passed: list[tuple[int, int]] = []
    for wait_ms, cost in steps:
        now_ms += wait_ms
        if budgets.take("kind", b"a", now_ms, cost) == 0:
            passed.append((now_ms, cost))
    for start in range(len(passed)):
        spent = 0
        for at_ms, cost in passed[start:]:
            spent += cost
            assert spent <= rate.burst + (at_ms - passed[start][0]) / 1_000 + 1e-6


# --- the bus ---


def test_the_bus_rings_those_who_listen() -> None:
    bus = LocalBus()
    rung: list[str] = []

    def one() -> None:
        rung.append("one")

    def two() -> None:
        rung.append("two")
        bus.unsubscribe(b"device", two)

    bus.subscribe(b"device", one)
    bus.subscribe(b"device", two)
    bus.ring(b"device")
    bus.ring(b"device")
    bus.ring(b"another")
    bus.unsubscribe(b"device", one)
    bus.unsubscribe(b"device", one)
    bus.ring(b"device")
    assert rung == ["one", "two", "one"]
