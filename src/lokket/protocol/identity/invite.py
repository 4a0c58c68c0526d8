"""Invites: a link that lets one person register and be known to the one who made it.

Source: docs/identity.md, "Invites". Everything is in the fragment, which browsers do not send. The relay
holds SHA-256(token); neither id nor MAC key can be computed from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from lokket.codec import tls
from lokket.codec.tls import U8, U64, Bytes32
from lokket.crypto.keys import check_ed25519_public
from lokket.crypto.primitives import sha256
from lokket.errors import DecodeError, LocalError
from lokket.protocol.identity.encoding import derive, mac
from lokket.protocol.identity.safety_number import tagged, untagged
from lokket.protocol.identity.statements import Origin, encode_origin

_TAG: Final = "I"
_PREFIX: Final = "lokket:invite#"
_VERSION: Final = 1
_INVITEE: Final = "invite invitee"
_INVITER: Final = "invite inviter"


@dataclass(frozen=True, slots=True)
class _Wire:
    version: U8
    origin: Origin
    relay_key: Bytes32
    genesis_hash: Bytes32 | None
    creator_device: Bytes32 | None
    secret: Bytes32
    expires_s: U64

    def __post_init__(self) -> None:
        if self.version != _VERSION:
            raise ValueError("the version is unknown")
        if (self.genesis_hash is None) != (self.creator_device is None):
            raise ValueError("an inviter is an account and its device")


@dataclass(frozen=True, slots=True)
class Invite:
    """``genesis_hash`` and ``creator_device`` (its device hash) are None for a bare registration token."""

    origin: str
    relay_key: bytes  # 32, Ed25519
    genesis_hash: bytes | None  # 32
    creator_device: bytes | None  # 32
    secret: bytes = field(repr=False)  # 32
    expires_s: int

    def link(self) -> str:
        """``lokket:invite#I`` and base64url. LocalError: a field does not fit."""
        if (self.genesis_hash is None) != (self.creator_device is None):
            raise LocalError("an invite names an account and its device, or neither")
        data = tls.encode(
            _Wire(
                _VERSION,
                encode_origin(self.origin),
                self.relay_key,
                self.genesis_hash,
                self.creator_device,
                self.secret,
                self.expires_s,
            )
        )
        return _PREFIX + tagged(_TAG, data)

    @classmethod
    def parse(cls, text: str) -> Invite:
        """DecodeError, KeyRefused: not an invite link, or damaged."""
        wire = tls.decode(_Wire, untagged(text, _PREFIX, _TAG))
        check_ed25519_public(wire.relay_key)
        try:
            origin = wire.origin.decode("ascii")
            encode_origin(origin)
        except (UnicodeDecodeError, LocalError):
            raise DecodeError("the invite's relay has no usable address") from None
        return cls(
            origin, wire.relay_key, wire.genesis_hash, wire.creator_device, wire.secret, wire.expires_s
        )


@dataclass(frozen=True, slots=True)
class InviteKeys:
    """What both sides and, of ``token`` alone the hash, the relay know of an invite."""

    id: bytes  # 16
    token: bytes = field(repr=False)  # 32
    key: bytes = field(repr=False)  # 32

    @property
    def token_hash(self) -> bytes:
        """SHA-256(token), 32 bytes: what the relay stores."""
        return sha256(self.token)


@dataclass(frozen=True, slots=True)
class _Transcript:
    low: Bytes32
    high: Bytes32
    session_id: Bytes32


def derive_invite(secret: bytes) -> InviteKeys:
    """HKDF(secret) -> id, token, key. LocalError: not 32 bytes."""
    if len(secret) != 32:
        raise LocalError("an invite's secret has 32 bytes")
    output = derive(secret, "invite keys", b"", 80)
    return InviteKeys(output[:16], output[16:48], output[48:])


def invitee_mac(keys: InviteKeys, f_own: bytes, f_their: bytes, session_id: bytes) -> bytes:
    """MAC(key, "invite invitee", T), 32 bytes; T = both fingerprints in ascending order, session id."""
    return mac(keys.key, _INVITEE, _transcript(f_own, f_their, session_id))


def inviter_mac(keys: InviteKeys, f_own: bytes, f_their: bytes, session_id: bytes) -> bytes:
    """MAC(key, "invite inviter", T), 32 bytes: the answer."""
    return mac(keys.key, _INVITER, _transcript(f_own, f_their, session_id))


def _transcript(f_own: bytes, f_their: bytes, session_id: bytes) -> bytes:
    low, high = sorted((f_own, f_their))
    return tls.encode(_Transcript(low, high, session_id))
