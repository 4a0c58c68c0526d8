"""One step's surroundings: the transaction, the time, the entropy, and the effects so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from lokket import limits
from lokket.crypto.entropy import Entropy
from lokket.engine.events import Call, Effect, Wake
from lokket.engine.records import Account, load, save
from lokket.engine.store import ACCOUNT, Transaction
from lokket.errors import LocalError
from lokket.protocol import identity, pairwise
from lokket.wire import api

_SELF = b"self"
_ORDER = b"order"
UPKEEP = b"upkeep"  # when it last ran, by a clock that agreed with the relay's
_BUSY_MS = 1_000
RETRY_MAX_MS = 3_600_000  # however long a relay asks us to wait


@dataclass(slots=True)
class Link:
    """What is true of this connection only: lost with it, and never stored."""

    hello: api.Hello | None = None
    online: bool = False
    heard: bool = False  # the relay knows that its answer to our login came: only then ciphertext leaves
    clock_agrees: bool = False  # with the relay's: only then may age decide anything
    last_ms: int = 0  # our clock at the last step
    calls: dict[str, api.Request] = field(default_factory=dict)  # asked, not yet answered
    later: dict[str, tuple[int, api.Request]] = field(default_factory=dict)  # to be asked again, when
    sending: dict[str, tuple[bytes, ...]] = field(default_factory=dict)  # call -> envelope ids on their way

    def in_flight(self) -> set[bytes]:
        return {envelope_id for ids in self.sending.values() for envelope_id in ids}


@dataclass(slots=True)
class Step:
    tx: Transaction
    now_ms: int
    entropy: Entropy
    link: Link
    prekey_pairs: int = limits.PREKEY_PAIRS_PER_MANIFEST
    effects: list[Effect] = field(default_factory=list)

    @property
    def now_s(self) -> int:
        return self.now_ms // 1000

    @property
    def today(self) -> int:
        return self.now_s // limits.DAY_S

    @property
    def stamp_ms(self) -> int:
        """Now, for what is kept by its age: never before a time that is known to be past.

        What a clock that ran years behind had stamped would expire at the moment that it is put right.
        """
        upkeep = self.tx.get(ACCOUNT, UPKEEP)
        return self.now_ms if upkeep is None else max(self.now_ms, int.from_bytes(upkeep, "big"))

    @property
    def stamp_day(self) -> bytes:
        return (self.stamp_ms // (limits.DAY_S * 1000)).to_bytes(4, "big")

    def emit(self, effect: Effect) -> None:
        self.effects.append(effect)

    def wake(self, at_ms: int) -> None:
        self.effects.append(Wake(at_ms))

    def call(self, name: str, request: api.Request) -> bool:
        """Ask the relay, once at a time per name. False: offline; whoever needs it asks again when online."""
        if self.link.online and name not in self.link.calls and name not in self.link.later:
            self.ask(name, request)
        return self.link.online

    def ask(self, name: str, request: api.Request) -> None:
        self.link.calls[name] = request
        self.effects.append(Call(name, request))

    def due(self, at_ms: int, wait_max_ms: int) -> bool:
        """Whether the time has come, else a wake is asked for.

        A time further off than was ever set means that the clock ran ahead and was set back: it has come.
        """
        if self.now_ms < at_ms <= self.now_ms + wait_max_ms:
            self.wake(at_ms)
            return False
        return True

    def ask_later(self, name: str, request: api.Request, after_ms: int) -> None:
        """The relay is busy: the same request again, a little after it allows."""
        at_ms = self.now_ms + min(max(after_ms, _BUSY_MS), RETRY_MAX_MS) + self.jitter(_BUSY_MS)
        self.link.later[name] = (at_ms, request)
        self.wake(at_ms)

    def ask_due(self) -> None:
        for name, (at_ms, request) in list(self.link.later.items()):
            if self.due(at_ms, RETRY_MAX_MS + _BUSY_MS):
                del self.link.later[name]
                self.call(name, request)

    def jitter(self, spread_ms: int) -> int:
        return int.from_bytes(self.entropy.draw(4), "big") % spread_ms

    def last_order(self) -> int:
        stored = self.tx.get(ACCOUNT, _ORDER)
        return 0 if stored is None else int.from_bytes(stored, "big")

    def next_order(self) -> int:
        """A number above all given before: the order in which things entered the vault."""
        order = 1 + self.last_order()
        self.tx.put(ACCOUNT, _ORDER, order.to_bytes(8, "big"))
        return order


def account_of(tx: Transaction) -> Account | None:
    return load(tx, ACCOUNT, _SELF, Account)


def require_account(tx: Transaction) -> Account:
    """LocalError: this vault has no account yet."""
    account = account_of(tx)
    if account is None:
        raise LocalError("there is no account in this vault: run 'lokket join LINK' first")
    return account


def save_account(tx: Transaction, account: Account) -> None:
    save(tx, ACCOUNT, _SELF, account)


def own_keys(account: Account) -> identity.DeviceKeys:
    return _device_keys(account.device_keys)


@lru_cache(maxsize=16)
def _device_keys(encoded: bytes) -> identity.DeviceKeys:
    return identity.DeviceKeys.decode(encoded)


@lru_cache(maxsize=256)
def state_of(encoded: bytes) -> identity.AccountState:
    """A stored chain, decoded once: it is immutable, and every step asks for several."""
    return identity.AccountState.decode(encoded)


def own_state(account: Account) -> identity.AccountState:
    """LocalError: the device is not on its account's list yet."""
    if not account.state:
        raise LocalError("this device is not on its account's list yet: confirm it on the admin device")
    return state_of(account.state)


def local_device(account: Account) -> pairwise.LocalDevice:
    service_id = identity.account_id(account.genesis_hash)
    return pairwise.LocalDevice(
        identity=own_keys(account).identity,
        registration_id=account.registration_id,
        address=pairwise.Address(service_id, account.number),
    )
