"""The engine's whole contract: what can happen, and what it then wants done.

Events come from the relay's socket, from a person and from the clock. Effects are carried out by
``lokket.client.driver`` after the step's transaction has been committed, in order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

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


# --- events: a person (each raises LocalError in ``handle`` when it cannot be done) ---


@dataclass(frozen=True, slots=True)
class CreateAccount:
    """Makes every key. ``link``: an invite as text, or "" for an open relay given by the other two."""

    link: str
    name: str | None
    origin: str = ""
    relay_key: bytes = b""
    recovery_code: str = ""  # made by the caller with identity.new_recovery_code, shown once, not kept


@dataclass(frozen=True, slots=True)
class JoinAsDevice:
    """This vault becomes a further device of an existing account: makes its keys, emits ``DeviceMade``."""

    genesis: bytes
    number: int
    added_version: int  # of the list that will name this device first
    origin: str
    relay_key: bytes


@dataclass(frozen=True, slots=True)
class RecoverAccount:
    """This vault becomes the admin device of an account whose admin device is lost, by its recovery code.

    Every other device but those in ``keep`` is revoked. ``next_code`` as in ``CreateAccount``: it replaces
    the used one.
    """

    account: str  # linking.AccountCode
    recovery_code: str
    next_code: str
    keep: tuple[int, ...] = ()
    name: str | None = None  # at the relay: claimed anew, under the new account key
    device_name: str = ""


@dataclass(frozen=True, slots=True)
class AddDevice:
    """On the admin device: put a made Device on the list (version + 1)."""

    device: bytes


@dataclass(frozen=True, slots=True)
class RevokeDevice:
    """On the admin device: a list without this device. The admin device itself is replaced by recovery."""

    number: int


@dataclass(frozen=True, slots=True)
class RenameDevice:
    """What the person calls one of their devices; only these devices learn it."""

    number: int
    name: str


@dataclass(frozen=True, slots=True)
class AddContact:
    """By invite link, or by ``name`` looked up once at the relay, under a petname of one's own choice."""

    petname: str
    link: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class AcceptContact:
    """Accept a stranger's request, or a contact's new account key after a rotation."""

    petname: str


@dataclass(frozen=True, slots=True)
class MarkVerified:
    """The safety numbers were compared, or ``code`` (a scanned verify-QR) is checked."""

    petname: str
    code: str = ""


@dataclass(frozen=True, slots=True)
class RenameContact:
    petname: str
    new_petname: str


@dataclass(frozen=True, slots=True)
class BlockContact:
    """From here on their mail is dropped unshown: no receipt, no notice, no answer of any kind."""

    petname: str


@dataclass(frozen=True, slots=True)
class UnblockContact:
    """What was dropped stays dropped."""

    petname: str


@dataclass(frozen=True, slots=True)
class CreateInvite:
    pass


@dataclass(frozen=True, slots=True)
class SendText:
    petname: str
    text: str


@dataclass(frozen=True, slots=True)
class RefillPrekeys:
    """Publish a new batch now: who suspects the old one, or wants first messages at full strength."""


@dataclass(frozen=True, slots=True)
class DeleteAccount:
    """On the admin device: the relay is to forget the account. There is no way back."""


@dataclass(frozen=True, slots=True)
class HandledNotices:
    """Everything up to this notice was written where the person reads it."""

    order: int


Command: TypeAlias = (
    CreateAccount
    | JoinAsDevice
    | RecoverAccount
    | AddDevice
    | RevokeDevice
    | RenameDevice
    | AddContact
    | AcceptContact
    | MarkVerified
    | RenameContact
    | BlockContact
    | UnblockContact
    | CreateInvite
    | SendText
    | RefillPrekeys
    | DeleteAccount
    | HandledNotices
)
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
    """``state``: queued, sent (on the relay's disk), delivered (the peer's receipt), failed."""

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
class AccountDeleted:
    """The relay knows the account no longer."""


@dataclass(frozen=True, slots=True)
class TrustNotice:
    """Something changed in who a contact is or what this account may rely on.

    ``kind``: device-added, device-removed, revoked, rotated, forked, frozen, expired, level, clone-alarm,
    session-reset, missing, restored, relay-restored, clock.
    """

    kind: str
    petname: str
    sentence: str


Notice: TypeAlias = (
    Registered
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
    | TrustNotice
)
Effect: TypeAlias = Call | Acknowledge | Wake | Redial | HangUp | Notice
