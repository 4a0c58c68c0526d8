"""The sessions of one remote device, as a value and as stored bytes.

Stored format, version 1 (TLS presentation language):

    Record  = uint8 version, service_id[16], uint8 device, identity_key[33],
              optional<Session> current, Archived archived<V>
    Archived = uint64 archived_ms, Session
    Session = opaque facts<V>, opaque double<V>, opaque spqr<V>

A part is decoded when a step first needs it, and its bytes are kept while it does not change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final

from lokket.codec import tls
from lokket.codec.tls import U32, U64, Bytes16, Bytes32, Bytes33, Opaque, OpaqueV, Select, Uint, Vector
from lokket.crypto.keys import X25519KeyPair
from lokket.errors import DecodeError, LocalError
from lokket.limits import (
    ARCHIVED_SESSIONS_MAX,
    DAY_S,
    RECEIVER_CHAINS_MAX,
    SKIPPED_KEYS_MAX,
    UNACKNOWLEDGED_SESSION_DAYS,
)
from lokket.protocol.pairwise import skipped
from lokket.protocol.pairwise.braid_states import STATES, State
from lokket.protocol.pairwise.double_ratchet import DoubleRatchet, ReceivingChain
from lokket.protocol.pairwise.messages import Address
from lokket.protocol.pairwise.pqxdh import Handshake
from lokket.protocol.pairwise.spqr import Link, Spqr
from lokket.protocol.pairwise.triple_ratchet import TripleRatchet
from lokket.protocol.pairwise.value import value

RECORD_VERSION: Final = 1


@value
class Session:
    """One session; ``kem_ciphertext`` (1569 B) is there while our messages still go out as prekey messages."""

    handshake: Handshake
    established_ms: int
    kem_ciphertext: bytes
    ratchet: TripleRatchet


@value
class Archived:
    archived_ms: int
    session: Session


@value
class SessionRecord:
    """The current session with one remote device and the archived ones, newest first."""

    remote: Address
    identity_key: bytes  # 33
    current: Session | None
    archived: tuple[Archived, ...]

    @property
    def unacknowledged(self) -> Handshake | None:
        """The current handshake while nothing was received in its session, so that prekey messages go out."""
        current = self.current
        return current.handshake if current is not None and current.kem_ciphertext else None

    @property
    def handshake(self) -> Handshake:
        """Of the current session. LocalError: there is none."""
        return self._require_current().handshake

    @property
    def established_ms(self) -> int:
        """When the current session was made here. LocalError: there is none."""
        return self._require_current().established_ms

    def can_send(self, now_ms: int) -> bool:
        """False: no current session, or nobody answered in it for UNACKNOWLEDGED_SESSION_DAYS."""
        current = self.current
        if current is None:
            return False
        if not current.kem_ciphertext:
            return True
        return now_ms - current.established_ms <= UNACKNOWLEDGED_SESSION_DAYS * DAY_S * 1000

    def knows_base_key(self, base_key: bytes) -> bool:
        """Whether a stored session was made with this base key (33 B)."""
        sessions = [one.session for one in self.archived]
        if self.current is not None:
            sessions.append(self.current)
        return any(session.handshake.base_key == base_key for session in sessions)

    def with_current(self, session: Session) -> SessionRecord:
        return SessionRecord(self.remote, self.identity_key, session, self.archived)

    def encode(self) -> bytes:
        """Versioned bytes for the vault: they hold every secret of the sessions."""
        stored = _StoredRecord(
            RECORD_VERSION,
            self.remote.service_id,
            self.remote.device,
            self.identity_key,
            None if self.current is None else _store_session(self.current),
            tuple(_StoredArchived(one.archived_ms, _store_session(one.session)) for one in self.archived),
        )
        return tls.encode(stored)

    @staticmethod
    def decode(data: bytes) -> SessionRecord:
        """Inverse of ``encode``. DecodeError: damaged, or of an unknown version."""
        if data[:1] != bytes((RECORD_VERSION,)):
            raise DecodeError("a session record has an unknown version")
        stored = tls.decode(_StoredRecord, data)
        try:
            remote = Address(stored.service_id, stored.device)
        except LocalError:
            raise DecodeError("a session record has an impossible address") from None
        return SessionRecord(
            remote,
            stored.identity_key,
            None if stored.current is None else _load_session(stored.current),
            tuple(Archived(one.archived_ms, _load_session(one.session)) for one in stored.archived),
        )

    def _require_current(self) -> Session:
        if self.current is None:
            raise LocalError("this record has no current session")
        return self.current


# --- the stored shapes ---


@dataclass(frozen=True, slots=True, repr=False)
class _StoredFacts:
    handshake: Handshake
    established_ms: U64
    kem_ciphertext: Opaque


@dataclass(frozen=True, slots=True, repr=False)
class _StoredChain:
    remote: Bytes32
    chain_key: Bytes32
    index: U32
    late: Annotated[bytes, OpaqueV(SKIPPED_KEYS_MAX * skipped.ENTRY_BYTES)]


@dataclass(frozen=True, slots=True, repr=False)
class _StoredDouble:
    root: Bytes32
    own_private: Bytes32
    own_public: Bytes32
    chain_key: Annotated[bytes, OpaqueV(32)]
    index: U32
    previous: U32
    receiving: Annotated[tuple[_StoredChain, ...], Vector(RECEIVER_CHAINS_MAX)]


@dataclass(frozen=True, slots=True, repr=False)
class _StoredSpqr:
    root: Bytes32
    initiator: bool
    links: Annotated[tuple[Link, ...], Vector(8, min_items=1)]
    braid: Annotated[Any, Select(Uint(1), STATES)]


@dataclass(frozen=True, slots=True, repr=False)
class _StoredSession:
    facts: _StoredFacts
    double: _StoredDouble
    spqr: _StoredSpqr


@dataclass(frozen=True, slots=True, repr=False)
class _StoredArchived:
    archived_ms: U64
    session: _StoredSession


@dataclass(frozen=True, slots=True, repr=False)
class _StoredRecord:
    version: Annotated[int, Uint(1)]
    service_id: Bytes16
    device: Annotated[int, Uint(1)]
    identity_key: Bytes33
    current: _StoredSession | None
    archived: Annotated[tuple[_StoredArchived, ...], Vector(ARCHIVED_SESSIONS_MAX)]


def _store_session(session: Session) -> _StoredSession:
    double, pq = session.ratchet
    return _StoredSession(
        _StoredFacts(session.handshake, session.established_ms, session.kem_ciphertext),
        _StoredDouble(
            double.root,
            double.own.private,
            double.own.public,
            double.chain_key,
            double.index,
            double.previous,
            tuple(
                _StoredChain(chain.remote, chain.chain_key, chain.index, chain.late)
                for chain in double.receiving
            ),
        ),
        _StoredSpqr(pq.root, pq.initiator, pq.links, pq.braid),
    )


def _load_session(stored: _StoredSession) -> Session:
    double, pq = stored.double, stored.spqr
    chains = tuple(
        ReceivingChain(chain.remote, chain.chain_key, chain.index, chain.late) for chain in double.receiving
    )
    for late in [chain.late for chain in chains] + [link.late for link in pq.links]:
        if not skipped.well_formed(late):
            raise DecodeError("a session record has malformed message keys")
    own = X25519KeyPair(double.own_private, double.own_public)
    state: State = pq.braid
    return Session(
        stored.facts.handshake,
        stored.facts.established_ms,
        stored.facts.kem_ciphertext,
        TripleRatchet(
            DoubleRatchet(double.root, own, double.chain_key, double.index, double.previous, chains),
            Spqr(state, pq.root, pq.initiator, pq.links),
        ),
    )
