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
from lokket.limits import ARCHIVED_SESSIONS_MAX, PAIRWISE_MESSAGE_MAX_BYTES
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
from lokket.protocol.pairwise.record import Archived, Facts, Session, SessionRecord, unexpired
from lokket.protocol.pairwise.triple_ratchet import Parties
from lokket.protocol.pairwise.value import Stored, value
from lokket.protocol.pairwise.work import Work

_WHISPER: Final = MessageKind.WHISPER  # an enum looks its members up in Python
_PREKEY: Final = MessageKind.PREKEY
_PLAINTEXT_MAX_BYTES: Final = PAIRWISE_MESSAGE_MAX_BYTES - 4096  # a prekey message adds less


@dataclass(frozen=True, slots=True)
class Used:
    """Prekeys that a message consumed; both None unless it made a session.

    The caller deletes one-time keys in the transaction that stores the record, and keeps last-resort ones.
    """

    one_time_prekey_id: int | None
    kem_prekey_id: int | None


@value
class Decrypted:
    """``handshake`` is set for every prekey message; ``new_session`` when this one made the session."""

    record: SessionRecord
    plaintext: bytes
    used: Used
    handshake: Handshake | None
    new_session: bool


_NOTHING_USED: Final = Used(None, None)


@value
class _Incoming:
    """What every step of decrypting a prekey message needs."""

    local: LocalDevice
    remote: Address
    prekeys: PreKeys
    now_ms: int
    entropy: Entropy
    work: Work


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
    ratchet = double, spqr.start(secrets.post_quantum, initiator=True)
    facts = Stored(Facts, Facts(made.handshake, now_ms))
    archived = () if record is None else _archive(record.current, record.archived, now_ms)
    session = Session(facts, made.kem_ciphertext, ratchet)
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
    if len(plaintext) > _PLAINTEXT_MAX_BYTES:
        raise LocalError("a message is too long; send it as an attachment")
    parties = (local.identity.public, local.address), (record.identity_key, record.remote)
    kem_ciphertext = session.kem_ciphertext
    ratchet, body = triple_ratchet.encrypt(session.ratchet, parties, plaintext, bool(kem_ciphertext), entropy)
    kind = _WHISPER
    if kem_ciphertext:
        kind = _PREKEY
        body = _wrap(session, local, body)
    after = Session(session.facts, kem_ciphertext, ratchet)
    return record.with_current(after), Ciphertext(kind, body)


def decrypt(  # noqa: PLR0917
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
    changed, the old record stays good. LocalError: ``record`` is not of ``remote``, or was stored damaged.
    ``work`` is counted up.
    """
    if record is not None:
        _check_remote(record, remote)
    if work is None:
        work = Work()
    if ciphertext.kind == _PREKEY:
        given = _Incoming(local, remote, prekeys, now_ms, entropy, work)
        return _decrypt_prekey(record, ciphertext.body, given)
    if record is None:
        raise DecryptionFailed("there is no session with this device", code="no-session")
    return _decrypt_whisper(record, local, ciphertext.body, now_ms, entropy=entropy, work=work)


def _decrypt_whisper(
    record: SessionRecord, local: LocalDevice, body: bytes, now_ms: int, *, entropy: Entropy, work: Work
) -> Decrypted:
    message = SignalMessage(body)
    parties = (record.identity_key, record.remote), (local.identity.public, local.address)
    failure: RemoteError | None = None
    if record.current is not None:
        try:
            session, plaintext = _open(record.current, parties, message, entropy, work)
        except DuplicateMessage:
            raise
        except RemoteError as error:
            failure = error
        else:
            return Decrypted(record.with_current(session), plaintext, _NOTHING_USED, None, False)
    archived = unexpired(record.archived, now_ms)
    for place, one in enumerate(archived):
        try:
            session, plaintext = _open(one.session, parties, message, entropy, work)
        except DuplicateMessage:
            raise
        except RemoteError as error:
            failure = failure or error
            continue
        after = _promote(record, archived, place, session, now_ms)
        return Decrypted(after, plaintext, _NOTHING_USED, None, False)
    raise failure or DecryptionFailed("there is no session with this device", code="no-session")


def _decrypt_prekey(record: SessionRecord | None, body: bytes, given: _Incoming) -> Decrypted:
    outer = decode_prekey_message(body)
    message = SignalMessage(outer.message)
    local = given.local
    if message.addresses is None and local.require_addresses:
        raise DecryptionFailed("a prekey message does not say whom it is for", code="no-addresses")
    _check_peer(record, local, given.remote, outer.identity_key)
    parties = (outer.identity_key, given.remote), (local.identity.public, local.address)
    known = None if record is None else _decrypt_known(record, outer, message, parties, given)
    if known is not None:
        return known
    ours = pqxdh.find_prekeys(outer, given.prekeys)
    secrets, handshake = pqxdh.respond(local.identity, ours, outer)
    given.work.exchanges += 3 if ours.one_time is None else 4
    double = double_ratchet.responder(secrets.root, secrets.chain, ours.signed)
    ratchet = double, spqr.start(secrets.post_quantum, initiator=False)
    facts = Stored(Facts, Facts(handshake, given.now_ms))
    session, plaintext = _open(Session(facts, b"", ratchet), parties, message, given.entropy, given.work)
    archived = () if record is None else _archive(record.current, record.archived, given.now_ms)
    after = SessionRecord(given.remote, outer.identity_key, session, archived)
    used = Used(outer.one_time_prekey_id, outer.kem_prekey_id)
    return Decrypted(after, plaintext, used, handshake, True)


def _decrypt_known(
    record: SessionRecord, outer: PreKeyMessage, message: SignalMessage, parties: Parties, given: _Incoming
) -> Decrypted | None:
    """By the session that has the message's base key, and no other; None if there is none."""
    archived = unexpired(record.archived, given.now_ms)
    for place in range(-1, len(archived)):
        session = record.current if place < 0 else archived[place].session
        if session is None:
            continue
        handshake = session.facts.value.handshake
        if handshake.base_key != outer.base_key:
            continue
        _check_same_handshake(handshake, outer)
        session, plaintext = _open(session, parties, message, given.entropy, given.work)
        if place < 0:
            after = record.with_current(session)
        else:
            after = _promote(record, archived, place, session, given.now_ms)
        return Decrypted(after, plaintext, _NOTHING_USED, handshake, False)
    return None


def _open(
    session: Session, parties: Parties, message: SignalMessage, entropy: Entropy, work: Work
) -> tuple[Session, bytes]:
    """(session, plaintext); from now on the session counts as acknowledged."""
    work.sessions += 1
    ratchet, plaintext = triple_ratchet.decrypt(session.ratchet, parties, message, entropy, work)
    return Session(session.facts, b"", ratchet), plaintext


def _promote(
    record: SessionRecord, archived: tuple[Archived, ...], place: int, session: Session, now_ms: int
) -> SessionRecord:
    """``session``, until now at ``place`` of the archive, becomes current."""
    others = archived[:place] + archived[place + 1 :]
    archive = _archive(record.current, others, now_ms)
    return SessionRecord(record.remote, record.identity_key, session, archive)


def _check_peer(
    record: SessionRecord | None, local: LocalDevice, remote: Address, identity_key: bytes
) -> None:
    if identity_key == local.identity.public:
        raise KeyRefused("a remote device claims our own identity key", code="own-identity")
    if record is None:
        return
    _check_remote(record, remote)
    if record.identity_key != identity_key:
        raise KeyRefused("a device's identity key changed", code="identity-changed")


def _check_remote(record: SessionRecord, remote: Address) -> None:
    """By fields: a dataclass compares tuples that it makes first."""
    known = record.remote
    if known.service_id != remote.service_id or known.device != remote.device:
        raise LocalError("this record belongs to another device")


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
    handshake = session.facts.value.handshake
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


def _archive(current: Session | None, archived: tuple[Archived, ...], now_ms: int) -> tuple[Archived, ...]:
    """The archive with the current session in front, within its bounds."""
    kept = unexpired(archived, now_ms)
    if current is not None:
        kept = (Archived(now_ms, current), *kept)
    return kept[:ARCHIVED_SESSIONS_MAX]
