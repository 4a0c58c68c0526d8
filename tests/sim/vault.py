"""A vault in memory whose transactions are all or nothing, and which can be copied like a disk."""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator

from lokket.engine.store import TABLES


class PowerCut(BaseException):
    """The process ends here. Not an ``Exception``: nothing may catch it and go on."""


class Vault:
    """What is committed. ``begin`` opens the one transaction there can be at a time."""

    def __init__(self, rows: dict[str, dict[bytes, bytes]] | None = None) -> None:
        self.rows: dict[str, dict[bytes, bytes]] = rows or {table: {} for table in TABLES}
        self.keys: dict[str, list[bytes]] = {table: sorted(self.rows[table]) for table in TABLES}
        self.open: Transaction | None = None

    def begin(self, cut_after: int | None = None) -> Transaction:
        """``cut_after``: the power goes at that operation of the transaction."""
        assert self.open is None, "a transaction is open already"
        self.open = Transaction(self, cut_after)
        return self.open

    def copy(self) -> Vault:
        assert self.open is None
        return Vault({table: dict(rows) for table, rows in self.rows.items()})

    def digest(self) -> str:
        """Of every row."""
        state = hashlib.sha256()
        for table in TABLES:
            for key in self.keys[table]:
                for part in (table.encode(), key, self.rows[table][key]):
                    state.update(len(part).to_bytes(4, "big") + part)
        return state.hexdigest()[:16]

    def size(self, table: str) -> int:
        return len(self.rows[table])


class Transaction:
    """``lokket.engine.store.Transaction``, with an undo log."""

    def __init__(self, vault: Vault, cut_after: int | None = None) -> None:
        self._vault = vault
        self._undo: list[tuple[str, bytes, bytes | None]] = []
        self._left = cut_after

    def get(self, table: str, key: bytes) -> bytes | None:
        self._tick()
        return self._vault.rows[table].get(key)

    def put(self, table: str, key: bytes, value: bytes) -> None:
        assert isinstance(key, bytes), (table, key)
        assert isinstance(value, bytes), (table, key)
        self._tick()
        self._undo.append((table, key, self._vault.rows[table].get(key)))
        self._set(table, key, value)

    def delete(self, table: str, key: bytes) -> None:
        self._tick()
        old = self._vault.rows[table].get(key)
        if old is not None:
            self._undo.append((table, key, old))
            self._set(table, key, None)

    def scan(
        self, table: str, prefix: bytes = b"", *, after: bytes | None = None, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        self._tick()
        rows, keys = self._vault.rows[table], self._vault.keys[table]
        start = bisect_left(keys, prefix)
        end = len(keys)
        if prefix:
            beyond = prefix.rstrip(b"\xff")
            if beyond:
                end = bisect_left(keys, beyond[:-1] + bytes((beyond[-1] + 1,)))
        if after is not None and not reverse:
            start = max(start, bisect_right(keys, after))
        elif after is not None:
            end = min(end, bisect_left(keys, after))
        # The real vault reads on while the step writes: a row that is gone by then is not seen.
        for key in keys[start:end][:: -1 if reverse else 1]:
            value = rows.get(key)
            if value is not None:
                yield key, value

    def commit(self) -> None:
        assert self._vault.open is self
        self._vault.open = None

    def rollback(self) -> None:
        assert self._vault.open is self
        for table, key, old in reversed(self._undo):
            self._set(table, key, old)
        self._vault.open = None

    @property
    def changes(self) -> list[tuple[str, bytes, bytes | None]]:
        """Table, key and former value of every write, oldest first."""
        return self._undo

    @property
    def changed(self) -> bool:
        return bool(self._undo)

    def _set(self, table: str, key: bytes, value: bytes | None) -> None:
        rows, keys = self._vault.rows[table], self._vault.keys[table]
        if value is None:
            if key in rows:
                del rows[key]
                del keys[bisect_left(keys, key)]
        else:
            if key not in rows:
                insort(keys, key)
            rows[key] = value

    def _tick(self) -> None:
        assert self._vault.open is self, "the transaction is over"
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise PowerCut
