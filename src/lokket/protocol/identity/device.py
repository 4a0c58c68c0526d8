"""A device as contacts see it: its keys, and the proof that it holds them.

Source: docs/identity.md, "Devices". Four keys sign the genesis hash and the whole record, so nobody
lists a key that another holds.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, Final

from lokket import limits
from lokket.codec import tls
from lokket.codec.tls import U8, U16, U64, Bytes32, Bytes33, Bytes64, Fixed, Vector
from lokket.crypto.entropy import Entropy
from lokket.crypto.keys import (
    MLKEM_768_PUBLIC_BYTES,
    check_ed25519_public,
    check_mldsa_public,
    check_mlkem_public,
    check_x25519_public,
    montgomery_from_ed25519,
)
from lokket.crypto.xeddsa import check_identity_key
from lokket.errors import KeyRefused, LocalError
from lokket.protocol.identity.device_keys import INBOX_KEY_BYTES, DeviceKeys
from lokket.protocol.identity.encoding import (
    Extensions,
    check_extensions,
    hash_labelled,
    require_ascending_types,
)
from lokket.protocol.identity.genesis import account_id
from lokket.protocol.identity.keys import (
    BUNDLE_KEY_BYTES,
    BUNDLE_SIGNATURE_BYTES,
    sign_with_bundle_key,
    sign_with_ed25519,
    sign_with_identity,
    verify_bundle_key,
    verify_identity,
    verify_labelled_ed25519,
)
from lokket.protocol.pairwise.messages import REGISTRATION_MAX, Address

ACCEPT: Final = "device accept"
PROFILE: Final = 1  # what this version speaks; a later one adds its number
ROLE_PERSON: Final = 0

Profiles = Annotated[tuple[U16, ...], Vector(limits.PROFILES_MAX, ascending=True, min_items=1)]


@dataclass(frozen=True, slots=True)
class DeviceBody:
    """What the device accepts with its signatures."""

    device: U8
    registration: U16
    identity_key: Bytes33
    auth_key: Bytes32
    mls_key: Bytes32
    bundle_key: Annotated[bytes, Fixed(BUNDLE_KEY_BYTES)]
    inbox_key: Annotated[bytes, Fixed(INBOX_KEY_BYTES)]
    added_version: U64
    role: U8
    profiles: Profiles
    extensions: Extensions

    def __post_init__(self) -> None:
        if not 1 <= self.device <= limits.DEVICE_NUMBER_MAX:
            raise ValueError("a device number is outside 1 to 127")
        if not 1 <= self.registration <= REGISTRATION_MAX:
            raise ValueError("a registration id is outside 1 to 16383")
        if not self.added_version:
            raise ValueError("a device was added before the first list")
        require_ascending_types(self.extensions)


@dataclass(frozen=True, slots=True)
class Device(DeviceBody):
    """5,250 bytes and its extensions: the body, then its four acceptances."""

    identity_acceptance: Bytes64
    auth_acceptance: Bytes64
    mls_acceptance: Bytes64
    bundle_acceptance: Annotated[bytes, Fixed(BUNDLE_SIGNATURE_BYTES)]

    @property
    def body(self) -> DeviceBody:
        return DeviceBody(*(getattr(self, field.name) for field in fields(DeviceBody)))

    def address(self, genesis_hash: bytes) -> Address:
        """What libsignal's bytes name this device: the account id and the device number."""
        return device_address(genesis_hash, self.device)


def device_address(genesis_hash: bytes, number: int) -> Address:
    """The pairwise address of device ``number`` of an account."""
    return Address(account_id(genesis_hash), number)


def make_device(
    keys: DeviceKeys,
    genesis_hash: bytes,
    *,
    number: int,
    registration: int,
    added_version: int,
    entropy: Entropy,
    role: int = ROLE_PERSON,
    profiles: tuple[int, ...] = (PROFILE,),
    extensions: Extensions = (),
) -> Device:
    """The signed record of a device that list ``added_version`` will name. LocalError: out of range."""
    try:
        body = DeviceBody(
            device=number,
            registration=registration,
            identity_key=keys.identity.public,
            auth_key=keys.auth.public,
            mls_key=keys.mls.public,
            bundle_key=keys.bundle.public,
            inbox_key=keys.inbox.public,
            added_version=added_version,
            role=role,
            profiles=profiles,
            extensions=extensions,
        )
    except ValueError as error:
        raise LocalError(f"no device can be made: {error}") from None
    accepted = _accepted(body, genesis_hash)
    values: list[Any] = [getattr(body, field.name) for field in fields(DeviceBody)]
    values.append(sign_with_identity(keys.identity, ACCEPT, accepted))
    values.append(sign_with_ed25519(keys.auth, ACCEPT, accepted))
    values.append(sign_with_ed25519(keys.mls, ACCEPT, accepted))
    values.append(sign_with_bundle_key(keys.bundle, ACCEPT, accepted, entropy))
    return Device(*values)


def check_device(device: Device, genesis_hash: bytes) -> None:
    """Everything a contact checks of one device, before it is believed.

    1. No critical extension that this version does not know.
    2. Each key may be imported; all are distinct.
    3. Each of the four keys accepted this record for this account.

    RemoteError, KeyRefused, SignatureRefused.
    """
    check_extensions(device.extensions)
    _check_keys(device)
    accepted = _accepted(device.body, genesis_hash)
    verify_identity(device.identity_key, ACCEPT, accepted, device.identity_acceptance)
    verify_labelled_ed25519(device.auth_key, ACCEPT, accepted, device.auth_acceptance)
    verify_labelled_ed25519(device.mls_key, ACCEPT, accepted, device.mls_acceptance)
    verify_bundle_key(device.bundle_key, ACCEPT, accepted, device.bundle_acceptance)


def device_hash(device: Device) -> bytes:
    """H("device", Device with its acceptances), 32 bytes."""
    return hash_labelled("device", tls.encode(device))


def curve_points(device: DeviceBody) -> tuple[bytes, bytes, bytes, bytes]:
    """Identity, auth, MLS and the inbox's X25519 key as u-coordinates.

    A u-coordinate belongs to a point and its negative: comparing these compares the identity key's
    Edwards form under both signs.
    """
    return (
        device.identity_key[1:],
        montgomery_from_ed25519(device.auth_key),
        montgomery_from_ed25519(device.mls_key),
        device.inbox_key[MLKEM_768_PUBLIC_BYTES:],
    )


def _check_keys(device: Device) -> None:
    check_identity_key(device.identity_key)
    check_ed25519_public(device.auth_key)
    check_ed25519_public(device.mls_key)
    check_mldsa_public(44, device.bundle_key)
    check_mlkem_public(device.inbox_key[:MLKEM_768_PUBLIC_BYTES])
    check_x25519_public(device.inbox_key[MLKEM_768_PUBLIC_BYTES:])
    if len(set(curve_points(device))) != 4:
        raise KeyRefused("a device uses one key twice")


def _accepted(body: DeviceBody, genesis_hash: bytes) -> bytes:
    if len(genesis_hash) != 32:
        raise LocalError("a genesis hash has 32 bytes")
    return genesis_hash + tls.encode(body)
