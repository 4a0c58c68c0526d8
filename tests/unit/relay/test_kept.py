"""Rows that do not decode any more: the relay says that the mistake is its own, and logs no bytes of them."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from lokket.relay.storage.base import AccountRow, Taken
from lokket.relay.storage.memory import MemoryStorage
from lokket.wire import api
from tests.support.relay import Desk

SPOILT = b"\xffspoilt"


class Spoiling(MemoryStorage):
    """Gives out damaged rows once ``spoils`` names the column."""

    spoils = ""

    async def account(self, genesis_hash: bytes) -> AccountRow | None:
        row = await super().account(genesis_hash)
        if row is None or self.spoils not in {"state", "chain"}:
            return row
        return replace(row, **{self.spoils: SPOILT})

    async def take_pair(self, genesis_hash: bytes, device_hash: bytes, pick: int | None) -> Taken | None:
        taken = await super().take_pair(genesis_hash, device_hash, pick)
        return replace(taken, batch=SPOILT) if taken is not None and self.spoils == "batch" else taken


@pytest.mark.parametrize("column", ["state", "chain", "batch"])
async def test_a_damaged_row_is_no_mistake_of_the_request(
    column: str, caplog: pytest.LogCaptureFixture
) -> None:
    storage = Spoiling()
    desk = Desk(storage=storage)
    alice, bob = await desk.join("alice"), await desk.join("bob")
    assert await alice.ask(api.Publish(alice.encoded_batch(1, pairs=2))) == api.Ok()
    storage.spoils = column
    asked = {
        "state": (alice, api.Publish(alice.encoded_batch(2, pairs=2))),
        "chain": (bob, api.FetchAccount(alice.genesis_hash, alice.state.key_epoch, alice.state.version)),
        "batch": (bob, api.FetchBundle(alice.genesis_hash, alice.device_hash)),
    }
    asker, request = asked[column]
    with caplog.at_level(logging.ERROR):
        reply = await asker.ask(request)
    assert isinstance(reply, api.Refused)
    assert reply.code == api.UNAVAILABLE
    assert desk.relay.counters["fault"] == 1
    assert "DamagedRow" in caplog.text
    assert "spoilt" not in caplog.text
