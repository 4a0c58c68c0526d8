"""Sesame, revision 2 (signal.org/docs/specifications/sesame): which session of a remote device?

Out: ``begin`` verifies a bundle and makes a session; ``encrypt`` uses the current one, and wraps its
messages as prekey messages until the first answer.
In: a prekey message belongs to the session with its base key, else it makes a new one, and the old
current one is archived. A whisper message is tried on the current session, then on the archived ones,
newest first; the one that opens it becomes current. A duplicate ends the search.

A record is a value: every step returns a new one. A message that is refused returns nothing, so it can
spoil nothing. Knows nothing of chain keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lokket.crypto.entropy import Entropy
from lokket.crypto.primitives import sha256
from lokket.errors import DecryptionFailed, DuplicateMessage, KeyRefused, LocalError, RemoteError
from lokket.limits import (
    ARCHIVED_SESSION_DAYS,
    ARCHIVED_SESSIONS_MAX,
    DAY_S,
    PAIRWISE_MESSAGE_MAX_BYTES,
)
from lokket.protocol.pairwise import double_ratchet, pqxdh, spqr, triple_ratchet
from lokket.protocol.pairwise.messages import (
    Address,
    Ciphertext,
    MessageKind,
    PreKeyMessage,
    SignalMessage,
    decode_prekey_message,
)
from lokket.protocol.pairwise.pqxdh import Handshake, LocalDevice, PreKeyBundle, PreKeys
from lokket.protocol.pairwise.record import Archived, Session, SessionRecord
from lokket.protocol.pairwise.triple_ratchet import Parties, TripleRatchet
from lokket.protocol.pairwise.work import Work

_DAY_MS: Final = 1000 * DAY_S
_ENVELOPE_BYTES: Final = 4096  # more than a prekey message adds to its plaintext


@dataclass(frozen=True, slots=True)
class Used:
    """Prekeys that a message consumed; both None unless it made a session.

    The caller deletes one-time keys in the transaction that stores the record, and keeps last-resort ones.
    """

    one_time_prekey_id: int | None
    kem_prekey_id: int | None


@dataclass(frozen=True, slots=True)
class Decrypted:
    """``handshake`` is set for every prekey message; ``new_session`` when this one made the session."""

    record: SessionRecord
    plaintext: bytes
    used: Used
    handshake: Handshake | None
    new_session: bool

    def __repr__(self) -> str:
        return f"Decrypted(new_session={self.new_session})"


_NOTHING_USED: Final = Used(None, None)


def begin(
    record: SessionRecord | None, local: LocalDevice, bundle: PreKeyBundle, now_ms: int, entropy: Entropy
) -> SessionRecord:
    """A record whose current session is a fresh one from ``bundle``; the old one is archived.

    KeyRefused, SignatureRefused, DecodeError: the bundle is not what its identity key vouches for, or
    ``record`` is of another identity. LocalError: ``record`` is of another device.
    """
    _check_peer(record, local, bundle.address, bundle.identity_key)
    made = pqxdh.initiate(local.identity, bundle, entropy)
    secrets = made.secrets
    double = double_ratchet.initiator(secrets.root, secrets.chain, bundle.signed_prekey[1:], entropy)
    ratchet = TripleRatchet(double, spqr.start(secrets.post_quantum, initiator=True))
    session = Session(made.handshake, now_ms, made.kem_ciphertext, ratchet)
    archived = () if record is None else _archive(record, now_ms)
    return SessionRecord(bundle.address, bundle.identity_key, session, archived)


def encrypt(
    record: SessionRecord, local: LocalDevice, plaintext: bytes, now_ms: int, entropy: Entropy
) -> tuple[SessionRecord, Ciphertext]:
    """The next message of the current session. LocalError: ``can_send`` is False, or it is too long.

    Store the record before the ciphertext leaves: a record used twice uses a message key twice.
    """
    session = record.current
    if session is None or not record.can_send(now_ms):
        raise LocalError("there is no session to send in; begin one from a fresh bundle")
    if len(plaintext) > PAIRWISE_MESSAGE_MAX_BYTES - _ENVELOPE_BYTES:
        raise LocalError("a message is too long; send it as an attachment")
    unacknowledged = bool(session.kem_ciphertext)
    parties = Parties(local.identity.public, record.identity_key, local.address, record.remote)
    ratchet, body = triple_ratchet.encrypt(session.ratchet, parties, plaintext, unacknowledged, entropy)
    kind = MessageKind.WHISPER
    if unacknowledged:
        kind = MessageKind.PREKEY
        body = _wrap(session, local, body)
    after = Session(session.handshake, session.established_ms, session.kem_ciphertext, ratchet)
    return record.with_current(after), Ciphertext(kind, body)


def decrypt(
    record: SessionRecord | None,
    local: LocalDevice,
    remote: Address,
    ciphertext: Ciphertext,
    prekeys: PreKeys,
    now_ms: int,
    entropy: Entropy,
    *,
    work: Work | None = None,
) -> Decrypted:
    """The plaintext, the record to store, and the prekeys to delete with it.

    RemoteError (DecryptionFailed, DuplicateMessage, DecodeError, KeyRefused) with a ``code``: nothing
    changed, the old record stays good. LocalError: ``record`` is not of ``remote``. ``work`` is counted up.
    """
    if record is not None and record.remote != remote:
        raise LocalError("this record belongs to another device")
    work = Work() if work is None else work
    if ciphertext.kind == MessageKind.PREKEY:
        return _decrypt_prekey(record, local, remote, ciphertext.body, prekeys, now_ms, entropy, work)
    if record is None:
        raise DecryptionFailed("there is no session with this device", code="no-session")
    return _decrypt_whisper(record, local, ciphertext.body, now_ms, entropy, work)


def _decrypt_whisper(
    record: SessionRecord, local: LocalDevice, body: bytes, now_ms: int, entropy: Entropy, work: Work
) -> Decrypted:
    message = SignalMessage(body)
    parties = Parties(record.identity_key, local.identity.public, record.remote, local.address)
    failure: RemoteError | None = None
    if record.current is not None:
        try:
            session, plaintext = _open(record.current, parties, message, entropy, work)
            return Decrypted(record.with_current(session), plaintext, _NOTHING_USED, None, False)
        except DuplicateMessage:
            raise
        except RemoteError as error:
            failure = error
    for place, archived in enumerate(unexpired(record.archived, now_ms)):
        try:
            session, plaintext = _open(archived.session, parties, message, entropy, work)
        except DuplicateMessage:
            raise
        except RemoteError as error:
            failure = failure or error
            continue
        others = unexpired(record.archived, now_ms)
        promoted = SessionRecord(
            record.remote, record.identity_key, record.current, others[:place] + others[place + 1 :]
        )
        after = SessionRecord(record.remote, record.identity_key, session, _archive(promoted, now_ms))
        return Decrypted(after, plaintext, _NOTHING_USED, None, False)
    raise failure or DecryptionFailed("there is no session with this device", code="no-session")


def _decrypt_prekey(
    record: SessionRecord | None,
    local: LocalDevice,
    remote: Address,
    body: bytes,
    prekeys: PreKeys,
    now_ms: int,
    entropy: Entropy,
    work: Work,
) -> Decrypted:
    outer = decode_prekey_message(body)
    message = SignalMessage(outer.message)
    if message.addresses is None and local.require_addresses:
        raise DecryptionFailed("a prekey message does not say whom it is for", code="no-addresses")
    _check_peer(record, local, remote, outer.identity_key)
    parties = Parties(outer.identity_key, local.identity.public, remote, local.address)
    if record is not None:
        if record.current is not None and record.current.handshake.base_key == outer.base_key:
            _check_same_handshake(record.current.handshake, outer)
            session, plaintext = _open(record.current, parties, message, entropy, work)
            return Decrypted(record.with_current(session), plaintext, _NOTHING_USED, session.handshake, False)
        others = unexpired(record.archived, now_ms)
        for place, archived in enumerate(others):
            if archived.session.handshake.base_key == outer.base_key:
                _check_same_handshake(archived.session.handshake, outer)
                session, plaintext = _open(archived.session, parties, message, entropy, work)
                rest = SessionRecord(
                    remote, record.identity_key, record.current, others[:place] + others[place + 1 :]
                )
                after = SessionRecord(remote, record.identity_key, session, _archive(rest, now_ms))
                return Decrypted(after, plaintext, _NOTHING_USED, session.handshake, False)
    ours = pqxdh.find_prekeys(outer, prekeys)
    secrets, handshake = pqxdh.respond(local.identity, ours, outer)
    work.exchanges += 3 if ours.one_time is None else 4
    double = double_ratchet.responder(secrets.root, secrets.chain, ours.signed)
    ratchet = TripleRatchet(double, spqr.start(secrets.post_quantum, initiator=False))
    session, plaintext = _open(Session(handshake, now_ms, b"", ratchet), parties, message, entropy, work)
    archived_now = () if record is None else _archive(record, now_ms)
    after = SessionRecord(remote, outer.identity_key, session, archived_now)
    return Decrypted(after, plaintext, Used(outer.one_time_prekey_id, outer.kem_prekey_id), handshake, True)


def _open(
    session: Session, parties: Parties, message: SignalMessage, entropy: Entropy, work: Work
) -> tuple[Session, bytes]:
    """(session, plaintext); from now on the session counts as acknowledged."""
    work.sessions += 1
    ratchet, plaintext = triple_ratchet.decrypt(session.ratchet, parties, message, entropy, work)
    return Session(session.handshake, session.established_ms, b"", ratchet), plaintext


def _check_peer(
    record: SessionRecord | None, local: LocalDevice, remote: Address, identity_key: bytes
) -> None:
    if identity_key == local.identity.public:
        raise KeyRefused("a remote device claims our own identity key", code="own-identity")
    if record is None:
        return
    if record.remote != remote:
        raise LocalError("this record belongs to another device")
    if record.identity_key != identity_key:
        raise KeyRefused("a device's identity key changed", code="identity-changed")


def _check_same_handshake(known: Handshake, outer: PreKeyMessage) -> None:
    """The wrapper carries no MAC: what it repeats must be what made the session."""
    same = (
        known.initiator_identity == outer.identity_key
        and known.signed_prekey_id == outer.signed_prekey_id
        and known.one_time_prekey_id == outer.one_time_prekey_id
        and known.kem_prekey_id == outer.kem_prekey_id
        and known.kem_ciphertext_hash == sha256(outer.kem_ciphertext)
    )
    if not same:
        raise DecryptionFailed("a prekey message differs from its session's first", code="other-handshake")


def _wrap(session: Session, local: LocalDevice, body: bytes) -> bytes:
    handshake = session.handshake
    return PreKeyMessage(
        registration_id=local.registration_id,
        one_time_prekey_id=handshake.one_time_prekey_id,
        signed_prekey_id=handshake.signed_prekey_id,
        kem_prekey_id=handshake.kem_prekey_id,
        base_key=handshake.base_key,
        identity_key=local.identity.public,
        kem_ciphertext=session.kem_ciphertext,
        message=body,
    ).encode()


def unexpired(archived: tuple[Archived, ...], now_ms: int) -> tuple[Archived, ...]:
    """Those archived less than ARCHIVED_SESSION_DAYS ago."""
    if not archived:
        return archived
    oldest_ms = now_ms - ARCHIVED_SESSION_DAYS * _DAY_MS
    return tuple(one for one in archived if one.archived_ms > oldest_ms)


def _archive(record: SessionRecord, now_ms: int) -> tuple[Archived, ...]:
    """The archive with the current session in front, within its bounds."""
    archived = unexpired(record.archived, now_ms)
    if record.current is not None:
        archived = (Archived(now_ms, record.current), *archived)
    return archived[:ARCHIVED_SESSIONS_MAX]
