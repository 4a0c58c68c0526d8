"""Every pair of wrong clocks, jumping in mid-run: nothing is lost, and it ends when they are right.

A device and a relay that are wrong alike for hours are not told from right ones: what they hold expires,
and its sender is told; here they never agree on a wrong time. The random worlds of the profiles ``clocks``
and ``decades`` jump at any time; this is the table of corners.
"""

from __future__ import annotations

import pytest

from lokket import limits
from lokket.engine.records import HeldEnvelope, OutboxRow, PrekeyRow, unpack
from lokket.engine.store import AWAITING, INBOX, OUTBOX, PREKEY

from . import invariants
from .test_scenarios import FRIENDS, awake, say
from .world import World

YEARS_MS = 3_650 * limits.DAY_S * 1000
CORNERS = (-YEARS_MS, 0, YEARS_MS)


@pytest.mark.attack(61)
@pytest.mark.parametrize("relay_ms", CORNERS)
@pytest.mark.parametrize("device_ms", CORNERS)
def test_jumps_in_mid_run_lose_nothing(device_ms: int, relay_ms: int) -> None:
    world = awake(3, FRIENDS.but(patience_ms=50 * 3_600_000))
    world.relay.keep_up(600_000)
    ann, bob = world.devices["ann1"], world.devices["bob1"]
    number = 0

    def talk() -> None:
        nonlocal number
        for device, peer in (("ann1", "bob"), ("bob1", "ann"), ("bob2", "ann")):
            number += 1
            say(world, device, peer, f"{device} says at turn {number}")

    world.devices["bob2"].go_offline(2 * 3_600_000)  # its mail waits through all of it
    for moved in ((ann, device_ms), (world.relay, relay_ms), (bob, -device_ms // 2)):
        talk()
        moved[0].jump_clock(moved[1])  # type: ignore[attr-defined]
        talk()
        world.clock.run_until(world.clock.now_ms + 2 * 3_600_000)
    talk()
    world.heal()
    invariants.check_end(world)
    assert number == 3 * 7
    world.clock.run_until(world.clock.now_ms + 2 * 3_600_000)  # an upkeep by right clocks
    for device in world.devices.values():
        assert ages_are_past(world, device.name)


def ages_are_past(world: World, name: str) -> bool:
    """Nothing is dated ahead any more: it will expire in its time."""
    rows = world.devices[name].vault.rows
    latest_ms = world.clock.now_ms + limits.CLOCK_SKEW_S * 1000
    ages = [unpack(OutboxRow, row).created_ms for table in (OUTBOX, AWAITING) for row in rows[table].values()]
    ages += [unpack(PrekeyRow, row).made_ms for row in rows[PREKEY].values()]
    ages += [unpack(HeldEnvelope, row).since_ms for row in rows[INBOX].values()]
    return max(ages) <= latest_ms
