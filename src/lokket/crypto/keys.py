"""Key pairs and public-key operations, with the import checks that ``cryptography`` leaves to its caller.

Secrets hide in ``repr``. Private keys are kept as seeds and loaded into OpenSSL at first use: restoring
a session must not pay for keys it does not touch. Checked here, because nothing below checks it:

- X25519 (RFC 7748): canonical u < p, point on the curve and in the prime-order subgroup where asked;
  an all-zero shared secret is refused in every exchange.
- Ed25519 (RFC 8032): canonical y < p, in the prime-order subgroup (mixed-order keys import cleanly in
  OpenSSL and verify crafted signatures).
- ML-DSA (FIPS 204): ``t1`` not all zero (an all-zero ``t1`` lets anyone forge).
"""

from __future__ import annotations

import hashlib
from functools import cached_property, lru_cache
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import (
    MLDSA44PrivateKey,
    MLDSA44PublicKey,
    MLDSA65PrivateKey,
    MLDSA65PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.mlkem import (
    MLKEM768PrivateKey,
    MLKEM768PublicKey,
    MLKEM1024PrivateKey,
    MLKEM1024PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from lokket.errors import DecryptionFailed, KeyRefused, LocalError, SignatureRefused

P: Final = 2**255 - 19
P448: Final = 2**448 - 2**224 - 1
ORDER: Final = 2**252 + 27742317777372353535851937790883648493  # of the prime-order subgroup

MLKEM_768_PUBLIC_BYTES: Final = 1184
MLKEM_1024_PUBLIC_BYTES: Final = 1568
MLDSA_PUBLIC_BYTES: Final = {44: 1312, 65: 1952}
MLDSA_SIGNATURE_BYTES: Final = {44: 2420, 65: 3309}


class X25519KeyPair:
    """X25519 from a 32-byte scalar (clamped inside, RFC 7748 section 5)."""

    __slots__ = ("_loaded", "_public", "private")

    def __init__(self, private: bytes, public: bytes | None = None) -> None:
        if len(private) != 32:
            raise LocalError("an X25519 private key has 32 bytes")
        self.private = private
        self._public = public
        self._loaded: X25519PrivateKey | None = None

    def _key(self) -> X25519PrivateKey:
        """The loaded key. Loading computes the public key, so it waits until it must."""
        loaded = self._loaded
        if loaded is None:
            loaded = self._loaded = X25519PrivateKey.from_private_bytes(self.private)
        return loaded

    @property
    def public(self) -> bytes:
        """The u-coordinate, 32 bytes."""
        if self._public is None:
            self._public = self._key().public_key().public_bytes_raw()
        return self._public

    @property
    def known_public(self) -> bytes | None:
        """``public`` if it was given or asked for before: to store a pair without loading it."""
        return self._public

    def exchange(self, their_public: bytes) -> bytes:
        """The shared secret, 32 bytes. KeyRefused: their key is malformed or gives all zeros."""
        try:
            return self._key().exchange(_load_x25519(their_public))
        except ValueError:
            raise KeyRefused("an X25519 exchange gave no secret") from None

    def __repr__(self) -> str:
        return f"X25519KeyPair({self.public.hex()[:8]}…)"


class Ed25519KeyPair:
    """Ed25519 from a 32-byte seed (RFC 8032 section 5.1.5)."""

    def __init__(self, seed: bytes, public: bytes | None = None) -> None:
        if len(seed) != 32:
            raise LocalError("an Ed25519 seed has 32 bytes")
        self.seed = seed
        self._public = public

    @cached_property
    def _key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.seed)

    @property
    def public(self) -> bytes:
        """The encoded point, 32 bytes."""
        if self._public is None:
            self._public = self._key.public_key().public_bytes_raw()
        return self._public

    def sign(self, message: bytes) -> bytes:
        """64 bytes, deterministic."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"Ed25519KeyPair({self.public.hex()[:8]}…)"


class MLDSAKeyPair:
    """ML-DSA-44 or ML-DSA-65 from a 32-byte seed (FIPS 204). Signing draws: see ``Entropy.sign_mldsa``."""

    def __init__(self, level: int, seed: bytes, public: bytes | None = None) -> None:
        if level not in MLDSA_PUBLIC_BYTES or len(seed) != 32:
            raise LocalError("ML-DSA takes level 44 or 65 and a seed of 32 bytes")
        self.level = level
        self.seed = seed
        self._public = public

    @cached_property
    def key(self) -> MLDSA44PrivateKey | MLDSA65PrivateKey:
        """The loaded key, for ``Entropy`` alone."""
        kind = MLDSA44PrivateKey if self.level == 44 else MLDSA65PrivateKey
        return kind.from_seed_bytes(self.seed)

    @property
    def public(self) -> bytes:
        """1312 (ML-DSA-44) or 1952 (ML-DSA-65) bytes."""
        if self._public is None:
            self._public = self.key.public_key().public_bytes_raw()
        return self._public

    def __repr__(self) -> str:
        return f"MLDSAKeyPair({self.level}, {self.public.hex()[:8]}…)"


class MLKEMKeyPair:
    """ML-KEM-768 or ML-KEM-1024 from a 64-byte seed d || z (FIPS 203)."""

    def __init__(self, level: int, seed: bytes, public: bytes | None = None) -> None:
        if level not in (768, 1024) or len(seed) != 64:
            raise LocalError("ML-KEM takes level 768 or 1024 and a seed of 64 bytes")
        self.level = level
        self.seed = seed
        self._public = public

    @cached_property
    def _key(self) -> MLKEM768PrivateKey | MLKEM1024PrivateKey:
        kind = MLKEM768PrivateKey if self.level == 768 else MLKEM1024PrivateKey
        return kind.from_seed_bytes(self.seed)

    @property
    def public(self) -> bytes:
        """1184 or 1568 bytes."""
        if self._public is None:
            self._public = self._key.public_key().public_bytes_raw()
        return self._public

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """The shared secret, 32 bytes; a wrong ciphertext gives another secret, not an error (FIPS 203 6.3).

        DecryptionFailed: the ciphertext has the wrong length.
        """
        try:
            return self._key.decapsulate(ciphertext)
        except ValueError:
            raise DecryptionFailed("a KEM ciphertext has the wrong length") from None

    def __repr__(self) -> str:
        return f"MLKEMKeyPair({self.level}, {self.public.hex()[:8]}…)"


def verify_ed25519(public: bytes, signature: bytes, message: bytes) -> None:
    """SignatureRefused unless ``signature`` is valid. The key must have passed ``check_ed25519_public``."""
    try:
        _load_ed25519(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise SignatureRefused("an Ed25519 signature does not verify") from None


def verify_mldsa(level: int, public: bytes, signature: bytes, message: bytes, context: bytes) -> None:
    """SignatureRefused unless ``signature`` is valid under ``context`` (FIPS 204 section 5.3)."""
    kind = MLDSA44PublicKey if level == 44 else MLDSA65PublicKey
    try:
        kind.from_public_bytes(public).verify(signature, message, context)
    except (InvalidSignature, ValueError):
        raise SignatureRefused("an ML-DSA signature does not verify") from None


def check_mldsa_public(level: int, public: bytes) -> None:
    """KeyRefused: wrong length, or ``t1`` (all after the 32-byte ``rho``) is all zero."""
    if len(public) != MLDSA_PUBLIC_BYTES[level] or not any(public[32:]):
        raise KeyRefused("an ML-DSA public key is malformed")


@lru_cache(maxsize=64)
def _load_x25519(public: bytes) -> X25519PublicKey:
    """A handshake and a DH step use each of their keys two or three times. ValueError: not 32 bytes."""
    return X25519PublicKey.from_public_bytes(public)


@lru_cache(maxsize=64)
def _load_ed25519(public: bytes) -> Ed25519PublicKey:
    """A bundle has two signatures of one key. ValueError: not 32 bytes."""
    return Ed25519PublicKey.from_public_bytes(public)


@lru_cache(maxsize=4096)
def check_x25519_public(public: bytes) -> None:
    """KeyRefused unless ``public`` is canonical, on the curve and in the prime-order subgroup."""
    check_x25519_encoding(public)
    _require_prime_order(int.from_bytes(public, "little"))


def check_x25519_encoding(public: bytes) -> None:
    """KeyRefused unless ``public`` is 32 bytes, canonical (u < p, high bit clear) and not of low order."""
    if len(public) != 32 or int.from_bytes(public, "little") >= P or public in _LOW_ORDER_U:
        raise KeyRefused("an X25519 public key is not canonical or of low order")


@lru_cache(maxsize=4096)
def check_ed25519_public(public: bytes) -> None:
    """KeyRefused unless ``public`` is canonical and in the prime-order subgroup."""
    if len(public) != 32:
        raise KeyRefused("an Ed25519 public key has 32 bytes")
    y = int.from_bytes(public, "little") & (1 << 255) - 1
    if y >= P or y in (1, P - 1):
        raise KeyRefused("an Ed25519 public key is not canonical or of low order")
    _require_prime_order((1 + y) * pow(1 - y, -1, P) % P)


def check_mlkem_public(public: bytes) -> None:
    """KeyRefused unless ``public`` is an ML-KEM-768 or -1024 key whose coefficients are below q.

    FIPS 203 section 7.2, "modulus check"; done by OpenSSL at import.
    """
    if len(public) not in (MLKEM_768_PUBLIC_BYTES, MLKEM_1024_PUBLIC_BYTES):
        raise KeyRefused("a KEM public key has the wrong length")
    kind = MLKEM768PublicKey if len(public) == MLKEM_768_PUBLIC_BYTES else MLKEM1024PublicKey
    try:
        kind.from_public_bytes(public)
    except ValueError:
        raise KeyRefused("a KEM public key is not canonical") from None


def montgomery_from_ed25519(public: bytes) -> bytes:
    """The X25519 form u = (1 + y) / (1 - y) of a checked Ed25519 public key."""
    y = int.from_bytes(public, "little") & (1 << 255) - 1
    return ((1 + y) * pow(1 - y, -1, P) % P).to_bytes(32, "little")


def x25519_scalar_from_ed25519_seed(seed: bytes) -> bytes:
    """The X25519 private key that belongs to an Ed25519 seed (RFC 8032 section 5.1.5, steps 1 and 2)."""
    scalar = bytearray(hashlib.sha512(seed).digest()[:32])
    scalar[0] &= 248
    scalar[31] &= 127
    scalar[31] |= 64
    return bytes(scalar)


def _require_prime_order(u: int) -> None:
    """KeyRefused unless u belongs to a point of the prime-order subgroup, other than its neutral element.

    5 * ORDER - 1 is a multiple of 8 between 2^254 and 2^255, so X25519 takes it as it is: its product with
    Q + T is -Q for Q in the subgroup and T of order dividing 8. That has the u-coordinate of Q + T only if
    T is neutral. No point of the twist passes: 5 * ORDER - 2 and 5 * ORDER share no factor with its order.
    """
    public = u.to_bytes(32, "little")
    try:
        if _SUBGROUP_TEST.exchange(_load_x25519(public)) == public:
            return
    except ValueError:  # all zeros: a point of low order
        pass
    raise KeyRefused("a public key is outside the prime-order subgroup")


LOW_ORDER_X25519: Final = frozenset(
    (
        0,
        1,
        P - 1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    )
)  # u-coordinates, of the curve and of its twist, that give zero with every clamped scalar
_LOW_ORDER_U: Final = frozenset(u.to_bytes(32, "little") for u in LOW_ORDER_X25519)
_SUBGROUP_TEST: Final = X25519PrivateKey.from_private_bytes((5 * ORDER - 1).to_bytes(32, "little"))
