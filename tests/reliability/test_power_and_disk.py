"""What docs/reliability.md promises of disks, with few seeds; ``make powercut`` and others run them all."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.reliability import diskfaults, powercut
from tests.reliability.disk import FAULTS

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a VFS of SQLite's unix family is in the way")
BITES_WITHIN = 12


@pytest.mark.attack(39)
@pytest.mark.parametrize("seed", range(6))
def test_a_relay_keeps_what_it_accepted_when_the_power_goes(seed: int) -> None:
    powercut.relay(seed)


@pytest.mark.attack(39, 95, 96)
def test_a_vault_keeps_what_it_committed_when_the_power_goes() -> None:
    assert powercut.vault(0)


@pytest.mark.attack(39)
@pytest.mark.parametrize("work", [powercut.relay, powercut.vault])
def test_the_power_cuts_bite(work: Callable[[int], int]) -> None:
    """With ``synchronous=NORMAL`` something is lost, and it is noticed."""
    with powercut.with_synchronous("NORMAL"):
        for seed in range(BITES_WITHIN):
            try:
                work(seed)
            except Exception:
                return
    pytest.fail(f"nothing was lost in {BITES_WITHIN} cuts")


@pytest.mark.attack(41, 42)
@pytest.mark.parametrize("seed", range(len(FAULTS)), ids=list(FAULTS))
def test_a_relay_recovers_from_a_fault_unaided_and_answers_nothing_falsely(seed: int) -> None:
    assert diskfaults.relay(seed, diskfaults.places(seed, sparse=4))


@pytest.mark.attack(41, 42, 95, 96)
@pytest.mark.parametrize("seed", range(len(FAULTS)), ids=list(FAULTS))
def test_a_client_recovers_from_a_fault_unaided_and_loses_nothing(seed: int) -> None:
    assert diskfaults.client(seed, diskfaults.places(seed, sparse=2))
