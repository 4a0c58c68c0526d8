"""Two hundred small worlds, some long ones, and that one seed is one world.

One of them by hand: ``make sim SEED=n``. Many: ``python -m tests.sim --seeds 0:10000``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lokket.engine import views

from .invariants import digest
from .profiles import PROFILES, Profile, of_seed
from .world import World

CHUNK = 10
ROOT = Path(__file__).parents[2]


def live(seed: int, profile: Profile, replay: str = "") -> World:
    """A failure says how to see it again."""
    try:
        return World(seed, profile).run()
    except AssertionError as error:
        replay = replay or f"python -m tests.sim --seed {seed} --profile {profile.name}"
        pytest.fail(f"{error}\nsee it again: {replay}")


@pytest.mark.attack(23, 38, 43, 44, 95, 96)
@pytest.mark.parametrize("first", range(0, 200, CHUNK))
def test_worlds(first: int) -> None:
    for seed in range(first, first + CHUNK):
        live(seed, of_seed(seed), f"make sim SEED={seed}")


@pytest.mark.attack(61)
@pytest.mark.parametrize("name", ["clocks", "decades"])
def test_clocks_that_jump_by_days_and_by_years_lose_nothing(name: str) -> None:
    for seed in range(4):
        live(seed, PROFILES[name])


@pytest.mark.attack(87)
@pytest.mark.parametrize("name", ["revoked", "recovered", "changing"])
def test_devices_leave_and_come_and_nothing_is_lost(name: str) -> None:
    left = [world for world in (live(seed, PROFILES[name]) for seed in range(4)) if world.lost]
    assert left


def test_the_admin_role_moves_in_any_weather() -> None:
    moved = [live(seed, PROFILES["handed"]).handed_over for seed in range(4)]
    assert any(moved)


@pytest.mark.attack(18, 26, 118)
@pytest.mark.parametrize(
    ("name", "seeds"), [("older-vault", (0, 1, 2)), ("older-relay", (0, 1, 2)), ("upheaval", (0, 4, 6))]
)
def test_older_copies_repeat_no_key_and_heal(name: str, seeds: tuple[int, ...]) -> None:
    """The worlds' own rule: no message key for two plaintexts, in all the lives of a device."""
    restores = [live(seed, PROFILES[name]).restores for seed in seeds]
    assert all(restores)


@pytest.mark.parametrize("seed", [1, 2])
def test_long_world_passes_several_spqr_epochs(seed: int) -> None:
    world = live(seed, PROFILES["long"])
    assert max(epochs(world)) >= 3


def test_weeks_pass_with_lists_renewed_and_prekeys_rotated() -> None:
    world = live(1, PROFILES["weeks"])
    assert all(len(device.vault.rows["batch"]) >= 3 for device in world.devices.values())
    assert all(device.look(views.health, device.now_ms).warnings == () for device in world.devices.values())


def epochs(world: World) -> list[int]:
    """The SPQR epoch of every current session."""
    return [device.watch.highest_epoch for device in world.devices.values()]


@pytest.mark.parametrize("seed", [3, 21, 45])
def test_same_seed_same_world(seed: int) -> None:
    """In one process, and in another with another hash seed: events, ids, sizes, states."""
    here = digest(World(seed, of_seed(seed)).run())
    assert digest(World(seed, of_seed(seed)).run()) == here
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    found = subprocess.run(
        [sys.executable, "-m", "tests.sim", "--seed", str(seed), "--quiet"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split()[-1] == here


def test_another_seed_is_another_world() -> None:
    profile = PROFILES["rough"]
    assert digest(World(1, profile).run()) != digest(World(2, profile).run())
