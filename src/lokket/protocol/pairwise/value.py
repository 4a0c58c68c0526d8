"""Values: frozen to the type checker, cheap at run time, decoded from storage when first needed.

States are values: a step makes new ones and never assigns to old ones, so a failed decrypt spoils
nothing. mypy refuses an assignment; at run time a frozen dataclass would cost 2 us per message.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from operator import attrgetter
from typing import Any, Generic, TypeVar, dataclass_transform

from lokket.codec import tls
from lokket.errors import DecodeError, LocalError

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def value(kind: type[T]) -> type[T]:
    """A dataclass with slots whose repr shows its type's name only: it may hold secrets."""
    made = dataclasses.dataclass(slots=True, repr=False, eq=False)(kind)
    setattr(made, "__repr__", _hide)  # noqa: B010
    return made


@dataclass_transform(frozen_default=True)
def public_value(kind: type[T]) -> type[T]:
    """As ``value``, of what is public: compared and shown by its fields."""
    return dataclasses.dataclass(slots=True)(kind)


def _hide(self: object) -> str:
    return f"{type(self).__name__}(…)"


def changer(kind: type[T], field: str) -> Callable[[T, Any], T]:
    """A function that copies a ``kind`` with another value in ``field``; faster than ``replace``."""
    names = [one.name for one in dataclasses.fields(kind)]  # type: ignore[arg-type]
    place, values_of = names.index(field), attrgetter(*names)

    def change(old: T, new: Any) -> T:
        values = list(values_of(old))
        values[place] = new
        return kind(*values)

    return change


class Stored(Generic[T]):
    """A dataclass value and its stored bytes (TLS presentation language), each made when first asked for."""

    __slots__ = ("_data", "_kind", "_value")

    def __init__(self, kind: type[T], value: T | None, data: bytes | None = None) -> None:
        self._kind = kind
        self._value = value
        self._data = data

    @property
    def value(self) -> T:
        """LocalError: the stored bytes are damaged."""
        if self._value is None:
            try:
                self._value = tls.decode(self._kind, self._data or b"")
            except DecodeError:
                raise LocalError("a stored session is damaged") from None
        return self._value

    @property
    def data(self) -> bytes:
        if self._data is None:
            self._data = tls.encode(self._value)
        return self._data

    def __repr__(self) -> str:
        return f"Stored({self._kind.__name__})"
