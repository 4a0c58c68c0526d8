"""A fresh relay in memory for every test."""

from __future__ import annotations

import pytest

from tests.support.coroutines import pytest_pyfunc_call
from tests.support.relay import Desk

__all__ = ["pytest_pyfunc_call"]


@pytest.fixture
def desk() -> Desk:
    return Desk()
