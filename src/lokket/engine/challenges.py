"""Whether a session's peer has proven itself against who breaks curves, and the challenge that asks for it.

docs/identity.md, "Post-quantum authentication". Who opens a session from a verified manifest knows whom it
speaks to. Who was written to first knows the sender's classical key only, so it asks, inside the session;
the peer answers without a person. No message ever waits for it. A valid invite proof serves as well.

The challenge is made when its message is encrypted: only then is the session known. A session has one
nonce, so that any of its answers counts, whichever of its challenges arrived.
"""

from __future__ import annotations

import msgspec

from lokket import limits
from lokket.crypto.primitives import equal
from lokket.engine import book, outbox, sessions
from lokket.engine.records import OutboxRow, rows
from lokket.engine.step import Step, own_keys, require_account
from lokket.engine.store import OUTBOX, Transaction
from lokket.errors import RemoteError
from lokket.protocol import identity
from lokket.wire import content

_REPEAT_MS = limits.CHALLENGE_REPEAT_S * 1000


def ask(step: Step, genesis_hash: bytes, device_hash: bytes) -> None:
    """Queue a challenge if the current session needs one: at once, then with what arrives a while later."""
    if not _is_wanted(step.tx, device_hash) or not book.may_be_answered(step.tx, genesis_hash):
        return
    binding = sessions.current(step.tx, device_hash)
    assert binding is not None
    if binding.attempts and 0 <= step.now_ms - binding.asked_ms < _REPEAT_MS:
        return
    waits = any(
        row.device_hash == device_hash and row.kind == content.CHALLENGE
        for _, row in rows(step.tx, OUTBOX, OutboxRow)
    )
    if not waits:
        outbox.queue_control(step, genesis_hash, device_hash, content.Challenge(b""))


def is_needless(tx: Transaction, row: OutboxRow) -> bool:
    """A challenge whose session was proven or replaced before it was made."""
    return row.kind == content.CHALLENGE and not row.envelope and not _is_wanted(tx, row.device_hash)


def make(step: Step, row: OutboxRow) -> bytes:
    """The body of a challenge for the current session; the inbox key was checked with its device."""
    binding = sessions.current(step.tx, row.device_hash)
    state = book.known_state(step, row.genesis_hash)
    device = None if state is None else state.device(row.device_hash)
    assert binding is not None
    assert device is not None
    nonce = binding.nonce or step.entropy.draw(identity.CHALLENGE_NONCE_BYTES)
    asked = msgspec.structs.replace(binding, nonce=nonce, attempts=binding.attempts + 1, asked_ms=step.now_ms)
    sessions.remember(step.tx, row.device_hash, asked)
    sealed = identity.seal_challenge(device.inbox_key, binding.session_id, nonce, step.entropy)
    return content.encode_body(content.Challenge(sealed))


def received(
    step: Step, genesis_hash: bytes, device_hash: bytes, body: content.Challenge | content.ChallengeResponse
) -> None:
    """A challenge to us, or the answer to ours. A stranger's gets none: it would be a sign of life."""
    if isinstance(body, content.ChallengeResponse):
        _answered(step, device_hash, body)
    elif book.may_be_answered(step.tx, genesis_hash):
        _answer(step, genesis_hash, device_hash, body)


def _answer(step: Step, genesis_hash: bytes, device_hash: bytes, challenge: content.Challenge) -> None:
    """Prove that the session in which this came, and which we opened, is ours: a few times at most."""
    binding = sessions.current(step.tx, device_hash)
    if binding is None or not binding.ours or binding.attempts >= limits.CHALLENGES_PER_SESSION_MAX:
        return
    sessions.remember(step.tx, device_hash, msgspec.structs.replace(binding, attempts=binding.attempts + 1))
    inbox = own_keys(require_account(step.tx)).inbox
    try:
        mac = identity.answer_challenge(inbox, binding.session_id, challenge.sealed)
    except RemoteError:
        return  # for another session or another device
    outbox.queue_control(step, genesis_hash, device_hash, content.ChallengeResponse(mac))


def _answered(step: Step, device_hash: bytes, response: content.ChallengeResponse) -> None:
    """It counts for the session in which it came, and for no other."""
    binding = sessions.current(step.tx, device_hash)
    if binding is None or not binding.nonce:
        return
    if equal(response.mac, identity.challenge_response(binding.nonce, binding.session_id)):
        sessions.proven(step.tx, device_hash)


def _is_wanted(tx: Transaction, device_hash: bytes) -> bool:
    binding = sessions.current(tx, device_hash)
    return (
        binding is not None
        and not binding.ours
        and not binding.proven
        and binding.attempts < limits.CHALLENGES_PER_SESSION_MAX
    )
