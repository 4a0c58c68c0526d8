"""The TLS presentation language as RFC 9420 section 2.1 uses it, derived from dataclasses.

A frozen dataclass is a struct: its fields in order. The types a field may have:

    U8 U16 U32 U64          unsigned integers, big-endian
    bool                    uint8, 0 or 1
    Opaque                  opaque x<V>; ``Annotated[bytes, OpaqueV(max_bytes)]`` bounds it
    Bytes16 Bytes32 ...     opaque x[n]; ``Annotated[bytes, Fixed(n)]`` for any other n
    tuple[T, ...]           T x<V>; ``Annotated[tuple[T, ...], Vector(max_items, ascending=True)]``
    T | None                optional<T>
    Annotated[E, Uint(n)]   an IntEnum in n bytes, unknown values refused
    Annotated[A | B, Select(Uint(1), {1: A, 2: B})]   a tagged choice; a choice may itself be one
    a dataclass             nested struct

A struct whose layout depends on values further out has its own methods ``write_tls(self, out)`` and
``read_tls(cls, reader)``, made of ``write`` and ``read`` here. One that derives from ``Kept`` remembers the
bytes it was read from or first written to: large trees are encoded once.

Encoding is canonical: a length has the shortest form, nothing trails. ``decode`` raises
``DecodeError`` for anything else, also when a ``__post_init__`` raises ``ValueError``.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping
from enum import IntEnum
from itertools import pairwise
from struct import unpack
from typing import Annotated, Any, Final, TypeVar, Union, get_args, get_origin, get_type_hints

from lokket.errors import DecodeError, LocalError

T = TypeVar("T")
Write = Callable[[Any, bytearray], None]
Read = Callable[["Reader"], Any]

_VARINT_MAX: Final = 1 << 30
_WORDS: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}
_STRUCTS: dict[type, tuple[Write, Read]] = {}  # built at first use
_PLAIN: dict[type, tuple[Write, Read]] = {}  # the same, without what ``Kept`` remembers


@dataclasses.dataclass(frozen=True, slots=True)
class Uint:
    size: int


@dataclasses.dataclass(frozen=True, slots=True)
class Fixed:
    size: int


@dataclasses.dataclass(frozen=True, slots=True)
class OpaqueV:
    max_bytes: int = _VARINT_MAX - 1


@dataclasses.dataclass(frozen=True, slots=True)
class Vector:
    max_items: int = _VARINT_MAX - 1
    ascending: bool = False  # strictly, by the encoded bytes of each item
    min_items: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Select:
    tag: Uint
    choices: Mapping[int, Any]  # tag -> a dataclass, or another Annotated[..., Select(...)]


class Kept:
    """Base of frozen dataclasses that remember their encoding; ``dataclasses.replace`` forgets it."""

    __slots__ = ("_encoded",)
    _encoded: bytes

    @property
    def encoded(self) -> bytes:
        """The value's encoding."""
        try:
            return self._encoded
        except AttributeError:
            out = bytearray()
            _plain(type(self))[0](self, out)
            return self.keep(bytes(out))

    def keep(self, encoded: bytes) -> bytes:
        """Remember ``encoded``, which must be this value's encoding."""
        object.__setattr__(self, "_encoded", encoded)
        return encoded


U8 = Annotated[int, Uint(1)]
U16 = Annotated[int, Uint(2)]
U32 = Annotated[int, Uint(4)]
U64 = Annotated[int, Uint(8)]
Opaque = Annotated[bytes, OpaqueV()]
Bytes16 = Annotated[bytes, Fixed(16)]
Bytes32 = Annotated[bytes, Fixed(32)]
Bytes33 = Annotated[bytes, Fixed(33)]
Bytes64 = Annotated[bytes, Fixed(64)]


def encode(value: Any) -> bytes:
    """The bytes of a dataclass value. LocalError: the value does not fit its declared type."""
    out = bytearray()
    _struct(type(value))[0](value, out)
    return bytes(out)


def decode(kind: type[T], data: bytes) -> T:
    """The value of ``kind`` that ``data`` encodes, all of it. DecodeError otherwise."""
    reader = Reader(data)
    value: T = _struct(kind)[1](reader)
    reader.end()
    return value


def write(value: Any, out: bytearray) -> None:
    """``value``, a dataclass, at the end of ``out``: for ``write_tls``."""
    _struct(type(value))[0](value, out)


def read(kind: type[T], reader: Reader) -> T:
    """The value of ``kind`` that stands next: for ``read_tls``."""
    value: T = _struct(kind)[1](reader)
    return value


def opaque(data: bytes) -> bytes:
    """``data`` as opaque x<V>: its length, then itself."""
    out = bytearray()
    write_length(len(data), out)
    out += data
    return bytes(out)


class Reader:
    """A position in bytes. Every read is bounded by what is there."""

    __slots__ = ("data", "position")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def take(self, size: int) -> bytes:
        start = self.position
        stop = start + size
        if stop > len(self.data):
            raise DecodeError("the structure is cut short")
        self.position = stop
        return self.data[start:stop]

    def uint(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def byte(self) -> int:
        position = self.position
        if position >= len(self.data):
            raise DecodeError("the structure is cut short")
        self.position = position + 1
        return self.data[position]

    def length(self) -> int:
        """A variable-size length of RFC 9420 section 2.1.2: 1, 2 or 4 bytes, shortest form only."""
        first = self.byte()
        if first < 1 << 6:
            return first
        prefix = first >> 6
        if prefix == 3:
            raise DecodeError("a length has the reserved prefix")
        extra = (1 << prefix) - 1
        value = (first & 0x3F) << (8 * extra) | self.uint(extra)
        if value < (1 << 6 if prefix == 1 else 1 << 14):
            raise DecodeError("a length is not in its shortest form")
        return value

    def opaque(self) -> bytes:
        start = self.position + 1
        if start <= len(self.data) and self.data[start - 1] < 1 << 6:  # the usual case, in one step
            stop = start + self.data[start - 1]
            if stop > len(self.data):
                raise DecodeError("the structure is cut short")
            self.position = stop
            return self.data[start:stop]
        return self.take(self.length())

    def end(self) -> None:
        if self.position != len(self.data):
            raise DecodeError("bytes trail the structure")


def write_length(size: int, out: bytearray) -> None:
    if size < 1 << 6:
        out.append(size)
    elif size < 1 << 14:
        out += (size | 1 << 14).to_bytes(2, "big")
    elif size < _VARINT_MAX:
        out += (size | 2 << 30).to_bytes(4, "big")
    else:
        raise LocalError("a vector is longer than 2^30 - 1 bytes")


def _struct(kind: type) -> tuple[Write, Read]:
    codec = _STRUCTS.get(kind)
    if codec is None:
        codec = _STRUCTS[kind] = _kept(kind) if issubclass(kind, Kept) else _plain(kind)
    return codec


def _kept(kind: type[Kept]) -> tuple[Write, Read]:
    _, read_plain = _plain(kind)

    def write_kept(value: Kept, out: bytearray) -> None:
        out += value.encoded

    def read_kept(reader: Reader) -> Any:
        start = reader.position
        value = read_plain(reader)
        value.keep(reader.data[start : reader.position])
        return value

    return write_kept, read_kept


def _plain(kind: type) -> tuple[Write, Read]:
    codec = _PLAIN.get(kind)
    if codec is None:
        codec = _PLAIN[kind] = _build(kind)
    return codec


def _build(kind: type) -> tuple[Write, Read]:
    if not dataclasses.is_dataclass(kind):
        raise LocalError(f"{kind.__name__} is no dataclass")
    own: Any = kind
    if hasattr(own, "write_tls"):
        return own.write_tls, own.read_tls
    hints = get_type_hints(kind, include_extras=True)
    fields = [(field.name, *_codec(hints[field.name])) for field in dataclasses.fields(kind)]
    writers = [(name, write) for name, write, _ in fields]
    readers = [read for _, _, read in fields]

    def write(value: Any, out: bytearray) -> None:
        for name, write_field in writers:
            write_field(getattr(value, name), out)

    def read(reader: Reader) -> Any:
        values = [read_field(reader) for read_field in readers]
        try:
            return kind(*values)
        except ValueError as error:
            raise DecodeError(f"not a {kind.__name__}: {error}") from None

    return write, read


def _codec(hint: Any) -> tuple[Write, Read]:
    marker: Any = None
    if get_origin(hint) is Annotated:
        hint, marker = get_args(hint)[:2]
    if isinstance(marker, Select):
        return _select(marker)
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        inner = [arm for arm in get_args(hint) if arm is not types.NoneType]
        if len(inner) != 1 or len(get_args(hint)) != 2:
            raise LocalError(f"no encoding for {hint}")
        return _optional(*_codec(inner[0] if marker is None else Annotated[inner[0], marker]))
    if origin is tuple:
        item, *rest = get_args(hint)
        if rest != [Ellipsis]:
            raise LocalError(f"no encoding for {hint}")
        bound = marker or Vector()
        write_items, read_items = _vector(*_codec(item), bound)
        kind, size = get_args(item) if get_origin(item) is Annotated else (item, None)
        if kind is int and isinstance(size, Uint) and size.size in _WORDS:
            return write_items, _numbers(size.size, bound)
        return write_items, read_items
    if hint is bool:
        return _BOOL
    if hint is bytes:
        return _bytes(marker)
    if isinstance(hint, type) and issubclass(hint, int) and isinstance(marker, Uint):
        return _uint(marker.size, hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _struct(hint)
    raise LocalError(f"no encoding for {hint}")


def _uint(size: int, kind: type[int]) -> tuple[Write, Read]:
    plain = not issubclass(kind, IntEnum)

    def write(value: int, out: bytearray) -> None:
        try:
            out += value.to_bytes(size, "big")
        except (OverflowError, AttributeError):
            raise LocalError(f"a number does not fit {size} bytes") from None

    if plain:
        return write, Reader.byte if size == 1 else lambda reader: reader.uint(size)

    def read(reader: Reader) -> int:
        value = reader.uint(size)
        try:
            return kind(value)
        except ValueError:
            raise DecodeError(f"no {kind.__name__} has the number {value}") from None

    return write, read


def _bytes(marker: Fixed | OpaqueV | None) -> tuple[Write, Read]:
    if isinstance(marker, Fixed):
        size = marker.size

        def write(value: bytes, out: bytearray) -> None:
            if len(value) != size:
                raise LocalError(f"a field of {size} bytes was given {len(value)}")
            out += value

        return write, lambda reader: reader.take(size)
    max_bytes = (marker or OpaqueV()).max_bytes

    def write_opaque(value: bytes, out: bytearray) -> None:
        if len(value) > max_bytes:
            raise LocalError(f"a field of at most {max_bytes} bytes was given {len(value)}")
        write_length(len(value), out)
        out += value

    if max_bytes == _VARINT_MAX - 1:
        return write_opaque, Reader.opaque

    def read_opaque(reader: Reader) -> bytes:
        size = reader.length()
        if size > max_bytes:
            raise DecodeError(f"a field is longer than {max_bytes} bytes")
        return reader.take(size)

    return write_opaque, read_opaque


def _write_bool(value: bool, out: bytearray) -> None:
    out.append(1 if value else 0)


def _read_bool(reader: Reader) -> bool:
    value = reader.byte()
    if value > 1:
        raise DecodeError("a flag is neither 0 nor 1")
    return value == 1


_BOOL: Final[tuple[Write, Read]] = (_write_bool, _read_bool)


def _optional(write_inner: Write, read_inner: Read) -> tuple[Write, Read]:
    def write(value: Any, out: bytearray) -> None:
        out.append(0 if value is None else 1)
        if value is not None:
            write_inner(value, out)

    def read(reader: Reader) -> Any:
        return read_inner(reader) if _read_bool(reader) else None

    return write, read


def _vector(write_item: Write, read_item: Read, bound: Vector) -> tuple[Write, Read]:
    def write(values: tuple[Any, ...], out: bytearray) -> None:
        if not bound.min_items <= len(values) <= bound.max_items:
            raise LocalError(f"a vector of {bound.min_items} to {bound.max_items} items has {len(values)}")
        body = bytearray()
        previous = b""
        for index, value in enumerate(values):
            start = len(body)
            write_item(value, body)
            if bound.ascending:
                item = bytes(body[start:])
                if index and item <= previous:
                    raise LocalError("a sorted vector is out of order or has duplicates")
                previous = item
        write_length(len(body), out)
        out += body

    def read(reader: Reader) -> tuple[Any, ...]:
        size = reader.length()
        stop = reader.position + size
        if stop > len(reader.data):
            raise DecodeError("the structure is cut short")
        values: list[Any] = []
        previous = b""
        while reader.position < stop:
            if len(values) == bound.max_items:
                raise DecodeError(f"a vector has more than {bound.max_items} items")
            start = reader.position
            values.append(read_item(reader))
            if bound.ascending:
                item = reader.data[start : reader.position]
                if len(values) > 1 and item <= previous:
                    raise DecodeError("a sorted vector is out of order or has duplicates")
                previous = item
            if reader.position == start:
                raise DecodeError("a vector holds items of no size")
        if reader.position != stop:
            raise DecodeError("a vector's items run past its length")
        if len(values) < bound.min_items:
            raise DecodeError(f"a vector has fewer than {bound.min_items} items")
        return tuple(values)

    return write, read


def _numbers(size: int, bound: Vector) -> Read:
    """A vector of plain numbers, read at once."""
    letter = _WORDS[size]

    def read(reader: Reader) -> tuple[int, ...]:
        data = reader.opaque()
        count, rest = divmod(len(data), size)
        if rest:
            raise DecodeError("a vector's items run past its length")
        if count > bound.max_items:
            raise DecodeError(f"a vector has more than {bound.max_items} items")
        if count < bound.min_items:
            raise DecodeError(f"a vector has fewer than {bound.min_items} items")
        numbers = unpack(f">{count}{letter}", data)
        if bound.ascending and any(one >= other for one, other in pairwise(numbers)):
            raise DecodeError("a sorted vector is out of order or has duplicates")
        return numbers

    return read


def _select(marker: Select) -> tuple[Write, Read]:
    codecs = {tag: _codec(kind) for tag, kind in marker.choices.items()}
    tags = {kind: tag for tag, choice in marker.choices.items() for kind in _kinds(choice)}
    size = marker.tag.size

    def write(value: Any, out: bytearray) -> None:
        tag = tags[type(value)]
        out += tag.to_bytes(size, "big")
        codecs[tag][0](value, out)

    def read(reader: Reader) -> Any:
        tag = reader.byte() if size == 1 else reader.uint(size)
        if tag not in codecs:
            raise DecodeError(f"no choice has the tag {tag}")
        return codecs[tag][1](reader)

    return write, read


def _kinds(choice: Any) -> list[type]:
    """The classes of a choice: itself, or those of the tagged choice that it is."""
    if get_origin(choice) is not Annotated:
        return [choice]
    return [kind for inner in get_args(choice)[1].choices.values() for kind in _kinds(inner)]
