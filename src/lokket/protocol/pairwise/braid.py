"""The ML-KEM Braid: a key encapsulation per epoch, spread in 32-byte chunks over the messages of a session.

Source: signal.org/docs/specifications/mlkembraid, revision 1, with libsignal's labels and the transitions
its code has where the text differs (``EkSentCt1Received`` says Ct1Ack, ``Ct1Acknowledged`` takes Ek, a
higher epoch is refused). A key pair is made by the second message that sends its header: the first chunk
is rho, which the seed gives at once, and who gets no answer has not paid for a key. What a state sends,
takes and becomes stands in the three tables at the end; nothing else decides. Knows no message keys: it
yields one secret per epoch to ``spqr``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum, IntEnum
from typing import Any, Final, NamedTuple, cast

from lokket.crypto import erasure, mlkem
from lokket.crypto.entropy import Entropy
from lokket.crypto.keys import MLKEMKeyPair
from lokket.crypto.primitives import equal, hkdf_sha256, hkdf_sha256_pair, hmac_sha256
from lokket.errors import DecryptionFailed
from lokket.protocol.pairwise.braid_states import (
    CHUNK_ENTRY_BYTES,
    MAC_BYTES,
    STATES,
    Authenticator,
    Ct1Acknowledged,
    Ct1Received,
    Ct1Sampled,
    Ct2Sampled,
    EkReceivedCt1Sampled,
    EkSentCt1Received,
    HeaderReceived,
    HeaderSent,
    KeysDrawn,
    KeysSampled,
    KeysUnsampled,
    NoHeaderReceived,
    State,
)
from lokket.protocol.pairwise.value import changer, value

_PROTOCOL: Final = b"Signal_PQCKA_V1_MLKEM768:"
_INDEX_MASK: Final = erasure.CHUNK_INDEX_MAX  # after 65536 chunks the message itself comes round again


class Payload(IntEnum):
    """The type byte of a message."""

    NONE = 0
    HDR = 1
    EK = 2
    EK_CT1_ACK = 3
    CT1_ACK = 4
    CT1 = 5
    CT2 = 6


CHUNKED: Final = frozenset({Payload.HDR, Payload.EK, Payload.EK_CT1_ACK, Payload.CT1, Payload.CT2})


@value
class Message:
    """One message's share of the Braid; ``chunk`` is empty for a payload that has none."""

    epoch: int
    payload: Payload
    place: int
    chunk: bytes


class Secret(NamedTuple):
    """The shared secret of one epoch, 32 bytes."""

    epoch: int
    key: bytes

    def __repr__(self) -> str:
        return f"Secret({self.epoch}, …)"


class Event(Enum):
    """What moves a state on; a chunk that completes nothing and starts nothing is no event."""

    __hash__ = object.__hash__  # an enum's own is Python code

    KEYS_DRAWN = "sends: draws the seed of a key pair"
    KEYS_SAMPLED = "sends again: makes the key pair"
    CT1_STARTED = "first chunk of ct1"
    CT1_COMPLETE = "last chunk of ct1"
    CT2_STARTED = "first chunk of ct2"
    CT2_COMPLETE = "last chunk of ct2: decapsulates, yields the secret"
    HEADER_COMPLETE = "last chunk of the header"
    CT1_SAMPLED = "sends: encapsulates, yields the secret"
    EK_COMPLETE = "last chunk of the key"
    CT1_ACKNOWLEDGED = "ct1 acknowledged"
    EK_COMPLETE_AND_CT1_ACKNOWLEDGED = "last chunk of the key, ct1 acknowledged"
    NEXT_EPOCH = "any message of the next epoch"


Stepped = tuple[State, Secret | None]


def start(secret: bytes, initiator: bool) -> State:
    """The first state from PQXDH's 32-byte secret: the initiator makes the first key."""
    authenticator = _update(Authenticator(bytes(32), bytes(32)), 1, secret)
    return KeysUnsampled(1, authenticator) if initiator else NoHeaderReceived(1, authenticator, b"")


def send(state: State, index: int, entropy: Entropy) -> tuple[State, int, Message, Secret | None]:
    """(state, next chunk index, what this message carries, a secret if the epoch just got one).

    ``index`` is that of the next chunk. Draws 64, 32 or nothing.
    """
    secret = None
    event = ON_SEND.get(type(state))
    if event is not None:
        drawn = entropy.draw(_DRAWS[event]) if event in _DRAWS else b""
        state, secret = _move(state, event, drawn)
        index = 0 if drawn else index
    payload, field = SENDS[type(state)]
    if not field:
        return state, 0, Message(state.epoch, payload, 0, b""), secret
    if field == "seed":
        chunk = mlkem.rho_of_seed(getattr(state, field))
    else:
        chunk = erasure.chunk(getattr(state, field), index)
    return state, index + 1 & _INDEX_MASK, Message(state.epoch, payload, index, chunk), secret


def receive(state: State, index: int, message: Message) -> tuple[State, int, Secret | None]:
    """(state, next chunk index, a secret if the message completed one).

    DecryptionFailed, KeyRefused, DecodeError: the message is not from the peer's Braid.
    """
    after, secret = _take(state, message)
    if type(after) is not type(state) and _source(after) != _source(state):
        index = 0
    return after, index, secret


def _source(state: State) -> str:
    """The field whose chunks a state sends."""
    return SENDS[type(state)][1] if type(state) in SENDS else ""


def ignores(kind: type[State], epoch: int, message_epoch: int, payload: Payload) -> bool:
    """Whether ``receive`` leaves a state of this kind and epoch as it is, whatever else the two hold."""
    if message_epoch != epoch:
        return message_epoch < epoch
    return _TAKES[kind][payload] is None


def _take(state: State, message: Message) -> Stepped:
    if ignores(type(state), state.epoch, message.epoch, message.payload):
        return state, None
    if message.epoch != state.epoch:
        if message.epoch == state.epoch + 1 and (type(state), Event.NEXT_EPOCH) in TRANSITIONS:
            return _move(state, Event.NEXT_EPOCH, b"")
        raise DecryptionFailed("a post-quantum epoch is from the future", code="pq-epoch")
    taking = cast(Taking, _TAKES[type(state)][message.payload])
    if not taking.chunks:
        return _move(state, cast(Event, taking.more), b"")
    before: bytes = getattr(state, "chunks", b"")
    chunks = _add_chunk(before, message)
    if len(chunks) == taking.chunks * CHUNK_ENTRY_BYTES and taking.complete is not None:
        return _move(state, taking.complete, erasure.decode(_by_index(chunks), taking.chunks))
    if taking.more is not None:
        return _move(state, taking.more, chunks)
    if chunks == before:
        return state, None
    return _WITH_CHUNKS[type(state)](state, chunks), None


def _by_index(chunks: bytes) -> dict[int, bytes]:
    return {
        int.from_bytes(chunks[place : place + 2], "big"): chunks[place + 2 : place + CHUNK_ENTRY_BYTES]
        for place in range(0, len(chunks), CHUNK_ENTRY_BYTES)
    }


def _add_chunk(chunks: bytes, message: Message) -> bytes:
    index = message.place.to_bytes(2, "big")
    for place in range(0, len(chunks), CHUNK_ENTRY_BYTES):
        if chunks[place : place + 2] == index:
            return chunks
    return b"".join((chunks, index, message.chunk))


def _move(state: State, event: Event, data: bytes) -> Stepped:
    """Row (state, event) of TRANSITIONS."""
    row = TRANSITIONS[type(state), event]
    return row.make(state, data)


# --- what the rows do: (state, drawn bytes, chunks or the complete message) -> (state, secret) ---


def _draw_keys(state: KeysUnsampled, seed: bytes) -> Stepped:
    return KeysDrawn(state.epoch, state.authenticator, seed), None


def _sample_keys(state: KeysDrawn, _: bytes) -> Stepped:
    public = MLKEMKeyPair(768, state.seed).public
    key_header = mlkem.header(public)
    mac = _header_mac(state.authenticator, state.epoch, key_header)
    vector = public[: mlkem.VECTOR_768_BYTES]
    return KeysSampled(state.epoch, state.authenticator, state.seed, vector, key_header + mac), None


def _start_ct1(state: KeysSampled, chunks: bytes) -> Stepped:
    return HeaderSent(state.epoch, state.authenticator, state.seed, state.vector, chunks), None


def _complete_ct1(state: HeaderSent, ct1: bytes) -> Stepped:
    return Ct1Received(state.epoch, state.authenticator, state.seed, state.vector, ct1), None


def _start_ct2(state: Ct1Received, chunks: bytes) -> Stepped:
    return EkSentCt1Received(state.epoch, state.authenticator, state.seed, state.ct1, chunks), None


def _complete_ct2(state: EkSentCt1Received, ct2_and_mac: bytes) -> Stepped:
    ciphertext = state.ct1 + ct2_and_mac[: mlkem.CT2_768_BYTES]
    secret = _epoch_secret(MLKEMKeyPair(768, state.seed).decapsulate(ciphertext), state.epoch)
    authenticator = _update(state.authenticator, state.epoch, secret.key)
    expected = _ciphertext_mac(authenticator, state.epoch, ciphertext)
    if not equal(expected, ct2_and_mac[mlkem.CT2_768_BYTES :]):
        raise DecryptionFailed("a post-quantum ciphertext is not authentic", code="pq-mac")
    return NoHeaderReceived(state.epoch + 1, authenticator, b""), secret


def _complete_header(state: NoHeaderReceived, header_and_mac: bytes) -> Stepped:
    key_header, mac = header_and_mac[: mlkem.HEADER_BYTES], header_and_mac[mlkem.HEADER_BYTES :]
    if not equal(_header_mac(state.authenticator, state.epoch, key_header), mac):
        raise DecryptionFailed("a post-quantum key header is not authentic", code="pq-mac")
    return HeaderReceived(state.epoch, state.authenticator, key_header), None


def _sample_ct1(state: HeaderReceived, message: bytes) -> Stepped:
    shared, ct1 = mlkem.encapsulate_1(state.header, message)
    secret = _epoch_secret(shared, state.epoch)
    authenticator = _update(state.authenticator, state.epoch, secret.key)
    return Ct1Sampled(state.epoch, authenticator, state.header, message, ct1, b""), secret


def _complete_ek(state: Ct1Sampled, vector: bytes) -> Stepped:
    mlkem.check_public_key(vector, state.header)
    after = EkReceivedCt1Sampled(
        state.epoch, state.authenticator, state.header, state.message, state.ct1, vector
    )
    return after, None


def _acknowledge_ct1(state: Ct1Sampled, chunks: bytes) -> Stepped:
    after = Ct1Acknowledged(state.epoch, state.authenticator, state.header, state.message, state.ct1, chunks)
    return after, None


def _complete_ek_after_ack(state: Ct1Sampled | Ct1Acknowledged, vector: bytes) -> Stepped:
    mlkem.check_public_key(vector, state.header)
    return _sample_ct2(state, vector), None


def _acknowledge_after_ek(state: EkReceivedCt1Sampled, _: bytes) -> Stepped:
    return _sample_ct2(state, state.vector), None


def _sample_ct2(state: Ct1Sampled | EkReceivedCt1Sampled | Ct1Acknowledged, vector: bytes) -> State:
    ct2 = mlkem.encapsulate_2(vector, state.header, state.message)
    mac = _ciphertext_mac(state.authenticator, state.epoch, state.ct1 + ct2)
    return Ct2Sampled(state.epoch, state.authenticator, ct2 + mac)


def _next_epoch(state: Ct2Sampled, _: bytes) -> Stepped:
    return KeysUnsampled(state.epoch + 1, state.authenticator), None


# --- keys ---


def _update(authenticator: Authenticator, epoch: int, key: bytes) -> Authenticator:
    info = _PROTOCOL + b"Authenticator Update" + epoch.to_bytes(8, "big")
    return Authenticator(*hkdf_sha256_pair(authenticator.root + key, None, info))


def _header_mac(authenticator: Authenticator, epoch: int, key_header: bytes) -> bytes:
    label = _PROTOCOL + b"ekheader" + epoch.to_bytes(8, "big")
    return hmac_sha256(authenticator.mac_key, label + key_header)


def _ciphertext_mac(authenticator: Authenticator, epoch: int, ciphertext: bytes) -> bytes:
    label = _PROTOCOL + b"ciphertext" + epoch.to_bytes(8, "big")
    return hmac_sha256(authenticator.mac_key, label + ciphertext)


def _epoch_secret(shared: bytes, epoch: int) -> Secret:
    info = _PROTOCOL + b"SCKA Key" + epoch.to_bytes(8, "big")
    return Secret(epoch, hkdf_sha256(shared, salt=None, info=info, length=32))


# --- the tables ---


class Taking(NamedTuple):
    """A payload collects ``chunks`` of them; the event when they are complete, and the one for any before."""

    chunks: int
    complete: Event | None
    more: Event | None = None


class Transition(NamedTuple):
    target: type[State]
    make: Callable[[Any, bytes], Stepped]


_HEADER_CHUNKS: Final = (mlkem.HEADER_BYTES + MAC_BYTES) // erasure.CHUNK_BYTES
_EK_CHUNKS: Final = mlkem.VECTOR_768_BYTES // erasure.CHUNK_BYTES
_CT1_CHUNKS: Final = mlkem.CT1_768_BYTES // erasure.CHUNK_BYTES
_CT2_CHUNKS: Final = (mlkem.CT2_768_BYTES + MAC_BYTES) // erasure.CHUNK_BYTES

ON_SEND: Final[Mapping[type[State], Event]] = {
    KeysUnsampled: Event.KEYS_DRAWN,
    KeysDrawn: Event.KEYS_SAMPLED,
    HeaderReceived: Event.CT1_SAMPLED,
}
"""States that move on because they send."""

_DRAWS: Final = {Event.KEYS_DRAWN: 64, Event.CT1_SAMPLED: mlkem.MESSAGE_BYTES}

SENDS: Final[Mapping[type[State], tuple[Payload, str]]] = {
    KeysDrawn: (Payload.HDR, "seed"),  # its first chunk alone, which is rho
    KeysSampled: (Payload.HDR, "header_and_mac"),
    HeaderSent: (Payload.EK, "vector"),
    Ct1Received: (Payload.EK_CT1_ACK, "vector"),
    EkSentCt1Received: (Payload.CT1_ACK, ""),
    NoHeaderReceived: (Payload.NONE, ""),
    Ct1Sampled: (Payload.CT1, "ct1"),
    EkReceivedCt1Sampled: (Payload.CT1, "ct1"),
    Ct1Acknowledged: (Payload.NONE, ""),
    Ct2Sampled: (Payload.CT2, "ct2_and_mac"),
}
"""The payload of each state's messages, and the field that is sent in chunks."""

TAKES: Final[Mapping[tuple[type[State], Payload], Taking]] = {
    (KeysSampled, Payload.CT1): Taking(_CT1_CHUNKS, None, Event.CT1_STARTED),
    (HeaderSent, Payload.CT1): Taking(_CT1_CHUNKS, Event.CT1_COMPLETE),
    (Ct1Received, Payload.CT2): Taking(_CT2_CHUNKS, None, Event.CT2_STARTED),
    (EkSentCt1Received, Payload.CT2): Taking(_CT2_CHUNKS, Event.CT2_COMPLETE),
    (NoHeaderReceived, Payload.HDR): Taking(_HEADER_CHUNKS, Event.HEADER_COMPLETE),
    (Ct1Sampled, Payload.EK): Taking(_EK_CHUNKS, Event.EK_COMPLETE),
    (Ct1Sampled, Payload.EK_CT1_ACK): Taking(
        _EK_CHUNKS, Event.EK_COMPLETE_AND_CT1_ACKNOWLEDGED, Event.CT1_ACKNOWLEDGED
    ),
    (EkReceivedCt1Sampled, Payload.EK_CT1_ACK): Taking(0, None, Event.CT1_ACKNOWLEDGED),
    (EkReceivedCt1Sampled, Payload.CT1_ACK): Taking(0, None, Event.CT1_ACKNOWLEDGED),
    (Ct1Acknowledged, Payload.EK): Taking(_EK_CHUNKS, Event.EK_COMPLETE),
    (Ct1Acknowledged, Payload.EK_CT1_ACK): Taking(_EK_CHUNKS, Event.EK_COMPLETE),
}
"""What a state does with a payload of its own epoch; a pair that is not here is ignored."""

_TAKES: Final = {
    kind: tuple(TAKES.get((kind, payload)) for payload in Payload) for kind in STATES.values()
}  # by the payload's number: hashing an enum's member takes longer than the step

TRANSITIONS: Final[Mapping[tuple[type[State], Event], Transition]] = {
    (KeysUnsampled, Event.KEYS_DRAWN): Transition(KeysDrawn, _draw_keys),
    (KeysDrawn, Event.KEYS_SAMPLED): Transition(KeysSampled, _sample_keys),
    (KeysSampled, Event.CT1_STARTED): Transition(HeaderSent, _start_ct1),
    (HeaderSent, Event.CT1_COMPLETE): Transition(Ct1Received, _complete_ct1),
    (Ct1Received, Event.CT2_STARTED): Transition(EkSentCt1Received, _start_ct2),
    (EkSentCt1Received, Event.CT2_COMPLETE): Transition(NoHeaderReceived, _complete_ct2),
    (NoHeaderReceived, Event.HEADER_COMPLETE): Transition(HeaderReceived, _complete_header),
    (HeaderReceived, Event.CT1_SAMPLED): Transition(Ct1Sampled, _sample_ct1),
    (Ct1Sampled, Event.EK_COMPLETE): Transition(EkReceivedCt1Sampled, _complete_ek),
    (Ct1Sampled, Event.CT1_ACKNOWLEDGED): Transition(Ct1Acknowledged, _acknowledge_ct1),
    (Ct1Sampled, Event.EK_COMPLETE_AND_CT1_ACKNOWLEDGED): Transition(Ct2Sampled, _complete_ek_after_ack),
    (EkReceivedCt1Sampled, Event.CT1_ACKNOWLEDGED): Transition(Ct2Sampled, _acknowledge_after_ek),
    (Ct1Acknowledged, Event.EK_COMPLETE): Transition(Ct2Sampled, _complete_ek_after_ack),
    (Ct2Sampled, Event.NEXT_EPOCH): Transition(KeysUnsampled, _next_epoch),
}
"""Every move there is. EkSentCt1Received and Ct2Sampled go to the next epoch, in the other role."""

_WITH_CHUNKS: Final[Mapping[type[State], Callable[[Any, bytes], State]]] = {
    kind: changer(kind, "chunks")
    for kind in (HeaderSent, EkSentCt1Received, NoHeaderReceived, Ct1Sampled, Ct1Acknowledged)
}
