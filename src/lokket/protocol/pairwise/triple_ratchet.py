"""The Triple Ratchet (Double Ratchet revision 4, section 6): both ratchets key every message.

Sending: SPQR key, Double Ratchet seed, message keys, AES-256-CBC, MAC over everything with both
identities. Receiving: the same on values that nobody else sees until MAC, addresses and padding are
right. Knows neither prekey messages nor which session a message belongs to.
"""

from __future__ import annotations

from typing import Final

from lokket.crypto.entropy import Entropy
from lokket.crypto.primitives import aes_cbc_decrypt, aes_cbc_encrypt, equal, hkdf_sha256, hmac_sha256
from lokket.errors import DecryptionFailed
from lokket.protocol.pairwise import double_ratchet, spqr
from lokket.protocol.pairwise.double_ratchet import DoubleRatchet
from lokket.protocol.pairwise.messages import MAC_BYTES, Address, SignalMessage, encode_signal_message
from lokket.protocol.pairwise.spqr import Spqr
from lokket.protocol.pairwise.value import value
from lokket.protocol.pairwise.work import Work

_INFO: Final = b"WhisperMessageKeys"


@value
class TripleRatchet:
    double: DoubleRatchet
    spqr: Spqr


@value
class Parties:
    """Who sends to whom: identity keys (33 B each) and addresses."""

    sender_identity: bytes
    receiver_identity: bytes
    sender: Address
    receiver: Address

    def addresses(self) -> bytes:
        """The ``addresses`` field, 36 bytes."""
        return self.sender.wire + self.receiver.wire


def encrypt(
    state: TripleRatchet, parties: Parties, plaintext: bytes, with_addresses: bool, entropy: Entropy
) -> tuple[TripleRatchet, bytes]:
    """(state, SignalMessage bytes)."""
    pq_state, pq_ratchet, pq_key = spqr.send(state.spqr, entropy)
    sent = double_ratchet.send(state.double)
    keys = hkdf_sha256(sent.seed, salt=pq_key, info=_INFO, length=80)
    body = encode_signal_message(
        sent.ratchet_key,
        (sent.counter, sent.previous),
        aes_cbc_encrypt(keys[:32], keys[64:], plaintext),
        pq_ratchet,
        parties.addresses() if with_addresses else None,
    )
    return TripleRatchet(sent.state, pq_state), body + _mac(keys[32:64], parties, body)


def decrypt(
    state: TripleRatchet, parties: Parties, message: SignalMessage, entropy: Entropy, work: Work
) -> tuple[TripleRatchet, bytes]:
    """(state, plaintext). A RemoteError for every message that is not the sender's next or a late one."""
    double, seed = double_ratchet.receive(state.double, message.ratchet_key, message.counter, entropy, work)
    pq_state, pq_key = spqr.receive(state.spqr, message.pq_ratchet, work)
    keys = hkdf_sha256(seed, salt=pq_key, info=_INFO, length=80)
    if not equal(_mac(keys[32:64], parties, message.authenticated), message.mac):
        raise DecryptionFailed("a message is not authentic", code="bad-mac")
    if message.addresses is not None and message.addresses != parties.addresses():
        raise DecryptionFailed("a message is addressed to or from another device", code="wrong-address")
    return TripleRatchet(double, pq_state), aes_cbc_decrypt(keys[:32], keys[64:], message.ciphertext)


def _mac(key: bytes, parties: Parties, body: bytes) -> bytes:
    return hmac_sha256(key, parties.sender_identity + parties.receiver_identity + body)[:MAC_BYTES]
