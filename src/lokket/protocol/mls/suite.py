"""Cipher suites and the labelled operations made of them (RFC 9420 sections 5.1, 5.2 and 8).

Suites 1 to 7 of section 17.1, and TBD1 of draft-ietf-mls-pq-ciphersuites-06 (X-Wing KEM) under a number from
the private range, since none is assigned: 0xF101 here, or what ``suites`` is given.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Final

from lokket.codec.tls import opaque
from lokket.crypto.entropy import Entropy
from lokket.crypto.hpke import AEAD, AES_128_GCM, AES_256_GCM, CHACHA20_POLY1305, AEADCipher
from lokket.crypto.hpke import Suite as HPKESuite
from lokket.crypto.kem import (
    DHKEM_P256,
    DHKEM_P384,
    DHKEM_P521,
    DHKEM_X448,
    DHKEM_X25519,
    KEM,
    XWING,
    KEMKeyPair,
    expand,
    mac,
)
from lokket.errors import RemoteError
from lokket.protocol.mls.proposals import HPKECiphertext
from lokket.protocol.mls.signatures import (
    ECDSA_P256,
    ECDSA_P384,
    ECDSA_P521,
    ED448,
    ED25519,
    SignatureKeyPair,
    SignatureScheme,
)
from lokket.protocol.mls.structs import KeyPackage

POST_QUANTUM_ID: Final = 0xF101


@dataclass(frozen=True, eq=False)
class CipherSuite:
    """One cipher suite: ``hash_bytes`` is Nh, ``key_bytes`` Nk; nonces have 12 bytes, tags 16."""

    number: int
    name: str
    kem: KEM
    aead: AEAD
    hash_name: str
    signature: SignatureScheme

    @cached_property
    def hash_bytes(self) -> int:
        return hashlib.new(self.hash_name).digest_size

    @cached_property
    def _new_hash(self) -> Any:
        return getattr(hashlib, self.hash_name)

    @property
    def key_bytes(self) -> int:
        return self.aead.key_bytes

    @cached_property
    def hpke(self) -> HPKESuite:
        return HPKESuite(self.kem, self.hash_name, self.aead)

    @cached_property
    def zeros(self) -> bytes:
        """Nh zero bytes: the secret that stands where none is."""
        return bytes(self.hash_bytes)

    # --- hashes and keys ---

    def hash(self, data: bytes) -> bytes:
        digest: bytes = self._new_hash(data).digest()
        return digest

    def mac(self, key: bytes, data: bytes) -> bytes:
        """HMAC (section 5.2)."""
        return mac(self.hash_name, key, data)

    def extract(self, salt: bytes, key_material: bytes) -> bytes:
        """KDF.Extract: HKDF of RFC 5869."""
        return mac(self.hash_name, salt, key_material)

    def expand_with_label(self, secret: bytes, label: bytes, context: bytes, length: int) -> bytes:
        """Section 8: ``label`` without its "MLS 1.0 "."""
        info = _kdf_label(length, label) + (opaque(context) if context else b"\x00")
        return expand(self.hash_name, secret, info, length)

    def derive_secret(self, secret: bytes, label: bytes) -> bytes:
        """Section 8: Nh bytes."""
        return self.expand_with_label(secret, label, b"", self.hash_bytes)

    def derive_tree_secret(self, secret: bytes, label: bytes, generation: int, length: int) -> bytes:
        """Section 9.1."""
        return self.expand_with_label(secret, label, generation.to_bytes(4, "big"), length)

    def ref_hash(self, label: bytes, value: bytes) -> bytes:
        """RefHash (section 5.2): ``label`` whole."""
        return self.hash(opaque(label) + opaque(value))

    def key_package_ref(self, key_package: KeyPackage) -> bytes:
        return self.ref_hash(b"MLS 1.0 KeyPackage Reference", key_package.encoded)

    def proposal_ref(self, authenticated_content: bytes) -> bytes:
        """Of an encoded AuthenticatedContent."""
        return self.ref_hash(b"MLS 1.0 Proposal Reference", authenticated_content)

    def cipher(self, key: bytes) -> AEADCipher:
        return self.aead.cipher(key)

    # --- signatures (section 5.1.2) ---

    def sign_with_label(self, private: bytes, label: bytes, content: bytes) -> bytes:
        return self.signature.sign(private, _labelled(label, content))

    def verify_with_label(self, public: bytes, label: bytes, content: bytes, signature: bytes) -> None:
        """SignatureRefused, or KeyRefused where ``public`` is no key."""
        self.signature.verify(public, _labelled(label, content), signature)

    def generate_signature_key(self, entropy: Entropy) -> SignatureKeyPair:
        return self.signature.generate(entropy)

    # --- public-key encryption (section 5.1.3) ---

    def encrypt_with_label(
        self, public: bytes, label: bytes, context: bytes, plaintext: bytes, entropy: Entropy
    ) -> HPKECiphertext:
        """KeyRefused: the key gives no secret."""
        return HPKECiphertext(*self.hpke.seal(public, _labelled(label, context), plaintext, entropy))

    def decrypt_with_label(
        self, pair: KEMKeyPair, label: bytes, context: bytes, ciphertext: HPKECiphertext
    ) -> bytes:
        """DecryptionFailed: sealed to another key, for another context, or damaged."""
        info = _labelled(label, context)
        return self.hpke.open(pair, ciphertext.kem_output, info, ciphertext.ciphertext)

    def derive_key_pair(self, secret: bytes) -> KEMKeyPair:
        """KEM.DeriveKeyPair (RFC 9180 section 4)."""
        return self.kem.derive_key_pair(secret)

    def generate_key_pair(self, entropy: Entropy) -> KEMKeyPair:
        return self.kem.derive_key_pair(entropy.draw(max(self.hash_bytes, self.kem.private_bytes)))

    def __repr__(self) -> str:
        return f"<{self.name}>"


@lru_cache(maxsize=256)
def _kdf_label(length: int, label: bytes) -> bytes:
    """The head of KDFLabel: few labels are ever used, an application's exports aside."""
    return length.to_bytes(2, "big") + opaque(b"MLS 1.0 " + label)


def _labelled(label: bytes, content: bytes) -> bytes:
    """SignContent and EncryptContext, which have the same form."""
    return opaque(b"MLS 1.0 " + label) + opaque(content)


def _suite(number: int, name: str, kem: KEM, aead: AEAD, rest: tuple[str, SignatureScheme]) -> CipherSuite:
    return CipherSuite(number, name, kem, aead, *rest)


_AES_128, _AES_256, _CHACHA = AES_128_GCM, AES_256_GCM, CHACHA20_POLY1305
_CURVE25519, _CURVE448 = ("sha256", ED25519), ("sha512", ED448)

_STANDARD: Final = (
    _suite(1, "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519", DHKEM_X25519, _AES_128, _CURVE25519),
    _suite(2, "MLS_128_DHKEMP256_AES128GCM_SHA256_P256", DHKEM_P256, _AES_128, ("sha256", ECDSA_P256)),
    _suite(3, "MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519", DHKEM_X25519, _CHACHA, _CURVE25519),
    _suite(4, "MLS_256_DHKEMX448_AES256GCM_SHA512_Ed448", DHKEM_X448, _AES_256, _CURVE448),
    _suite(5, "MLS_256_DHKEMP521_AES256GCM_SHA512_P521", DHKEM_P521, _AES_256, ("sha512", ECDSA_P521)),
    _suite(6, "MLS_256_DHKEMX448_CHACHA20POLY1305_SHA512_Ed448", DHKEM_X448, _CHACHA, _CURVE448),
    _suite(7, "MLS_256_DHKEMP384_AES256GCM_SHA384_P384", DHKEM_P384, _AES_256, ("sha384", ECDSA_P384)),
)


def suites(post_quantum_id: int = POST_QUANTUM_ID) -> Mapping[int, CipherSuite]:
    """All cipher suites carried, by number, TBD1 under the given one."""
    name = "MLS_128_MLKEM768X25519_AES128GCM_SHA256_Ed25519"
    post_quantum = _suite(post_quantum_id, name, XWING, _AES_128, _CURVE25519)
    return {**{one.number: one for one in _STANDARD}, post_quantum_id: post_quantum}


SUITES: Final = suites()


def find_suite(number: int, carried: Mapping[int, CipherSuite] = SUITES) -> CipherSuite:
    """RemoteError: a suite that is not carried."""
    found = carried.get(number)
    if found is None:
        raise RemoteError(f"cipher suite {number} is not carried", code="mls-unknown-suite")
    return found
