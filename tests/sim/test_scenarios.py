"""Worlds with a story: restored vaults and relays, simultaneous beginnings, replays, poison."""

from __future__ import annotations

import copy
from dataclasses import replace

import msgspec
import pytest

from lokket.engine import events, views
from lokket.engine.step import account_of
from lokket.relay.storage.base import Mail, Quota
from lokket.wire import api

from . import invariants
from .device import Device
from .network import Weather
from .profiles import CALM, Profile
from .world import World, acquainted, registered

FRIENDS = CALM.but(name="scenario", begin="acquainted", texts=(0, 0))


def awake(seed: int, profile: Profile = FRIENDS) -> World:
    """Everybody is online and knows each other; nothing is under way."""
    world = World(seed, profile)
    shared = acquainted if profile.begin == "acquainted" else registered
    world.adopt(shared(profile.accounts, profile.prekey_pairs))
    for device in world.devices.values():
        device.start()
    world.settle()
    return world


def say(world: World, device: str, peer: str, text: str) -> None:
    sender = world.devices[device]
    petname = world.petname(sender, peer)
    assert petname is not None
    assert sender.step(events.SendText(petname, text))
    world.accepted[sender.account, text] = peer


def texts(world: World, device: str, peer: str) -> list[str]:
    return [text for *_, text in invariants.conversation(world, world.devices[device], peer)]


def quarantined(world: World, device: str) -> dict[str, int]:
    return dict(world.devices[device].watch.quarantined())


def login_again(world: World, name: str) -> None:
    """Which leaves a mark on both sides that a copy made before does not have."""
    world.devices[name].go_offline(0)
    world.clock.run_until(world.clock.now_ms + 500)
    world.settle()


def device_hash(device: Device) -> bytes:
    return device.look(account_of).device_hash  # type: ignore[attr-defined,no-any-return]


def genesis_hash(device: Device) -> bytes:
    return device.look(account_of).genesis_hash  # type: ignore[attr-defined,no-any-return]


# --- the vault ---


@pytest.mark.parametrize("seed", range(4))
def test_a_restored_vault_repeats_no_key_and_heals(seed: int) -> None:
    """The copy is older than what was sent and received since; the login nonce gives it away."""
    world = awake(seed)
    bob = world.devices["bob1"]
    older = bob.vault.copy()
    login_again(world, "bob1")
    for number in range(4):
        say(world, "bob1", "ann", f"lost to the copy {number}")
        say(world, "ann1", "bob", f"also lost to the copy {number}")
    world.settle()
    for number in range(3):
        say(world, "bob1", "ann", f"on its way {number}")  # the ratchets that a copy would use again
    world.restores += 1
    bob.restore(older)
    for number in range(3):
        say(world, "ann1", "bob", f"during {number}")
        say(world, "ann2", "bob", f"during too {number}")
    world.clock.run_until(world.clock.now_ms + 20_000)
    assert bob.watch.trust["restored"] == 1
    for number in range(3):
        say(world, "bob1", "ann", f"after {number}")
        say(world, "ann2", "bob", f"after too {number}")
    world.settle()
    expected = [
        f"{when} {number}" for when in ("during", "during too", "after", "after too") for number in range(3)
    ]
    for name, peer in (("bob1", "ann"), ("bob2", "ann"), ("ann1", "bob"), ("ann2", "bob")):
        found = texts(world, name, peer)
        assert [text for text in expected if found.count(text) != 1] == [], name
        assert len(found) == len(set(found)), f"{name} shows a text twice"
    assert not any(world.devices[name].watch.trust["clone-alarm"] for name in ("ann1", "ann2", "bob2"))


def test_two_copies_of_one_vault_notice_each_other() -> None:
    world = awake(1)
    bob = world.devices["bob1"]
    copied = bob.vault.copy()
    login_again(world, "bob1")
    say(world, "bob1", "ann", "from the first")
    world.settle()
    first = bob.vault
    world.restores += 1
    bob.restore(copied)
    world.settle()
    bob.restore(first)
    world.clock.run_until(world.clock.now_ms + 20_000)
    assert bob.watch.trust["restored"] >= 1, "the second copy logs in beside the first"


# --- the relay ---


@pytest.mark.parametrize("seed", range(4))
def test_a_restored_relay_loses_no_mail(seed: int) -> None:
    """What it had accepted and forgot is sent again: the rows wait for the peers' receipts."""
    world = awake(seed)
    backup = copy.deepcopy(world.relay.storage)
    login_again(world, "ann1")
    for device in ("bob1", "bob2"):
        world.devices[device].go_offline(30_000)
    for number in range(5):
        say(world, "ann1", "bob", f"accepted {number}")
    world.clock.run_until(world.clock.now_ms + 5_000)
    assert world.relay.mail() >= 10
    world.restores += 1
    world.relay.restore(backup)
    assert world.relay.mail() == 0
    world.settle()
    invariants.check_end(world)
    assert world.devices["ann1"].watch.trust["relay-restored"] == 1


def test_a_restored_relay_loses_no_mail_where_no_login_tells() -> None:
    """The backup is younger than the sender's last login: what is not receipted goes out again next day."""
    world = awake(3, FRIENDS.but(patience_ms=2 * 86_400_000))
    backup = copy.deepcopy(world.relay.storage)
    for device in ("bob1", "bob2"):
        world.devices[device].go_offline(30_000)
    for number in range(3):
        say(world, "ann1", "bob", f"accepted {number}")
    world.clock.run_until(world.clock.now_ms + 5_000)
    world.restores += 1
    world.relay.restore(backup)
    world.settle()
    assert not world.devices["ann1"].watch.trust["relay-restored"]
    invariants.check_end(world)


def test_a_lost_answer_and_a_new_list_fail_no_message() -> None:
    """The relay has the envelope under the old head, the sender offers it again under the new one."""
    world = awake(4)
    storage = world.relay.storage
    for device in ("bob1", "bob2"):
        world.devices[device].go_offline(60_000)
    append = storage.append

    def under_an_older_head(mail: Mail) -> Mail:
        envelope = msgspec.structs.replace(api.decode_envelope(mail.envelope), recipient_head=bytes(32))
        return replace(mail, envelope=api.encode(envelope))

    async def stored_but_not_said(mail: tuple[Mail, ...], quota: Quota) -> tuple[str, ...]:
        connection = world.devices["ann1"].connection
        assert connection is not None
        connection.break_off("before the answer")
        return await append(tuple(map(under_an_older_head, mail)), quota)

    storage.append = stored_but_not_said  # type: ignore[method-assign]
    say(world, "ann1", "bob", "on the relay, unsaid")
    world.clock.run_until(world.clock.now_ms + 100)
    storage.append = append  # type: ignore[method-assign]
    world.clock.run_until(world.clock.now_ms + 5_000)
    assert any(":conflict" in line for line in world.lines)
    world.settle()
    invariants.check_end(world)


@pytest.mark.attack(11)
@pytest.mark.parametrize("seed", [1, 5])  # in 5 the requests to heal meet used pairs, too, in both directions
def test_a_pair_handed_out_twice_costs_no_message(seed: int) -> None:
    """The second to use it is not understood, asked again, and then heard."""
    profile = FRIENDS.but(begin="registered", accounts=3, prekey_pairs=3)
    world = awake(seed, profile)
    take = world.relay.storage.take_pair

    async def the_same_again(*arguments: object) -> object:
        device = world.relay.storage._devices[arguments[1]]  # type: ignore[index]
        slots = device.slots
        taken = await take(arguments[0], arguments[1], 0)  # type: ignore[arg-type]
        device.slots = slots
        return taken

    world.relay.storage.take_pair = the_same_again  # type: ignore[assignment,method-assign]
    for account in ("ann", "cat"):
        world.devices[f"{account}1"].step(events.AddContact(petname="bob", name="bob"))
    world.clock.run_until(world.clock.now_ms + 5_000)
    say(world, "ann1", "bob", "with the first pair")
    say(world, "cat1", "bob", "with the same pair")
    world.settle()
    invariants.check_end(world)


@pytest.mark.attack(10)
def test_a_replayed_first_message_shows_nothing() -> None:
    world = awake(6, FRIENDS.but(begin="registered"))
    kept: list[bytes] = []
    append = world.relay.storage.append

    async def keep(mail: tuple, quota: object) -> object:  # type: ignore[type-arg]
        kept.extend(one.envelope for one in mail if api.decode_envelope(one.envelope).kind == api.KIND_PREKEY)
        return await append(mail, quota)  # type: ignore[arg-type]

    world.relay.storage.append = keep  # type: ignore[assignment,method-assign]
    world.devices["ann1"].step(events.AddContact(petname="bob", name="bob"))
    world.clock.run_until(world.clock.now_ms + 3_000)
    say(world, "ann1", "bob", "once")
    world.settle()
    sessions = dict(world.devices["bob1"].vault.rows["session"])
    replays = [
        msgspec.structs.replace(api.decode_envelope(one), envelope_id=bytes([number]) * 16)
        for number, one in enumerate(kept)
        if api.decode_envelope(one).device_hash == device_hash(world.devices["bob1"])
    ]
    assert replays
    world.devices["bob1"].step(events.Arrived(tuple(map(api.encode, replays))))
    assert world.devices["bob1"].vault.rows["session"] == sessions
    world.settle()
    assert texts(world, "bob1", "ann") == ["once"]
    say(world, "bob1", "ann", "still here")
    world.settle()
    invariants.check_end(world)


@pytest.mark.attack(30)
def test_a_dropped_message_is_missed() -> None:
    """The relay says that it has it, and drops it: the next one shows the hole, until it is filled."""
    world = awake(10)
    append = world.relay.storage.append

    async def drop(mail: tuple, quota: object) -> object:  # type: ignore[type-arg]
        return ("",) * len(mail)

    world.relay.storage.append = drop  # type: ignore[assignment,method-assign]
    petname = world.petname(world.devices["ann1"], "bob")
    assert world.devices["ann1"].step(events.SendText(petname or "", "dropped"))
    world.clock.run_until(world.clock.now_ms + 2_000)
    world.relay.storage.append = append  # type: ignore[method-assign]
    say(world, "ann1", "bob", "the next")
    world.clock.run_until(world.clock.now_ms + 5_000)
    for name in ("bob1", "bob2", "ann2"):
        assert world.devices[name].watch.trust["missing"] == 1
        assert texts(world, name, "bob" if name == "ann2" else "ann")[-1] == "the next"


@pytest.mark.attack(24, 62)
@pytest.mark.parametrize("kind", [api.KIND_WHISPER, api.KIND_PREKEY, api.KIND_SEALED, 77])
def test_poison_blocks_nothing(kind: int) -> None:
    """An envelope that cannot be opened is put aside; what follows flows, in the same session."""
    world = awake(7)
    bob, ann = world.devices["bob1"], world.devices["ann1"]
    poison = api.Envelope(
        format=1,
        kind=kind,
        envelope_id=b"poison poison 16",
        recipient=genesis_hash(bob),
        device_hash=device_hash(bob),
        recipient_head=bytes(32),
        deposit=api.DEPOSIT_LOGIN,
        deposit_data=b"",
        sender=api.Sender(genesis_hash(ann), device_hash(ann)),
        body=b"\x44" + bytes(300),
    )
    assert bob.step(events.Arrived((api.encode(poison),)))
    assert sum(quarantined(world, "bob1").values()) == 1
    for number in range(3):
        say(world, "ann1", "bob", f"behind it {number}")
        say(world, "bob1", "ann", f"and back {number}")
    world.settle()
    invariants.check_end(world)


# --- sessions ---


@pytest.mark.attack(25)
@pytest.mark.parametrize("seed", range(12))
def test_simultaneous_beginnings_converge(seed: int) -> None:
    """Both sides send first, under all sorts of delays; then both use one session."""
    world = awake(seed, FRIENDS.but(begin="registered"))
    world.weather = Weather(delay_ms=(1, 3_000))
    world.devices["ann1"].step(events.AddContact(petname="bob", name="bob"))
    world.devices["bob1"].step(events.AddContact(petname="ann", name="ann"))
    world.clock.run_until(world.clock.now_ms + 12_000)
    for number in range(2):
        for device, peer in (("ann1", "bob"), ("bob1", "ann")):
            if world.petname(world.devices[device], peer) is not None:
                say(world, device, peer, f"{device} begins {number}")
    world.settle()
    for number in range(2):
        say(world, "ann1", "bob", f"question {number}")
        say(world, "bob1", "ann", f"answer {number}")
    world.settle()
    invariants.check_end(world)
    kinds = {
        envelope.kind
        for name in ("ann1", "bob1")
        for envelope in map(api.decode_envelope, list(world.devices[name].watch.envelopes.values())[-6:])
    }
    assert kinds == {api.KIND_WHISPER}


@pytest.mark.attack(37)
def test_a_long_one_way_run_is_answered() -> None:
    """The ratchet turns also where one side only listens: its receipts, or an answer of its engine's own."""
    world = awake(8)
    for number in range(120):
        say(world, "ann1", "bob", f"monologue {number}")
        if number % 10 == 0:
            world.clock.run_until(world.clock.now_ms + 1_000)
    world.settle()
    invariants.check_end(world)
    ratchet_keys = {key for key, _ in world.devices["ann1"].watch.keys_used}
    assert len(ratchet_keys) > 6


def test_what_was_shown_and_not_handled_is_shown_again_after_a_crash() -> None:
    world = awake(9)
    bob = world.devices["bob1"]
    bob.look(views.unhandled)
    say(world, "ann1", "bob", "first")
    world.settle()
    bob.crash()
    bob.start()
    assert "first" in [shown.text for shown in bob.look(views.unhandled)]  # type: ignore[attr-defined]
    world.settle()
    invariants.check_end(world)
