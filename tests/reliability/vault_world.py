"""A real vault in the shape that ``tests.unit.engine.town`` steps by hand."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from pathlib import Path

from lokket.client.vault import Transaction, Vault, open_vault
from lokket.disk import PLAIN_VFS

KEY = bytes(range(32))


class DiskVault:
    """``tests.sim.vault.Vault``'s ``begin``, on a disk."""

    def __init__(self, vault: Vault) -> None:
        self.vault = vault

    @classmethod
    def create(cls, folder: Path, vfs: str = PLAIN_VFS) -> DiskVault:
        return cls(open_vault(folder, KEY, create=True, vfs=vfs))

    @classmethod
    def open(cls, folder: Path, vfs: str = PLAIN_VFS) -> DiskVault:
        return cls(open_vault(folder, KEY, vfs=vfs))

    def begin(self) -> Step:
        return Step(self.vault.transaction())

    def abandon(self) -> None:
        """As a process that ends with the power."""
        self.vault.close()


class Step:
    """An open transaction."""

    def __init__(self, manager: AbstractContextManager[Transaction]) -> None:
        self._manager = manager
        tx = manager.__enter__()
        self.get, self.put, self.delete, self.scan = tx.get, tx.put, tx.delete, tx.scan

    def commit(self) -> None:
        self._manager.__exit__(None, None, None)

    def rollback(self) -> None:
        error = _Undone()
        with contextlib.suppress(_Undone):
            self._manager.__exit__(_Undone, error, None)


class _Undone(Exception):
    pass
