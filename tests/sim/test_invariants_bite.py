"""The invariants are no decoration: each broken engine or driver makes a world fail."""

from __future__ import annotations

import pytest

from .breakages import ALL
from .profiles import PROFILES
from .world import World


@pytest.mark.parametrize("name", sorted(ALL))
def test_a_broken_engine_fails(name: str) -> None:
    for seed in range(6):
        try:
            World(seed, PROFILES["crash"], ALL[name]).run()
        except AssertionError:
            return
    pytest.fail(f"{name} went unnoticed in six worlds")
