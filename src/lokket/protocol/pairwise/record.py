"""The sessions of one remote device, as a value and as stored bytes.

Stored format, version 1, big-endian:

    Record   = uint8 version, service_id[16], uint8 device, identity_key[33],
               uint8 has_current, uint8 archived, {uint64 archived_ms, uint32 size}[archived],
               Session[has_current] to its end, Session[archived]
    Session  = root[32], own_private[32], own_public[32], chain_key[32], uint32 index, uint32 previous,
               pq_root[32], uint16 next_chunk, uint8 flags, uint8 chains, uint8 links,
               uint32 sizes[3 + chains + links], facts, kem_ciphertext, braid, chains, links

Chains and links are described where they are used; facts and braid are TLS presentation language. What a
step does not need is not decoded, and its bytes are kept while it does not change.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import Final

from lokket.codec.tls import U64
from lokket.crypto.keys import X25519KeyPair
from lokket.errors import DecodeError, LocalError
from lokket.limits import (
    ARCHIVED_SESSION_DAYS,
    ARCHIVED_SESSIONS_MAX,
    DAY_S,
    RECEIVER_CHAINS_MAX,
    UNACKNOWLEDGED_SESSION_DAYS,
)
from lokket.protocol.pairwise import skipped
from lokket.protocol.pairwise.braid_states import StoredBraid
from lokket.protocol.pairwise.double_ratchet import CHAIN, DoubleRatchet
from lokket.protocol.pairwise.messages import KEM_BYTES, Address
from lokket.protocol.pairwise.pqxdh import Handshake
from lokket.protocol.pairwise.spqr import LINK, Spqr
from lokket.protocol.pairwise.triple_ratchet import TripleRatchet
from lokket.protocol.pairwise.value import Stored, value

RECORD_VERSION: Final = 1
_LINKS_MAX: Final = 4
_ARCHIVED_MS: Final = ARCHIVED_SESSION_DAYS * DAY_S * 1000
_UNACKNOWLEDGED_MS: Final = UNACKNOWLEDGED_SESSION_DAYS * DAY_S * 1000

_RECORD: Final = Struct(">B16sB33sBB")
_ARCHIVED: Final = Struct(">QI")
_SESSION: Final = Struct(">32s32s32s32sII32sHBBB")
_SIZE_BYTES: Final = 4
_ZEROS: Final = bytes(32)
_INITIATOR: Final = 1
_PUBLIC_KNOWN: Final = 2
_CHAIN_MADE: Final = 4


@value
class Facts:
    """What does not change in a session."""

    handshake: Handshake
    established_ms: U64


@value
class Session:
    """One session; ``kem_ciphertext`` (1569 B) is kept while our messages go out as prekey messages."""

    facts: Stored[Facts]
    kem_ciphertext: bytes
    ratchet: TripleRatchet


class Archived:
    """A session that only receives, decoded when it is tried."""

    __slots__ = ("_data", "_session", "archived_ms")

    def __init__(self, archived_ms: int, session: Session | None, data: bytes | None = None) -> None:
        self.archived_ms = archived_ms
        self._session = session
        self._data = data

    @property
    def session(self) -> Session:
        """LocalError: the stored bytes are damaged."""
        if self._session is None:
            try:
                self._session = _decode_session(self._data or b"", 0)
            except DecodeError:
                raise LocalError("a stored session is damaged") from None
        return self._session

    @property
    def data(self) -> bytes:
        if self._data is None:
            self._data = _encode_session(self.session)
        return self._data


def unexpired(archived: tuple[Archived, ...], now_ms: int) -> tuple[Archived, ...]:
    """Those archived less than ARCHIVED_SESSION_DAYS ago; the next archiving drops the others."""
    if not archived:
        return archived
    return tuple(one for one in archived if one.archived_ms > now_ms - _ARCHIVED_MS)


@value
class SessionRecord:
    """The current session with one remote device and the archived ones, newest first."""

    remote: Address
    identity_key: bytes  # 33
    current: Session | None
    archived: tuple[Archived, ...]

    @property
    def unacknowledged(self) -> Handshake | None:
        """The current handshake while nothing was received in its session: prekey messages still go out."""
        current = self.current
        return current.facts.value.handshake if current is not None and current.kem_ciphertext else None

    @property
    def handshake(self) -> Handshake:
        """Of the current session. LocalError: there is none."""
        return self._facts().handshake

    @property
    def established_ms(self) -> int:
        """When the current session was made here. LocalError: there is none."""
        return self._facts().established_ms

    def can_send(self, now_ms: int) -> bool:
        """False: no current session, or nobody answered in it for UNACKNOWLEDGED_SESSION_DAYS."""
        current = self.current
        if current is None:
            return False
        return not current.kem_ciphertext or now_ms - self._facts().established_ms <= _UNACKNOWLEDGED_MS

    def knows_base_key(self, base_key: bytes, now_ms: int) -> bool:
        """Whether a prekey message with this base key (33 B) is for a session that is stored and not over."""
        sessions = [one.session for one in unexpired(self.archived, now_ms)]
        if self.current is not None:
            sessions.append(self.current)
        return any(session.facts.value.handshake.base_key == base_key for session in sessions)

    def with_current(self, session: Session) -> SessionRecord:
        return SessionRecord(self.remote, self.identity_key, session, self.archived)

    def encode(self) -> bytes:
        """Versioned bytes for the vault: they hold every secret of the sessions."""
        remote, archived = self.remote, self.archived
        head = _RECORD.pack(
            RECORD_VERSION,
            remote.service_id,
            remote.device,
            self.identity_key,
            self.current is not None,
            len(archived),
        )
        if archived:
            index = [_ARCHIVED.pack(one.archived_ms, len(one.data)) for one in archived]
            head = b"".join((head, *index, *(one.data for one in archived)))
        return head if self.current is None else _encode_session(self.current, head)

    @staticmethod
    def decode(data: bytes) -> SessionRecord:
        """Inverse of ``encode``. DecodeError: damaged, or of an unknown version."""
        position = _RECORD.size
        if len(data) < position or data[0] != RECORD_VERSION:
            raise DecodeError("a session record is cut short or of an unknown version")
        _, service_id, device, identity_key, has_current, count = _RECORD.unpack_from(data)
        archived: tuple[Archived, ...] = ()
        if count:
            archived, position = _decode_archived(data, position, count)
        if has_current > 1 or (not has_current and position != len(data)):
            raise DecodeError("a session record is malformed")
        try:
            remote = _address(service_id, device)
        except LocalError:
            raise DecodeError("a session record has an impossible address") from None
        current = _decode_session(data, position) if has_current else None
        return SessionRecord(remote, identity_key, current, archived)

    def _facts(self) -> Facts:
        if self.current is None:
            raise LocalError("this record has no current session")
        return self.current.facts.value


def _decode_archived(data: bytes, position: int, count: int) -> tuple[tuple[Archived, ...], int]:
    index_end = position + count * _ARCHIVED.size
    if count > ARCHIVED_SESSIONS_MAX or index_end > len(data):
        raise DecodeError("a session record's archive is malformed")
    archived = []
    start = index_end
    for place in range(position, index_end, _ARCHIVED.size):
        archived_ms, size = _ARCHIVED.unpack_from(data, place)
        archived.append(Archived(archived_ms, None, data[start : start + size]))
        start += size
    if start > len(data):
        raise DecodeError("a session record's archive is cut short")
    return tuple(archived), start


def _encode_session(session: Session, before: bytes = b"") -> bytes:
    """``before`` and a session."""
    double, pq = session.ratchet
    own = double.own
    public, chain_key = own.known_public, double.chain_key
    flags = (
        (_INITIATOR if pq.initiator else 0)
        | (_PUBLIC_KNOWN if public is not None else 0)
        | (_CHAIN_MADE if chain_key else 0)
    )
    head = _SESSION.pack(
        double.root,
        own.private,
        public or _ZEROS,
        chain_key or _ZEROS,
        double.index,
        double.previous,
        pq.root,
        pq.next_chunk,
        flags,
        len(double.receiving),
        len(pq.links),
    )
    parts = (session.facts.data, session.kem_ciphertext, pq.braid.data, *double.receiving, *pq.links)
    return b"".join((before, head, _sizes(len(parts)).pack(*map(len, parts)), *parts))


def _decode_session(data: bytes, position: int) -> Session:
    """From ``position`` to the end."""
    sizes_start = position + _SESSION.size
    if len(data) < sizes_start:
        raise DecodeError("a stored session is cut short")
    root, private, public, chain_key, index, previous, pq_root, next_chunk, flags, chains, links = (
        _SESSION.unpack_from(data, position)
    )
    parts = _split(data, sizes_start, chains, links)
    known = flags & _PUBLIC_KNOWN
    made = flags & _CHAIN_MADE
    if (
        flags > 7
        or not (made or chains)
        or (not known and public != _ZEROS)
        or (not made and chain_key != _ZEROS)
    ):
        raise DecodeError("a stored session is malformed")
    own = X25519KeyPair(private, public if known else None)
    double = DoubleRatchet(root, own, chain_key if made else b"", index, previous, parts[3 : 3 + chains])
    pq = Spqr(StoredBraid(None, parts[2]), next_chunk, pq_root, bool(flags & _INITIATOR), parts[3 + chains :])
    return Session(Stored(Facts, None, parts[0]), parts[1], (double, pq))


def _split(data: bytes, position: int, chains: int, links: int) -> tuple[bytes, ...]:
    """The parts whose sizes stand at ``position``; they must fill ``data``. DecodeError."""
    if chains > RECEIVER_CHAINS_MAX or not 1 <= links <= _LINKS_MAX:
        raise DecodeError("a stored session is malformed")
    parts_start = position + _SIZE_BYTES * (3 + chains + links)
    if len(data) < parts_start:
        raise DecodeError("a stored session is cut short")
    parts = _parts(chains, data[position:parts_start])
    if len(data) != parts_start + parts.size:
        raise DecodeError("a stored session is cut short or too long")
    return parts.unpack_from(data, parts_start)


@lru_cache(maxsize=256)
def _parts(chains: int, encoded_sizes: bytes) -> Struct:
    """Parts of these sizes, kept as a session's sizes seldom change. DecodeError: impossible ones."""
    sizes = _sizes(len(encoded_sizes) // _SIZE_BYTES).unpack(encoded_sizes)
    heads = (CHAIN.size,) * chains + (LINK.size,) * (len(sizes) - 3 - chains)
    if sizes[1] not in (0, KEM_BYTES) or not all(map(skipped.well_formed, sizes[3:], heads)):
        raise DecodeError("a stored session is malformed")
    return Struct("".join(f"{size}s" for size in sizes))


@lru_cache(maxsize=64)
def _address(service_id: bytes, device: int) -> Address:
    """LocalError: impossible. Kept, as it is public and a device's record is decoded for every message."""
    return Address(service_id, device)


@lru_cache(maxsize=16)
def _sizes(count: int) -> Struct:
    return Struct(f">{count}I")
