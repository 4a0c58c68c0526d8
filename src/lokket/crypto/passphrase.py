"""A 32-byte key under a passphrase: Argon2id (RFC 9106), a commitment, AES-256-GCM.

The commitment is compared first, so that no wrapped key opens under two passphrases (partitioning oracles:
Len, Grubbs, Ristenpart, USENIX Security 2021). Knows not what the key is for.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Annotated

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from lokket import limits
from lokket.codec import tls
from lokket.codec.tls import U8, U16, U32, Bytes16, Bytes32, Fixed
from lokket.crypto.entropy import Entropy
from lokket.crypto.primitives import equal
from lokket.errors import LocalError

_KEY_BYTES = 32
_NONCE = bytes(12)  # each salt, and so each wrapping key, serves one encryption


@dataclass(frozen=True, slots=True)
class Costs:
    """What one guess costs. ValueError: out of bounds, above or below."""

    memory_kib: U32 = limits.BACKUP_MEMORY_KIB
    passes: U16 = limits.BACKUP_PASSES
    lanes: U8 = limits.BACKUP_LANES

    def __post_init__(self) -> None:
        if not (
            limits.BACKUP_MEMORY_MIN_KIB <= self.memory_kib <= limits.ARGON2_MEMORY_MAX_KIB
            and 1 <= self.passes <= limits.ARGON2_PASSES_MAX
            and 1 <= self.lanes <= limits.ARGON2_LANES_MAX
        ):
            raise ValueError("the costs of a passphrase are out of bounds")


USUAL = Costs()


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """Public: it may stand before what the key encrypts."""

    costs: Costs
    salt: Bytes16
    commitment: Bytes32
    sealed: Annotated[bytes, Fixed(_KEY_BYTES + 16)]


@dataclass(frozen=True, slots=True)
class _Associated:
    costs: Costs
    salt: Bytes16


def wrap_key(key: bytes, passphrase: str, entropy: Entropy, costs: Costs | None = None) -> WrappedKey:
    """``key``: 32 bytes. Takes as long and as much memory as ``costs`` says. LocalError: no passphrase."""
    if not passphrase:
        raise LocalError("the passphrase is empty")
    costs = costs or USUAL
    salt = entropy.draw(16)
    wrapping, commitment = _stretch(passphrase, costs, salt)
    sealed = AESGCM(wrapping).encrypt(_NONCE, key, tls.encode(_Associated(costs, salt)))
    return WrappedKey(costs, salt, commitment, sealed)


def unwrap_key(wrapped: WrappedKey, passphrase: str) -> bytes:
    """LocalError: another passphrase, or a damaged record."""
    wrapping, commitment = _stretch(passphrase, wrapped.costs, wrapped.salt)
    if not equal(commitment, wrapped.commitment):
        raise LocalError("the passphrase is not the right one")
    try:
        return AESGCM(wrapping).decrypt(
            _NONCE, wrapped.sealed, tls.encode(_Associated(wrapped.costs, wrapped.salt))
        )
    except InvalidTag:
        raise LocalError("the key that the passphrase guards is damaged") from None


def _stretch(passphrase: str, costs: Costs, salt: bytes) -> tuple[bytes, bytes]:
    """Wrapping key and commitment, 32 bytes each."""
    output = Argon2id(
        salt=salt, length=64, iterations=costs.passes, lanes=costs.lanes, memory_cost=costs.memory_kib
    ).derive(unicodedata.normalize("NFC", passphrase).encode())
    return output[:32], output[32:]
