"""The post-quantum challenge: a device proves that a session which names it is its own.

Source: docs/identity.md, "Post-quantum authentication". The challenger seals a nonce to the inbox key
that the account's list vouches for; who opens it answers with a MAC under it. The challenger could make
both, so neither proves anything to a third party.
"""

from __future__ import annotations

from typing import Final

from lokket.codec.tls import opaque
from lokket.crypto.entropy import Entropy
from lokket.crypto.hpke import SEAL_OVERHEAD_BYTES, seal_xwing
from lokket.errors import DecryptionFailed
from lokket.protocol.identity.device_keys import InboxKeyPair
from lokket.protocol.identity.encoding import label, mac

CHALLENGE_NONCE_BYTES: Final = 32
CHALLENGE_BYTES: Final = CHALLENGE_NONCE_BYTES + SEAL_OVERHEAD_BYTES  # 1168
_CHALLENGE: Final = "pq challenge"
_RESPONSE: Final = "pq response"


def seal_challenge(inbox_key: bytes, session_id: bytes, nonce: bytes, entropy: Entropy) -> bytes:
    """HPKE(inbox key, info = "pq challenge" and the session id, nonce): 1168 bytes from a nonce of 32.

    KeyRefused: the inbox key (1216 B) gives no secret.
    """
    return seal_xwing(inbox_key, _info(session_id), nonce, entropy)


def answer_challenge(inbox: InboxKeyPair, session_id: bytes, sealed: bytes) -> bytes:
    """The response, 32 bytes. DecryptionFailed: sealed to another key or for another session."""
    nonce = inbox.open(_info(session_id), sealed)
    if len(nonce) != CHALLENGE_NONCE_BYTES:
        raise DecryptionFailed("a challenge holds no nonce", code="bad-challenge")
    return challenge_response(nonce, session_id)


def challenge_response(nonce: bytes, session_id: bytes) -> bytes:
    """MAC(nonce, "pq response", session id), 32 bytes: what the challenger expects."""
    return mac(nonce, _RESPONSE, session_id)


def _info(session_id: bytes) -> bytes:
    return opaque(label(_CHALLENGE)) + opaque(session_id)
