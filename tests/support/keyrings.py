"""A keyring in memory, in the place of the system's."""

from __future__ import annotations

import keyring
import keyring.backend
import keyring.errors
import pytest


class Drawer(keyring.backend.KeyringBackend):
    """A keyring in memory. ``locked``: as a desktop's is before the login."""

    priority = 5.0  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}
        self.locked = False

    def get_password(self, service: str, username: str) -> str | None:
        if self.locked:
            raise keyring.errors.KeyringLocked
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.kept[service, username]


def in_place(monkeypatch: pytest.MonkeyPatch) -> Drawer:
    """The one that the library finds from here on."""
    made = Drawer()
    for name in ("get_password", "set_password", "delete_password"):
        monkeypatch.setattr(keyring, name, getattr(made, name))
    monkeypatch.setattr(keyring, "get_keyring", lambda: made)
    return made
