"""``value``: a dataclass that the type checker freezes and the interpreter does not.

States are values: a step makes new ones and never assigns to old ones, so a failed decrypt spoils
nothing. mypy refuses an assignment; at run time a frozen dataclass would cost 2 us per message.
Values that hold secrets show their type's name only.
"""

from __future__ import annotations

import dataclasses
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def value(kind: type[T]) -> type[T]:
    made = dataclasses.dataclass(slots=True, repr=False)(kind)
    made.__repr__ = _hide  # type: ignore[assignment]
    return made


def _hide(self: object) -> str:
    return f"{type(self).__name__}(…)"
