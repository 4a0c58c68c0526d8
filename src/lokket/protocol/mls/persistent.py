"""A map from indices to values that never changes: setting gives another, which shares most of the old.

A group is a value, and a step of a large group must not copy what it does not touch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Generic, TypeVar

Value = TypeVar("Value")

_BITS: Final = 6  # a step copies whole chunks of 64 places, and the list of chunks


class IndexMap(Generic[Value]):
    """Chunks of a map by the upper bits of the index."""

    __slots__ = ("_chunks",)

    def __init__(self, values: Mapping[int, Value] | None = None) -> None:
        chunks: dict[int, dict[int, Value]] = {}
        for index, value in (values or {}).items():
            chunks.setdefault(index >> _BITS, {})[index] = value
        self._chunks = chunks

    def get(self, index: int) -> Value | None:
        chunk = self._chunks.get(index >> _BITS)
        return None if chunk is None else chunk.get(index)

    def __contains__(self, index: int) -> bool:
        return index in self._chunks.get(index >> _BITS, ())

    def __iter__(self) -> Iterator[int]:
        """All indices that have a value, rising."""
        for number in sorted(self._chunks):
            yield from sorted(self._chunks[number])

    def __len__(self) -> int:
        return sum(map(len, self._chunks.values()))

    def items(self) -> Iterator[tuple[int, Value]]:
        for number in sorted(self._chunks):
            yield from sorted(self._chunks[number].items(), key=lambda item: item[0])

    def set(self, changes: Mapping[int, Value | None]) -> IndexMap[Value]:
        """Another map with these values; None takes away."""
        chunks = dict(self._chunks)
        copied: set[int] = set()
        for index, value in changes.items():
            number = index >> _BITS
            if number not in copied:
                copied.add(number)
                chunks[number] = dict(chunks.get(number, ()))
            if value is None:
                chunks[number].pop(index, None)
            else:
                chunks[number][index] = value
        for number in copied:
            if not chunks[number]:
                del chunks[number]
        changed: IndexMap[Value] = IndexMap()
        changed._chunks = chunks
        return changed

    def differing(self, other: IndexMap[Value]) -> Iterator[int]:
        """The indices at which ``other`` holds another object than this map."""
        for number in self._chunks.keys() | other._chunks.keys():
            ours, theirs = self._chunks.get(number, {}), other._chunks.get(number, {})
            if ours is not theirs:
                for index in ours.keys() | theirs.keys():
                    if ours.get(index) is not theirs.get(index):
                        yield index

    def __repr__(self) -> str:
        return f"IndexMap({len(self)} values)"
