"""XEdDSA as libsignal has it, by way of Ed25519, in OpenSSL's constant time.

An identity is an Ed25519 *seed*; its X25519 scalar and its signing scalar are the same number, so an
Ed25519 signature is an XEdDSA signature but for the sign bit of the public key. The specification
(signal.org/docs/specifications/xeddsa, revision 1) negates the scalar until that bit is 0; libsignal keeps
the scalar and carries the bit in the top bit of ``s``, and so do we. What a signer by the specification
makes verifies here; ours verify with libsignal, and by the specification where the bit is 0, which it is
for half of all identities. Nonces are Ed25519's own, deterministic, which every verifier accepts.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from lokket.crypto.keys import (
    Ed25519KeyPair,
    P,
    X25519KeyPair,
    check_x25519_public,
    verify_ed25519,
    x25519_scalar_from_ed25519_seed,
)
from lokket.errors import KeyRefused, SignatureRefused

KEY_TYPE: Final = b"\x05"  # libsignal's type byte before a Curve25519 u-coordinate
IDENTITY_KEY_BYTES: Final = 33
SIGNATURE_BYTES: Final = 64


class IdentityKeyPair:
    """A device's long-term identity, from a 32-byte Ed25519 seed: signs by XEdDSA, exchanges by X25519.

    An X25519 scalar, as libsignal stores it, is no such seed: it gives another identity, and no error.
    """

    def __init__(self, seed: bytes) -> None:
        self.seed = seed
        self._signing = Ed25519KeyPair(seed)
        self._exchanging = X25519KeyPair(x25519_scalar_from_ed25519_seed(seed))
        self.public: Final = KEY_TYPE + self._exchanging.public
        """05 || u, 33 bytes."""

    def sign(self, message: bytes) -> bytes:
        """XEdDSA with libsignal's sign bit, 64 bytes, deterministic."""
        signature = self._signing.sign(message)
        return signature[:63] + bytes((signature[63] | self._signing.public[31] & 0x80,))

    def exchange(self, their_public: bytes) -> bytes:
        """The X25519 shared secret, 32 bytes, with a u-coordinate of 32. KeyRefused: it gives none."""
        return self._exchanging.exchange(their_public)

    def __repr__(self) -> str:
        return f"IdentityKeyPair({self.public.hex()[2:10]}…)"


def check_identity_key(public: bytes) -> None:
    """KeyRefused unless ``public`` is 05 || u, u canonical, on the curve and in the prime-order subgroup."""
    if len(public) != IDENTITY_KEY_BYTES or public[:1] != KEY_TYPE:
        raise KeyRefused("an identity key is 05 and 32 bytes")
    check_x25519_public(public[1:])


def verify_xeddsa(identity_key: bytes, signature: bytes, message: bytes) -> None:
    """SignatureRefused unless the 64-byte ``signature`` is valid; KeyRefused for a malformed 33-byte key.

    The key must have passed ``check_identity_key``: OpenSSL verifies crafted signatures under others.
    """
    if len(signature) != SIGNATURE_BYTES:
        raise SignatureRefused("an XEdDSA signature has 64 bytes")
    point = _edwards_y(identity_key)
    last = signature[63]
    if last >= 0x80:
        point = point[:31] + bytes((point[31] | 0x80,))
        signature = signature[:63] + bytes((last & 0x7F,))
    verify_ed25519(point, signature, message)


@lru_cache(maxsize=1024)
def _edwards_y(identity_key: bytes) -> bytes:
    """y = (u - 1) / (u + 1), the Ed25519 form with sign bit 0 (XEdDSA section 2.3)."""
    u = int.from_bytes(identity_key[1:], "little")
    if len(identity_key) != IDENTITY_KEY_BYTES or identity_key[:1] != KEY_TYPE or u >= P - 1:
        raise KeyRefused("an identity key is malformed")
    return ((u - 1) * pow(u + 1, -1, P) % P).to_bytes(32, "little")
