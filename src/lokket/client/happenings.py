"""What a client tells beside the engine's notices: facts about the connection and the vault."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from lokket.errors import LocalError

if TYPE_CHECKING:
    from lokket.engine import events


class NotReached(LocalError):
    """The relay, or an answer, did not come in time. What was asked for stays in the vault."""


@dataclass(frozen=True, slots=True)
class Offline:
    """No connection; the next attempt is in ``retry_ms``."""

    sentence: str
    retry_ms: int


@dataclass(frozen=True, slots=True)
class HungUp:
    """There is no use in trying again: the relay is another, or refused this device for good."""

    sentence: str


@dataclass(frozen=True, slots=True)
class Stalled:
    """The vault's disk is full or fails: nothing is lost, nothing comes or goes; it goes on by itself."""

    sentence: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """Nothing more is told after this: the vault is damaged, or whoever holds it went away."""

    sentence: str


Happening: TypeAlias = "events.Notice | Offline | HungUp | Stalled | Stopped"
