"""One world: accounts of two devices each, the relay between them, what people do, and what goes wrong.

A world has four parts: it begins (from nothing, or from a registered or acquainted population that all
worlds of the process share), a storm with people writing to each other, healing, and the count.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from random import Random

from lokket.engine import events, views
from lokket.engine.engine import Engine
from lokket.engine.step import account_of
from lokket.relay.storage.memory import MemoryStorage

from . import changes, invariants
from .clock import START_MS, Clock
from .device import Device
from .network import FAIR, Weather
from .profiles import CALM, Profile
from .relay_node import KEY, ORIGIN, RelayNode

NAMES = ("ann", "bob", "cat", "dan")


@dataclass(frozen=True)
class Trouble:
    """A break of the rules, made on purpose, to see that the invariants bite."""

    engine: Callable[[Engine, Device], Engine] | None = None
    effects_before_commit: bool = False


NONE = Trouble()


class World:
    def __init__(self, seed: int | str, profile: Profile, trouble: Trouble = NONE) -> None:
        self.seed = seed
        self.profile = profile
        self.trouble = trouble
        self.random = Random(f"{seed} {profile.name}")
        self.clock = Clock()
        self.lines: list[str] = []
        self.watching = False  # print the trace as it grows
        self.weather = FAIR
        self.stormy = False
        self.frames_in_flight = 0
        self.wakes_planned: dict[str, set[tuple[int, int]]] = {}
        self.accepted: dict[tuple[str, str], str] = {}  # (account, text) -> the peer's account
        self.restores = 0
        self.said = 0
        self.crashes = 0
        self.invited: dict[str, list[Device]] = {}  # inviting device -> who waits for its link
        self.accounts = NAMES[: profile.accounts]
        self.relay = RelayNode(self, MemoryStorage())
        self.devices = {
            f"{account}{number}": Device(self, account, number)
            for account in self.accounts
            for number in (1, 2)
        }
        self.genesis: dict[str, bytes] = {}  # account -> genesis hash
        self.lost: dict[str, Device] = {}  # devices that are gone for good
        self.recovered: list[str] = []  # accounts
        self.handed_over: list[str] = []  # accounts
        self.changing: set[str] = set()  # accounts that a person is not done with
        self.copied: set[str] = set()  # devices whose vault goes back in time once
        self.forgotten: dict[str, set[str]] = {}  # device -> texts that went with its newer vault

    # --- what parts of the world ask ---

    def log(self, who: str, text: str) -> None:
        line = f"{(self.clock.now_ms - START_MS) / 1000:11.3f} {who:6} {text}"
        self.lines.append(line)
        if self.watching:
            print(line)

    def make_engine(self, device: Device) -> Engine:
        engine = Engine(prekey_pairs=self.profile.prekey_pairs)
        return engine if self.trouble.engine is None else self.trouble.engine(engine, device)

    def device_power_cut(self, device: Device) -> int | None:
        """None: no. n >= 0: at that operation of the transaction. -1 - n: after n effects."""
        if not self.stormy or self.random.random() >= self.profile.device_crash:
            return None
        self.crashes += 1
        kind = self.random.random()
        if kind < 0.4:
            return self.random.randrange(60)
        return 1_000_000 if kind < 0.5 else -1 - self.random.randrange(3)

    def relay_power_cut(self) -> bool:
        cut = self.stormy and self.random.random() < self.profile.relay_crash
        self.crashes += cut
        return cut

    def was_shown(self, device: Device, shown: events.MessageShown) -> None:
        """A person reads, sooner or later."""
        life = device._life

        def read() -> None:
            if device._life == life and device.running:
                device.step(events.HandledNotices(shown.order))

        if self.random.random() < 0.3:
            self.clock.after(self.random.randrange(10, 5_000), read)

    def devices_of(self, *accounts: str) -> list[Device]:
        return [device for device in self.devices.values() if device.account in accounts]

    def lose(self, device: Device) -> None:
        """It stops, and nothing is expected of it any more."""
        if device.running:
            device.crash()
        self.log(device.name, "is gone for good")
        self.lost[device.name] = self.devices.pop(device.name)

    def pairs(self) -> list[tuple[str, str]]:
        return list(combinations(self.accounts, 2))

    def contact(self, device: Device, peer: str) -> views.ContactView | None:
        for contact in device.contacts():
            if contact.genesis_hash == self.genesis.get(peer):
                return contact
        return None

    def petname(self, device: Device, peer: str) -> str | None:
        contact = self.contact(device, peer)
        return None if contact is None else contact.petname

    # --- the parts of a world ---

    def run(self) -> World:
        if self.profile.begin == "registered":
            self.adopt(registered(self.profile.accounts, self.profile.prekey_pairs))
        elif self.profile.begin == "acquainted":
            self.adopt(acquainted(self.profile.accounts, self.profile.prekey_pairs))
        self.storm()
        self.heal()
        self.probe()
        invariants.check_end(self)
        self.check_calm()
        return self

    def adopt(self, base: World) -> None:
        """Begin where another world ended."""
        self.clock.now_ms = base.clock.now_ms
        self.relay.crash()
        self.relay.storage = copy.deepcopy(base.relay.storage)
        self.relay.start()
        self.genesis = dict(base.genesis)
        self.accepted, self.said = dict(base.accepted), base.said
        for name, device in self.devices.items():
            device.vault = base.devices[name].vault.copy()
            device.watch.adopt(base.devices[name].watch)

    def storm(self) -> None:
        profile = self.profile
        self.stormy = profile.stormy
        self.weather = profile.weather
        for device in self.devices.values():
            self.clock.after(self.random.randrange(0, 1_000), device.start)
        if profile.upkeep_ms:
            self.relay.keep_up(profile.upkeep_ms)
        if profile.begin == "nothing":
            for account in self.accounts:
                self._settle_in(account)
        begin_ms = self.clock.now_ms
        plan = self._plan()
        for when_ms, act in sorted(plan, key=lambda entry: entry[0]):
            self.clock.at(begin_ms + when_ms, act)
        self.clock.run_until(begin_ms + profile.duration_ms)

    def _plan(self) -> list[tuple[int, Callable[[], None]]]:
        profile, random = self.profile, self.random
        plan: list[tuple[int, Callable[[], None]]] = []

        def some(count: int, act: Callable[[], None]) -> None:
            plan.extend((random.randrange(profile.duration_ms), act) for _ in range(count))

        some(random.randint(*profile.texts), self.say_something)
        some(profile.partitions, lambda: self._anyone().go_offline(random.randrange(*profile.partition_ms)))
        some(profile.clock_jumps, self._jump_clock)
        some(profile.invites, self._invite)
        some(profile.revocations, lambda: changes.revoke(self))
        some(profile.recoveries, lambda: changes.recover(self))
        some(profile.handovers, lambda: changes.hand_over(self))
        some(profile.restored_vaults, lambda: changes.restore_vault(self))
        some(profile.restored_relays, lambda: changes.restore_relay(self))
        return plan

    def _anyone(self) -> Device:
        return self.random.choice(list(self.devices.values()))

    def _jump_clock(self) -> None:
        """Of somebody, the relay included."""
        reach_ms = self.profile.clock_reach_s * 1000
        one = self.random.choice([self.relay, *self.devices.values()])
        one.jump_clock(self.random.randrange(-reach_ms, reach_ms))

    def passed_over(self, text: str) -> bool:
        """Written by a device that is gone, or gone with some device's newer vault."""
        return text.split(" ", 1)[0] in self.lost or any(text in texts for texts in self.forgotten.values())

    def heal(self) -> None:
        """Good weather from here on; everybody runs; clocks are right. Until nothing waits."""
        self.log("world", "heals")
        self.stormy, self.weather = False, FAIR
        for device in self.devices.values():
            device.offline_until_ms = 0
            if device.clock_offset_ms:
                device.jump_clock(-device.clock_offset_ms)
        if self.relay.clock_offset_ms:
            self.relay.jump_clock(-self.relay.clock_offset_ms)
        self.settle()
        if self.recovered:
            changes.share_history(self)
            self.settle()

    def settle(self) -> None:
        """Run until nothing waits. AssertionError: something waits for ever."""
        begin_ms = self.clock.now_ms
        end_ms = begin_ms + self.profile.patience_ms
        while True:
            for device in self.devices.values():
                self._accept_strangers(device)
            if self.idle():
                return
            assert self.clock.now_ms < end_ms, f"still waiting: {self.unfinished()}"
            hasty = self.clock.now_ms < begin_ms + 60_000
            self.clock.run_until(self.clock.now_ms + (500 if hasty else 20_000))

    def idle(self) -> bool:
        return (
            not self.changing
            and self.relay.idle
            and not self.frames_in_flight
            and not self.relay.mail()
            and all(device.idle for device in self.devices.values())
            and all(self._settled(account) for account in self.accounts)
        )

    def unfinished(self) -> str:
        found = [f"{self.relay.mail()} envelopes in mailboxes"] if self.relay.mail() else []
        found += [f"{account} is not done changing" for account in sorted(self.changing)]
        for device in self.devices.values():
            what = list(device._calls.values()) + (device.unfinished() if device.running else ["not running"])
            if not device.online:
                what.append(f"not online {device.hung_up}")
            if what:
                found.append(f"{device.name}: {', '.join(what)}")
        return "; ".join(found) or "people are not settled"

    def probe(self) -> None:
        """After the storm everybody can still write to everybody they know."""
        for device in self.devices.values():
            contacts = [one for one in device.contacts() if one.level != "request" and not one.blocked]
            if contacts:
                self._say(device, self.random.choice(contacts))
        self.settle()

    def check_calm(self) -> None:
        """What may happen only under faults."""
        faults = self.profile.stormy or self.restores
        for device in self.devices.values():
            alarms = {kind: count for kind, count in device.watch.trust.items() if kind in ALARMS}
            if not self.restores and not self.profile.hostility and not self.lost:
                assert not alarms, f"{device.name} saw {alarms}"
                assert not device.watch.quarantined(), f"{device.name}: {device.watch.quarantined()}"
            if not faults and not self.relay.all_refusals():
                assert not device.watch.overtaken, f"{device.name} was shown texts in another order"
            assert not device.hung_up, f"{device.name} hung up: {device.hung_up}"

    # --- people ---

    def say_something(self) -> None:
        device = self._anyone()
        peer = self.random.choice([name for name in self.accounts if name != device.account])
        if not device.running or peer not in self.genesis or not _has_account(device):
            return
        contact = self.contact(device, peer)
        if contact is None:
            if device.look(views.whoami).registered:  # type: ignore[attr-defined]
                device.step(events.AddContact(petname=peer, name=peer))
        elif contact.level == "request":
            device.step(events.AcceptContact(contact.petname))
        else:
            for _ in range(self.random.choice((1, 1, 1, 2, 4))):
                if device.running:
                    self._say(device, contact)

    def _say(self, device: Device, contact: views.ContactView) -> None:
        self.said += 1
        text = f"{device.name} says {self.said}" + "." * self.random.choice((0, 0, 0, 300, 2_000))
        peer = next(name for name, genesis in self.genesis.items() if genesis == contact.genesis_hash)
        if device.step(events.SendText(contact.petname, text)):
            self.accepted[device.account, text] = peer

    def _accept_strangers(self, device: Device) -> None:
        if device.running and _has_account(device):
            for contact in device.contacts():
                rotated = "account key" in contact.blocked
                if (contact.level == "request" or rotated) and device.running:
                    device.step(events.AcceptContact(contact.petname))

    def _invite(self) -> None:
        """One makes an invite, the other adds the contact by its link."""
        inviter, invitee = self.random.sample(list(self.devices.values()), 2)
        if not (inviter.running and inviter.online and invitee.running and _has_account(invitee)):
            return
        if inviter.account == invitee.account or self.contact(invitee, inviter.account) is not None:
            return
        self.invited.setdefault(inviter.name, []).append(invitee)
        inviter.step(events.CreateInvite())

    def invite_made(self, inviter: Device, link: str) -> None:
        """The link goes from hand to hand; it takes a while."""
        invitee = self.invited[inviter.name].pop(0) if self.invited.get(inviter.name) else None

        def add() -> None:
            assert invitee is not None
            if invitee.running and self.contact(invitee, inviter.account) is None:
                invitee.step(events.AddContact(petname=inviter.account, link=link))

        if invitee is not None:
            self.clock.after(self.random.randrange(100, 5_000), add)

    # --- settling in: making accounts, adding second devices ---

    def _settle_in(self, account: str) -> None:
        """What a person does until both devices work; they look again every half second."""
        first, second = self.devices_of(account)
        if first.running and second.running:
            self._settle_step(account, first, second)
        if not self._settled(account):
            self.clock.after(500, lambda: self._settle_in(account))

    def _settle_step(self, account: str, first: Device, second: Device) -> None:
        if not _has_account(first):
            code = changes.recovery_code(account)
            first.step(events.CreateAccount("", account, ORIGIN, KEY.public, code))
            return
        own = first.look(account_of)
        if own.status != "active":  # type: ignore[attr-defined]
            return
        self.genesis[account] = own.genesis_hash  # type: ignore[attr-defined]
        if not _has_account(second):
            second.step(events.JoinAsDevice(own.genesis, 2, 2, ORIGIN, KEY.public))  # type: ignore[attr-defined]
            return
        listed = len(first.look(views.whoami).devices)  # type: ignore[attr-defined]
        if listed == 1 and not own.pending_list:  # type: ignore[attr-defined]
            first.step(events.AddDevice(second.look(account_of).device))  # type: ignore[attr-defined]

    def _settled(self, account: str) -> bool:
        for device in self.devices_of(account):
            me = device.look(views.whoami)
            listed = 0 if me is None else len(me.devices)  # type: ignore[attr-defined]
            if not listed or not me.registered or listed != len(self.devices_of(account)):  # type: ignore[attr-defined]
                return False
        return True


ALARMS = {"forked", "clone-alarm", "missing", "restored", "relay-restored", "rotated", "device-removed"}


def _has_account(device: Device) -> bool:
    return bool(device.vault.rows["account"])


# --- populations that worlds share ---


@lru_cache(maxsize=8)
def registered(accounts: int, prekey_pairs: int) -> World:
    """Everybody has an account with two devices, and knows nobody."""
    world = World("registered", CALM.but(accounts=accounts, prekey_pairs=prekey_pairs, texts=(0, 0)))
    world.storm()
    world.settle()
    return world


@lru_cache(maxsize=8)
def acquainted(accounts: int, prekey_pairs: int) -> World:
    """Everybody knows everybody, and every device has written."""
    world = World("acquainted", CALM.but(begin="registered", accounts=accounts, prekey_pairs=prekey_pairs))
    world.adopt(registered(accounts, prekey_pairs))
    for device in world.devices.values():
        device.start()
    world.settle()
    for first, second in world.pairs():
        world.devices[f"{first}1"].step(events.AddContact(petname=second, name=second))
    world.settle()
    for device in world.devices.values():
        for contact in device.contacts():
            world._say(device, contact)
    world.settle()
    return world


def make(seed: int | str, profile: Profile, trouble: Trouble = NONE) -> World:
    return World(seed, profile, trouble)


__all__ = ["NONE", "Trouble", "Weather", "World", "acquainted", "make", "registered"]
