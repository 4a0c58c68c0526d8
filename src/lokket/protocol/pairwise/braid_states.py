"""The states of the ML-KEM Braid, each with the data it needs and no other.

Source: signal.org/docs/specifications/mlkembraid, revision 1. One party walks the first six (it makes
the key), the other the last six (it encapsulates); after an epoch they change places. They are the
specification's eleven, and ``KeysDrawn``, which it does not tell from ``KeysSampled``. ``chunks`` holds
what a decoder has so far: entries of a chunk index (uint16) and 32 bytes. The index of the next chunk to
send is kept beside the state, as it changes with every message. The order of fields is the stored format.
"""

from __future__ import annotations

import dataclasses
from operator import attrgetter
from struct import Struct
from typing import Annotated, Any, Final, NamedTuple, TypeAlias, get_args, get_type_hints

from lokket.codec.tls import U64, Bytes32, Bytes64, Fixed, OpaqueV, Reader, Select, Uint, opaque
from lokket.crypto.mlkem import CT1_768_BYTES, HEADER_BYTES, VECTOR_768_BYTES
from lokket.errors import DecodeError, LocalError
from lokket.protocol.pairwise.value import value

MAC_BYTES: Final = 32
CHUNK_ENTRY_BYTES: Final = 34

Vector: TypeAlias = Annotated[bytes, Fixed(VECTOR_768_BYTES)]
Header: TypeAlias = Annotated[bytes, Fixed(HEADER_BYTES)]
HeaderAndMac: TypeAlias = Annotated[bytes, Fixed(HEADER_BYTES + MAC_BYTES)]
Ct1: TypeAlias = Annotated[bytes, Fixed(CT1_768_BYTES)]
Ct2AndMac: TypeAlias = Annotated[bytes, Fixed(160)]
Chunks: TypeAlias = Annotated[bytes, OpaqueV(36 * CHUNK_ENTRY_BYTES)]


@value
class Authenticator:
    """Keys of the MACs over headers and ciphertexts, renewed with each epoch's secret."""

    root: Bytes32
    mac_key: Bytes32


@value
class KeysUnsampled:
    """About to make this epoch's key pair."""

    epoch: U64
    authenticator: Authenticator


@value
class KeysDrawn:
    """Sent the first chunk of the header, for which the seed is enough; the key pair is still to be made."""

    epoch: U64
    authenticator: Authenticator
    seed: Bytes64


@value
class KeysSampled:
    """Sending the key's header until the first part of the ciphertext arrives."""

    epoch: U64
    authenticator: Authenticator
    seed: Bytes64
    vector: Vector
    header_and_mac: HeaderAndMac


@value
class HeaderSent:
    """Sending the key itself, collecting ct1."""

    epoch: U64
    authenticator: Authenticator
    seed: Bytes64
    vector: Vector
    chunks: Chunks


@value
class Ct1Received:
    """Has ct1, says so, still sending the key."""

    epoch: U64
    authenticator: Authenticator
    seed: Bytes64
    vector: Vector
    ct1: Ct1


@value
class EkSentCt1Received:
    """The other side has the key; collecting ct2."""

    epoch: U64
    authenticator: Authenticator
    seed: Bytes64
    ct1: Ct1
    chunks: Chunks


@value
class NoHeaderReceived:
    """Collecting the header of the other side's key."""

    epoch: U64
    authenticator: Authenticator
    chunks: Chunks


@value
class HeaderReceived:
    """About to encapsulate to the header."""

    epoch: U64
    authenticator: Authenticator
    header: Header


@value
class Ct1Sampled:
    """Sending ct1, collecting the key."""

    epoch: U64
    authenticator: Authenticator
    header: Header
    message: Bytes32
    ct1: Ct1
    chunks: Chunks


@value
class EkReceivedCt1Sampled:
    """Has the key, sending ct1 until it is acknowledged."""

    epoch: U64
    authenticator: Authenticator
    header: Header
    message: Bytes32
    ct1: Ct1
    vector: Vector


@value
class Ct1Acknowledged:
    """ct1 has arrived, collecting the rest of the key."""

    epoch: U64
    authenticator: Authenticator
    header: Header
    message: Bytes32
    ct1: Ct1
    chunks: Chunks


@value
class Ct2Sampled:
    """Sending ct2 until the other side speaks in the next epoch."""

    epoch: U64
    authenticator: Authenticator
    ct2_and_mac: Ct2AndMac


State: TypeAlias = (
    KeysUnsampled
    | KeysDrawn
    | KeysSampled
    | HeaderSent
    | Ct1Received
    | EkSentCt1Received
    | NoHeaderReceived
    | HeaderReceived
    | Ct1Sampled
    | EkReceivedCt1Sampled
    | Ct1Acknowledged
    | Ct2Sampled
)

STATES: Final[dict[int, type[State]]] = {
    1: KeysUnsampled,
    2: KeysSampled,
    3: HeaderSent,
    4: Ct1Received,
    5: EkSentCt1Received,
    6: NoHeaderReceived,
    7: HeaderReceived,
    8: Ct1Sampled,
    9: EkReceivedCt1Sampled,
    10: Ct1Acknowledged,
    11: Ct2Sampled,
    12: KeysDrawn,
}
"""Tags of the stored format."""


@value
class Braid:
    """Any of the states, as it is stored."""

    state: Annotated[State, Select(Uint(1), STATES)]


class _Layout(NamedTuple):
    """How a state is stored: the tag and all fields of fixed size, then perhaps ``chunks``."""

    kind: type[State]
    fixed: Struct
    values: attrgetter[Any]
    chunked: bool


def _layout(kind: type[State]) -> _Layout:
    """From the annotations that ``tls`` reads, too."""
    hints = get_type_hints(kind, include_extras=True)
    names: list[str] = []
    form = ">B"
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if hint is Authenticator:
            form += "32s32s"
            names += ("authenticator.root", "authenticator.mac_key")
        elif hint != Chunks:
            marker = get_args(hint)[1]
            form += "Q" if isinstance(marker, Uint) else f"{marker.size}s"
            names.append(field.name)
    return _Layout(kind, Struct(form), attrgetter(*names), "chunks" in hints)


_LAYOUTS: Final = {tag: _layout(kind) for tag, kind in STATES.items()}
_TAGS: Final = {kind: tag for tag, kind in STATES.items()}
_CHUNKS_MAX_BYTES: Final = 36 * CHUNK_ENTRY_BYTES


def encode(state: State) -> bytes:
    """The same bytes as ``tls.encode(Braid(state))``, five times as fast: every message may store them."""
    tag = _TAGS[type(state)]
    layout = _LAYOUTS[tag]
    fixed = layout.fixed.pack(tag, *layout.values(state))
    return fixed + opaque(state.chunks) if layout.chunked else fixed  # type: ignore[union-attr]


def decode(data: bytes) -> State:
    """Inverse of ``encode``. DecodeError, as ``tls.decode(Braid, data)`` raises it."""
    layout = _LAYOUTS.get(data[0]) if data else None
    if layout is None:
        raise DecodeError("a stored Braid has an unknown state")
    size = layout.fixed.size
    if len(data) < size or (len(data) > size and not layout.chunked):
        raise DecodeError("a stored Braid is cut short or too long")
    _, epoch, root, mac_key, *rest = layout.fixed.unpack_from(data)
    if layout.chunked:
        reader = Reader(data)
        reader.position = size
        chunks = reader.opaque()
        reader.end()
        if len(chunks) > _CHUNKS_MAX_BYTES:
            raise DecodeError("a stored Braid has too many chunks")
        rest.append(chunks)
    return layout.kind(epoch, Authenticator(root, mac_key), *rest)


class StoredBraid:
    """A state and its stored bytes, each made when first asked for."""

    __slots__ = ("_data", "_state")

    def __init__(self, state: State | None, data: bytes | None = None) -> None:
        self._state = state
        self._data = data

    @property
    def state(self) -> State:
        """LocalError: the stored bytes are damaged."""
        if self._state is None:
            try:
                self._state = decode(self._data or b"")
            except DecodeError:
                raise LocalError("a stored session is damaged") from None
        return self._state

    def peek(self) -> tuple[type[State], int]:
        """(the state's kind, its epoch), for which stored bytes are not decoded.

        LocalError: the stored bytes begin as no state does.
        """
        state, data = self._state, self._data
        if state is not None:
            return type(state), state.epoch
        if not data or data[0] not in STATES or len(data) < 9:
            raise LocalError("a stored session is damaged")
        return STATES[data[0]], int.from_bytes(data[1:9], "big")

    @property
    def data(self) -> bytes:
        if self._data is None:
            assert self._state is not None
            self._data = encode(self._state)
        return self._data

    def __repr__(self) -> str:
        return "StoredBraid(…)"
