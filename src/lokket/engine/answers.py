"""What ``views`` answers with: plain values, in a module that loads nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class DeviceView:
    number: int
    device_hash: bytes
    own: bool  # this very device
    admin: bool  # holds the account key
    name: str  # empty: it has none


@dataclass(frozen=True, slots=True)
class Me:
    genesis_hash: bytes
    account_id: str
    name: str | None
    device_hash: bytes
    device_number: int
    admin: bool
    origin: str
    relay_key: bytes
    registered: bool
    devices: tuple[DeviceView, ...]


@dataclass(frozen=True, slots=True)
class ContactView:
    """``level``: unverified, invited, verified, was invited, was verified; request for a stranger, blocked
    for whom the person blocked. ``blocked``: why nothing can be sent, "" or a sentence.
    ``sender_authentication``: classical as long as one device's session could be of somebody who breaks
    curves, else post-quantum; none before there is a session."""

    petname: str
    genesis_hash: bytes
    name: str | None
    level: str
    blocked: str
    devices: int
    unread: int  # of their messages, on none of our devices shown
    sender_authentication: str


@dataclass(frozen=True, slots=True)
class MessageView:
    """``state``: queued, sent, delivered, failed of our own; received of theirs."""

    mid: bytes
    petname: str
    outgoing: bool
    text: str
    time_ms: int
    state: str
    sender_device: bytes
    seq: int


ALARM_KINDS: Final = frozenset({"clone-alarm", "restored", "relay-restored", "forked"})


@dataclass(frozen=True, slots=True)
class AlarmView:
    """A ``TrustNotice`` of one of these kinds; ``shown``: to the person, some time."""

    kind: str
    petname: str
    sentence: str
    time_ms: int
    shown: bool


@dataclass(frozen=True, slots=True)
class Health:
    """``held``: reason code and count of what waits or is in quarantine."""

    queued: int
    awaiting_receipt: int
    held: tuple[tuple[str, int], ...]
    prekey_pairs: int
    list_expires_s: int
    warnings: tuple[str, ...]
    alarms: tuple[AlarmView, ...]


@dataclass(frozen=True, slots=True)
class TransferView:
    """History on its way from another of our devices, ``total`` as far as is known."""

    received: int
    total: int
    done: bool
