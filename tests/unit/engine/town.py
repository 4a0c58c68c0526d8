"""A relay, some devices and a clock, stepped by hand: everything real but the socket and the disk."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from lokket.crypto.keys import Ed25519KeyPair
from lokket.engine import events, views
from lokket.engine.engine import Engine
from lokket.engine.events import Event, Notice
from lokket.engine.records import HeldEnvelope, rows
from lokket.engine.step import own_state, require_account
from lokket.errors import LokketError
from lokket.protocol import identity
from lokket.protocol.linking import AccountCode
from lokket.relay.bus import LocalBus
from lokket.relay.config import RelayConfig
from lokket.relay.office import Caller
from lokket.relay.relay import Relay
from lokket.relay.storage.memory import MemoryStorage
from lokket.system import SystemEntropy
from lokket.wire import api
from tests.sim.vault import Vault

T = TypeVar("T")
N = TypeVar("N")
ORIGIN = "ws://relay.test"
START_MS = 1_790_000_000_000


def now(step: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never really waits: memory storage does not."""
    try:
        step.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("memory storage waited")


class Device:
    """One engine with its vault, online or not."""

    def __init__(self, town: Town, vault: Vault | None = None) -> None:
        self.town = town
        self.vault = vault or Vault()
        self.engine = Engine(prekey_pairs=4)
        self.caller: Caller | None = None
        self.outgoing: list[events.Effect] = []
        self.notices: list[Notice] = []
        self.wakes: set[int] = set()
        self.clock_error_ms = 0
        self.recovery_code = ""
        self.may_hang_up = False
        self.hung_up = ""
        self.envelopes: list[bytes] = []  # every one that came, as the relay's bytes
        town.devices.append(self)

    def handle(self, event: Event) -> list[Notice]:
        """One step in one transaction. Returns what a person would have been told."""
        transaction = self.vault.begin()
        try:
            effects = self.engine.handle(transaction, event, self.now_ms, self.town.entropy)
        except LokketError:
            transaction.rollback()
            raise
        transaction.commit()
        told: list[Notice] = []
        for effect in effects:
            match effect:
                case events.Call() | events.Acknowledge() | events.Redial() | events.HangUp():
                    self.outgoing.append(effect)
                case events.Wake(at_ms=at_ms):
                    self.wakes.add(at_ms - self.clock_error_ms)
                case _:
                    told.append(effect)
        self.notices += told
        return told

    @property
    def now_ms(self) -> int:
        """What this device believes."""
        return self.town.now_ms + self.clock_error_ms

    def connect(self) -> None:
        self.disconnect()
        self.caller = self.town.relay.connect(self.town.now_ms, self.town.entropy)
        self.handle(events.Connected(self.caller.hello))

    def disconnect(self) -> None:
        if self.caller is not None:
            self.town.relay.disconnect(self.caller)
            self.caller = None
            self.outgoing.clear()
            self.handle(events.Disconnected())

    def ask(self, question: Callable[..., T], *arguments: object) -> T:
        """A view of this device's vault."""
        transaction = self.vault.begin()
        try:
            return question(transaction, *arguments)
        finally:
            transaction.rollback()

    def texts(self, petname: str) -> list[str]:
        return [message.text for message in self.ask(views.history, petname)]

    def states(self, petname: str) -> list[str]:
        return [message.state for message in self.ask(views.history, petname)]

    def held(self) -> list[str]:
        return [row.code for _, row in self.ask(lambda tx: rows(tx, "inbox", HeldEnvelope))]

    def told(self, kind: type[N]) -> list[N]:
        return [notice for notice in self.notices if isinstance(notice, kind)]

    def trust_kinds(self) -> list[str]:
        return [notice.kind for notice in self.told(events.TrustNotice)]

    @property
    def me(self) -> views.Me:
        me = self.ask(views.whoami)
        assert me is not None
        return me

    def act(self) -> bool:
        """Carry out one effect, or take what the relay has for us."""
        caller = self.caller
        if caller is None:
            return False
        if self.outgoing:
            self._carry_out(caller, self.outgoing.pop(0))
            return True
        if caller.logged_in:
            deliver = now(self.town.relay.drain(caller, self.town.now_ms))
            if deliver is not None:
                arrived = self.town.tamper(self, deliver.envelopes)
                self.envelopes += arrived
                self.handle(events.Arrived(arrived))
                return True
        return False

    def _carry_out(self, caller: Caller, effect: events.Effect) -> None:
        match effect:
            case events.Call(call=call, request=request):
                reply = self.town.answer(self, caller, request)
                self.handle(events.Answered(call, reply))
            case events.Acknowledge(envelope_ids=ids):
                self.town.answer(self, caller, api.Acknowledge(ids))
            case events.Redial():
                again = caller.logged_in  # it was not refused: its clock jumped
                self.disconnect()
                if again:
                    self.connect()
            case events.HangUp(sentence=sentence):
                assert self.may_hang_up, f"hung up: {sentence}"
                self.hung_up = sentence
                self.disconnect()


class Town:
    """``tamper`` may be replaced: what a hostile relay or network does to deliveries."""

    def __init__(self) -> None:
        self.now_ms = START_MS
        self.entropy = SystemEntropy()
        self.relay_key = Ed25519KeyPair(self.entropy.draw(32))
        self.devices: list[Device] = []
        self.relay = self.new_relay()
        self.tamper: Callable[[Device, tuple[bytes, ...]], tuple[bytes, ...]] = lambda device, arrived: (
            arrived
        )
        self.replace: Callable[[Device, api.Request, api.Reply], api.Reply] = lambda device, request, reply: (
            reply
        )

    def new_relay(self) -> Relay:
        return Relay(MemoryStorage(), RelayConfig(origin=ORIGIN, open=True), self.relay_key, LocalBus())

    def answer(self, device: Device, caller: Caller, request: api.Request) -> api.Reply:
        reply = now(self.relay.handle(caller, request, self.now_ms, self.entropy))
        return self.replace(device, request, reply)

    def settle(self, within_ms: int = 90_000) -> None:
        """Let everything happen that will happen within ``within_ms`` of virtual time."""
        deadline_ms = self.now_ms + within_ms
        for _ in range(20_000):
            acted = [device.act() for device in self.devices]  # each, before time moves
            if any(acted):
                continue
            due = [at for device in self.devices for at in device.wakes if at > self.now_ms]
            ready = [device for device in self.devices if any(at <= self.now_ms for at in device.wakes)]
            if ready:
                for device in ready:
                    device.wakes = {at for at in device.wakes if at > self.now_ms}
                    device.handle(events.Tick())
            elif due and min(due) <= deadline_ms:
                self.now_ms = min(due)
            else:
                return
        raise AssertionError("the town does not come to rest")

    def pass_days(self, days: float) -> None:
        self.now_ms += int(days * 86_400_000)

    def account(self, name: str, vault: Vault | None = None) -> Device:
        """A registered account's first device, online."""
        device = Device(self, vault)
        device.recovery_code = identity.new_recovery_code(self.entropy)
        device.handle(events.CreateAccount("", name, ORIGIN, self.relay_key.public, device.recovery_code))
        device.connect()
        self.settle()
        return device

    def second_device(self, admin: Device) -> Device:
        """Another device of the admin's account, listed and online."""
        account = admin.ask(require_account)
        state = own_state(account)
        number = identity.free_number(state, self.now_ms // 1000)
        device = Device(self)
        device.handle(
            events.JoinAsDevice(account.genesis, number, state.version + 1, ORIGIN, self.relay_key.public)
        )
        admin.handle(events.AddDevice(device.told(events.DeviceMade)[0].device))
        self.settle(1_000)
        device.connect()
        self.settle()
        return device

    def recovering(
        self, lost: Device, *, code: str = "", keep: tuple[int, ...] = (), name: str | None = None
    ) -> Device:
        """A fresh device that asks to recover the account of ``lost``; not yet connected."""
        where = AccountCode(ORIGIN, self.relay_key.public, lost.me.genesis_hash).encode()
        device = Device(self)
        device.may_hang_up = True
        device.recovery_code = identity.new_recovery_code(self.entropy)
        device.handle(
            events.RecoverAccount(
                where, code or lost.recovery_code, device.recovery_code, keep, name, "new laptop"
            )
        )
        return device

    def recover(self, lost: Device, *, keep: tuple[int, ...] = (), name: str | None = None) -> Device:
        device = self.recovering(lost, keep=keep, name=name)
        device.connect()
        self.settle()
        return device

    def befriend(self, one: Device, other: Device) -> None:
        """By invite: both know each other, and each by the other's name."""
        other.handle(events.CreateInvite())
        self.settle()
        name = other.me.name
        assert name is not None
        one.handle(events.AddContact(name, link=other.told(events.InviteMade)[-1].link))
        self.settle()

    def say(self, device: Device, petname: str, text: str) -> None:
        device.handle(events.SendText(petname, text))
        self.settle()
