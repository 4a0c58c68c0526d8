"""Damaged vaults and relays, with few seeds: ``make corrupt`` runs them all."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from lokket.relay.storage.base import StorageDamaged
from lokket.relay.storage.sqlite import SQLiteStorage
from tests.reliability import corruption, relay_corruption
from tests.support.machine import Machine, machines
from tests.support.rows import NOW_S, ROOMY, mail, new_account


@pytest.mark.attack(93, 94)
@pytest.mark.parametrize("seed", range(len(corruption.WAYS)), ids=corruption.WAYS)
def test_damage_is_noticed_or_harmless_and_the_original_is_kept(seed: int) -> None:
    corruption.vault(seed)


@pytest.mark.attack(94)
def test_a_salvaged_account_goes_on() -> None:
    assert sum(corruption.life(seed) for seed in range(3))


@pytest.mark.attack(94)
def test_the_command_says_what_is_wrong_and_mends_it(tmp_path: Path) -> None:
    with machines(tmp_path, "alice") as (relay, alice):
        relay.serve()  # type: ignore[attr-defined]
        alice.json("join", relay.invite, "--insecure-no-passphrase")  # type: ignore[attr-defined]
        _damage_and_mend(alice)


def _damage_and_mend(alice: Machine) -> None:
    folder = alice.home / "profiles" / "default"
    (record,) = alice.json("doctor", "--salvage", code=4)
    assert "nothing to salvage" in record["sentence"]
    data = bytearray((folder / "vault.db").read_bytes())
    mark = (folder / "vault.mark").read_bytes()
    for page in range(30, len(data) // 4096, 2):
        data[page * 4096 : (page + 1) * 4096] = os.urandom(4096)
    (folder / "vault.db").write_bytes(data)
    refused = alice.run("whoami")
    assert refused.returncode in (0, 4), refused.stderr
    assert "Traceback" not in refused.stderr
    mended = alice.run("doctor", "--salvage", "--json")
    assert "Traceback" not in mended.stderr
    assert mended.returncode in (0, 4), mended.stderr
    assert (folder / "damaged-1" / "vault.db").read_bytes() == bytes(data)
    assert (folder / "damaged-1" / "vault.mark").read_bytes() == mark


# --- the relay's data ---


@pytest.mark.attack(94)
@pytest.mark.parametrize("seed", range(len(corruption.WAYS)), ids=corruption.WAYS)
def test_a_relays_damage_is_noticed_or_found_out_and_the_original_is_kept(seed: int) -> None:
    relay_corruption.relay(seed)


def test_a_relay_without_damage_refuses_nothing_and_misses_nothing() -> None:
    relay_corruption.original()
    assert asyncio.run(relay_corruption.undamaged()) == []


@pytest.mark.attack(94)
@pytest.mark.parametrize("how", ["zeroed", "random", "cut"])
def test_a_relays_damaged_data_is_refused_with_what_to_do(tmp_path: Path, how: str) -> None:
    path = tmp_path / "relay.db"

    async def fill() -> None:
        storage = SQLiteStorage(path)
        await storage.register(new_account("alice", name="alice"), None, NOW_S)
        await storage.append(tuple(mail("alice", str(n), body=bytes(900)) for n in range(200)), ROOMY)
        await storage.close()

    asyncio.run(fill())
    data = bytearray(path.read_bytes())
    for page in range(8, len(data) // 4096, 3):
        data[page * 4096 : (page + 1) * 4096] = bytes(4096) if how == "zeroed" else os.urandom(4096)
    path.write_bytes(data[: len(data) // 2] if how == "cut" else data)
    before = path.read_bytes()
    with pytest.raises(StorageDamaged, match="restore a backup"):
        SQLiteStorage(path)
    assert path.read_bytes() == before
