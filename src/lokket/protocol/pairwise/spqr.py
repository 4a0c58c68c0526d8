"""SPQR, the sparse post-quantum ratchet (Double Ratchet revision 4, section 5), libsignal's version 1.

Each Braid epoch's secret starts a new link of two symmetric chains, one per direction; every message
takes the next key of its sender's chain. A message of Braid epoch E uses the chains of epoch E - 1, which
both sides are sure to have. pq_ratchet = 01 || epoch || index || type [|| chunk index || chunk].

Stricter than libsignal: index 0 (a message without a post-quantum key) and other versions are refused.
"""

from __future__ import annotations

from typing import Annotated, Final, NamedTuple

from lokket.codec.protobuf import read_varint, varint
from lokket.codec.tls import U32, U64, Bytes32, OpaqueV
from lokket.crypto.entropy import Entropy
from lokket.crypto.erasure import CHUNK_BYTES, CHUNK_INDEX_MAX
from lokket.crypto.primitives import hkdf_sha256
from lokket.errors import DecodeError, DecryptionFailed, LocalError
from lokket.limits import SKIP_AHEAD_MAX, SKIPPED_KEYS_MAX
from lokket.protocol.pairwise import braid, skipped
from lokket.protocol.pairwise.braid import CHUNKED, Message, Payload, Secret
from lokket.protocol.pairwise.braid_states import State
from lokket.protocol.pairwise.value import value
from lokket.protocol.pairwise.work import Work

_VERSION: Final = 1
_START: Final = b"Signal PQ Ratchet V1 Chain  Start"  # two spaces
_ADD_EPOCH: Final = b"Signal PQ Ratchet V1 Chain Add Epoch"
_NEXT: Final = b"Signal PQ Ratchet V1 Chain Next"
_INDEX_MAX: Final = (1 << 32) - 1
_SPENT: Final = bytes(32)
_NO_CHUNK: Final = b""


@value
class Link:
    """The two chains of one epoch; an index is that of the last key derived, the first key has 1."""

    epoch: U64
    send_key: Bytes32
    send_index: U32
    receive_key: Bytes32
    receive_index: U32
    late: Annotated[bytes, OpaqueV(SKIPPED_KEYS_MAX * skipped.ENTRY_BYTES)]


class Spqr(NamedTuple):
    braid: State
    root: bytes  # 32
    initiator: bool
    links: tuple[Link, ...]  # oldest first; the last is the newest epoch

    def __repr__(self) -> str:
        return "Spqr(…)"


def start(secret: bytes, initiator: bool) -> Spqr:
    """The state after PQXDH, from its 32-byte post-quantum secret."""
    output = hkdf_sha256(secret, salt=None, info=_START, length=96)
    link = _link(0, output, initiator)
    return Spqr(braid.start(secret, initiator), output[:32], initiator, (link,))


def send(state: Spqr, entropy: Entropy) -> tuple[Spqr, bytes, bytes]:
    """(state, pq_ratchet bytes, message key salt 32 B)."""
    braid_state, message, secret = braid.send(state.braid, entropy)
    root, links = _add_epoch(state, secret)
    epoch = message.epoch - 1
    links = _forget_before(links, epoch)
    place = _place(links, epoch)
    link = links[place]
    index = link.send_index + 1
    if index > _INDEX_MAX:
        raise LocalError("a post-quantum chain is used up; begin a new session")
    next_key, key = _chain_step(link.send_key, index)
    link = Link(epoch, next_key, index, link.receive_key, link.receive_index, link.late)
    after = Spqr(braid_state, root, state.initiator, _put(links, place, link))
    return after, _encode(message, index), key


def receive(state: Spqr, pq_ratchet: bytes, work: Work) -> tuple[Spqr, bytes]:
    """(state, message key salt 32 B). DecodeError, DecryptionFailed, KeyRefused."""
    message, index = _decode(pq_ratchet)
    braid_state, secret = braid.receive(state.braid, message)
    root, links = _add_epoch(state, secret)
    place = _place(links, message.epoch - 1)
    link, key = _receive_key(links[place], index, work)
    grown = len(link.late) > len(links[place].late)
    links = _put(links, place, link)
    if grown:
        links = _bound_skipped(links)
    return Spqr(braid_state, root, state.initiator, links), key


def _receive_key(link: Link, index: int, work: Work) -> tuple[Link, bytes]:
    chain_key, last = link.receive_key, link.receive_index
    if index <= last:
        found = skipped.take(link.late, index)
        if found is None:
            # No duplicate yet: the message may be another session's. The Double Ratchet tells, by its key.
            raise DecryptionFailed("a post-quantum key is gone", code="pq-key-gone")
        return Link(link.epoch, link.send_key, link.send_index, chain_key, last, found[0]), found[1]
    if index - last > SKIP_AHEAD_MAX + 1:
        raise DecryptionFailed("a message is too far ahead", code="too-far-ahead")
    work.chain_steps += index - last
    late = [link.late]
    while True:
        last += 1
        chain_key, key = _chain_step(chain_key, last)
        if last == index:
            break
        late.append(skipped.entry(last, key))
    stored = late[0] if len(late) == 1 else b"".join(late)
    return Link(link.epoch, link.send_key, link.send_index, chain_key, last, stored), key


def _bound_skipped(links: tuple[Link, ...]) -> tuple[Link, ...]:
    """At most SKIPPED_KEYS_MAX keys in all; the oldest go first."""
    excess = sum(skipped.count(link.late) for link in links) - SKIPPED_KEYS_MAX
    if excess <= 0:
        return links
    out = []
    for link in links:
        dropped = min(excess, skipped.count(link.late))
        excess -= dropped
        late = skipped.drop_oldest(link.late, dropped)
        out.append(
            Link(link.epoch, link.send_key, link.send_index, link.receive_key, link.receive_index, late)
        )
    return tuple(out)


def _add_epoch(state: Spqr, secret: Secret | None) -> tuple[bytes, tuple[Link, ...]]:
    """(root, links) with the link of a new epoch, if there is one."""
    if secret is None:
        return state.root, state.links
    if secret.epoch != state.links[-1].epoch + 1:
        raise DecryptionFailed("a post-quantum epoch does not follow", code="pq-epoch")
    output = hkdf_sha256(secret.key, salt=state.root, info=_ADD_EPOCH, length=96)
    return output[:32], (*state.links, _link(secret.epoch, output, state.initiator))


def _link(epoch: int, output: bytes, initiator: bool) -> Link:
    a_to_b, b_to_a = output[32:64], output[64:96]
    if not initiator:
        a_to_b, b_to_a = b_to_a, a_to_b
    return Link(epoch, a_to_b, 0, b_to_a, 0, skipped.EMPTY)


def _forget_before(links: tuple[Link, ...], epoch: int) -> tuple[Link, ...]:
    """Sending in ``epoch``: of the older links only the last is kept, and only for receiving."""
    first = links[0]
    if first.epoch >= epoch or (first.epoch == epoch - 1 and first.send_key == _SPENT):
        return links
    out = []
    for link in links:
        if link.epoch >= epoch:
            out.append(link)
        elif link.epoch == epoch - 1:
            out.append(
                Link(link.epoch, _SPENT, link.send_index, link.receive_key, link.receive_index, link.late)
            )
    return tuple(out)


def _place(links: tuple[Link, ...], epoch: int) -> int:
    place = epoch - links[0].epoch  # epochs are consecutive
    if not 0 <= place < len(links):
        raise DecryptionFailed("the chains of a post-quantum epoch are gone", code="pq-epoch")
    return place


def _put(links: tuple[Link, ...], place: int, link: Link) -> tuple[Link, ...]:
    if len(links) == 1:
        return (link,)
    return (*links[:place], link, *links[place + 1 :])


def _chain_step(chain_key: bytes, index: int) -> tuple[bytes, bytes]:
    """(next chain key, key of ``index``)."""
    output = hkdf_sha256(chain_key, salt=None, info=index.to_bytes(4, "big") + _NEXT, length=64)
    return output[:32], output[32:]


def _encode(message: Message, index: int) -> bytes:
    prefix = b"\x01" + varint(message.epoch) + varint(index)
    if message.payload not in CHUNKED:
        return prefix + bytes((message.payload,))
    return b"".join((prefix, bytes((message.payload,)), varint(message.index), message.chunk))


def _decode(data: bytes) -> tuple[Message, int]:
    """(Braid message, chain index). DecodeError. Bytes after it are allowed, for later versions."""
    if data[:1] != b"\x01":
        raise DecodeError("a post-quantum message has another version", code="pq-version")
    epoch, position = read_varint(data, 1)
    index, position = read_varint(data, position)
    if epoch == 0 or index == 0:
        raise DecodeError("a message has no post-quantum key", code="no-pq-key")
    kind, position = data[position : position + 1], position + 1
    if not kind or kind[0] > Payload.CT2:
        raise DecodeError("a post-quantum message has an unknown type")
    payload = Payload(kind[0])
    if payload not in CHUNKED:
        return Message(epoch, payload), index
    place, position = read_varint(data, position)
    chunk = data[position : position + CHUNK_BYTES]
    if place > CHUNK_INDEX_MAX or len(chunk) != CHUNK_BYTES:
        raise DecodeError("a post-quantum chunk is malformed")
    return Message(epoch, payload, place, chunk), index
