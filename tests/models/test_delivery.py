"""Delivery under crashes and a restored relay: ``models/delivery.pml``, and its runs with the code.

A run of the model is a list of events. Each is done with real engines, a real relay and vaults that survive
crashes; after each, the outbox, the mailbox and what was shown must be what the model says.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest

from lokket import limits
from lokket.engine import events
from lokket.engine.engine import Engine
from lokket.engine.records import OutboxRow, rows
from lokket.engine.store import AWAITING, OUTBOX
from lokket.relay.bus import LocalBus
from lokket.relay.config import RelayConfig
from lokket.relay.relay import Relay
from lokket.relay.storage.memory import MemoryStorage
from lokket.wire import api, content
from tests.models import spin
from tests.models.spin import Event
from tests.unit.engine.town import ORIGIN, Device, Town, now

pytestmark = [spin.needs_spin, pytest.mark.attack(38, 95, 96, 118)]

RECEIPTS_DUE_MS = 250
QUEUED, AWAITED, DONE = "123"


@pytest.fixture(autouse=True)
def one_message_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model's frames carry one message each."""
    monkeypatch.setattr(limits, "SEND_BATCH_MAX", 1)


class World:
    """A writes to B. What is on its way is held until the model lets it arrive."""

    def __init__(self) -> None:
        self.town = Town()
        self.a, self.b = self.town.account("ann"), self.town.account("bob")
        self.town.befriend(self.a, self.b)
        self.town.say(self.b, "ann", "hello")
        self.town.say(self.a, "bob", "hello")
        self.backup = copy.deepcopy(self.storage)
        for device in (self.a, self.b):  # a login that the backup does not know
            device.connect()
            self.town.settle()
            device.disconnect()
        self.b.notices.clear()
        self.frames: dict[int, events.Call] = {}
        self.answers: dict[int, tuple[str, api.Reply]] = {}
        self.unacknowledged: list[events.Effect] = []
        self.numbers: dict[bytes, int] = {}  # envelope id -> message
        self.written = 0

    @property
    def storage(self) -> MemoryStorage:
        storage = self.town.relay.storage
        assert isinstance(storage, MemoryStorage)
        return storage

    # --- the model's events ---

    def a_writes(self, number: int) -> None:
        self.a.handle(events.SendText("bob", str(number)))
        self.written += 1
        self.carry_out(self.a)

    def relay_stores(self, number: int) -> None:
        call = self.frames.pop(number)
        assert self.a.caller is not None
        self.answers[number] = (call.call, self.town.answer(self.a, self.a.caller, call.request))

    def a_hears(self, number: int) -> None:
        self.a.handle(events.Answered(*self.answers.pop(number)))
        self.carry_out(self.a)

    def a_takes(self, _: int) -> None:
        self.take(self.a)
        self.carry_out(self.a)

    def b_takes(self, _: int) -> None:
        self.take(self.b)
        self.carry_out(self.b)

    def b_acknowledges(self, _: int) -> None:
        assert self.unacknowledged, "nothing may be acknowledged before its commit"
        for effect in self.unacknowledged:
            assert isinstance(effect, events.Acknowledge)
            self.answer(self.b, api.Acknowledge(effect.envelope_ids))
        self.unacknowledged.clear()

    def b_receipts(self, _: int) -> None:
        self.town.now_ms += RECEIPTS_DUE_MS
        self.b.handle(events.Tick())
        self.carry_out(self.b)

    def a_connects(self, _: int) -> None:
        self.a.connect()
        self.carry_out(self.a)

    def b_connects(self, _: int) -> None:
        self.b.connect()
        self.carry_out(self.b)

    def a_crashes(self, _: int) -> None:
        self.crash(self.a)
        self.lose_frames()

    def b_crashes(self, _: int) -> None:
        self.crash(self.b)
        self.unacknowledged.clear()

    def relay_crashes(self, _: int) -> None:
        self.start_relay(self.storage)

    def relay_restored(self, _: int) -> None:
        self.start_relay(copy.deepcopy(self.backup))

    # --- what they stand on ---

    def take(self, device: Device) -> None:
        assert device.caller is not None
        deliver = now(self.town.relay.drain(device.caller, self.town.now_ms))
        assert deliver is not None, "the model has mail for it"
        device.handle(events.Arrived(deliver.envelopes))

    def carry_out(self, device: Device) -> None:
        """All effects but those that the model lets happen later."""
        while device.outgoing:
            effect = device.outgoing.pop(0)
            match effect:
                case events.Call(request=api.Send(envelopes=(envelope,))) if device is self.a:
                    number = self.number_of(envelope)
                    if number is not None:
                        self.frames[number] = effect
                        continue
                case events.Acknowledge() if device is self.b:
                    self.unacknowledged.append(effect)
                    continue
            assert device.caller is not None
            device._carry_out(device.caller, effect)

    def number_of(self, envelope: api.Envelope) -> int | None:
        """Which of the model's messages it carries. None: something else."""
        for row in self.outbox(OUTBOX):
            if row.envelope_id == envelope.envelope_id:
                body = content.decode_body(row.kind, row.body)
                assert isinstance(body, content.Text)
                self.numbers[envelope.envelope_id] = int(body.text)
                return int(body.text)
        return None

    def answer(self, device: Device, request: api.Request) -> None:
        assert device.caller is not None
        self.town.answer(device, device.caller, request)

    def crash(self, device: Device) -> None:
        """The process is gone, its vault is not."""
        assert device.caller is not None
        self.town.relay.disconnect(device.caller)
        device.caller = None
        device.outgoing.clear()
        device.engine = self.engine(device)

    def engine(self, device: Device) -> Engine:
        return Engine(prekey_pairs=4)

    def lose_frames(self) -> None:
        self.frames.clear()
        self.answers.clear()

    def start_relay(self, storage: MemoryStorage) -> None:
        for device in (self.a, self.b):
            device.disconnect()
        self.lose_frames()
        self.unacknowledged.clear()
        config = RelayConfig(origin=ORIGIN, open=True)
        self.town.relay = Relay(storage, config, self.town.relay_key, LocalBus())

    # --- what is compared ---

    def state(self) -> dict[str, str]:
        mail = {
            self.numbers.get(envelope_id) for envelope_id in self.storage._devices[self.b.me.device_hash].mail
        }
        return {
            "rows": self.digits(self.row),
            "mail": self.digits(lambda number: str(int(number in mail))),
            "shown": self.digits(lambda number: str(self.shown().count(str(number)))),
        }

    @staticmethod
    def digits(digit: Callable[[int], str]) -> str:
        return "".join(digit(number) for number in range(3))

    def row(self, number: int) -> str:
        if number >= self.written:
            return "0"
        text = content.encode_body(content.Text(str(number)))
        for table, state in ((OUTBOX, QUEUED), (AWAITING, AWAITED)):
            if any(row.body == text for row in self.outbox(table)):
                return state
        return DONE

    def outbox(self, table: str) -> list[OutboxRow]:
        """A's messages in this table."""
        held = self.a.ask(lambda tx: [row for _, row in rows(tx, table, OutboxRow)])
        return [row for row in held if row.kind == content.TEXT]

    def shown(self) -> list[str]:
        return [notice.text for notice in self.b.told(events.MessageShown) if not notice.outgoing]

    def do(self, event: Event) -> None:
        getattr(self, event.name)(event.numbers[0])

    def replay(self, run: tuple[Event, ...]) -> None:
        for event in run:
            self.do(event)
            assert self.state() == event.state, event

    def come_to_rest(self) -> None:
        """Faults are over: all that is still under way arrives."""
        for device in (self.a, self.b):
            if device.caller is not None:
                self.crash(device)
        self.lose_frames()
        self.unacknowledged.clear()
        for device in (self.a, self.b):
            device.connect()
        self.town.settle()

    def is_right(self) -> bool:
        wanted = [str(number) for number in range(self.written)]
        return sorted(self.shown()) == wanted and set(self.a.states("bob")[-self.written :]) == {"delivered"}


class _Forgets(Engine):
    """A row ends with the relay's word that it is on disk."""

    def handle(self, tx, event, now_ms, entropy):  # type: ignore[no-untyped-def]
        effects = super().handle(tx, event, now_ms, entropy)
        for key, row in list(rows(tx, AWAITING, OutboxRow)):
            if row.kind == content.TEXT:
                tx.delete(AWAITING, key)
        return effects


class ForgetsSent(World):
    def __init__(self) -> None:
        super().__init__()
        self.a.engine = self.engine(self.a)

    def engine(self, device: Device) -> Engine:
        return _Forgets(prekey_pairs=4) if device is self.a else super().engine(device)


class AcknowledgesFirst(World):
    """A driver that lets acknowledgements out before the commit."""

    early: tuple[bytes, ...] = ()

    def b_acknowledges(self, _: int) -> None:
        assert self.b.caller is not None
        deliver = now(self.town.relay.drain(self.b.caller, self.town.now_ms))
        assert deliver is not None
        self.early += deliver.envelopes
        ids = tuple(api.decode_envelope(envelope).envelope_id for envelope in deliver.envelopes)
        self.answer(self.b, api.Acknowledge(ids))

    def b_takes(self, _: int) -> None:
        self.b.handle(events.Arrived(self.early))
        self.early = ()
        self.carry_out(self.b)

    def b_crashes(self, number: int) -> None:
        super().b_crashes(number)
        self.early = ()


@pytest.mark.parametrize(
    "bounds", spin.bounds({"MESSAGES": 2, "FAULTS": 2}, {"MESSAGES": 3, "FAULTS": 3}), ids=str
)
def test_nothing_is_lost_or_doubled_in_any_interleaving(bounds: dict[str, int], tmp_path: Path) -> None:
    found = spin.search("delivery", tmp_path, **bounds)
    print(f"{found.states} states")
    assert not found.broken, found.broken
    assert found.states > 5_000


def test_runs_of_the_model_are_runs_of_the_code(tmp_path: Path) -> None:
    seen = set()
    for seed in range(spin.runs(40)):
        run = spin.simulate("delivery", tmp_path, seed, MESSAGES=3, FAULTS=6)
        seen |= {event.name for event in run}
        print(f"seed {seed}: {len(run)} events")
        world = World()
        world.replay(run)
        assert world.is_right()
    assert seen >= {"relay_restored", "relay_crashes", "a_crashes", "b_crashes"}


@pytest.mark.parametrize(
    ("rule", "broken"), [("FORGET_SENT", ForgetsSent), ("ACK_FIRST", AcknowledgesFirst)], ids=str
)
def test_a_rule_that_is_broken_loses_a_message_in_the_model_and_in_the_code(
    rule: str, broken: type[World], tmp_path: Path
) -> None:
    run = spin.search("delivery", tmp_path, **{rule: 1}).broken
    assert run, "the model must find what the rule is for"
    world = broken()
    world.replay(run)
    world.come_to_rest()
    assert not world.is_right()


@pytest.mark.parametrize("rule", ["FORGET_SENT", "NO_SEEN"])
def test_what_breaks_the_model_does_not_break_the_code(rule: str, tmp_path: Path) -> None:
    run = spin.search("delivery", tmp_path, **{rule: 1}).broken
    assert run
    world = World()
    for event in run:
        world.do(event)
    world.come_to_rest()
    assert world.is_right()
