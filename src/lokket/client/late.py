"""Modules that are loaded when something of them is first used: a command that needs few starts quickly.

``if TYPE_CHECKING: from lokket.engine import events`` / ``else: events = late("lokket.engine.events")``.
"""

from __future__ import annotations

import importlib
from typing import Any


class _Late:
    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(importlib.import_module(self._name), attribute)
        setattr(self, attribute, value)
        return value


def late(name: str) -> Any:
    """The module, as far as reading its attributes goes."""
    return _Late(name)
