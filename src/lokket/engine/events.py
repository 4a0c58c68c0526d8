"""The engine's whole contract: what can happen, and what it then wants done.

Events come from the relay's socket, from a person and from the clock. Effects are carried out by
``lokket.client.driver`` after the step's transaction has been committed, in order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from lokket.engine.commands import *  # noqa: F403  -- one contract, in two files for length
from lokket.engine.commands import Command
from lokket.wire import api

# --- events: the relay ---


@dataclass(frozen=True, slots=True)
class Connected:
    """A socket is open and the relay said hello."""

    hello: api.Hello


@dataclass(frozen=True, slots=True)
class Disconnected:
    pass


@dataclass(frozen=True, slots=True)
class Answered:
    """The reply to a ``Call``. A call whose connection broke is never answered: ``Disconnected`` comes."""

    call: str
    reply: api.Reply


@dataclass(frozen=True, slots=True)
class Arrived:
    """Envelopes, as the relay's bytes."""

    envelopes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class PairsLow:
    left: int


@dataclass(frozen=True, slots=True)
class Tick:
    """The time asked for by ``Wake`` has come, or simply: look at the clock."""


Event: TypeAlias = Connected | Disconnected | Answered | Arrived | PairsLow | Tick | Command

# --- effects ---


@dataclass(frozen=True, slots=True)
class Call:
    """Send a request; bring the reply back as ``Answered`` with the same ``call``."""

    call: str
    request: api.Request


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Tell the relay that these envelopes are in the vault. No answer is needed."""

    envelope_ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Wake:
    """Send a ``Tick`` at this time at the latest."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class Redial:
    """The relay did not take this login now: close, and connect again, no earlier than ``at_ms``."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class HangUp:
    """The relay is not who it should be, or refused this device: close, say why, do not retry."""

    sentence: str


# --- effects: what a person sees (``Notice``) ---


@dataclass(frozen=True, slots=True)
class Registered:
    genesis_hash: bytes
    name: str | None


@dataclass(frozen=True, slots=True)
class LinkCodeMade:
    """What the new device is given: a secret for ten minutes."""

    code: str = field(repr=False)
    expires_s: int


@dataclass(frozen=True, slots=True)
class LinkAsked:
    """A device answered the code. It calls itself ``name``; its number is on its own screen only."""

    name: str
    time_ms: int


@dataclass(frozen=True, slots=True)
class LinkNumber:
    """On the new device: 12 digits for the person to type on the admin device."""

    number: str


@dataclass(frozen=True, slots=True)
class Listed:
    """This device is on its account's list now."""

    genesis_hash: bytes
    device_number: int


@dataclass(frozen=True, slots=True)
class AdminOffered:
    """The admin device, ``number``, offers its role to this one: ``AcceptAdmin`` takes it."""

    number: int


@dataclass(frozen=True, slots=True)
class HistoryProgress:
    """Messages that came from another of our devices, of about ``total``."""

    received: int
    total: int
    done: bool


@dataclass(frozen=True, slots=True)
class HistoryGiven:
    """A page went to another of our devices; ``done``: it was the last."""

    count: int
    done: bool


@dataclass(frozen=True, slots=True)
class Recovered:
    """The relay has the rotation: this is the admin device now. ``kept``: numbers of the other devices."""

    genesis_hash: bytes
    device_number: int
    kept: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Online:
    """Logged in; ``mailbox`` envelopes wait."""

    mailbox: int


@dataclass(frozen=True, slots=True)
class DeviceMade:
    """For the admin device's ``AddDevice``."""

    device: bytes


@dataclass(frozen=True, slots=True)
class MessageShown:
    """A message new in the conversation with ``petname``; ``order`` is what ``HandledNotices`` names.

    ``outgoing``: sent by another device of this account. ``request``: from a stranger not yet accepted.
    """

    order: int
    petname: str
    text: str
    mid: bytes
    sender_device: bytes
    seq: int
    time_ms: int
    outgoing: bool
    request: bool


@dataclass(frozen=True, slots=True)
class MessageState:
    """``state``: queued, sent (on the relay's disk), delivered (the peer's receipt), failed.

    ``sentence``: why it failed, or what it still waits for at the relay.
    """

    petname: str
    mid: bytes
    state: str
    sentence: str = ""


@dataclass(frozen=True, slots=True)
class ContactAdded:
    petname: str
    genesis_hash: bytes
    level: str
    safety_number: str


@dataclass(frozen=True, slots=True)
class ErrandFailed:
    """What a person asked for did not come about. ``errand``: e.g. "contact:bob", "register", "name"."""

    errand: str
    sentence: str


@dataclass(frozen=True, slots=True)
class InviteMade:
    link: str
    expires_s: int


@dataclass(frozen=True, slots=True)
class PrekeysPublished:
    """The relay has batch ``number``."""

    number: int


@dataclass(frozen=True, slots=True)
class BackupBegun:
    counter: int
    created_s: int
    genesis_hash: bytes


@dataclass(frozen=True, slots=True)
class Imported:
    """Of one ``ImportRecords``: new rows, what was there already, and what did not hold."""

    contacts: int
    messages: int
    known: int
    refused: int


@dataclass(frozen=True, slots=True)
class VaultGeneration:
    """How often the vault was opened: to be kept outside of it, for the next ``VaultOpened``."""

    number: int


@dataclass(frozen=True, slots=True)
class AccountDeleted:
    """The relay knows the account no longer."""


@dataclass(frozen=True, slots=True)
class TrustNotice:
    """Something changed in who a contact is or what this account may rely on.

    ``kind``: device-added, device-removed, revoked, admin, rotated, forked, frozen, expired, level,
    clone-alarm, session-reset, missing, restored, relay-restored, clock.
    """

    kind: str
    petname: str
    sentence: str


Notice: TypeAlias = (
    Registered
    | LinkCodeMade
    | LinkAsked
    | LinkNumber
    | Listed
    | AdminOffered
    | HistoryProgress
    | HistoryGiven
    | Recovered
    | Online
    | DeviceMade
    | MessageShown
    | MessageState
    | ContactAdded
    | ErrandFailed
    | InviteMade
    | PrekeysPublished
    | AccountDeleted
    | BackupBegun
    | VaultGeneration
    | Imported
    | TrustNotice
)
Effect: TypeAlias = Call | Acknowledge | Wake | Redial | HangUp | Notice
