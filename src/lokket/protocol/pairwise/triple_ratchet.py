"""The Triple Ratchet (Double Ratchet revision 4, section 6): both ratchets key every message.

Sending: SPQR key, Double Ratchet seed, message keys, AES-256-CBC, MAC over everything with both
identities. Receiving: the same on values that nobody else sees until MAC, addresses and padding are
right. Knows neither prekey messages nor which session a message belongs to.
"""

from __future__ import annotations

from typing import Final

from lokket.crypto.entropy import Entropy
from lokket.crypto.primitives import aes_cbc_decrypt, aes_cbc_encrypt, equal, hkdf_sha256_triple, hmac_sha256
from lokket.errors import DecryptionFailed
from lokket.protocol.pairwise import double_ratchet, spqr
from lokket.protocol.pairwise.double_ratchet import DoubleRatchet
from lokket.protocol.pairwise.messages import MAC_BYTES, Address, SignalMessage, encode_signal_message
from lokket.protocol.pairwise.spqr import Spqr
from lokket.protocol.pairwise.work import Work

_INFO: Final = b"WhisperMessageKeys"


TripleRatchet = tuple[DoubleRatchet, Spqr]
Party = tuple[bytes, Address]  # an identity key (33) and whose it is
Parties = tuple[Party, Party]  # who sends, who receives


def encrypt(
    state: TripleRatchet, parties: Parties, plaintext: bytes, with_addresses: bool, entropy: Entropy
) -> tuple[TripleRatchet, bytes]:
    """(state, SignalMessage bytes)."""
    double, pq = state
    pq, pq_ratchet, pq_key = spqr.send(pq, entropy)
    sent = double_ratchet.send(double)
    cipher_key, mac_key, iv = hkdf_sha256_triple(sent.seed, pq_key, _INFO)
    body = encode_signal_message(
        sent.ratchet_key,
        (sent.counter, sent.previous),
        aes_cbc_encrypt(cipher_key, iv[:16], plaintext),
        pq_ratchet,
        _addresses(parties) if with_addresses else None,
    )
    return (sent.state, pq), body + _mac(mac_key, parties, body)


def decrypt(
    state: TripleRatchet, parties: Parties, message: SignalMessage, entropy: Entropy, work: Work
) -> tuple[TripleRatchet, bytes]:
    """(state, plaintext). A RemoteError for every message that is not the sender's next or a late one."""
    double, pq = state
    double, seed = double_ratchet.receive(double, message.ratchet_key, message.counter, entropy, work)
    pq, pq_key = spqr.receive(pq, message.pq_ratchet, work)
    cipher_key, mac_key, iv = hkdf_sha256_triple(seed, pq_key, _INFO)
    if not equal(_mac(mac_key, parties, message.authenticated), message.mac):
        raise DecryptionFailed("a message is not authentic", code="bad-mac")
    if message.addresses is not None and message.addresses != _addresses(parties):
        raise DecryptionFailed("a message is addressed to or from another device", code="wrong-address")
    return (double, pq), aes_cbc_decrypt(cipher_key, iv[:16], message.ciphertext)


def _mac(key: bytes, parties: Parties, body: bytes) -> bytes:
    (sender, _), (receiver, _) = parties
    return hmac_sha256(key, sender + receiver + body)[:MAC_BYTES]


def _addresses(parties: Parties) -> bytes:
    """The ``addresses`` field, 36 bytes."""
    (_, sender), (_, receiver) = parties
    return sender.wire + receiver.wire
