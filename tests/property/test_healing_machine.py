"""Healing as a state machine: two engines, the real relay, and whatever may spoil a session between them.

At the end everything that was written is on both sides once, whatever was spoiled, lost or replayed, and
the bounds held: requests a day, sessions, rows.
"""

from __future__ import annotations

import copy
from functools import lru_cache

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec import structs

from lokket import limits
from lokket.crypto.keys import Ed25519KeyPair
from lokket.engine import events
from lokket.engine.engine import Engine
from lokket.engine.records import Healing, unpack
from lokket.engine.store import HEALING, OUTBOX, SESSION
from lokket.relay.bus import LocalBus
from lokket.relay.config import RelayConfig
from lokket.relay.relay import Relay
from lokket.relay.storage.memory import MemoryStorage
from lokket.wire import api
from tests.sim.vault import Vault
from tests.unit.engine.town import ORIGIN, Device, Town

SPOILT_MAX = 2  # one row is sent anew three times at most
NAMES = ("alice", "bob")
SIDES = st.sampled_from((0, 1))


@lru_cache(maxsize=1)
def friends() -> tuple[int, Ed25519KeyPair, MemoryStorage, list[Vault]]:
    """Two who have talked; every run begins from a copy."""
    town = Town()
    alice, bob = town.account("alice"), town.account("bob")
    town.befriend(alice, bob)
    town.say(alice, "bob", "hello")
    town.say(bob, "alice", "hello too")
    for device in (alice, bob):
        device.disconnect()
    assert isinstance(town.relay.storage, MemoryStorage)
    return town.now_ms, town.relay_key, town.relay.storage, [alice.vault, bob.vault]


class Heals(RuleBasedStateMachine):
    @initialize()
    def meet(self) -> None:
        now_ms, key, storage, vaults = friends()
        self.town = Town()
        self.town.now_ms, self.town.relay_key = now_ms, key
        config = RelayConfig(origin=ORIGIN, open=True)
        self.town.relay = Relay(copy.deepcopy(storage), config, key, LocalBus())
        self.devices = [Device(self.town, vault.copy()) for vault in vaults]
        self.said: list[tuple[int, str]] = []
        self.spoil_next = 0
        self.spoilt = 0
        self.town.tamper = self.tamper
        for device in self.devices:
            device.connect()
        self.town.settle()

    def tamper(self, device: Device, arrived: tuple[bytes, ...]) -> tuple[bytes, ...]:
        out = []
        for encoded in arrived:
            envelope = api.decode_envelope(encoded)
            if self.spoil_next:
                self.spoil_next -= 1
                envelope = structs.replace(envelope, body=envelope.body[:-1] + bytes([envelope.body[-1] ^ 1]))
            out.append(api.encode(envelope))
        return tuple(out)

    @rule(side=SIDES, wait=st.booleans())
    def say(self, side: int, wait: bool) -> None:
        text = f"{NAMES[side]} {len(self.said)}"
        self.devices[side].handle(events.SendText(NAMES[1 - side], text))
        self.said.append((side, text))
        if wait:
            self.town.settle(5_000)

    @precondition(lambda self: self.spoilt < SPOILT_MAX)
    @rule()
    def spoil_an_envelope(self) -> None:
        self.spoil_next += 1
        self.spoilt += 1

    @precondition(lambda self: self.spoilt < SPOILT_MAX)
    @rule(side=SIDES)
    def lose_the_sessions(self, side: int) -> None:
        """As a fault of ours might: what the other side sends then opens in nothing."""
        self.spoilt += 1
        transaction = self.devices[side].vault.begin()
        for key, _ in list(transaction.scan(SESSION)):
            transaction.delete(SESSION, key)
        transaction.commit()

    @rule(side=SIDES)
    def replay(self, side: int) -> None:
        """The relay delivers again what it delivered, under new ids."""
        device = self.devices[side]
        again = [
            structs.replace(api.decode_envelope(one), envelope_id=self.town.entropy.draw(16))
            for one in device.envelopes[-1:]
        ]
        before = device.texts(NAMES[1 - side])
        if again:
            device.handle(events.Arrived(tuple(map(api.encode, again))))
        assert device.texts(NAMES[1 - side]) == before, "a replay was shown"

    @rule(side=SIDES)
    def start_anew(self, side: int) -> None:
        """The process ends and starts; the connection too."""
        device = self.devices[side]
        device.disconnect()
        device.engine = Engine(prekey_pairs=4)
        device.connect()

    @rule(seconds=st.sampled_from((1, 60, 7_000)))
    def wait(self, seconds: int) -> None:
        self.town.settle(seconds * 1_000)

    @invariant()
    def requests_are_bounded(self) -> None:
        for device in getattr(self, "devices", ()):
            asked = [unpack(Healing, row).asked for row in device.vault.rows[HEALING].values()]
            assert all(count <= limits.HEAL_REQUESTS_PER_DAY for count in asked)

    @invariant()
    def nothing_stands_twice(self) -> None:
        for side, device in enumerate(getattr(self, "devices", ())):
            texts = device.texts(NAMES[1 - side])
            assert len(texts) == len(set(texts)), "a text stands twice"

    def teardown(self) -> None:
        if not hasattr(self, "devices"):
            return
        self.spoil_next = 0
        for device in self.devices:
            device.connect()
        self.town.settle()
        for side in (0, 1):  # one more each way: whatever was lost is missed, and asked for
            self.say(side, wait=True)
        for _ in range(3):
            if self.is_whole():
                break
            self.town.settle(26 * 3_600_000)
        assert self.is_whole(), [one.texts(name) for one, name in zip(self.devices, NAMES[::-1], strict=True)]
        for device in self.devices:
            assert not device.vault.rows[OUTBOX]

    def is_whole(self) -> bool:
        expected = {text for _, text in self.said}
        return all(expected <= set(device.texts(NAMES[1 - side])) for side, device in enumerate(self.devices))


@pytest.mark.attack(24, 28, 29)
def test_what_was_spoilt_heals_within_its_bounds() -> None:
    runs = settings(max_examples=200, stateful_step_count=10, deadline=None, print_blob=True)
    run_state_machine_as_test(Heals, settings=runs)
