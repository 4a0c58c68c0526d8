"""Invites: verified at birth, both ways (docs/identity.md, "Invite").

The creator's link holds a secret. The invitee proves it to the creator's device inside their session,
the creator answers with its own proof; each MAC covers both accounts and the session, so the relay can
delay or drop, never substitute. Proofs are made when their message is encrypted: only then is the
session known.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from lokket import limits
from lokket.crypto.primitives import equal, sha256
from lokket.engine import book, outbox, sessions, trust
from lokket.engine.events import CreateInvite, InviteMade
from lokket.engine.records import Contact, InviteRow, OutboxRow, load, rows, save
from lokket.engine.step import Step, own_state, require_account
from lokket.engine.store import INVITE
from lokket.errors import LocalError
from lokket.protocol import identity
from lokket.wire import api, content


def create(step: Step, command: CreateInvite) -> None:
    """Make an invite; its link is shown once the relay holds the token's hash."""
    account = require_account(step.tx)
    own_state(account)
    if not step.link.online:
        raise LocalError("the relay cannot be reached: an invite needs it")
    secret = step.entropy.draw(32)
    keys = identity.derive_invite(secret)
    row = InviteRow(secret, step.now_s + limits.INVITE_VALID_S, "pending")
    save(step.tx, INVITE, keys.id, row)
    _offer(step, keys, row)


def resume(step: Step) -> None:
    for _, row in rows(step.tx, INVITE, InviteRow):
        if row.state in ("pending", "lost"):
            _offer(step, identity.derive_invite(row.secret), row)


def lost(step: Step) -> None:
    """The relay was restored: tokens of links that were handed out must be known there again."""
    for invite_id, row in rows(step.tx, INVITE, InviteRow):
        if row.state == "open" and row.expires_s > step.now_s:
            save(step.tx, INVITE, invite_id, msgspec.structs.replace(row, state="lost"))


def _offer(step: Step, keys: identity.InviteKeys, row: InviteRow) -> None:
    step.call(f"invite:{keys.id.hex()}", api.PutInvite(sha256(keys.token), row.expires_s))


def offered(step: Step, invite_id: bytes, reply: api.Reply) -> None:
    row = load(step.tx, INVITE, invite_id, InviteRow)
    if row is not None and row.state == "lost":
        # Shown long ago. Whatever the answer, the link is as good as the relay makes it.
        save(step.tx, INVITE, invite_id, msgspec.structs.replace(row, state="open"))
        return
    if row is None or row.state != "pending":
        return
    match reply:
        case api.Ok():
            account = require_account(step.tx)
            save(step.tx, INVITE, invite_id, msgspec.structs.replace(row, state="open"))
            link = identity.Invite(
                origin=account.origin,
                relay_key=account.relay_key,
                genesis_hash=account.genesis_hash,
                creator_device=account.device_hash,
                secret=row.secret,
                expires_s=row.expires_s,
            ).link()
            step.emit(InviteMade(link, row.expires_s))
        case api.Refused(sentence=sentence):
            step.tx.delete(INVITE, invite_id)
            book.fail(step, "invite", sentence)


def prove(step: Step, row: OutboxRow, session_id: bytes) -> bytes | None:
    """The body of a proof for this session; None where the row carries none."""
    if row.kind not in (content.INTRODUCTION, content.INVITE_ANSWER):
        return None
    contact = book.of(step.tx, row.genesis_hash)
    body = content.decode_body(row.kind, row.body)
    if contact is None:
        return None
    match body:
        case content.Introduction(invite_id=bytes() as invite_id) if contact.invite_secret:
            mac = _mac(step, contact, contact.invite_secret, session_id, identity.invitee_mac)
            return content.encode_body(content.Introduction(body.name, invite_id, mac))
        case content.InviteAnswer(invite_id=invite_id):
            invite = load(step.tx, INVITE, invite_id, InviteRow)
            if invite is not None:
                mac = _mac(step, contact, invite.secret, session_id, identity.inviter_mac)
                return content.encode_body(content.InviteAnswer(invite_id, mac))
    return None


def redeem(step: Step, contact: Contact, device_hash: bytes, proof: tuple[bytes, bytes]) -> Contact:
    """On the creator device: unexpired, unspent or spent by this account, and the proof is right.

    Then they are an accepted contact, their session is theirs beyond doubt, and they learn our name.
    """
    invite_id, mac = proof
    row = load(step.tx, INVITE, invite_id, InviteRow)
    if row is None or row.state == "pending" or row.spent_by not in (b"", contact.genesis_hash):
        return contact
    if step.now_s > row.expires_s + limits.INVITE_GRACE_S:
        return contact
    session_id = sessions.session_id_of(step.tx, device_hash)
    if not session_id or not equal(mac, _mac(step, contact, row.secret, session_id, identity.invitee_mac)):
        return contact
    sessions.proven(step.tx, device_hash)
    spent = msgspec.structs.replace(row, state="spent", spent_by=contact.genesis_hash)
    save(step.tx, INVITE, invite_id, spent)
    contact = msgspec.structs.replace(contact, status="accepted")
    book.store(step.tx, contact)
    contact = trust.raise_level(step, contact, "invited")
    outbox.share(step, contact)
    answer = content.InviteAnswer(invite_id, bytes(32))
    outbox.queue_control(step, contact.genesis_hash, device_hash, answer)
    if not contact.introduced:
        contact = outbox.introduce(step, contact)
    return contact


def answered(step: Step, contact: Contact, device_hash: bytes, answer: content.InviteAnswer) -> None:
    """On the invitee's device: the creator knows the secret, too."""
    session_id = sessions.session_id_of(step.tx, device_hash)
    if not contact.invite_secret or not session_id:
        return
    expected = _mac(step, contact, contact.invite_secret, session_id, identity.inviter_mac)
    if identity.derive_invite(contact.invite_secret).id != answer.invite_id or not equal(
        answer.mac, expected
    ):
        return
    sessions.proven(step.tx, device_hash)
    contact = msgspec.structs.replace(contact, invite_secret=b"")
    book.store(step.tx, contact)
    trust.raise_level(step, contact, "invited")


def expire(step: Step) -> None:
    for invite_id, row in rows(step.tx, INVITE, InviteRow):
        if step.now_s > row.expires_s + limits.INVITE_GRACE_S:
            step.tx.delete(INVITE, invite_id)


def _mac(
    step: Step,
    contact: Contact,
    secret: bytes,
    session_id: bytes,
    make: Callable[[identity.InviteKeys, bytes, bytes, bytes], bytes],
) -> bytes:
    own = identity.fingerprint32(own_state(require_account(step.tx)))
    their = identity.fingerprint32(book.state_of(contact))
    return make(identity.derive_invite(secret), own, their, session_id)
