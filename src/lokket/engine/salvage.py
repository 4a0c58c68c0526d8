"""A vault put together from the readable rows of a damaged one: made consistent, and safe to go on with.

Some rows are missing and nobody knows which. So it begins as a restored vault does: no session and no prekey,
a new incarnation, nothing encrypted that could be sent again (docs/identity.md, "Restored or cloned vault").
"""

from __future__ import annotations

from typing import Final

from lokket.crypto.entropy import Entropy
from lokket.engine import account
from lokket.engine.records import Contact, Message, NoticeRow, OutboxRow, rows
from lokket.engine.step import Link, Step, require_account
from lokket.engine.store import (
    AWAITING,
    AWAITING_ID,
    BATCH,
    CONTACT,
    HEALING,
    INBOX,
    MESSAGE,
    MESSAGE_ID,
    NOTICE,
    PETNAME,
    PREKEY,
    SESSION,
    Transaction,
)

LEFT_BEHIND: Final = frozenset({SESSION, PREKEY, BATCH, HEALING, INBOX})


def begin_anew(tx: Transaction, now_ms: int, entropy: Entropy) -> None:
    """LocalError: the account's own row is not among those that could be read."""
    me = require_account(tx)
    _index(tx)
    account.vault_restored(Step(tx, now_ms, entropy, Link(), 1), me)


def _index(tx: Transaction) -> None:
    """Each row with its index and no index without its row."""
    messages = dict(rows(tx, MESSAGE, Message))
    for table, wanted in (
        (MESSAGE_ID, {row.mid + row.sender_device: key for key, row in messages.items()}),
        (AWAITING_ID, {row.mid + row.device_hash: key for key, row in rows(tx, AWAITING, OutboxRow)}),
        (PETNAME, {row.petname.encode(): row.genesis_hash for _, row in rows(tx, CONTACT, Contact)}),
    ):
        for key, value in list(tx.scan(table)):
            if wanted.get(key) != value:
                tx.delete(table, key)
        for key, value in wanted.items():
            tx.put(table, key, value)
    for key, notice in rows(tx, NOTICE, NoticeRow):
        if notice.message_key not in messages:
            tx.delete(NOTICE, key)
