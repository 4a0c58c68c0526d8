"""What the relay wrote itself, decoded again. Where that fails, the relay is at fault and no request."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from lokket.codec import tls
from lokket.errors import DecodeError
from lokket.protocol.identity import AccountState, AccountUpdate
from lokket.protocol.prekeys import PublicBatch
from lokket.relay.storage.base import AccountRow, Taken

T = TypeVar("T")


class DamagedRow(Exception):
    """A row that was verified when it was written does not decode."""


def state(row: AccountRow) -> AccountState:
    """DamagedRow."""
    return _decoded(AccountState.decode, row.state)


def chain(row: AccountRow) -> AccountUpdate:
    """The whole chain. DamagedRow."""
    return _decoded(partial(tls.decode, AccountUpdate), row.chain)


def batch(taken: Taken) -> PublicBatch:
    """DamagedRow."""
    return _decoded(partial(tls.decode, PublicBatch), taken.batch)


def _decoded(decode: Callable[[bytes], T], data: bytes) -> T:
    try:
        return decode(data)
    except DecodeError:
        raise DamagedRow from None
