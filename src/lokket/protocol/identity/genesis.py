"""An account's first bytes: what names it for ever.

Source: docs/identity.md, "Accounts". The genesis hash identifies an account everywhere; the 16-byte
account id is an address, not a commitment (122 bits).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lokket.codec import tls
from lokket.codec.tls import U16, Bytes32
from lokket.errors import LocalError, RemoteError
from lokket.protocol.identity.encoding import hash_labelled
from lokket.protocol.identity.keys import HybridKey

GENESIS_FORMAT: Final = 1
SUITE: Final = 1  # Ed25519 with ML-DSA-65; XEdDSA, Ed25519, ML-DSA-44, X-Wing for devices


@dataclass(frozen=True, slots=True)
class Genesis:
    """2,020 bytes: ``uint16 format, uint16 suite, HybridKey account_key, opaque recovery_commitment[32]``."""

    format: U16
    suite: U16
    account_key: HybridKey
    recovery_commitment: Bytes32

    def __post_init__(self) -> None:
        if (self.format, self.suite) != (GENESIS_FORMAT, SUITE):
            raise ValueError("the format or suite is unknown")

    def check(self) -> None:
        """The import check of the account key. KeyRefused."""
        self.account_key.check()


def make_genesis(account_key: HybridKey, recovery_commitment: bytes) -> Genesis:
    """The genesis of a new account; ``recovery_commitment`` is ``recovery_commitment(recovery key)``."""
    if len(recovery_commitment) != 32:
        raise LocalError("a recovery commitment has 32 bytes")
    return Genesis(GENESIS_FORMAT, SUITE, account_key, recovery_commitment)


def genesis_hash(genesis: Genesis) -> bytes:
    """H("genesis", Genesis), 32 bytes."""
    return hash_labelled("genesis", tls.encode(genesis))


def require_genesis(genesis: Genesis, expected_hash: bytes) -> None:
    """RemoteError (other-genesis) unless it hashes to ``expected_hash``; KeyRefused: its key is bad."""
    if genesis_hash(genesis) != expected_hash:
        raise RemoteError("the genesis belongs to another account", code="other-genesis")
    genesis.check()


def account_id(account_hash: bytes) -> bytes:
    """The account's 16-byte address: a UUIDv8 (RFC 9562 section 5.8) of the genesis hash's start."""
    if len(account_hash) != 32:
        raise LocalError("a genesis hash has 32 bytes")
    address = bytearray(account_hash[:16])
    address[6] = address[6] & 0x0F | 0x80
    address[8] = address[8] & 0x3F | 0x80
    return bytes(address)


def direct_conversation(genesis_a: bytes, genesis_b: bytes) -> bytes:
    """The 32-byte id of the conversation of two accounts, whichever comes first."""
    if len(genesis_a) != 32 or len(genesis_b) != 32:
        raise LocalError("a genesis hash has 32 bytes")
    return hash_labelled("direct conversation", b"".join(sorted((genesis_a, genesis_b))))
