"""The signed device list of an account: bodies, links, rotations.

Source: docs/identity.md, "Device lists". A link is 126 bytes and names its predecessor by hash; its body
is sent once and renewed links repeat its hash. How a contact judges a chain is in ``chain``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from lokket import limits
from lokket.codec import tls
from lokket.codec.tls import U8, U16, U32, U64, Bytes32, Vector
from lokket.crypto.entropy import Entropy
from lokket.errors import KeyRefused, LocalError, RemoteError
from lokket.protocol.identity.encoding import Extensions, hash_labelled, require_ascending_types
from lokket.protocol.identity.keys import HybridKey, HybridKeyPair, HybridSignature
from lokket.protocol.identity.recovery import recovery_commitment

LINK_FORMAT: Final = 1
LIST_LINK: Final = "list link"
KEY_ROTATION: Final = "key rotation"
NO_PREVIOUS: Final = bytes(32)  # before version 1


@dataclass(frozen=True, slots=True)
class Revoked:
    """41 bytes: a device that is gone, and the list version that dropped it."""

    device: U8
    hash: Bytes32
    version: U64


@dataclass(frozen=True, slots=True)
class ListBody:
    """``uint8 admin_device, device_hashes<V> (1..10), Revoked<V>, uint16 floor, Extension<V>``."""

    admin_device: U8
    device_hashes: Annotated[tuple[Bytes32, ...], Vector(limits.DEVICES_MAX, ascending=True, min_items=1)]
    revoked: Annotated[tuple[Revoked, ...], Vector(limits.DEVICE_NUMBER_MAX, ascending=True)]
    floor: U16
    extensions: Extensions = ()

    def __post_init__(self) -> None:
        require_ascending_types(self.extensions)
        gone = {entry.hash for entry in self.revoked}
        if len(gone) != len(self.revoked) or gone & set(self.device_hashes):
            raise ValueError("a revoked device is listed or named twice")
        if len({entry.device for entry in self.revoked}) != len(self.revoked):
            raise ValueError("a revoked number is named twice")
        if any(not 1 <= entry.device <= limits.DEVICE_NUMBER_MAX for entry in self.revoked):
            raise ValueError("a device number is outside 1 to 127")


@dataclass(frozen=True, slots=True)
class ListLink:
    """126 bytes. Times in seconds; ``previous`` of version 1 is all zeros."""

    format: U16
    genesis: Bytes32
    key_epoch: U32
    version: U64
    previous: Bytes32
    body_hash: Bytes32
    issued_s: U64
    not_after_s: U64

    def __post_init__(self) -> None:
        if self.format != LINK_FORMAT:
            raise ValueError("the format is unknown")
        if not self.version:
            raise ValueError("the first version is 1")
        if not self.issued_s < self.not_after_s <= self.issued_s + limits.LIST_VALID_DAYS * limits.DAY_S:
            raise ValueError("a list is valid for at most 28 days")

    @property
    def head(self) -> bytes:
        """H("list link", ListLink), 32 bytes: what the next link, mail and manifests name."""
        return hash_labelled(LIST_LINK, tls.encode(self))


@dataclass(frozen=True, slots=True)
class SignedLink:
    """3,499 bytes: a link and the account key's signature."""

    link: ListLink
    signature: HybridSignature


@dataclass(frozen=True, slots=True)
class Rotation:
    """4,084 bytes: a new account key, by the power of the recovery key that its commitment hid."""

    genesis: Bytes32
    key_epoch: U32
    account_key: HybridKey
    recovery_key: HybridKey
    recovery_commitment: Bytes32
    last_version: U64
    last_head: Bytes32
    issued_s: U64

    def __post_init__(self) -> None:
        if not 1 <= self.key_epoch <= limits.ROTATIONS_MAX:
            raise ValueError("an account rotates at most 64 times")
        if not self.last_version:
            raise ValueError("a rotation follows a list")


@dataclass(frozen=True, slots=True)
class SignedRotation:
    """10,830 bytes: a rotation, signed by the revealed recovery key and by the new account key."""

    rotation: Rotation
    recovery_signature: HybridSignature
    account_signature: HybridSignature


def body_hash(body: ListBody) -> bytes:
    """H("list body", ListBody), 32 bytes."""
    return hash_labelled("list body", tls.encode(body))


def list_body(
    admin_device: int,
    device_hashes: tuple[bytes, ...],
    revoked: tuple[Revoked, ...] = (),
    *,
    floor: int = 0,
    extensions: Extensions = (),
) -> ListBody:
    """A body with its vectors sorted. LocalError: it contradicts itself."""
    try:
        return ListBody(
            admin_device,
            tuple(sorted(device_hashes)),
            tuple(sorted(revoked, key=tls.encode)),
            floor,
            tuple(sorted(extensions, key=lambda extension: extension.type)),
        )
    except ValueError as error:
        raise LocalError(f"no list can be made: {error}") from None


def check_link(signed: SignedLink, account_key: HybridKey) -> None:
    """SignatureRefused unless ``account_key`` (already checked) signed the link."""
    account_key.verify(LIST_LINK, tls.encode(signed.link), signed.signature)


def sign_link(account: HybridKeyPair, link: ListLink, entropy: Entropy) -> SignedLink:
    return SignedLink(link, account.sign(LIST_LINK, tls.encode(link), entropy))


def sign_rotation(
    recovery: HybridKeyPair, account: HybridKeyPair, rotation: Rotation, entropy: Entropy
) -> SignedRotation:
    """``rotation`` signed by the revealed recovery key and by the new account key."""
    data = tls.encode(rotation)
    return SignedRotation(
        rotation, recovery.sign(KEY_ROTATION, data, entropy), account.sign(KEY_ROTATION, data, entropy)
    )


def check_rotation(signed: SignedRotation, genesis: bytes, old_key: HybridKey, commitment: bytes) -> None:
    """Everything about a rotation but its place in the chain.

    1. It names this account; the revealed recovery key is the committed one.
    2. Both keys may be imported; old, new and recovery key differ.
    3. Both signatures verify.
    """
    rotation = signed.rotation
    if rotation.genesis != genesis:
        raise RemoteError("a rotation belongs to another account", code="other-genesis")
    if recovery_commitment(rotation.recovery_key) != commitment:
        raise RemoteError("a rotation shows a recovery key that was not committed to", code="bad-rotation")
    rotation.recovery_key.check()
    rotation.account_key.check()
    keys = (old_key, rotation.account_key, rotation.recovery_key)
    if len({key.ed25519 for key in keys}) != 3 or len({key.mldsa for key in keys}) != 3:
        raise KeyRefused("a rotation reuses a key")
    data = tls.encode(rotation)
    rotation.recovery_key.verify(KEY_ROTATION, data, signed.recovery_signature)
    rotation.account_key.verify(KEY_ROTATION, data, signed.account_signature)
