"""SPQR, the sparse post-quantum ratchet (Double Ratchet revision 4, section 5), libsignal's version 1.

Each Braid epoch's secret starts a new link of two symmetric chains, one per direction; every message
takes the next key of its sender's chain. A message of Braid epoch E uses the chains of epoch E - 1, which
both sides are sure to have. pq_ratchet = 01 || epoch || index || type [|| chunk index || chunk].

Stricter than libsignal: index 0 (a message without a post-quantum key) and other versions are refused.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from lokket.codec.protobuf import read_varint, varint
from lokket.crypto.entropy import Entropy
from lokket.crypto.erasure import CHUNK_BYTES, CHUNK_INDEX_MAX
from lokket.crypto.primitives import hkdf_sha256_pair, hkdf_sha256_triple
from lokket.errors import DecodeError, DecryptionFailed, LocalError
from lokket.limits import SKIP_AHEAD_MAX, SKIPPED_KEYS_MAX
from lokket.protocol.pairwise import braid, skipped
from lokket.protocol.pairwise.braid import CHUNKED, Message, Payload, Secret
from lokket.protocol.pairwise.braid_states import StoredBraid
from lokket.protocol.pairwise.skipped import replaced
from lokket.protocol.pairwise.value import value
from lokket.protocol.pairwise.work import Work

_START: Final = b"Signal PQ Ratchet V1 Chain  Start"  # two spaces
_ADD_EPOCH: Final = b"Signal PQ Ratchet V1 Chain Add Epoch"
_NEXT: Final = b"Signal PQ Ratchet V1 Chain Next"
_INDEX_MAX: Final = (1 << 32) - 1
_SPENT: Final = bytes(32)

LINK: Final = Struct(">Q32sI32sI")
"""A link is kept packed, as it is stored: epoch; sending key and index; receiving key and index; then the
skipped keys (see ``skipped``). An index is that of the last key derived: the first key has index 1."""


@value
class Spqr:
    braid: StoredBraid
    next_chunk: int
    root: bytes  # 32
    initiator: bool
    links: tuple[bytes, ...]  # packed, of consecutive epochs, newest last


def start(secret: bytes, initiator: bool) -> Spqr:
    """The state after PQXDH, from its 32-byte post-quantum secret."""
    root, a_to_b, b_to_a = hkdf_sha256_triple(secret, None, _START)
    first = StoredBraid(braid.start(secret, initiator))
    return Spqr(first, 0, root, initiator, (_link(0, a_to_b, b_to_a, initiator),))


def send(state: Spqr, entropy: Entropy) -> tuple[Spqr, bytes, bytes]:
    """(state, pq_ratchet bytes, message key salt 32 B)."""
    stored, root, links = state.braid, state.root, state.links
    before = stored.state
    after, next_chunk, message, secret = braid.send(before, state.next_chunk, entropy)
    if after is not before:
        stored = StoredBraid(after)
    if secret is not None:
        root, links = _add_epoch(state, secret)
    epoch = message.epoch - 1
    place = _place(links, epoch)
    if place > 1 or (place and links[0][8:40] != _SPENT):
        links = _forget_before(links, place)
        place = 1
    link = links[place]
    _, send_key, index, receive_key, receive_index = LINK.unpack_from(link)
    index += 1
    if index > _INDEX_MAX:
        raise LocalError("a post-quantum chain is used up; begin a new session")
    send_key, key = _chain_step(send_key, index)
    link = LINK.pack(epoch, send_key, index, receive_key, receive_index) + link[LINK.size :]
    links = replaced(links, place, link)
    return Spqr(stored, next_chunk, root, state.initiator, links), _encode(message, index), key


def receive(state: Spqr, pq_ratchet: bytes, work: Work) -> tuple[Spqr, bytes]:
    """(state, message key salt 32 B). DecodeError, DecryptionFailed, KeyRefused."""
    epoch, index, payload, place, chunk = _decode(pq_ratchet)
    stored, next_chunk, root, links = state.braid, state.next_chunk, state.root, state.links
    if not braid.ignores(*stored.peek(), epoch, payload):
        before = stored.state
        after, next_chunk, secret = braid.receive(before, next_chunk, Message(epoch, payload, place, chunk))
        if after is not before:
            stored = StoredBraid(after)
        if secret is not None:
            root, links = _add_epoch(state, secret)
    place = _place(links, epoch - 1)
    link, key, grown = _take_key(links[place], index, work)
    links = replaced(links, place, link)
    if grown:
        links = skipped.bound(links, LINK.size, SKIPPED_KEYS_MAX)
    return Spqr(stored, next_chunk, root, state.initiator, links), key


def _take_key(link: bytes, index: int, work: Work) -> tuple[bytes, bytes, bool]:
    """(the link with its receiving chain moved to ``index``, the key, whether keys were skipped)."""
    epoch, send_key, send_index, chain_key, last = LINK.unpack_from(link)
    late = link[LINK.size :]
    if index <= last:
        found = skipped.take(late, index)
        if found is None:
            # No duplicate yet: the message may be another session's. The Double Ratchet tells, by its key.
            raise DecryptionFailed("a post-quantum key is gone", code="pq-key-gone")
        return link[: LINK.size] + found[0], found[1], False
    if index - last > SKIP_AHEAD_MAX + 1 or index > _INDEX_MAX:
        raise DecryptionFailed("a message is too far ahead", code="too-far-ahead")
    work.chain_steps += index - last
    if index == last + 1:  # the next in order: nothing is skipped
        chain_key, key = _chain_step(chain_key, index)
        return LINK.pack(epoch, send_key, send_index, chain_key, index) + late, key, False
    entries = [late]
    for passed in range(last + 1, index):
        chain_key, key = _chain_step(chain_key, passed)
        entries.append(skipped.entry(passed, key))
    chain_key, key = _chain_step(chain_key, index)
    head = LINK.pack(epoch, send_key, send_index, chain_key, index)
    return head + b"".join(entries), key, True


def _add_epoch(state: Spqr, secret: Secret) -> tuple[bytes, tuple[bytes, ...]]:
    """(root, links) with the link of a new epoch."""
    if secret.epoch != _epoch(state.links[-1]) + 1:
        raise DecryptionFailed("a post-quantum epoch does not follow", code="pq-epoch")
    root, a_to_b, b_to_a = hkdf_sha256_triple(secret.key, state.root, _ADD_EPOCH)
    return root, (*state.links, _link(secret.epoch, a_to_b, b_to_a, state.initiator))


def _link(epoch: int, a_to_b: bytes, b_to_a: bytes, initiator: bool) -> bytes:
    if not initiator:
        a_to_b, b_to_a = b_to_a, a_to_b
    return LINK.pack(epoch, a_to_b, 0, b_to_a, 0)


def _forget_before(links: tuple[bytes, ...], place: int) -> tuple[bytes, ...]:
    """We send with the link at ``place``: of those before it only the last stays, and only to receive."""
    last = links[place - 1]
    if last[8:40] != _SPENT:
        last = last[:8] + _SPENT + last[40:]
    return (last, *links[place:])


def _epoch(link: bytes) -> int:
    return int.from_bytes(link[:8], "big")


def _place(links: tuple[bytes, ...], epoch: int) -> int:
    place = epoch - int.from_bytes(links[0][:8], "big")
    if not 0 <= place < len(links):
        raise DecryptionFailed("the chains of a post-quantum epoch are gone", code="pq-epoch")
    return place


def _chain_step(chain_key: bytes, index: int) -> tuple[bytes, bytes]:
    """(next chain key, key of ``index``)."""
    return hkdf_sha256_pair(chain_key, None, index.to_bytes(4, "big") + _NEXT)


def _encode(message: Message, index: int) -> bytes:
    head = b"".join((b"\x01", varint(message.epoch), varint(index), _TYPES[message.payload]))
    return b"".join((head, varint(message.place), message.chunk)) if message.chunk else head


def _decode(data: bytes) -> tuple[int, int, Payload, int, bytes]:
    """(epoch, chain index, and the rest of the Braid's message: payload, place, chunk). DecodeError.

    Bytes after it are allowed, for later versions.
    """
    if data[:1] != b"\x01":
        raise DecodeError("a post-quantum message has another version", code="pq-version")
    epoch, position = read_varint(data, 1)
    index, position = read_varint(data, position)
    if epoch == 0 or index == 0:
        raise DecodeError("a message has no post-quantum key", code="no-pq-key")
    if position == len(data) or data[position] > _TYPE_MAX:
        raise DecodeError("a post-quantum message has an unknown type")
    payload = _PAYLOADS[data[position]]
    if not _CHUNKED[payload]:
        return epoch, index, payload, 0, b""
    place, position = read_varint(data, position + 1)
    chunk = data[position : position + CHUNK_BYTES]
    if place > CHUNK_INDEX_MAX or len(chunk) != CHUNK_BYTES:
        raise DecodeError("a post-quantum chunk is malformed")
    return epoch, index, payload, place, chunk


_PAYLOADS: Final = tuple(Payload)  # by their numbers, 0 to 6
_TYPE_MAX: Final = len(_PAYLOADS) - 1
_TYPES: Final = tuple(bytes((payload,)) for payload in Payload)
_CHUNKED: Final = tuple(payload in CHUNKED for payload in Payload)
