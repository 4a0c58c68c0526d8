"""The real relay as a process of the world: a shell as ``relay.web`` is one, a disk, and its crashes.

``Relay.handle`` waits only at storage. Here each storage verb waits before and after its work, so that
other connections come between, and so that the power can go with the verb done or not done.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from lokket.crypto.keys import Ed25519KeyPair
from lokket.relay.budgets import RATES, Rate
from lokket.relay.bus import LocalBus
from lokket.relay.config import RelayConfig
from lokket.relay.relay import Relay
from lokket.relay.storage.base import Mail, Quota, Taken, Waiting
from lokket.relay.storage.memory import MemoryStorage
from lokket.wire import api

from .entropy import SeededEntropy

if TYPE_CHECKING:
    from .network import Connection
    from .world import World

ORIGIN = "relay.example"
KEY = Ed25519KeyPair(bytes(range(32)))
_PATIENT_RATES = {kind: Rate(100_000, 100_000_000) for kind in RATES}


class _Pause:
    def __await__(self) -> Generator[None, None, None]:
        yield


class SlowStorage:
    """``Storage`` whose verbs wait before and after."""

    def __init__(self, inner: MemoryStorage) -> None:
        self._inner = inner

    def when_mended(self, act: Callable[[], None]) -> None:
        self._inner.when_mended(act)

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        verb = getattr(self._inner, name)

        async def slow(*arguments: Any) -> Any:
            await _Pause()
            answer = await verb(*arguments)
            await _Pause()
            return answer

        return slow


class HostileStorage(SlowStorage):
    """Of a relay that spoils mail, delivers it again under other ids and hands out pairs twice."""

    def __init__(self, inner: MemoryStorage, node: RelayNode) -> None:
        super().__init__(inner)
        self._node = node

    async def append(self, mail: tuple[Mail, ...], quota: Quota) -> tuple[str, ...]:
        codes = await self._inner.append(mail, quota)
        for one in mail:
            if self._turns_bad():
                self._node.spoilt[one.envelope_id] = self._node.world.random.randrange(1 << 16)
                self._node.world.log("relay", f"will spoil {one.envelope_id.hex()[:6]}")
        again = tuple(self._copied(one) for one in mail if self._turns_bad())
        if again:
            self._node.world.log("relay", f"plays {len(again)} envelopes again")
            await self._inner.append(again, quota)
        return codes

    async def take_pair(self, genesis_hash: bytes, device_hash: bytes, pick: int | None) -> Taken | None:
        device = self._inner._devices.get(device_hash)
        slots = b"" if device is None else device.slots
        taken = await self._inner.take_pair(genesis_hash, device_hash, pick)
        if device is not None and self._turns_bad():
            self._node.world.log("relay", "keeps a pair that it hands out")
            device.slots = slots
        return taken

    def _turns_bad(self) -> bool:
        world = self._node.world
        return world.stormy and world.random.random() < world.profile.hostility

    async def waiting(
        self, device_hash: bytes, after: int, limit: int, max_bytes: int
    ) -> tuple[Waiting, ...]:
        found = await self._inner.waiting(device_hash, after, limit, max_bytes)
        return tuple(map(self._spoil, found))

    def _spoil(self, waiting: Waiting) -> Waiting:
        place = self._node.spoilt.get(waiting.envelope_id)
        if place is None:
            return waiting
        envelope = api.decode_envelope(waiting.envelope)
        at = place % len(envelope.body)
        body = envelope.body[:at] + bytes((envelope.body[at] ^ 1,)) + envelope.body[at + 1 :]
        return replace(waiting, envelope=api.encode(msgspec.structs.replace(envelope, body=body)))

    def _copied(self, mail: Mail) -> Mail:
        envelope_id = self._node.world.random.randbytes(16)
        envelope = msgspec.structs.replace(api.decode_envelope(mail.envelope), envelope_id=envelope_id)
        return replace(mail, envelope_id=envelope_id, envelope=api.encode(envelope))


class Line:
    """The relay's end of one connection."""

    def __init__(self, node: RelayNode, connection: Connection) -> None:
        self._node = node
        self._connection = connection
        self._frames: deque[bytes] = deque()
        self._busy = False
        self._draining = False
        self._woken = False
        self.open = True
        self.caller = node.relay.connect(node.now_ms, node.entropy)
        self.caller.wake = self._wake
        self._push(self.caller.hello)

    def received(self, frame: bytes) -> None:
        if self.open:
            self._frames.append(frame)
            self._next()

    def hang_up(self) -> None:
        if self.open:
            self.open = False
            self._node.lines.pop(self, None)
            self._node.relay.disconnect(self.caller)

    @property
    def idle(self) -> bool:
        return not (self._frames or self._busy or self._draining or self._woken)

    def _next(self) -> None:
        if self._busy or not self._frames or not self.open:
            return
        self._busy = True
        frame = api.decode_client_frame(self._frames.popleft())

        def answered(reply: api.Reply) -> None:
            self._busy = False
            if not self.open:
                return
            self._node.world.log(
                "relay",
                f"{self._connection.name} {frame.number} {type(frame.request).__name__} -> {brief(reply)}",
            )
            self._connection.down(api.encode(api.RelayFrame(frame.number, reply)))
            self._next()

        node = self._node
        node.run(node.relay.handle(self.caller, frame.request, node.now_ms, node.entropy), answered)

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            self._node.later(self._drain)

    def _drain(self) -> None:
        self._woken = False
        if not self.open or self._draining:
            return
        for notice in self._node.relay.notices(self.caller):
            self._push(notice)
            if isinstance(notice, api.Closing):
                self._connection.close_by_relay()
                self.hang_up()
                return
        self._draining = True

        def drained(deliver: api.Deliver | None) -> None:
            self._draining = False
            if deliver is not None and self.open:
                self._push(deliver)
                self._wake()

        self._node.run(self._node.relay.drain(self.caller, self._node.now_ms), drained)

    def _push(self, push: api.Push) -> None:
        self._node.world.log("relay", f"{self._connection.name} <- {brief(push)}")
        self._connection.down(api.encode(api.RelayFrame(0, push)))


class RelayNode:
    """``storage`` is the disk: it outlives the process."""

    def __init__(self, world: World, storage: MemoryStorage, *, is_open: bool = True) -> None:
        self.world = world
        self.storage = storage
        self.entropy = SeededEntropy(f"{world.seed} relay")
        self.lines: dict[Line, None] = {}  # in the order of coming: a set has another in every process
        self.up = False
        self.life = 0
        self.clock_offset_ms = 0
        self.refusals: dict[str, int] = {}
        self.spoilt: dict[bytes, int] = {}  # envelope id -> where it is changed, on a hostile relay
        self._config = RelayConfig(origin=ORIGIN, open=is_open, rates=_PATIENT_RATES)
        self.start()

    @property
    def now_ms(self) -> int:
        return self.world.clock.now_ms + self.clock_offset_ms

    def start(self) -> None:
        if self.up:
            return  # restored meanwhile
        hostile = self.world.profile.hostility
        slow = HostileStorage(self.storage, self) if hostile else SlowStorage(self.storage)
        self.relay = Relay(slow, self._config, KEY, LocalBus())  # type: ignore[arg-type]
        self.up = True
        self.life += 1
        self._running: dict[Coroutine[Any, Any, Any], None] = {}
        self.world.log("relay", f"starts, life {self.life}")

    def accept(self, connection: Connection) -> None:
        if self.up:
            connection.line = Line(self, connection)
            self.lines[connection.line] = None

    def crash(self) -> None:
        """What the storage has done is kept; everything else is gone."""
        self.world.log("relay", "crashes")
        self._keep_counters()
        self.up = False
        self.life += 1
        for work in self._running:
            work.close()
        for line in list(self.lines):
            line.open = False
            line._connection.break_off("the relay crashed")
        self.lines.clear()

    def restore(self, storage: MemoryStorage) -> None:
        """Start from a copy of the disk that was made earlier."""
        if self.up:
            self.crash()
        self.storage = copy.deepcopy(storage)
        self.world.log("relay", "gets an older disk")
        self.start()

    @property
    def idle(self) -> bool:
        return self.up and not self._running and all(line.idle for line in self.lines)

    def mail(self) -> int:
        """Envelopes waiting, over all mailboxes."""
        return sum(len(device.mail) for device in self.storage._devices.values())

    def keep_up(self, every_ms: int) -> None:
        """The upkeep, whenever it is running and its time has come."""

        def upkeep() -> None:
            if self.up:
                self.run(self.relay.upkeep(self.now_ms), lambda _: None)
            self.world.clock.after(every_ms, upkeep)

        self.world.clock.after(every_ms, upkeep)

    def jump_clock(self, by_ms: int) -> None:
        self.clock_offset_ms += by_ms
        self.world.log("relay", f"clock moves by {by_ms / 1000:.0f} s")

    def faults(self) -> int:
        return self.relay.counters["fault"]

    def _keep_counters(self) -> None:
        for name, count in self.relay.counters.items():
            if name.startswith("refused") or name == "fault":
                self.refusals[name] = self.refusals.get(name, 0) + count
        self.relay.counters.clear()

    def all_refusals(self) -> dict[str, int]:
        self._keep_counters()
        return self.refusals

    # --- driving coroutines without an event loop ---

    def later(self, act: Callable[[], None]) -> None:
        life = self.life
        delay_ms = self.world.random.randrange(0, 3) if self.world.stormy else 0
        self.world.clock.after(delay_ms, lambda: act() if self.life == life and self.up else None)

    def run(self, work: Coroutine[Any, Any, Any], done: Callable[[Any], None]) -> None:
        """Step by step, to the storage's next pause; at each the power may go."""
        self._running[work] = None
        self._advance(work, done)

    def _advance(self, work: Coroutine[Any, Any, Any], done: Callable[[Any], None]) -> None:
        try:
            while True:
                work.send(None)
                if self.world.relay_power_cut():
                    self.crash()
                    self.world.clock.after(self.world.random.randrange(50, 6_000), self.start)
                    return
                if self.world.stormy and self.world.random.random() < 0.3:
                    self.later(lambda: self._advance(work, done))
                    return
        except StopIteration as finished:
            self._running.pop(work, None)
            done(finished.value)


def brief(message: object) -> str:
    """One line for the trace: kind, ids and sizes."""
    match message:
        case api.Sent(results=results):
            return "Sent " + " ".join(
                f"{one.envelope_id.hex()[:6]}{one.code and ':' + one.code}" for one in results
            )
        case api.Deliver(envelopes=envelopes):
            shown = (api.decode_envelope(envelope) for envelope in envelopes)
            return "Deliver " + " ".join(f"{one.envelope_id.hex()[:6]}/{len(one.body)}" for one in shown)
        case api.Send(envelopes=sent):
            return "Send " + " ".join(
                f"{one.envelope_id.hex()[:6]}/{one.kind}/{len(one.body)}" for one in sent
            )
        case api.Acknowledge(envelope_ids=envelope_ids):
            return "Acknowledge " + " ".join(envelope_id.hex()[:6] for envelope_id in envelope_ids)
        case api.Refused(code=code):
            return f"Refused {code}"
        case api.LoggedIn(mailbox=mailbox, version=version, pairs_left=left):
            return f"LoggedIn mailbox={mailbox} version={version} pairs={left}"
        case api.Bundle(bundle=data) | api.Account(chain=data):
            return f"{type(message).__name__} {len(data)} B"
    return type(message).__name__
