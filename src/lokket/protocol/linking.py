"""A new device's way to its account: the code that the admin device shows, and the one word that answers it.

Source: docs/identity.md, "Linking a device" and "Recovery". The secret in the code never reaches the relay:
token, cipher key, MAC key and the number to compare are derived from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Final, Self

from lokket import limits
from lokket.codec import tls
from lokket.codec.tls import U8, U64, Bytes32, Opaque, OpaqueV
from lokket.crypto.entropy import Entropy
from lokket.crypto.keys import check_ed25519_public
from lokket.crypto.primitives import aes_cbc_decrypt, aes_cbc_encrypt, equal, sha256
from lokket.errors import DecodeError, DecryptionFailed, LocalError
from lokket.protocol.identity import Device, device_hash, mac
from lokket.protocol.identity.encoding import derive
from lokket.protocol.identity.safety_number import tagged, untagged
from lokket.protocol.identity.statements import Origin, encode_origin

NUMBER_DIGITS: Final = 12
_VERSION: Final = 1
_LINK_TAG: Final = "L"
_LINK_PREFIX: Final = "lokket:link#"
_ACCOUNT_TAG: Final = "A"
_ACCOUNT_PREFIX: Final = "lokket:account#"
_KEYS: Final = "device link"
_WORD: Final = "device knock"
_NUMBER: Final = "link number"
_MAC_BYTES: Final = 32
_IV_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class _LinkWire:
    version: U8
    origin: Origin
    relay_key: Bytes32
    genesis_hash: Bytes32
    number: U8
    added_version: U64
    secret: Bytes32 = field(repr=False)
    expires_s: U64

    def __post_init__(self) -> None:
        if self.version != _VERSION:
            raise ValueError("the version is unknown")
        if not 1 <= self.number <= limits.DEVICE_NUMBER_MAX or not self.added_version:
            raise ValueError("the place on the list is impossible")


@dataclass(frozen=True, slots=True)
class LinkCode:
    """``number`` and ``added_version``: the place that the next list has for the new device."""

    origin: str
    relay_key: bytes  # 32, Ed25519
    genesis_hash: bytes  # 32
    number: int
    added_version: int
    secret: bytes = field(repr=False)  # 32
    expires_s: int

    def encode(self) -> str:
        """``lokket:link#L`` and base64url. LocalError: a field does not fit."""
        wire = _LinkWire(
            _VERSION,
            encode_origin(self.origin),
            self.relay_key,
            self.genesis_hash,
            self.number,
            self.added_version,
            self.secret,
            self.expires_s,
        )
        return _LINK_PREFIX + tagged(_LINK_TAG, tls.encode(wire))

    @classmethod
    def decode(cls, text: str) -> Self:
        """DecodeError, KeyRefused: anything else, an invite or a verify code included."""
        wire = tls.decode(_LinkWire, untagged(text, _LINK_PREFIX, _LINK_TAG))
        check_ed25519_public(wire.relay_key)
        return cls(
            _origin(wire.origin),
            wire.relay_key,
            wire.genesis_hash,
            wire.number,
            wire.added_version,
            wire.secret,
            wire.expires_s,
        )


@dataclass(frozen=True, slots=True)
class _AccountWire:
    version: U8
    origin: Origin
    relay_key: Bytes32
    genesis_hash: Bytes32

    def __post_init__(self) -> None:
        if self.version != _VERSION:
            raise ValueError("the version is unknown")


@dataclass(frozen=True, slots=True)
class AccountCode:
    """Where an account is and which it is: no secret. Written down with the recovery code."""

    origin: str
    relay_key: bytes  # 32, Ed25519
    genesis_hash: bytes  # 32

    def encode(self) -> str:
        """``lokket:account#A`` and base64url."""
        wire = _AccountWire(_VERSION, encode_origin(self.origin), self.relay_key, self.genesis_hash)
        return _ACCOUNT_PREFIX + tagged(_ACCOUNT_TAG, tls.encode(wire))

    @classmethod
    def decode(cls, text: str) -> Self:
        """DecodeError, KeyRefused: anything else."""
        wire = tls.decode(_AccountWire, untagged(text, _ACCOUNT_PREFIX, _ACCOUNT_TAG))
        check_ed25519_public(wire.relay_key)
        return cls(_origin(wire.origin), wire.relay_key, wire.genesis_hash)


def _origin(encoded: bytes) -> str:
    try:
        origin = encoded.decode("ascii")
        encode_origin(origin)
    except (UnicodeDecodeError, LocalError):
        raise DecodeError("the code's relay has no usable address") from None
    return origin


# --- what both sides derive ---


@dataclass(frozen=True, slots=True)
class LinkKeys:
    """What both screens derive from the code's secret."""

    token: bytes = field(repr=False)  # 32: what the new device shows the relay
    cipher_key: bytes = field(repr=False)  # 32
    mac_key: bytes = field(repr=False)  # 32

    @property
    def token_hash(self) -> bytes:
        """SHA-256(token), 32 bytes: what the admin device tells the relay."""
        return sha256(self.token)


def derive_link(secret: bytes) -> LinkKeys:
    """KDF(secret, "device link", 96) -> token, cipher key, MAC key. LocalError: not 32 bytes."""
    if len(secret) != 32:
        raise LocalError("a link's secret has 32 bytes")
    output = derive(secret, _KEYS, b"", 96)
    return LinkKeys(output[:32], output[32:64], output[64:])


def link_number(keys: LinkKeys, genesis_hash: bytes, device: bytes) -> str:
    """12 digits of MAC(mac key, "link number", genesis hash || device hash): both screens show the same.

    Who knows the secret, and wants another device's number for one of their own, has 2^39 devices to make.
    """
    digest = mac(keys.mac_key, _NUMBER, genesis_hash + device)
    return f"{int.from_bytes(digest[:16], 'big') % 10**NUMBER_DIGITS:0{NUMBER_DIGITS}d}"


# --- the new device's word ---


@dataclass(frozen=True, slots=True)
class _WordWire:
    version: U8
    device: Opaque
    name: Annotated[bytes, OpaqueV(4 * limits.DEVICE_NAME_MAX_CHARS)]

    def __post_init__(self) -> None:
        if self.version != _VERSION:
            raise ValueError("the version is unknown")


@dataclass(frozen=True, slots=True)
class Word:
    """What a new device says of itself: its record, and what it calls itself."""

    device: Device
    encoded: bytes
    name: str

    @property
    def device_hash(self) -> bytes:
        return device_hash(self.device)


def seal_word(keys: LinkKeys, device: bytes, name: str, entropy: Entropy) -> bytes:
    """iv (16) || AES-256-CBC || HMAC-SHA256 (32) over the encoded ``device`` and its name."""
    plaintext = tls.encode(_WordWire(_VERSION, device, name.encode()))
    iv = entropy.draw(_IV_BYTES)
    sealed = iv + aes_cbc_encrypt(keys.cipher_key, iv, plaintext)
    return sealed + mac(keys.mac_key, _WORD, sealed)


def open_word(keys: LinkKeys, sealed: bytes) -> Word:
    """RemoteError: not sealed by who knows the code, or no word. Whether the device may join is not asked."""
    body, tag = sealed[:-_MAC_BYTES], sealed[-_MAC_BYTES:]
    if len(body) <= _IV_BYTES or not equal(tag, mac(keys.mac_key, _WORD, body)):
        raise DecryptionFailed("the word was not sealed with this code", code="bad-mac")
    wire = tls.decode(_WordWire, aes_cbc_decrypt(keys.cipher_key, body[:_IV_BYTES], body[_IV_BYTES:]))
    try:
        name = wire.name.decode()
    except UnicodeDecodeError:
        raise DecodeError("a device's name is not text") from None
    return Word(tls.decode(Device, wire.device), wire.device, name)
