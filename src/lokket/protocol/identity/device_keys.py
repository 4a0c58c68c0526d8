"""The private keys of one device, all from seeds.

Source: docs/identity.md, "Devices"; the inbox key is X-Wing (draft-connolly-cfrg-xwing-kem, section 5.2).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from lokket.codec import tls
from lokket.codec.tls import U16, Bytes32
from lokket.crypto.entropy import Entropy
from lokket.crypto.hpke import XWING_PUBLIC_BYTES, open_sealed
from lokket.crypto.keys import Ed25519KeyPair, MLDSAKeyPair, MLKEMKeyPair, X25519KeyPair
from lokket.crypto.primitives import shake256
from lokket.crypto.xeddsa import IdentityKeyPair

INBOX_KEY_BYTES: Final = XWING_PUBLIC_BYTES
_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class DeviceSeeds:
    """What is stored: ``uint16 format=1`` and five seeds of 32 bytes."""

    format: U16
    identity: Bytes32 = field(repr=False)
    auth: Bytes32 = field(repr=False)
    mls: Bytes32 = field(repr=False)
    bundle: Bytes32 = field(repr=False)
    inbox: Bytes32 = field(repr=False)

    def __post_init__(self) -> None:
        if self.format != _FORMAT:
            raise ValueError("the format is unknown")


class InboxKeyPair:
    """X-Wing from a 32-byte seed: what sealed mail and post-quantum challenges are encrypted to."""

    def __init__(self, seed: bytes) -> None:
        self.seed = seed
        expanded = shake256(seed, 96)
        self._kem = MLKEMKeyPair(768, expanded[:64])
        self._exchange = X25519KeyPair(expanded[64:])

    @property
    def public(self) -> bytes:
        """1216 bytes: pk_M || pk_X."""
        return self._kem.public + self._exchange.public

    def open(self, info: bytes, sealed: bytes) -> bytes:
        """What was sealed to ``public`` under this info. DecryptionFailed: it was not, or is damaged."""
        return open_sealed(self.seed, info, sealed)

    def __repr__(self) -> str:
        return f"InboxKeyPair({self._kem.public.hex()[:8]}…)"


class DeviceKeys:
    """Five key pairs: identity (XEdDSA and X25519), auth, MLS, bundle (ML-DSA-44), inbox (X-Wing)."""

    def __init__(self, seeds: DeviceSeeds) -> None:
        self._seeds = seeds
        self.identity = IdentityKeyPair(seeds.identity)
        self.auth = Ed25519KeyPair(seeds.auth)
        self.mls = Ed25519KeyPair(seeds.mls)
        self.bundle = MLDSAKeyPair(44, seeds.bundle)
        self.inbox = InboxKeyPair(seeds.inbox)

    @classmethod
    def generate(cls, entropy: Entropy) -> DeviceKeys:
        """Draws five times 32 bytes."""
        return cls(DeviceSeeds(_FORMAT, *(entropy.draw(32) for _ in range(5))))

    def encode(self) -> bytes:
        """162 secret bytes."""
        return tls.encode(self._seeds)

    @classmethod
    def decode(cls, data: bytes) -> DeviceKeys:
        """DecodeError: not what ``encode`` gives."""
        return cls(tls.decode(DeviceSeeds, data))

    def __repr__(self) -> str:
        return f"DeviceKeys({self.identity.public.hex()[2:10]}…)"
