"""The eleven states of the ML-KEM Braid, each with the data it needs and no other.

Source: signal.org/docs/specifications/mlkembraid, revision 1. One party walks the first five (it makes
the key), the other the last six (it encapsulates); after an epoch they change places. ``chunks`` holds
what a decoder has so far: entries of a chunk index (uint16) and 32 bytes. The index of the next chunk to
send is kept beside the state, as it changes with every message. The order of fields is the stored format.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

from lokket.codec.tls import U64, Bytes32, Bytes64, Fixed, OpaqueV, Select, Uint
from lokket.crypto.mlkem import CT1_768_BYTES, HEADER_BYTES, VECTOR_768_BYTES
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
}
"""Tags of the stored format."""


@value
class Braid:
    """Any of the states, as it is stored."""

    state: Annotated[State, Select(Uint(1), STATES)]
