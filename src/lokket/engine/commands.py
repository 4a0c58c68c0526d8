"""What a person asks of the engine: the commands among its events.

Each raises LocalError in ``Engine.handle`` when it cannot be done.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias


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
class OpenLink:
    """On the admin device: emits ``LinkCodeMade``, and ``LinkAsked`` once a device answered the code."""


@dataclass(frozen=True, slots=True)
class ConfirmLink:
    """On the admin device: the number that the new device shows, typed by the person.

    ``history``: it may have this device's messages.
    """

    number: str
    history: bool = True


@dataclass(frozen=True, slots=True)
class CancelLink:
    pass


@dataclass(frozen=True, slots=True)
class LinkDevice:
    """This vault becomes a further device by a ``LinkCode``: emits ``LinkNumber``, then ``Listed``."""

    code: str
    name: str


@dataclass(frozen=True, slots=True)
class GiveHistory:
    """Another of our devices may have this one's messages."""

    number: int


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
    code: str | None = None  # an empty one is a scan that failed, and verifies nobody


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
    """``mid``: 16 random bytes of the caller's, or none. The same again sends nothing a second time."""

    petname: str
    text: str
    mid: bytes = b""


@dataclass(frozen=True, slots=True)
class RefillPrekeys:
    """Publish a new batch now: who suspects the old one, or wants first messages at full strength."""


@dataclass(frozen=True, slots=True)
class DeleteAccount:
    """On the admin device: the relay is to forget the account. There is no way back."""


@dataclass(frozen=True, slots=True)
class UseBackupKey:
    """The key of all further backups, and the same under a passphrase (``crypto.passphrase``) or ""."""

    key: bytes = field(repr=False)
    wrapped: bytes = b""


@dataclass(frozen=True, slots=True)
class BeginBackup:
    """Number the next archive: ``BackupBegun`` says what goes into its header."""


@dataclass(frozen=True, slots=True)
class BackupWritten:
    """The archive of this number is whole and on its disk."""

    counter: int


@dataclass(frozen=True, slots=True)
class BackupDaily:
    """Keep backups of each day in this folder, or at the relay; neither: no more."""

    folder: str
    at_relay: bool = False


@dataclass(frozen=True, slots=True)
class BackupBlobs:
    """What this device has at the relay now: blob ids, oldest first."""

    blobs: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class OpenedBackup:
    """An archive of this account is about to be imported; its key is taken on if there is none yet."""

    counter: int
    key: bytes = field(repr=False)
    wrapped: bytes = b""
    older: bool = False  # than the last one known here: the person wants it nevertheless


@dataclass(frozen=True, slots=True)
class ImportRecords:
    """Kinds and bodies of ``wire.archive``, not yet trusted. What is known already stays as it is."""

    records: tuple[tuple[int, bytes], ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class OfferAdmin:
    """On the admin device: another one may take the account key over."""

    number: int


@dataclass(frozen=True, slots=True)
class AcceptAdmin:
    """On the other device: the person wants it to become the admin device."""


@dataclass(frozen=True, slots=True)
class CancelAdmin:
    """On either, before the key has left."""


@dataclass(frozen=True, slots=True)
class MarkRead:
    """The person looked at the conversation, as it is now."""

    petname: str


@dataclass(frozen=True, slots=True)
class VaultOpened:
    """Before anything else. ``floor``: the number of ``VaultGeneration`` that is kept outside; 0: none is."""

    floor: int


@dataclass(frozen=True, slots=True)
class AlarmsShown:
    """The person was shown every alarm there is."""


@dataclass(frozen=True, slots=True)
class HandledNotices:
    """Everything up to this notice was taken care of by who reads at ``cursor``; "": the person's own."""

    order: int
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class OpenCursor:
    """A named place in the order of messages, for one reader: nobody else's handling moves it.

    A new one begins behind all that has come, or with the ``oldest`` that is kept. One that is there stays
    where it is; ``anew`` lets one begin again that was not used for too long.
    """

    name: str
    oldest: bool = False
    anew: bool = False


@dataclass(frozen=True, slots=True)
class CloseCursor:
    """Nobody reads there any more; its dead letters go too."""

    name: str


@dataclass(frozen=True, slots=True)
class GiveUpNotice:
    """Who reads at ``cursor`` failed on this message so often that what is behind it has its turn.

    ``sentence``: why, without a word of the message.
    """

    cursor: str
    order: int
    tries: int
    sentence: str


@dataclass(frozen=True, slots=True)
class ForgetDeadLetter:
    """It was dealt with."""

    cursor: str
    order: int


Command: TypeAlias = (
    CreateAccount
    | JoinAsDevice
    | OpenLink
    | ConfirmLink
    | CancelLink
    | LinkDevice
    | GiveHistory
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
    | UseBackupKey
    | BeginBackup
    | BackupWritten
    | BackupDaily
    | BackupBlobs
    | OpenedBackup
    | ImportRecords
    | OfferAdmin
    | AcceptAdmin
    | CancelAdmin
    | MarkRead
    | VaultOpened
    | AlarmsShown
    | HandledNotices
    | OpenCursor
    | CloseCursor
    | GiveUpNotice
    | ForgetDeadLetter
)
