"""Devices that leave and come: the admin revokes the other one, or is lost and replaced by the recovery code.

What a device wrote that is gone afterwards may never have left it: the count at the end passes over its
texts, and looks at all others on all devices that are left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lokket.engine import events, views
from lokket.engine.step import account_of
from lokket.protocol.identity import new_recovery_code
from lokket.protocol.linking import AccountCode

from .device import Device
from .entropy import SeededEntropy
from .relay_node import KEY, ORIGIN

if TYPE_CHECKING:
    from .world import World

_LOOK_MS = 500


def recovery_code(account: str) -> str:
    """What the person wrote down when the account was made."""
    return new_recovery_code(SeededEntropy(f"recovery code of {account}"))


def _untouched(world: World) -> str | None:
    """An account with its first two devices."""
    ready = [
        account
        for account in world.accounts
        if [device.number for device in world.devices_of(account)] == [1, 2] and world._settled(account)
    ]
    return world.random.choice(ready) if ready else None


def revoke(world: World) -> None:
    """The second device is taken off the list; it hears nothing more and is asked nothing more."""
    account = _untouched(world)
    if account is None:
        return
    admin, other = world.devices_of(account)
    world.lose(other)

    def insist() -> None:
        me = admin.look(views.whoami)
        if len(me.devices) == 1:  # type: ignore[attr-defined]
            return
        if admin.running and not admin.look(account_of).pending_list:  # type: ignore[attr-defined]
            admin.step(events.RevokeDevice(2))
        world.clock.after(_LOOK_MS, insist)

    insist()


def recover(world: World) -> None:
    """The admin device is gone for good; some seconds later a new one has the recovery code."""
    account = _untouched(world)
    if account is None:
        return
    world.lose(world.devices_of(account)[0])
    world.recovered.append(account)
    fresh = Device(world, account, 3)
    fresh.watch.restored()
    world.devices[fresh.name] = fresh
    where = AccountCode(ORIGIN, KEY.public, world.genesis[account]).encode()
    next_code = new_recovery_code(SeededEntropy(f"second recovery code of {account}"))
    command = events.RecoverAccount(where, recovery_code(account), next_code, (2,), account, "fresh")

    def insist() -> None:
        fresh.start()
        if not fresh.vault.rows["account"]:
            fresh.step(command)
            world.clock.after(_LOOK_MS, insist)

    world.clock.after(world.random.randrange(100, 20_000), insist)


def share_history(world: World) -> None:
    """Once the weather is good: the kept device gives its messages to the one that recovered."""
    for account in world.recovered:
        kept = next(device for device in world.devices_of(account) if device.number == 2)
        kept.step(events.GiveHistory(3))
