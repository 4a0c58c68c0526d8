"""Signature schemes of the cipher suites (RFC 9420 sections 5.1 and 17.1).

Keys are bytes: EdDSA as RFC 8032 has them, ECDSA private keys as big-endian integers of the field's size and
public keys as uncompressed points. ECDSA signs deterministically (RFC 6979), so signing draws nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey, Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from lokket.crypto.entropy import Entropy
from lokket.crypto.kem import curve_public, private_curve_key, public_curve_key
from lokket.crypto.keys import P448, P
from lokket.errors import KeyRefused, LocalError, SignatureRefused


@dataclass(frozen=True, slots=True)
class SignatureKeyPair:
    """A signature key: sizes by scheme, 32 and 32 bytes for Ed25519."""

    private: bytes = field(repr=False)
    public: bytes


class SignatureScheme(ABC):
    """What a cipher suite signs with."""

    private_bytes: int

    @abstractmethod
    def load(self, private: bytes) -> SignatureKeyPair:
        """The pair of a private key. LocalError: not one."""

    @abstractmethod
    def generate(self, entropy: Entropy) -> SignatureKeyPair:
        """A new pair."""

    @abstractmethod
    def sign(self, private: bytes, message: bytes) -> bytes:
        """The signature. LocalError: not a private key."""

    @abstractmethod
    def verify(self, public: bytes, message: bytes, signature: bytes) -> None:
        """KeyRefused: not a public key of the scheme. SignatureRefused: not this key's signature."""


# y-coordinates of Edwards points whose order divides the cofactor: as keys they verify what nobody signed.
_ORDER_8_Y: Final = 2707385501144840649318225287225658788936804267575313519463743609750303402022
_FIELDS: Final = {  # by bytes of a key: the field's prime, and those y
    32: (P, frozenset({0, 1, P - 1, _ORDER_8_Y, P - _ORDER_8_Y})),
    57: (P448, frozenset({0, 1, P448 - 1})),
}


class EdDSA(SignatureScheme):
    """Ed25519 and Ed448 (RFC 8032)."""

    def __init__(self, private: type[Any], public: type[Any], size: int) -> None:
        self.private_bytes = size
        self._private = private
        self._public = lru_cache(maxsize=4096)(_edwards_loader(public, size))

    def load(self, private: bytes) -> SignatureKeyPair:
        return SignatureKeyPair(private, self._key(private).public_key().public_bytes_raw())

    def generate(self, entropy: Entropy) -> SignatureKeyPair:
        return self.load(entropy.draw(self.private_bytes))

    def sign(self, private: bytes, message: bytes) -> bytes:
        signature: bytes = self._key(private).sign(message)
        return signature

    def verify(self, public: bytes, message: bytes, signature: bytes) -> None:
        try:
            self._public(public).verify(signature, message)
        except InvalidSignature:
            raise SignatureRefused("a signature does not verify") from None
        except ValueError:
            raise KeyRefused("a signature key is malformed") from None

    def _key(self, private: bytes) -> Any:
        try:
            return self._private.from_private_bytes(private)
        except ValueError:
            raise LocalError("a signature key has the wrong length") from None


def _edwards_loader(kind: type[Any], size: int) -> Any:
    prime, low_order = _FIELDS[size]

    def load(public: bytes) -> Any:
        y = int.from_bytes(public, "little") & (1 << 8 * size - 1) - 1  # the last bit is the sign of x
        if y >= prime or y in low_order:
            raise ValueError("not canonical, or of low order")
        return kind.from_public_bytes(public)

    return load


class ECDSA(SignatureScheme):
    """ECDSA with DER signatures (SEC 1), over P-256, P-384 or P-521."""

    def __init__(self, curve: ec.EllipticCurve, algorithm: hashes.HashAlgorithm) -> None:
        self._curve = curve
        self.private_bytes = (curve.key_size + 7) // 8
        self._signing = ec.ECDSA(algorithm, deterministic_signing=True)
        self._verifying = ec.ECDSA(algorithm)

    def load(self, private: bytes) -> SignatureKeyPair:
        return SignatureKeyPair(private, curve_public(private_curve_key(self._curve, private)))

    def generate(self, entropy: Entropy) -> SignatureKeyPair:
        """FIPS 186-5 section A.2.1: 64 more bits than the order has, reduced."""
        order = self._curve.group_order
        number = int.from_bytes(entropy.draw(self.private_bytes + 8), "big") % (order - 1) + 1
        return self.load(number.to_bytes(self.private_bytes, "big"))

    def sign(self, private: bytes, message: bytes) -> bytes:
        return private_curve_key(self._curve, private).sign(message, self._signing)

    def verify(self, public: bytes, message: bytes, signature: bytes) -> None:
        try:
            public_curve_key(self._curve, public).verify(signature, message, self._verifying)
        except InvalidSignature:
            raise SignatureRefused("a signature does not verify") from None
        except ValueError:
            raise KeyRefused("a signature key is malformed") from None


ED25519: Final = EdDSA(Ed25519PrivateKey, Ed25519PublicKey, 32)
ED448: Final = EdDSA(Ed448PrivateKey, Ed448PublicKey, 57)
ECDSA_P256: Final = ECDSA(ec.SECP256R1(), hashes.SHA256())
ECDSA_P384: Final = ECDSA(ec.SECP384R1(), hashes.SHA384())
ECDSA_P521: Final = ECDSA(ec.SECP521R1(), hashes.SHA512())
