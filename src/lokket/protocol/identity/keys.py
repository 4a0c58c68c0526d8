"""Signing under a label: hybrid account and recovery keys, and a device's single keys.

Source: docs/identity.md, "Encoding and contexts". A hybrid signature is an Ed25519 signature (RFC 8032)
and an ML-DSA-65 signature (FIPS 204, context = label) over the same message; both must verify.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from lokket.codec import tls
from lokket.codec.tls import Bytes32, Bytes64, Fixed
from lokket.crypto.entropy import Entropy
from lokket.crypto.keys import (
    MLDSA_PUBLIC_BYTES,
    MLDSA_SIGNATURE_BYTES,
    Ed25519KeyPair,
    MLDSAKeyPair,
    check_ed25519_public,
    check_mldsa_public,
    verify_ed25519,
    verify_mldsa,
)
from lokket.crypto.xeddsa import IdentityKeyPair, verify_xeddsa
from lokket.errors import LocalError, SignatureRefused
from lokket.protocol.identity.encoding import label, message

HYBRID_SEED_BYTES: Final = 64
BUNDLE_KEY_BYTES: Final = MLDSA_PUBLIC_BYTES[44]
BUNDLE_SIGNATURE_BYTES: Final = MLDSA_SIGNATURE_BYTES[44]


@dataclass(frozen=True, slots=True)
class HybridSignature:
    """3,373 bytes; valid only if both halves are."""

    ed25519: Bytes64
    mldsa: Annotated[bytes, Fixed(MLDSA_SIGNATURE_BYTES[65])]


@dataclass(frozen=True, slots=True)
class HybridKey:
    """Ed25519 (32) || ML-DSA-65 (1952)."""

    ed25519: Bytes32
    mldsa: Annotated[bytes, Fixed(MLDSA_PUBLIC_BYTES[65])]

    def check(self) -> None:
        """The import check. KeyRefused: a half is not canonical, has torsion, or is degenerate."""
        check_ed25519_public(self.ed25519)
        check_mldsa_public(65, self.mldsa)

    def verify(self, name: str, data: bytes, signature: HybridSignature) -> None:
        """SignatureRefused unless both halves verify. The key must have passed ``check``."""
        signed = message(name, tls.encode(self), data)
        verify_ed25519(self.ed25519, signature.ed25519, signed)
        verify_mldsa(65, self.mldsa, signature.mldsa, signed, label(name))

    def __repr__(self) -> str:
        return f"HybridKey({self.ed25519.hex()[:8]}…)"


class HybridKeyPair:
    """An account or recovery key from a 64-byte seed: Ed25519 seed || ML-DSA-65 seed."""

    def __init__(self, seed: bytes) -> None:
        if len(seed) != HYBRID_SEED_BYTES:
            raise LocalError("a hybrid seed has 64 bytes")
        self.seed = seed
        self._ed25519 = Ed25519KeyPair(seed[:32])
        self._mldsa = MLDSAKeyPair(65, seed[32:])
        self.public = HybridKey(self._ed25519.public, self._mldsa.public)

    @classmethod
    def from_seed(cls, seed: bytes) -> HybridKeyPair:
        """LocalError: not 64 bytes."""
        return cls(seed)

    @classmethod
    def generate(cls, entropy: Entropy) -> HybridKeyPair:
        return cls(entropy.draw(HYBRID_SEED_BYTES))

    def sign(self, name: str, data: bytes, entropy: Entropy) -> HybridSignature:
        signed = message(name, tls.encode(self.public), data)
        return HybridSignature(
            self._ed25519.sign(signed), entropy.sign_mldsa(self._mldsa, signed, label(name))
        )

    def __repr__(self) -> str:
        return f"HybridKeyPair({self.public.ed25519.hex()[:8]}…)"


# --- single keys: identity (XEdDSA), auth and MLS (Ed25519), bundle (ML-DSA-44) ---


def sign_with_identity(pair: IdentityKeyPair, name: str, data: bytes) -> bytes:
    """XEdDSA over M, 64 bytes; the public key enters M as its 33 serialized bytes."""
    return pair.sign(message(name, pair.public, data))


def verify_identity(public: bytes, name: str, data: bytes, signature: bytes) -> None:
    """SignatureRefused unless the 33-byte identity key ``public`` made ``signature``."""
    verify_xeddsa(public, signature, message(name, public, data))


def sign_with_ed25519(pair: Ed25519KeyPair, name: str, data: bytes) -> bytes:
    """Ed25519 over M, 64 bytes."""
    return pair.sign(message(name, pair.public, data))


def verify_labelled_ed25519(public: bytes, name: str, data: bytes, signature: bytes) -> None:
    """SignatureRefused unless ``public`` made ``signature``; KeyRefused: not an importable key."""
    check_ed25519_public(public)
    verify_ed25519(public, signature, message(name, public, data))


def sign_with_bundle_key(pair: MLDSAKeyPair, name: str, data: bytes, entropy: Entropy) -> bytes:
    """ML-DSA-44 over M, context = label, 2,420 bytes."""
    if pair.level != 44:
        raise LocalError("a bundle key is an ML-DSA-44 key")
    return entropy.sign_mldsa(pair, message(name, pair.public, data), label(name))


def verify_bundle_key(public: bytes, name: str, data: bytes, signature: bytes) -> None:
    """SignatureRefused unless the ML-DSA-44 key ``public`` made ``signature``; KeyRefused: degenerate."""
    check_mldsa_public(44, public)
    if len(signature) != BUNDLE_SIGNATURE_BYTES:
        raise SignatureRefused("an ML-DSA signature has the wrong length")
    verify_mldsa(44, public, signature, message(name, public, data), label(name))
