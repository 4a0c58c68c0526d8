"""The post-quantum challenge: sealed to one key for one session, answered under one nonce."""

from __future__ import annotations

import pytest

from lokket.crypto.hpke import open_sealed, seal_xwing
from lokket.errors import DecryptionFailed
from lokket.protocol import identity
from lokket.protocol.identity.device_keys import InboxKeyPair
from lokket.system import SystemEntropy

ENTROPY = SystemEntropy()
INBOX = InboxKeyPair(bytes(range(32)))
NONCE, SESSION, OTHER = b"n" * 32, b"s" * 32, b"o" * 32


def sealed(session_id: bytes = SESSION) -> bytes:
    return identity.seal_challenge(INBOX.public, session_id, NONCE, ENTROPY)


def test_its_bytes_are_what_the_document_says() -> None:
    """info = opaque label<V>, opaque session id<V>; the answer is MAC(N, "pq response", session id)."""
    challenge = sealed()
    assert len(challenge) == identity.CHALLENGE_BYTES == 1168
    info = b"\x16lokket v1 pq challenge" + b"\x20" + SESSION
    assert open_sealed(INBOX.seed, info, challenge) == NONCE
    answer = identity.answer_challenge(INBOX, SESSION, challenge)
    assert (
        answer == identity.challenge_response(NONCE, SESSION) == identity.mac(NONCE, "pq response", SESSION)
    )


@pytest.mark.attack(19)
def test_a_challenge_of_one_session_is_none_in_another() -> None:
    """Forwarding it into a session of one's own gives no answer that could be carried back."""
    with pytest.raises(DecryptionFailed):
        identity.answer_challenge(INBOX, OTHER, sealed())
    with pytest.raises(DecryptionFailed):
        identity.answer_challenge(InboxKeyPair(bytes(32)), SESSION, sealed())


@pytest.mark.attack(19)
def test_an_answer_is_of_one_nonce_and_one_session() -> None:
    """Even if a nonce ever repeated."""
    answers = {
        identity.challenge_response(nonce, session)
        for nonce in (NONCE, OTHER)
        for session in (SESSION, OTHER)
    }
    assert len(answers) == 4
    assert identity.mac(NONCE, "pq challenge", SESSION) not in answers


def test_what_holds_no_nonce_gets_no_answer() -> None:
    """A nonce of no bytes would make the answer a function of what everybody knows."""
    info = b"\x16lokket v1 pq challenge" + b"\x20" + SESSION
    for text in (b"", NONCE[:-1], NONCE + b"n"):
        with pytest.raises(DecryptionFailed):
            identity.answer_challenge(INBOX, SESSION, seal_xwing(INBOX.public, info, text, ENTROPY))
