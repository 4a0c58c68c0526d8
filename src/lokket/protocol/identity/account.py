"""What travels about an account, and what a contact stores of it.

Source: docs/identity.md, "Device lists". ``AccountUpdate`` is what a relay serves; ``AccountState`` is
what ``chain`` made of it after every check. The relay keeps the whole chain as one ``AccountUpdate``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Annotated, Final

from lokket import limits
from lokket.codec import tls
from lokket.codec.tls import U16, U64, Bytes32, Opaque, Uint, Vector
from lokket.errors import RemoteError
from lokket.protocol.identity.device import Device, device_hash
from lokket.protocol.identity.devicelist import ListBody, ListLink, SignedLink, SignedRotation
from lokket.protocol.identity.genesis import Genesis, genesis_hash
from lokket.protocol.identity.keys import HybridKey, HybridSignature

_STATE_FORMAT: Final = 1

Rotations = Annotated[tuple[SignedRotation, ...], Vector(limits.ROTATIONS_MAX)]


@dataclass(frozen=True)
class AccountUpdate:
    """Hashes for all links, the signature of the last; bodies of devices that the asker lacks.

    ``genesis`` only for first contact; ``rotations`` those that open later epochs, oldest first; ``links``
    oldest first and without a gap; ``devices`` encoded ``Device`` records.
    """

    genesis: Genesis | None
    rotations: Rotations
    links: Annotated[tuple[ListLink, ...], Vector(limits.LINKS_MAX, min_items=1)]
    signature: HybridSignature
    body: ListBody
    devices: Annotated[tuple[Opaque, ...], Vector(limits.DEVICES_MAX)]

    @property
    def last(self) -> SignedLink:
        return SignedLink(self.links[-1], self.signature)

    @cached_property
    def decoded(self) -> dict[bytes, Device]:
        """The devices by hash. DecodeError: one is malformed."""
        devices = (tls.decode(Device, encoded) for encoded in self.devices)
        return {device_hash(device): device for device in devices}

    def since(self, known_epoch: int, known_version: int) -> AccountUpdate:
        """What someone at (``known_epoch``, ``known_version``) lacks of this whole chain.

        Version 0 knows nothing. Who lacks nothing gets the last link alone. Who followed links that a
        rotation voids gets every device: some may have been revoked there before they were seen.
        """
        if not known_version:
            return self
        rotations = tuple(signed for signed in self.rotations if signed.rotation.key_epoch > known_epoch)
        base = min([known_version, *(signed.rotation.last_version for signed in rotations)])
        lacking = 0 if base < known_version else base
        return AccountUpdate(
            genesis=None,
            rotations=rotations,
            links=tuple(link for link in self.links if link.version > base) or self.links[-1:],
            signature=self.signature,
            body=self.body,
            devices=tuple(
                tls.encode(device) for device in self.decoded.values() if device.added_version > lacking
            ),
        )

    def extended(
        self, signed: SignedLink, body: ListBody, devices: tuple[bytes, ...], rotation: SignedRotation | None
    ) -> AccountUpdate:
        """This whole chain and one accepted step; links that a rotation voids are cut off.

        ``devices``: the records that this chain may lack. RemoteError (gap): one is missing.
        """
        return self.followed_by(step_update(signed, body, devices, rotation=rotation))

    def followed_by(self, update: AccountUpdate) -> AccountUpdate:
        """This whole chain and an accepted ``update``; links that it voids are cut off.

        RemoteError (gap): the record of a listed device is in neither.
        """
        known = {**self.decoded, **update.decoded}
        if not set(update.body.device_hashes) <= known.keys():
            raise RemoteError("the record of a listed device is missing", code="gap")
        epoch, first = self.links[-1].key_epoch, update.links[0].version
        return AccountUpdate(
            genesis=self.genesis,
            rotations=(
                *self.rotations,
                *(signed for signed in update.rotations if signed.rotation.key_epoch > epoch),
            ),
            links=(*(link for link in self.links if link.version < first), *update.links),
            signature=update.signature,
            body=update.body,
            devices=tuple(tls.encode(known[listed]) for listed in update.body.device_hashes),
        )


def step_update(
    signed: SignedLink,
    body: ListBody,
    devices: tuple[bytes, ...] = (),
    *,
    rotation: SignedRotation | None = None,
    genesis: Genesis | None = None,
) -> AccountUpdate:
    """One step as an update: what its author and the relay's compare-and-set feed to ``chain``."""
    return AccountUpdate(
        genesis, (rotation,) if rotation else (), (signed.link,), signed.signature, body, tuple(devices)
    )


class DeviceStatus(IntEnum):
    """What became of a device that was once seen."""

    LISTED = 1
    GONE = 2  # revoked, or listed only by links that a rotation voided


@dataclass(frozen=True, slots=True)
class KnownDevice:
    """One device that was ever seen. ``gone_s``: when its dropping link was issued, 0 while listed."""

    hash: Bytes32
    status: Annotated[DeviceStatus, Uint(1)]
    gone_s: U64
    device: Opaque | None  # encoded; None: never listed while we looked


@dataclass(frozen=True)
class AccountState:
    """An account as verified. Only ``chain`` makes one; ``decode`` trusts what this machine stored."""

    format: U16
    genesis: Genesis
    rotations: Rotations
    link: ListLink
    signature: HybridSignature
    body: ListBody
    devices: Annotated[tuple[KnownDevice, ...], Vector(ascending=True)]

    def __post_init__(self) -> None:
        if self.format != _STATE_FORMAT:
            raise ValueError("the format is unknown")

    @cached_property
    def genesis_hash(self) -> bytes:
        return genesis_hash(self.genesis)

    @cached_property
    def head(self) -> bytes:
        """The hash of the last link, 32 bytes."""
        return self.link.head

    @property
    def key_epoch(self) -> int:
        return self.link.key_epoch

    @property
    def version(self) -> int:
        return self.link.version

    @property
    def account_key(self) -> HybridKey:
        """The account key of the current epoch."""
        return self.rotations[-1].rotation.account_key if self.rotations else self.genesis.account_key

    @property
    def recovery_commitment(self) -> bytes:
        """What the next rotation's recovery key must hash to."""
        return (
            self.rotations[-1].rotation.recovery_commitment
            if self.rotations
            else self.genesis.recovery_commitment
        )

    @cached_property
    def listed(self) -> tuple[tuple[bytes, Device], ...]:
        """(device hash, device) of every listed device, in the order of the list."""
        known = {entry.hash: entry.device for entry in self.devices}
        return tuple((listed, tls.decode(Device, known[listed] or b"")) for listed in self.body.device_hashes)

    def device(self, device_hash: bytes) -> Device | None:
        """The listed device with this hash."""
        return dict(self.listed).get(device_hash)

    def knows(self, device_hash: bytes) -> bool:
        """Whether this device was ever on the list, as far as we saw."""
        return any(entry.hash == device_hash for entry in self.devices)

    def expired(self, now_s: int) -> bool:
        """Whether the last link is over, both clocks' error granted."""
        return now_s > self.link.not_after_s + limits.CLOCK_SKEW_S

    @property
    def signed_link(self) -> SignedLink:
        return SignedLink(self.link, self.signature)

    def encode(self) -> bytes:
        return tls.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> AccountState:
        """DecodeError: not what ``encode`` gives."""
        return tls.decode(cls, data)

    def __repr__(self) -> str:
        return f"AccountState({self.genesis_hash.hex()[:8]}…, {self.key_epoch}.{self.version})"


def new_state(
    genesis: Genesis,
    rotations: tuple[SignedRotation, ...],
    signed: SignedLink,
    body: ListBody,
    devices: tuple[KnownDevice, ...],
) -> AccountState:
    """The state that ``chain`` has verified."""
    return AccountState(
        _STATE_FORMAT,
        genesis,
        rotations,
        signed.link,
        signed.signature,
        body,
        tuple(sorted(devices, key=lambda entry: entry.hash)),
    )
