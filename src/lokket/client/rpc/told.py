"""Happenings as JSON objects and back: ``happening`` is the kind, the other fields are its own."""

from __future__ import annotations

from typing import Any, Final, get_args

import msgspec

from lokket.client.happenings import Happening, HungUp, Offline, Stalled, Stopped
from lokket.engine import events
from lokket.errors import DecodeError

_KINDS: Final[dict[str, type[Any]]] = {
    kind.__name__: kind for kind in (*get_args(events.Notice), Offline, HungUp, Stalled, Stopped)
}


def as_object(happening: Happening) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(happening)
    return {"happening": type(happening).__name__, **fields}


def from_object(told: Any) -> Happening | None:
    """None: a kind of a later version. DecodeError: not what its kind says."""
    try:
        fields = dict(told)
        kind = _KINDS.get(fields.pop("happening"))
        if kind is None:
            return None
        happening: Happening = msgspec.convert(fields, kind)
    except (msgspec.MsgspecError, TypeError, ValueError, KeyError):
        raise DecodeError("what the daemon told is not what its kind says") from None
    return happening
