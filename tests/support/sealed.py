"""Who certifies devices in tests of sealed sender: a root, a server, and certificates for anybody."""

from __future__ import annotations

from typing import Final

from lokket.crypto.keys import X25519KeyPair, x25519_scalar_from_ed25519_seed
from lokket.protocol.certificates import (
    SenderCertificate,
    ServerCertificate,
    issue_sender_certificate,
    issue_server_certificate,
)
from lokket.protocol.pairwise import IdentityKeyPair
from tests.support.pairwise import START_MS, Device

ROOT: Final = IdentityKeyPair(b"\x01" * 32)
SERVER: Final = IdentityKeyPair(b"\x02" * 32)
KEY_ID: Final = 7
EXPIRES_MS: Final = START_MS + 86_400_000


def server_certificate(root: IdentityKeyPair = ROOT) -> ServerCertificate:
    return issue_server_certificate(root, KEY_ID, SERVER.public)


def certificate(device: Device, expires_ms: int = EXPIRES_MS) -> SenderCertificate:
    return issue_sender_certificate(
        SERVER, server_certificate(), device.address, device.identity.public, expires_ms
    )


class Impostor(IdentityKeyPair):
    """Claims one identity key and holds another."""

    def __init__(self, claimed: bytes, seed: bytes) -> None:
        super().__init__(seed)
        self.public = claimed  # type: ignore[misc]
        self._exchanging = X25519KeyPair(x25519_scalar_from_ed25519_seed(seed))
