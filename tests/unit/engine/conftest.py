from __future__ import annotations

import pytest

from tests.unit.engine.town import Device, Town


@pytest.fixture
def town() -> Town:
    return Town()


@pytest.fixture
def friends(town: Town) -> tuple[Town, Device, Device]:
    """Alice and Bob, who met by invite."""
    alice, bob = town.account("alice"), town.account("bob")
    town.befriend(alice, bob)
    return town, alice, bob
