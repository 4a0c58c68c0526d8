"""One device: a real engine on a vault in memory, and a driver that behaves as the real one must.

One event is one transaction; effects are carried out after its commit, in order. The power may go in
the transaction, before or after the commit, or between two effects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lokket.engine import engine as lokket_engine
from lokket.engine import events, views
from lokket.engine.store import ACCOUNT, SEEN
from lokket.errors import LocalError
from lokket.wire import api

from .entropy import SeededEntropy
from .invariants import Watch
from .network import REPEATED, Connection
from .relay_node import brief
from .vault import PowerCut, Vault

if TYPE_CHECKING:
    from .world import World

BACKOFF_MS, BACKOFF_MAX_MS = 200, 30_000
LOOK_AT_CLOCK_MS = 60_000


class Device:
    """``account``: the person's name in the world; ``number``: 1 is the admin device."""

    def __init__(self, world: World, account: str, number: int, vault: Vault | None = None) -> None:
        self.world = world
        self.account = account
        self.number = number
        self.name = f"{account}{number}"
        self.vault = vault or Vault()
        self.entropy = SeededEntropy(f"{world.seed} {self.name}")
        self.clock_offset_ms = 0
        self.engine: lokket_engine.Engine | None = None
        self.connection: Connection | None = None
        self.online = False
        self.offline_until_ms = 0
        self.watch = Watch(self)
        self.last_notices: list[events.Notice] = []
        self.refusals: list[str] = []
        self.hung_up = ""
        self.connections = 0
        self.logins = 0
        self._life = 0
        self._failures = 0
        self._calls: dict[int, str] = {}
        self._frame_number = 0
        self._wake_ms: int | None = None
        self._arrived: list[bytes] = []

    @property
    def running(self) -> bool:
        return self.engine is not None

    @property
    def now_ms(self) -> int:
        return self.world.clock.now_ms + self.clock_offset_ms

    # --- life ---

    def start(self) -> None:
        if self.engine is not None:
            return
        self._life += 1
        self._failures = 0
        self.engine = self.world.make_engine(self)
        self.world.log(self.name, f"starts, life {self._life}")
        self.watch.started()
        self._wake_ms = None
        self._set_alarm()
        if self.vault.size(ACCOUNT):
            self._connect_after(self.world.random.randrange(1, 50))

    def crash(self) -> None:
        """Everything but the vault is gone."""
        self.world.log(self.name, "crashes")
        self.engine = None
        self._life += 1
        if self.vault.open is not None:
            self.vault.open.rollback()
        self._leave()

    def restore(self, vault: Vault) -> None:
        """The vault's file is replaced by an older copy of it."""
        if self.running:
            self.crash()
        self.vault = vault.copy()
        self.watch.restored()
        self.world.log(self.name, "gets an older vault")
        self.start()

    def jump_clock(self, by_ms: int) -> None:
        self.clock_offset_ms += by_ms
        self.world.log(self.name, f"clock moves by {by_ms / 1000:.0f} s")
        if self.running:
            self.step(events.Tick())

    # --- one event ---

    def step(self, event: events.Event) -> bool:
        """True: it was accepted, that is committed. False: a command was refused, or the power went."""
        assert self.engine is not None
        cut = self.world.device_power_cut(self)
        tx = self.vault.begin(cut_after=cut if cut is not None and cut >= 0 else None)
        try:
            effects = self.engine.handle(tx, event, self.now_ms, self._entropy_for(event))
        except LocalError as error:
            tx.rollback()
            self.world.log(self.name, f"{_name(event)} refused: {error}")
            if not isinstance(event, events.Command):
                raise AssertionError(f"{self.name}: {_name(event)} raised {error!r}") from error
            self.refusals.append(str(error))
            return False
        except PowerCut:
            self._power_cut("inside the transaction")
            return False
        except Exception as error:
            tx.rollback()
            raise AssertionError(f"{self.name}: {_name(event)} raised {error!r}") from error
        if cut is not None and cut >= 0:
            self._power_cut("before the commit")
            return False
        if self.world.trouble.effects_before_commit:
            self._carry_out(effects)
            if cut is not None:
                self._power_cut("before the late commit")
                return False
        self.watch.before_commit(tx.changes)
        tx.commit()
        self.world.log(self.name, f"{_name(event)} -> {' '.join(map(_name, effects))}")
        self.last_notices = [effect for effect in effects if isinstance(effect, events.Notice)]
        self.watch.committed(event, effects)
        if not self.world.trouble.effects_before_commit:
            self._carry_out(effects, None if cut is None else -1 - cut)
        if isinstance(event, events.CreateAccount | events.JoinAsDevice | events.RecoverAccount):
            self._connect_after(1)
        if isinstance(event, events.Answered) and event.call == "here":
            self.logins += 1  # only now the relay holds this login against an older copy of the vault
        return True

    def _entropy_for(self, event: events.Event) -> SeededEntropy:
        """Keys are the same in all worlds: what is signed with them at birth is computed once."""
        match event:
            case events.CreateAccount() | events.JoinAsDevice() | events.Answered(call="recovery-chain"):
                return SeededEntropy(f"roster {self.name}")
        return self.entropy

    def _power_cut(self, where: str) -> None:
        self.world.log(self.name, f"the power goes {where}")
        self.crash()
        self.world.clock.after(self.world.random.randrange(20, 8_000), self.start)

    def _carry_out(self, effects: list[events.Effect], power_for: int | None = None) -> None:
        life = self._life
        for done, effect in enumerate(effects):
            if power_for is not None and done == power_for:
                self._power_cut(f"after {done} effects")
            if life != self._life:
                return
            match effect:
                case events.Call(call=call, request=request):
                    self._send(request, call)
                case events.Acknowledge(envelope_ids=envelope_ids):
                    self._send(api.Acknowledge(envelope_ids), None)
                case events.Wake(at_ms=at_ms):
                    self._wake(at_ms)
                case events.Redial(at_ms=at_ms):
                    self._leave()
                    self._connect_after(max(at_ms - self.now_ms, BACKOFF_MS))
                    if not self.step(events.Disconnected()):
                        return
                case events.HangUp(sentence=sentence):
                    self.hung_up = sentence
                    self.world.log(self.name, f"hangs up: {sentence}")
                    self._leave()
                case _:
                    self.watch.noticed(effect)
                    if isinstance(effect, events.Online):
                        self.online = True
                        self._failures = 0
        if power_for is not None and life == self._life and power_for >= len(effects):
            self._power_cut("after all effects")

    def _wake(self, at_ms: int) -> None:
        """Only the next wake is kept: a ``Tick`` must ask again for whatever is still to come."""
        if self._wake_ms is None or at_ms < self._wake_ms:
            self._wake_ms = at_ms
            self._set_alarm()

    def _set_alarm(self) -> None:
        """At the next wake; else, or however far off that is, a look at the clock now and then."""
        life, wake_ms = self._life, self._wake_ms
        wait_ms = (
            LOOK_AT_CLOCK_MS if wake_ms is None else min(max(wake_ms - self.now_ms, 1), LOOK_AT_CLOCK_MS)
        )

        def ring() -> None:
            if self._life != life or not self.running or self._wake_ms != wake_ms:
                return
            if wake_ms is None or wake_ms <= self.now_ms:
                self._wake_ms = None
                self.step(events.Tick())
            if self.running and self._wake_ms == wake_ms:
                self._set_alarm()

        self.world.clock.after(wait_ms, ring)

    # --- the connection ---

    def _send(self, request: api.Request, call: str | None) -> None:
        self.watch.sending(request)
        if self.connection is None:
            return
        self._frame_number += 1
        assert self._frame_number < REPEATED
        if call is not None:
            assert call not in self._calls.values(), f"{self.name}: {call} is under way already"
            self._calls[self._frame_number] = call
        self.world.log(self.name, f"sends {self._frame_number} {brief(request)}")
        self.connection.up(api.encode(api.ClientFrame(self._frame_number, request)))

    def received(self, connection: Connection, frame: bytes) -> None:
        if connection is not self.connection or not self.running:
            return
        message = api.decode_relay_frame(frame)
        if message.number:
            call = self._calls.pop(message.number, None)
            if call is not None:
                self.step(events.Answered(call, message.message))  # type: ignore[arg-type]
            return
        match message.message:
            case api.Hello() as hello:
                self.step(events.Connected(hello))
            case api.Deliver(envelopes=envelopes):
                self.step(events.Arrived(envelopes))
            case api.PairsLow(left=left):
                self.step(events.PairsLow(left))
            case api.Closing(sentence=sentence):
                self.world.log(self.name, f"is told that the relay closes: {sentence}")

    def lost(self, connection: Connection) -> None:
        """The connection broke."""
        if connection is self.connection and self.running:
            self._leave()
            self.step(events.Disconnected())
            if self.running:
                self._reconnect()

    def go_offline(self, for_ms: int) -> None:
        """A partition."""
        self.offline_until_ms = self.world.clock.now_ms + for_ms
        self.world.log(self.name, f"is cut off for {for_ms} ms")
        if self.connection is not None:
            self.connection.break_off("partition")

    def _reconnect(self) -> None:
        wait_ms = min(BACKOFF_MAX_MS, BACKOFF_MS << min(self._failures, 10))
        self._failures += 1
        self._connect_after(wait_ms // 2 + self.world.random.randrange(wait_ms))

    def _connect_after(self, wait_ms: int) -> None:
        life = self._life
        self.world.clock.after(wait_ms, lambda: self._connect() if life == self._life else None)

    def _connect(self) -> None:
        if not self.running or self.connection is not None or self.hung_up:
            return
        if self.world.clock.now_ms < self.offline_until_ms or not self.world.relay.up:
            self._reconnect()
            return
        self.connections += 1
        self._calls.clear()
        self._frame_number = 0
        self.connection = Connection(self.world, self, self.connections)
        self.world.relay.accept(self.connection)
        self._give_up_on(self.connection)

    def _give_up_on(self, connection: Connection) -> None:
        """A driver's own patience: not logged in for long means a dead connection."""

        def look() -> None:
            if connection is self.connection and not self.online:
                connection.break_off("no login within 20 s")

        self.world.clock.after(20_000, look)

    def _leave(self) -> None:
        self.online = False
        self._calls.clear()
        if self.connection is not None:
            self.connection.close_by_device()
            self.connection = None

    # --- looking at it ---

    @property
    def idle(self) -> bool:
        """Nothing is under way, nothing waits."""
        return self.running and self.online and not self._calls and not self.unfinished()

    def unfinished(self) -> list[str]:
        return self.watch.unfinished()

    def seen(self, envelope_id: bytes) -> bool:
        return envelope_id in self.vault.rows[SEEN]

    def read(self) -> Vault:
        return self.vault

    def look(self, question: object, *arguments: object) -> object:
        """One of ``lokket.engine.views``, in a transaction that must change nothing."""
        tx = self.vault.begin()
        try:
            return question(tx, *arguments)  # type: ignore[operator]
        finally:
            assert not tx.changed, f"{question} changed the vault"
            tx.rollback()

    def contacts(self) -> tuple[views.ContactView, ...]:
        return self.look(views.contacts)  # type: ignore[return-value]


def _name(event: object) -> str:
    match event:
        case events.Answered(call=call, reply=reply):
            return f"Answered({_short(call)}: {brief(reply)})"
        case events.Arrived(envelopes=envelopes):
            return f"Arrived({len(envelopes)})"
        case events.Call(call=call):
            return f"Call({_short(call)})"
        case events.Acknowledge(envelope_ids=envelope_ids):
            return f"Acknowledge({len(envelope_ids)})"
        case events.MessageShown(order=order, text=text):
            return f"Shown({order}: {text})"
        case events.MessageState(mid=mid, state=state):
            return f"State({mid.hex()[:6]} {state})"
        case events.SendText(petname=petname, text=text):
            return f"SendText({petname}: {text})"
        case events.AddContact(petname=petname) | events.AcceptContact(petname=petname):
            return f"{type(event).__name__}({petname})"
        case events.TrustNotice(kind=kind) | events.TrustNotice(kind=kind):
            return f"Trust({kind})"
        case events.ErrandFailed(errand=errand, sentence=sentence):
            return f"Failed({errand}: {sentence})"
    return type(event).__name__


def _short(call: str) -> str:
    name, _, detail = call.partition(":")
    return f"{name}:{detail[:6]}" if detail else name
