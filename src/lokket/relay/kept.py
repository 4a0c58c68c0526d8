"""What the relay wrote itself, decoded again. Where that fails, the relay is at fault and no request."""

from __future__ import annotations

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
    try:
        return AccountState.decode(row.state)
    except DecodeError:
        raise DamagedRow from None


def chain(row: AccountRow) -> AccountUpdate:
    """The whole chain. DamagedRow."""
    return _decoded(AccountUpdate, row.chain)


def batch(taken: Taken) -> PublicBatch:
    """DamagedRow."""
    return _decoded(PublicBatch, taken.batch)


def _decoded(kind: type[T], data: bytes) -> T:
    try:
        return tls.decode(kind, data)
    except DecodeError:
        raise DamagedRow from None
