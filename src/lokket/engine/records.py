"""What the vault holds: one msgpack array per row. Reading and writing them is all that happens here.

Times are in milliseconds, hashes have 32 bytes, message and envelope ids 16. ``repr`` shows no field:
rows hold keys and plaintext.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from lokket.engine.store import Transaction
from lokket.errors import LocalError

R = TypeVar("R", bound="Record")


class Record(msgspec.Struct, array_like=True, frozen=True):
    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"


class DeviceName(Record, frozen=True):
    device_hash: bytes
    name: str
    time_ms: int  # when it was given: the latest counts


class Account(Record, frozen=True):
    """Who we are.

    ``status``: new (not yet registered), joining (not yet on the list), recovering (the relay has not yet
    taken the rotation; no ``state`` before the chain was seen), active.
    """

    status: str
    genesis: bytes  # until the account is registered
    genesis_hash: bytes
    state: bytes  # identity.AccountState of our own account; empty while joining
    device: bytes  # our Device
    device_hash: bytes
    number: int
    registration_id: int
    device_keys: bytes  # identity.DeviceKeys, secret
    account_seed: bytes  # secret; empty on all but the admin device
    name: str | None
    origin: str
    relay_key: bytes
    token: bytes  # secret until spent
    incarnation: int = 1
    nonces: tuple[bytes, ...] = ()  # login nonces, oldest first
    confirmed: int = 0  # how many of them, from the front, the relay has answered
    pending_list: bytes = b""  # PendingList
    heads: tuple[bytes, ...] = ()  # list heads of our own account, oldest first
    device_names: tuple[DeviceName, ...] = ()


class PendingList(Record, frozen=True):
    """A list that is signed and that our chain does not show yet: resent as these bytes."""

    link: bytes
    body: bytes
    devices: tuple[bytes, ...]
    rotation: bytes = b""


class Meeting(Record, frozen=True):
    """A code for a new device that is shown, and who answered it."""

    secret: bytes
    number: int
    added_version: int
    expires_s: int
    device: bytes = b""  # empty: nobody came yet
    device_hash: bytes = b""
    name: str = ""


class Knock(Record, frozen=True):
    """What a joining device leaves at the relay until it is listed."""

    token: bytes  # secret
    sealed: bytes
    until_s: int


class Role(Record, frozen=True):
    """The admin role on its way. ``stage``: offered, accepted (taking), sent (giving), held."""

    device_hash: bytes  # the other one
    stage: str
    giving: bool


class Transfer(Record, frozen=True):
    """History coming from another of our devices. ``place``: in its order, as far as we have it."""

    giver: bytes  # device hash
    place: bytes
    received: int
    total: int  # as it was offered
    asked_ms: int = 0
    done: bool = False


class Recovery(Record, frozen=True):
    """A recovery whose chain has not been seen yet. Secret; gone once the rotation is signed."""

    code: str
    next_code: str
    keep: tuple[int, ...]
    device_name: str


class Contact(Record, frozen=True):
    """Another account.

    ``status``: accepted or request. ``blocked``: "", rotated or forked. ``level``: unverified, invited,
    verified. ``barred``: the person wants to hear nothing from them.
    """

    petname: str
    auto_named: bool
    genesis_hash: bytes
    state: bytes  # identity.AccountState
    status: str
    level: str
    blocked: str = ""
    name: str | None = None  # what they call themselves; a hint
    invite_secret: bytes = b""  # of the invite through which we met them, until they answer
    introduced: bool = False  # they have been told our name
    heads: tuple[bytes, ...] = ()
    claimed_head: bytes = b""  # named by one of their devices, not (yet) shown by the relay
    evidence: bytes = b""  # of a fork
    added_ms: int = 0
    was: str = ""  # the level before a rotation, or in a backup
    barred: bool = False
    barred_ms: int = 0  # when the person last said so, or took it back
    read_ms: int = 0  # the message up to which one of our devices has shown the conversation
    named_ms: int = 0  # when the person last chose the petname anew, on whichever device


class PeerDevice(Record, frozen=True):
    genesis_hash: bytes
    manifest_number: int = 0
    manifests: tuple[tuple[int, bytes], ...] = ()  # signed prekey id, manifest hash: the last few used
    heals_day: int = 0
    heals_honoured: int = 0  # on that day


class SessionBinding(Record, frozen=True):
    """What one session, current or archived, is called, and whether its peer has proven who it is."""

    base_key: bytes
    session_id: bytes
    ours: bool  # we opened it, from a manifest that proves the peer
    proven: bool = False  # theirs, and they proved that their inbox key, or an invite's secret, is behind it
    nonce: bytes = b""  # of our challenge, secret; empty: not asked yet, or proven
    attempts: int = 0  # challenges that we sent in it, or answered
    asked_ms: int = 0


class SessionRow(Record, frozen=True):
    record: bytes  # pairwise.SessionRecord, secret
    session_id: bytes  # of the current session
    bindings: tuple[SessionBinding, ...] = ()  # that of the latest current session last


class PrekeyRow(Record, frozen=True):
    private: bytes  # secret
    manifest_hash: bytes
    made_ms: int


class BatchRow(Record, frozen=True):
    """A published prekey batch. ``public`` is kept until the relay has it."""

    public: bytes
    made_ms: int
    published: bool


class Message(Record, frozen=True):
    """``state``: queued, sent, delivered, failed; received for those of others."""

    mid: bytes
    genesis_hash: bytes  # the peer's, whoever sent it
    sender_genesis: bytes
    sender_device: bytes
    seq: int
    time_ms: int
    text: str
    state: str


class Stream(Record, frozen=True):
    """One device's numbered contents in one conversation, as far as we know them."""

    incarnation: int
    highest: int  # 0: none yet
    last_hash: bytes  # content hash of the highest
    last_time_ms: int
    recent: tuple[tuple[int, bytes], ...] = ()  # (seq, mid), the last few
    missing: tuple[int, ...] = ()
    began_ms: int = 0  # by the sender's clock: the first content of this incarnation


class OutboxRow(Record, frozen=True):
    """One content for one device. ``envelope`` is empty until encrypted, then never made anew."""

    kind: int
    body: bytes
    mid: bytes
    incarnation: int
    seq: int
    previous: bytes
    conversation: bytes
    time_ms: int
    genesis_hash: bytes  # whose device it is
    device_hash: bytes
    created_ms: int
    envelope_id: bytes = b""
    envelope: bytes = b""
    fresh: bool = False  # wants a new session
    heals: int = 0
    attempts: int = 0
    retry_ms: int = 0


class HeldEnvelope(Record, frozen=True):
    """``code``: waiting (for the account ``awaits``), or why it is in quarantine."""

    envelope: bytes
    sender_genesis: bytes
    sender_device: bytes
    code: str
    since_ms: int
    order: int  # of arrival
    awaits: bytes  # genesis hash; empty in quarantine
    to_heal: bool = False  # its sender is still to be asked for it


class Healing(Record, frozen=True):
    """A device whose messages did not open: ask it, in a fresh session, to send them again."""

    due_ms: int  # 0: nothing to ask for
    day: int
    asked: int  # on that day


class InviteRow(Record, frozen=True):
    """``state``: pending (the relay has not got it), open, spent."""

    secret: bytes
    expires_s: int
    state: str
    spent_by: bytes = b""


class Errand(Record, frozen=True):
    """A person's wish that needs the relay: kept until it is done or has failed."""

    kind: str  # contact, claim
    petname: str
    name: str
    genesis_hash: bytes
    invite_secret: bytes = b""
    creator_device: bytes = b""
    claim: bytes = b""  # identity.SignedNameClaim, until the chain confirms it


class BackupState(Record, frozen=True):
    """Of this device's backups. ``key`` is secret: what opens them all."""

    key: bytes
    wrapped: bytes = b""  # passphrase.WrappedKey: the key under a passphrase, if the person chose one
    counter: int = 0  # of the last archive of this account that was made or seen here
    written_s: int = 0  # when the last one was on its disk
    folder: str = ""  # where automatic ones go; empty: there are none, unless at the relay
    at_relay: bool = False  # automatic ones go there
    blobs: tuple[bytes, ...] = ()  # ids of those that this device has at the relay, oldest first


class Alarm(Record, frozen=True):
    """A ``TrustNotice`` that the person must have seen."""

    kind: str
    petname: str
    sentence: str
    time_ms: int
    shown: bool = False


class NoticeRow(Record, frozen=True):
    """A shown message that no caller has handled yet: its key in MESSAGE."""

    message_key: bytes
    petname: str
    outgoing: bool
    request: bool


class Cursor(Record, frozen=True):
    """Where one reader of messages is: everything up to ``handled`` was taken care of."""

    handled: int
    used_ms: int
    expired: bool = False


class DeadLetter(Record, frozen=True):
    """A message on which the reader of a cursor failed for good."""

    message_key: bytes
    outgoing: bool
    request: bool
    tries: int
    sentence: str
    time_ms: int


_encoder = msgspec.msgpack.Encoder()
_decoders: dict[type, msgspec.msgpack.Decoder[Any]] = {}


def pack(record: Record) -> bytes:
    return _encoder.encode(record)


def unpack(kind: type[R], data: bytes) -> R:
    """LocalError: the vault holds something else under this name."""
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.msgpack.Decoder(kind)
    try:
        record: R = decoder.decode(data)
    except msgspec.MsgspecError:
        raise LocalError(f"a {kind.__name__} in the vault is damaged: run 'lokket doctor'") from None
    return record


def load(tx: Transaction, table: str, key: bytes, kind: type[R]) -> R | None:
    data = tx.get(table, key)
    return None if data is None else unpack(kind, data)


def save(tx: Transaction, table: str, key: bytes, record: Record) -> None:
    tx.put(table, key, pack(record))


def rows(tx: Transaction, table: str, kind: type[R], prefix: bytes = b"") -> list[tuple[bytes, R]]:
    """All rows under ``prefix``, collected, so that the caller may write while it walks them."""
    return [(key, unpack(kind, data)) for key, data in tx.scan(table, prefix)]
