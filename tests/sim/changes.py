"""Devices that leave, come, change roles or go back in time, and relays that do.

The admin revokes the other device, hands its role over, or is lost and replaced by the recovery code. A
vault or the relay's disk is replaced by an older copy. What a device wrote that is gone afterwards may
never have left it: the count at the end passes over those texts, and looks at all others on all devices.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from lokket.engine import devices as engine_devices
from lokket.engine import events, views
from lokket.engine.step import account_of
from lokket.protocol.identity import new_recovery_code
from lokket.protocol.linking import AccountCode

from . import invariants
from .device import Device
from .entropy import SeededEntropy
from .relay_node import KEY, ORIGIN

if TYPE_CHECKING:
    from .world import World

_LOOK_MS = 500
_ASK_AGAIN_MS = 30_000
_COPY_AGE_MS = (2_000, 30_000)


def recovery_code(account: str) -> str:
    """What the person wrote down when the account was made."""
    return new_recovery_code(SeededEntropy(f"recovery code of {account}"))


def is_admin(device: Device) -> bool:
    me = device.look(views.whoami)
    return me is not None and me.admin  # type: ignore[attr-defined,no-any-return]


def _untouched(world: World) -> tuple[Device, Device] | None:
    """The admin device and the other one of an account that still has its first two and changes nothing."""
    ready = []
    for account in world.accounts:
        pair = world.devices_of(account)
        if account in world.changing or [device.number for device in pair] != [1, 2]:
            continue
        if world._settled(account) and [is_admin(device) for device in pair].count(True) == 1:
            ready.append(sorted(pair, key=is_admin, reverse=True))
    if not ready:
        return None
    admin, other = world.random.choice(ready)
    return admin, other


def revoke(world: World) -> None:
    """The second device is taken off the list; it hears nothing more and is asked nothing more."""
    pair = _untouched(world)
    if pair is None:
        return
    admin, other = pair
    world.lose(other)
    world.changing.add(admin.account)

    def insist() -> None:
        me = admin.look(views.whoami)
        if len(me.devices) == 1:  # type: ignore[attr-defined]
            world.changing.discard(admin.account)
            return
        if admin.running and not admin.look(account_of).pending_list:  # type: ignore[attr-defined]
            admin.step(events.RevokeDevice(other.number))
        world.clock.after(_LOOK_MS, insist)

    insist()


def hand_over(world: World) -> None:
    """The admin role goes to the other device: two persons' words, and whatever happens between them."""
    pair = _untouched(world)
    if pair is None:
        return
    giver, taker = pair
    world.changing.add(giver.account)
    offered_ms = 0

    def insist() -> None:
        nonlocal offered_ms
        if giver.name in world.lost or taker.name in world.lost:
            return
        moved = is_admin(taker) and not is_admin(giver)
        if moved or _key_went_with_a_vault(giver, taker):
            world.changing.discard(giver.account)
            world.handed_over.append(giver.account)
            return
        offered = taker.look(engine_devices.role_of)
        if offered is not None and offered.stage == "offered" and taker.running:  # type: ignore[attr-defined]
            taker.step(events.AcceptAdmin())
        elif (
            (offered is None or _forgot(giver.look(engine_devices.role_of), offered))
            and world.clock.now_ms - offered_ms > _ASK_AGAIN_MS
            and giver.running
            and giver.step(events.OfferAdmin(taker.number))
        ):
            offered_ms = world.clock.now_ms
        world.clock.after(_LOOK_MS, insist)

    insist()


def _forgot(giving: object, taking: object) -> bool:
    """The giver's vault went back to before its offer, or to before the key left."""
    return giving is None or (giving.stage == "offered" and taking.stage == "held")  # type: ignore[attr-defined]


def _key_went_with_a_vault(giver: Device, taker: Device) -> bool:
    """The taker had the account's key, and went back to before it: the person needs the recovery code."""
    pair = (giver, taker)
    return (
        taker.name in taker.world.forgotten
        and not any(device.look(account_of).account_seed for device in pair)  # type: ignore[attr-defined]
        and all(device.look(engine_devices.role_of) is None for device in pair)
        and not any(is_admin(device) for device in pair)
    )


def recover(world: World) -> None:
    """The admin device is gone for good; some seconds later a new one has the recovery code."""
    pair = _untouched(world)
    if pair is None:
        return
    admin, other = pair
    account = admin.account
    world.lose(admin)
    world.changing.add(account)
    world.recovered.append(account)
    fresh = Device(world, account, 3)
    fresh.watch.restored()
    world.devices[fresh.name] = fresh
    where = AccountCode(ORIGIN, KEY.public, world.genesis[account]).encode()
    next_code = new_recovery_code(SeededEntropy(f"second recovery code of {account}"))
    command = events.RecoverAccount(
        where, recovery_code(account), next_code, (other.number,), account, "fresh"
    )

    def insist() -> None:
        fresh.start()
        if fresh.vault.rows["account"] or fresh.step(command):
            world.changing.discard(account)
        else:
            world.clock.after(_LOOK_MS, insist)

    world.clock.after(world.random.randrange(100, 20_000), insist)


def share_history(world: World) -> None:
    """Once the weather is good: the kept device gives its messages to the one that recovered."""
    for account in world.recovered:
        kept = next(device for device in world.devices_of(account) if device.number != 3)
        kept.step(events.GiveHistory(3))


def restore_vault(world: World) -> None:
    """Some device's file becomes a copy from before its last login. What was written since is lost with it.

    A copy that no login followed is one that nothing could tell from the original.
    """
    ready = [device for device in world.devices.values() if device.online and device.name not in world.copied]
    if not ready:
        return
    device = world.random.choice(ready)
    world.copied.add(device.name)
    older, logins = device.vault.copy(), device.logins
    device.go_offline(0)

    def replace() -> None:
        if device.name in world.lost:
            return
        if not device.online or device.logins == logins:
            world.clock.after(_LOOK_MS, replace)
            return
        lost = invariants.texts_in(device.vault) - invariants.texts_in(older)
        world.forgotten.setdefault(device.name, set()).update(lost)
        world.restores += 1
        device.restore(older)

    world.clock.after(world.random.randrange(*_COPY_AGE_MS), replace)


def restore_relay(world: World) -> None:
    """The relay's disk becomes a copy of some seconds ago."""
    kept = copy.deepcopy(world.relay.storage)

    def replace() -> None:
        world.restores += 1
        world.relay.restore(kept)

    world.clock.after(world.random.randrange(*_COPY_AGE_MS), replace)
