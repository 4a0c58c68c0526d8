"""Both storages, one after the other, for every test that asks for ``storage``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from lokket.relay.storage.base import Storage
from lokket.relay.storage.memory import MemoryStorage
from lokket.relay.storage.sqlite import SQLiteStorage
from tests.support.coroutines import pytest_pyfunc_call

__all__ = ["pytest_pyfunc_call"]


@pytest.fixture(params=["memory", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    opened: Storage = MemoryStorage() if request.param == "memory" else SQLiteStorage(tmp_path / "relay.db")
    yield opened
    asyncio.run(opened.close())
