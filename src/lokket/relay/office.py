"""What the relay's rooms share: the caller on one connection, the moment of a request, a refusal."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from lokket import limits
from lokket.crypto.entropy import Entropy
from lokket.crypto.keys import Ed25519KeyPair
from lokket.relay.admission import Read, nothing_to_read, shortage
from lokket.relay.budgets import Budgets
from lokket.relay.bus import Bus
from lokket.relay.config import RelayConfig
from lokket.relay.meetings import Meetings
from lokket.relay.storage.base import Storage
from lokket.wire import api


class Refusal(Exception):
    """Becomes ``api.Refused``. The sentence is fixed text: nothing of the request, nothing of others."""

    def __init__(self, code: str, sentence: str, retry_after_ms: int = 0) -> None:
        super().__init__(code)
        self.reply = api.Refused(code, sentence, retry_after_ms)


@dataclass(frozen=True, slots=True)
class Moment:
    """When a request is handled, and the randomness it may use."""

    now_ms: int
    entropy: Entropy

    @property
    def now_s(self) -> int:
        return self.now_ms // 1000


def _nobody_listens() -> None:
    pass


@dataclass(slots=True, eq=False)
class Caller:
    """One connection. ``wake`` is the shell's: called when ``drain`` or ``notices`` has something new."""

    hello: api.Hello
    opened_ms: int
    wake: Callable[[], None] = _nobody_listens
    genesis_hash: bytes = b""  # empty until the login
    device_hash: bytes = b""
    client_nonce: bytes = b""  # of its login, until we know that it has our answer
    attempts: int = 0  # to log in or register
    closing: api.Closing | None = None  # set: nothing more is answered
    pairs_low: int | None = None  # waits to be pushed
    drained_to: int = 0
    unacknowledged: dict[bytes, int] = field(default_factory=dict)  # pushed envelope id -> bytes

    @property
    def logged_in(self) -> bool:
        return bool(self.device_hash) and self.closing is None

    def close(self, code: str, sentence: str) -> None:
        if self.closing is None:
            self.closing = api.Closing(code, sentence)
            self.wake()


class RecentEnvelopes:
    """Ids that were delivered and deleted here lately, so that a late retry is not delivered again.

    In memory only: nothing on disk tells of deleted mail. What falls out, or a restart, costs one more
    delivery, which the client knows by its envelope id and acknowledges unread. After an hour it is no
    late retry any more: its sender has no receipt, and asks for one by sending it again.
    """

    def __init__(self, entries_max: int = limits.RECENT_ENVELOPES_MAX) -> None:
        self._entries_max = entries_max
        self._seen: OrderedDict[tuple[bytes, bytes], int] = OrderedDict()

    def add(self, device_hash: bytes, envelope_id: bytes, now_ms: int) -> None:
        self._seen[device_hash, envelope_id] = now_ms
        if len(self._seen) > self._entries_max:
            self._seen.popitem(last=False)

    def knows(self, device_hash: bytes, envelope_id: bytes, now_ms: int) -> bool:
        since_ms = self._seen.get((device_hash, envelope_id))
        return since_ms is not None and abs(now_ms - since_ms) < limits.RECENT_ENVELOPE_S * 1000


@dataclass(slots=True)
class Office:
    storage: Storage
    config: RelayConfig
    key: Ed25519KeyPair
    bus: Bus
    budgets: Budgets
    sessions: dict[bytes, Caller] = field(default_factory=dict)  # device hash -> its one connection
    recent: RecentEnvelopes = field(default_factory=RecentEnvelopes)
    meetings: Meetings = field(default_factory=Meetings)
    read_machine: Read = nothing_to_read

    def shortage(self) -> str:
        """Why there are no new accounts now; empty: they are welcome."""
        return shortage(self.config.admission, self.read_machine())

    def dismiss(self, device_hash: bytes, sentence: str) -> None:
        """End this device's connection, if it has one: the relay does not know it any more."""
        caller = self.sessions.get(device_hash)
        if caller is not None:
            self.unseat(caller)
            caller.close(api.UNKNOWN, sentence)

    def spend(self, kind: str, subject: bytes, moment: Moment, cost: int = 1) -> None:
        """Refusal RATE_LIMITED when the budget of ``subject`` is spent."""
        wait_ms = self.budgets.take(kind, subject, moment.now_ms, cost)
        if wait_ms:
            raise Refusal(api.RATE_LIMITED, "too many of these in a short time; wait and try again", wait_ms)

    def seat(self, caller: Caller, genesis_hash: bytes, device_hash: bytes) -> None:
        """The caller is this device now; an older connection of the device is closed: the newer wins."""
        if caller.closing is not None:
            raise Refusal(api.UNAVAILABLE, "the connection is closing")
        older = self.sessions.get(device_hash)
        if older is not None and older is not caller:
            self.unseat(older)
            older.close(api.CONFLICT, "this device has connected anew; this is the older connection")
        caller.genesis_hash, caller.device_hash = genesis_hash, device_hash
        self.sessions[device_hash] = caller
        self.bus.subscribe(device_hash, caller.wake)
        caller.wake()  # mail may wait

    def unseat(self, caller: Caller) -> None:
        if self.sessions.get(caller.device_hash) is caller:
            del self.sessions[caller.device_hash]
            self.bus.unsubscribe(caller.device_hash, caller.wake)
