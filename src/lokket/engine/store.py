"""What a step may do to the vault: get, put, delete and scan bytes in named tables.

A ``Transaction`` is all-or-nothing and synchronous; whoever opens it commits it. Keys are bytes and
ordered as bytes, so a composite key is its own index.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

ACCOUNT: Final = "account"  # one row: who we are
CONTACT: Final = "contact"  # genesis hash -> Contact
PETNAME: Final = "petname"  # petname -> genesis hash
PEER: Final = "peer"  # device hash -> PeerDevice
SESSION: Final = "session"  # device hash -> SessionRow
PREKEY: Final = "prekey"  # kind, id -> PrekeyRow
BATCH: Final = "batch"  # number -> BatchRow
MESSAGE: Final = "message"  # conversation, time, device, seq -> Message
MESSAGE_ID: Final = "message_id"  # mid, sender device -> key in MESSAGE
STREAM: Final = "stream"  # conversation, sender device -> Stream
OUTBOX: Final = "outbox"  # order -> OutboxRow: not yet accepted by the relay
AWAITING: Final = "awaiting"  # envelope id -> OutboxRow: accepted, no receipt yet
AWAITING_ID: Final = "awaiting_id"  # mid, device hash -> envelope id
INBOX: Final = "inbox"  # envelope id -> HeldEnvelope: waiting or quarantined
SEEN: Final = "seen"  # envelope id -> day
RECEIPT: Final = "receipt"  # device hash, mid -> when due
FIRST_MESSAGE: Final = "first_message"  # first-message id -> day
HEALING: Final = "healing"  # device hash -> Healing
INVITE: Final = "invite"  # invite id -> InviteRow
ERRAND: Final = "errand"  # name -> Errand: what a person asked for and the relay has not answered yet
NOTICE: Final = "notice"  # order -> NoticeRow: what a cursor has not handed on yet
CURSOR: Final = "cursor"  # name -> Cursor; the person's own has no name
DEAD_LETTER: Final = "dead_letter"  # name, 0, order -> DeadLetter
TABLES: Final = (
    ACCOUNT,
    CONTACT,
    PETNAME,
    PEER,
    SESSION,
    PREKEY,
    BATCH,
    MESSAGE,
    MESSAGE_ID,
    STREAM,
    OUTBOX,
    AWAITING,
    AWAITING_ID,
    INBOX,
    SEEN,
    RECEIPT,
    FIRST_MESSAGE,
    HEALING,
    INVITE,
    ERRAND,
    NOTICE,
    CURSOR,
    DEAD_LETTER,
)


class Transaction(Protocol):
    """One atomic step over the vault's tables."""

    def get(self, table: str, key: bytes) -> bytes | None: ...

    def put(self, table: str, key: bytes, value: bytes) -> None:
        """Insert or replace."""

    def delete(self, table: str, key: bytes) -> None:
        """Nothing happens where there is no such row."""

    def scan(
        self, table: str, prefix: bytes = b"", *, after: bytes | None = None, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Rows whose key begins with ``prefix``, in key order; ``after``: strictly beyond that key.

        A row that the step changes meanwhile may or may not be seen changed; collect first, then write.
        """
