"""PQXDH revision 3 (signal.org/docs/specifications/pqxdh) as libsignal-client 0.103 runs it.

1. The responder's bundle: an identity key, a signed prekey and a KEM prekey, both signed by it, and
   perhaps a one-time prekey. ``initiate`` verifies all of it before any exchange.
2. The initiator draws a base key, encapsulates, and derives root, chain and post-quantum secret.
3. The responder derives the same from the first prekey message (``respond``).

The KEM is Kyber-1024 of round 3: ML-KEM-1024 with Kyber's last key derivation. Knows no ratchet.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated, Final, NamedTuple, Protocol

from lokket.codec.tls import U32, Bytes32, Bytes33, Fixed
from lokket.crypto.entropy import Entropy
from lokket.crypto.keys import MLKEMKeyPair, X25519KeyPair, check_x25519_encoding, check_x25519_public
from lokket.crypto.primitives import hkdf_sha256_triple, sha256, shake256
from lokket.crypto.xeddsa import KEY_TYPE, IdentityKeyPair, check_identity_key, verify_xeddsa
from lokket.errors import DecodeError, DecryptionFailed, KeyRefused, LocalError
from lokket.protocol.pairwise.messages import (
    KEM_BYTES,
    KEM_TYPE,
    REGISTRATION_MAX,
    Address,
    PreKeyMessage,
    ec_key,
)
from lokket.protocol.pairwise.value import public_value

_INFO: Final = b"WhisperText_X25519_SHA-256_CRYSTALS-KYBER-1024"
_DISCONTINUITY: Final = b"\xff" * 32


@dataclass(slots=True)
class LocalDevice:
    """Our side: identity, 14-bit registration id, address; whether prekey messages must carry addresses.

    LocalError: the registration id has more than 14 bits, and our first messages would be refused for it.
    """

    identity: IdentityKeyPair
    registration_id: int
    address: Address
    require_addresses: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.registration_id <= REGISTRATION_MAX:
            raise LocalError("a registration id has 14 bits")


@dataclass(frozen=True, slots=True)
class PreKeyBundle:
    """A remote device's keys as fetched: nothing in it is trusted until ``begin`` has verified it.

    EC keys are 05 || u, 33 bytes; the KEM key is 08 || ML-KEM-1024 key, 1569 bytes; signatures are XEdDSA by
    the identity key over the whole key, 64 bytes. Ids are uint32; without a one-time key both its fields are
    None.
    """

    registration_id: int
    address: Address
    identity_key: bytes  # 33
    signed_prekey_id: int
    signed_prekey: bytes  # 33
    signed_prekey_signature: bytes  # 64, over the 33 bytes
    kem_prekey_id: int
    kem_prekey: bytes  # 1569: 08 || ML-KEM-1024 key
    kem_prekey_signature: bytes  # 64, over the 1569 bytes
    one_time_prekey_id: int | None
    one_time_prekey: bytes | None  # 33


class PreKeys(Protocol):
    """Our prekeys by id; None for an id we do not hold (used, expired, or never ours)."""

    def signed_prekey(self, prekey_id: int) -> X25519KeyPair | None: ...

    def one_time_prekey(self, prekey_id: int) -> X25519KeyPair | None: ...

    def kem_prekey(self, prekey_id: int) -> MLKEMKeyPair | None: ...


@public_value
class Handshake:
    """The transcript that a session binding is computed from: equal on both sides."""

    base_key: Bytes33
    signed_prekey_id: U32
    signed_prekey: Bytes33
    one_time_prekey_id: U32 | None
    one_time_prekey: Annotated[bytes, Fixed(33)] | None
    kem_prekey_id: U32
    kem_prekey_hash: Bytes32  # SHA-256 of 1569 bytes
    kem_ciphertext_hash: Bytes32  # SHA-256 of 1569 bytes
    initiator_identity: Bytes33
    responder_identity: Bytes33


class Secrets(NamedTuple):
    """32 bytes each."""

    root: bytes
    chain: bytes
    post_quantum: bytes

    def __repr__(self) -> str:
        return "Secrets(…)"


class Initiated(NamedTuple):
    secrets: Secrets
    handshake: Handshake
    kem_ciphertext: bytes  # 1569


def verify_bundle(bundle: PreKeyBundle) -> None:
    """Keys before signatures before any exchange. KeyRefused, SignatureRefused, DecodeError."""
    check_identity_key(bundle.identity_key)
    check_x25519_encoding(ec_key(bundle.signed_prekey))
    if (bundle.one_time_prekey_id is None) != (bundle.one_time_prekey is None):
        raise DecodeError("a bundle has half a one-time prekey")
    if bundle.one_time_prekey is not None:
        check_x25519_encoding(ec_key(bundle.one_time_prekey))
    if len(bundle.kem_prekey) != KEM_BYTES or bundle.kem_prekey[:1] != KEM_TYPE:
        raise KeyRefused("a KEM prekey is 08 and 1568 bytes")
    ids = (bundle.signed_prekey_id, bundle.kem_prekey_id, bundle.one_time_prekey_id or 0)
    if min(ids) < 0 or max(ids) >> 32 or not 0 <= bundle.registration_id <= REGISTRATION_MAX:
        raise DecodeError("a bundle has an id out of range")
    verify_xeddsa(bundle.identity_key, bundle.signed_prekey_signature, bundle.signed_prekey)
    verify_xeddsa(bundle.identity_key, bundle.kem_prekey_signature, bundle.kem_prekey)


def initiate(identity: IdentityKeyPair, bundle: PreKeyBundle, entropy: Entropy) -> Initiated:
    """The initiator's half. Draws the base key (32), then encapsulates."""
    verify_bundle(bundle)
    base = X25519KeyPair(entropy.draw(32))
    secret, ciphertext = entropy.encapsulate(bundle.kem_prekey[1:])
    kem_ciphertext = KEM_TYPE + ciphertext
    signed_prekey, their_identity = bundle.signed_prekey[1:], bundle.identity_key[1:]
    exchanges = [
        identity.exchange(signed_prekey),
        base.exchange(their_identity),
        base.exchange(signed_prekey),
    ]
    if bundle.one_time_prekey is not None:
        exchanges.append(base.exchange(bundle.one_time_prekey[1:]))
    handshake = Handshake(
        base_key=KEY_TYPE + base.public,
        signed_prekey_id=bundle.signed_prekey_id,
        signed_prekey=bundle.signed_prekey,
        one_time_prekey_id=bundle.one_time_prekey_id,
        one_time_prekey=bundle.one_time_prekey,
        kem_prekey_id=bundle.kem_prekey_id,
        kem_prekey_hash=sha256(bundle.kem_prekey),
        kem_ciphertext_hash=sha256(kem_ciphertext),
        initiator_identity=identity.public,
        responder_identity=bundle.identity_key,
    )
    return Initiated(_derive(exchanges, _kyber_secret(secret, ciphertext)), handshake, kem_ciphertext)


class OurPreKeys(NamedTuple):
    """Those of our key pairs that a prekey message names."""

    signed: X25519KeyPair
    one_time: X25519KeyPair | None
    kem: MLKEMKeyPair


def find_prekeys(message: PreKeyMessage, prekeys: PreKeys) -> OurPreKeys:
    """DecryptionFailed: the message names a key we do not hold."""
    signed = prekeys.signed_prekey(message.signed_prekey_id)
    kem = prekeys.kem_prekey(message.kem_prekey_id)
    one_time = None
    if message.one_time_prekey_id is not None:
        one_time = prekeys.one_time_prekey(message.one_time_prekey_id)
        if one_time is None:
            raise DecryptionFailed("a one-time prekey is unknown or was used", code="unknown-prekey")
    if signed is None or kem is None:
        raise DecryptionFailed("a prekey is unknown or was used", code="unknown-prekey")
    return OurPreKeys(signed, one_time, kem)


def respond(identity: IdentityKeyPair, ours: OurPreKeys, message: PreKeyMessage) -> tuple[Secrets, Handshake]:
    """The responder's half. KeyRefused: identity or base key. A wrong KEM ciphertext shows at the MAC."""
    check_identity_key(message.identity_key)
    base_key = message.base_key[1:]
    check_x25519_public(base_key)
    exchanges = [
        ours.signed.exchange(message.identity_key[1:]),
        identity.exchange(base_key),
        ours.signed.exchange(base_key),
    ]
    if ours.one_time is not None:
        exchanges.append(ours.one_time.exchange(base_key))
    ciphertext = message.kem_ciphertext[1:]
    secret = _kyber_secret(ours.kem.decapsulate(ciphertext), ciphertext)
    handshake = Handshake(
        base_key=message.base_key,
        signed_prekey_id=message.signed_prekey_id,
        signed_prekey=KEY_TYPE + ours.signed.public,
        one_time_prekey_id=message.one_time_prekey_id,
        one_time_prekey=None if ours.one_time is None else KEY_TYPE + ours.one_time.public,
        kem_prekey_id=message.kem_prekey_id,
        kem_prekey_hash=sha256(KEM_TYPE + ours.kem.public),
        kem_ciphertext_hash=sha256(message.kem_ciphertext),
        initiator_identity=message.identity_key,
        responder_identity=identity.public,
    )
    return _derive(exchanges, secret), handshake


def _derive(exchanges: list[bytes], kem_secret: bytes) -> Secrets:
    material = b"".join((_DISCONTINUITY, *exchanges, kem_secret))
    return Secrets(*hkdf_sha256_triple(material, None, _INFO))


def _kyber_secret(secret: bytes, ciphertext: bytes) -> bytes:
    """Kyber round 3 from ML-KEM: the same ciphertext, one more derivation (Kyber 3.02, algorithm 8)."""
    return shake256(secret + hashlib.sha3_256(ciphertext).digest(), 32)
