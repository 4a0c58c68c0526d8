"""What the SQLite storage's writer does inside a transaction: one function per verb of ``base.Storage``.

A function that refuses has written nothing, so that its neighbours in the same transaction stand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple
from typing import Any, Final

import apsw

from lokket import limits
from lokket.relay.storage import blobs
from lokket.relay.storage.base import (
    DeviceRow,
    Held,
    InviteRow,
    ListChange,
    Mail,
    NameRow,
    NewAccount,
    Quota,
    Ruling,
    Taken,
)
from lokket.wire import api

DEVICE: Final = (
    "SELECT device_hash, genesis_hash, last_nonce, manifest_number, length(slots), mail_count, mail_bytes "
    "FROM devices WHERE device_hash = ?"
)
INVITE_OPEN: Final = (
    "SELECT 1 FROM invites WHERE token_hash = ? AND expires_s > ? AND (spent_by IS NULL OR spent_by = ?)"
)
WAITING: Final = (
    "SELECT id, envelope_id, envelope FROM mail "
    "WHERE device = (SELECT id FROM devices WHERE device_hash = ?) AND id > ? ORDER BY id LIMIT ?"
)
RULING: Final = (
    "SELECT genesis_hash, banned, count_max, max_bytes, blobs_max_bytes FROM rulings WHERE genesis_hash = ?"
)
USERS: Final = (
    "SELECT a.genesis_hash, "
    "(SELECT name FROM names n WHERE n.genesis_hash = a.genesis_hash AND n.freed_s IS NULL), "
    "count(d.id), coalesce(sum(d.mail_count), 0), coalesce(sum(d.mail_bytes), 0), "
    "(SELECT count(*) FROM blobs b WHERE b.genesis_hash = a.genesis_hash), "
    "(SELECT coalesce(sum(b.received), 0) FROM blobs b WHERE b.genesis_hash = a.genesis_hash), "
    "coalesce(r.banned, 0), r.count_max, r.max_bytes, r.blobs_max_bytes "
    "FROM accounts a LEFT JOIN devices d USING (genesis_hash) LEFT JOIN rulings r USING (genesis_hash) "
    "WHERE a.genesis_hash > ? GROUP BY a.genesis_hash ORDER BY a.genesis_hash LIMIT ?"
)
COUNTS: Final = (
    "SELECT (SELECT count(*) FROM accounts), (SELECT count(*) FROM devices), "
    "(SELECT coalesce(sum(mail_count), 0) FROM devices), (SELECT coalesce(sum(mail_bytes), 0) FROM devices), "
    "(SELECT count(*) FROM blobs), (SELECT coalesce(sum(received), 0) FROM blobs)"
)


class MailIds:
    """Ids that only rise: SQLite would give the highest one again after its row is deleted."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._last = int(_value(connection, "SELECT coalesce(max(id), 0) FROM mail"))

    def next(self) -> int:
        self._last += 1
        return self._last


def _row(db: apsw.Connection, sql: str, *bindings: Any) -> tuple[Any, ...] | None:
    rows = db.execute(sql, bindings).fetchall()
    return rows[0] if rows else None


def _value(db: apsw.Connection, sql: str, *bindings: Any) -> Any:
    row = _row(db, sql, *bindings)
    return row[0] if row else None


# --- accounts ---


def register(db: apsw.Connection, new: NewAccount, token_hash: bytes | None, now_s: int) -> str:
    account = new.account
    genesis_hash = account.genesis_hash
    if _row(db, "SELECT 1 FROM accounts WHERE genesis_hash = ?", genesis_hash):
        return ""
    if token_hash is not None and not _row(db, INVITE_OPEN, token_hash, now_s, genesis_hash):
        return api.TOKEN_REFUSED
    if _row(db, "SELECT 1 FROM accounts WHERE account_id = ?", account.account_id):
        return api.CONFLICT
    if new.name is not None and not _name_free(db, new.name):
        return api.CONFLICT
    if token_hash is not None:
        db.execute("UPDATE invites SET spent_by = ? WHERE token_hash = ?", (genesis_hash, token_hash))
    db.execute(
        "INSERT INTO accounts (genesis_hash, account_id, head, key_epoch, version, state, chain) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        astuple(account),
    )
    _insert_head(db, account.genesis_hash, account.head)
    for device_hash in new.device_hashes:
        db.execute(
            "INSERT INTO devices (device_hash, genesis_hash) VALUES (?, ?)", (device_hash, genesis_hash)
        )
    if new.name is not None:
        _insert_name(db, new.name)
    return ""


def put_list(db: apsw.Connection, change: ListChange) -> bool:
    account = change.account
    head = _value(db, "SELECT head FROM accounts WHERE genesis_hash = ?", account.genesis_hash)
    if head is None or head == account.head:
        return head is not None
    if head != change.expected_head:
        return False
    db.execute(
        "UPDATE accounts SET head = ?, key_epoch = ?, version = ?, state = ?, chain = ? "
        "WHERE genesis_hash = ?",
        (*astuple(account)[2:], account.genesis_hash),
    )
    for between in change.heads_between:
        _insert_head(db, account.genesis_hash, between)
    _insert_head(db, account.genesis_hash, account.head)
    held = db.execute(
        "SELECT id, device_hash FROM devices WHERE genesis_hash = ?", (account.genesis_hash,)
    ).fetchall()
    for number, device_hash in held:
        if device_hash not in change.device_hashes:
            db.execute("DELETE FROM mail WHERE device = ?", (number,))
            db.execute("DELETE FROM batches WHERE device_hash = ?", (device_hash,))
            db.execute("DELETE FROM devices WHERE id = ?", (number,))
    for device_hash in change.device_hashes:
        db.execute(
            "INSERT INTO devices (device_hash, genesis_hash) VALUES (?, ?) "
            "ON CONFLICT (device_hash) DO NOTHING",
            (device_hash, account.genesis_hash),
        )
    return True


def delete_account(db: apsw.Connection, genesis_hash: bytes, now_s: int) -> None:
    devices = "SELECT id FROM devices WHERE genesis_hash = ?"
    hashes = "SELECT device_hash FROM devices WHERE genesis_hash = ?"
    for sql in (
        f"DELETE FROM mail WHERE device IN ({devices})",  # noqa: S608 (constants)
        f"DELETE FROM batches WHERE device_hash IN ({hashes})",  # noqa: S608
        "DELETE FROM devices WHERE genesis_hash = ?",
        "DELETE FROM heads WHERE genesis_hash = ?",
        "DELETE FROM accounts WHERE genesis_hash = ?",
        "DELETE FROM invites WHERE creator = ? AND spent_by IS NULL",
        "UPDATE invites SET creator = x'' WHERE creator = ?",
        "UPDATE invites SET spent_by = x'' WHERE spent_by = ?",
    ):
        db.execute(sql, (genesis_hash,))
    blobs.delete_all(db, genesis_hash)
    db.execute("DELETE FROM rulings WHERE genesis_hash = ? AND NOT banned", (genesis_hash,))
    db.execute(
        "UPDATE names SET freed_s = coalesce(freed_s, ?), claim = x'' WHERE genesis_hash = ?",
        (now_s, genesis_hash),
    )


def _insert_head(db: apsw.Connection, genesis_hash: bytes, head: bytes) -> None:
    db.execute(
        "INSERT INTO heads (genesis_hash, head) VALUES (?, ?) ON CONFLICT DO NOTHING", (genesis_hash, head)
    )


# --- what the operator decides ---


def rule(db: apsw.Connection, ruling: Ruling) -> bool:
    known = _row(db, "SELECT 1 FROM accounts WHERE genesis_hash = ?", ruling.genesis_hash)
    if known is None and not _row(db, RULING, ruling.genesis_hash):
        return False
    if ruling.says_nothing:
        db.execute("DELETE FROM rulings WHERE genesis_hash = ?", (ruling.genesis_hash,))
    else:
        db.execute(
            "INSERT OR REPLACE INTO rulings (genesis_hash, banned, count_max, max_bytes, blobs_max_bytes) "
            "VALUES (?, ?, ?, ?, ?)",
            astuple(ruling),
        )
    return True


# --- devices and their prekeys ---


def login(db: apsw.Connection, device_hash: bytes, client_nonce: bytes) -> DeviceRow | None:
    before = _row(db, DEVICE, device_hash)
    if before is None:
        return None
    db.execute("UPDATE devices SET last_nonce = ? WHERE device_hash = ?", (client_nonce, device_hash))
    return DeviceRow(*before)


def publish(db: apsw.Connection, device_hash: bytes, number: int, batch: bytes, slots: bytes) -> bool:
    held = _value(db, "SELECT manifest_number FROM devices WHERE device_hash = ?", device_hash)
    if held is None or number < held:
        return False
    if number == held:
        return bool(_value(db, "SELECT batch FROM batches WHERE device_hash = ?", device_hash) == batch)
    db.execute(
        "INSERT INTO batches (device_hash, batch) VALUES (?, ?) "
        "ON CONFLICT (device_hash) DO UPDATE SET batch = excluded.batch",
        (device_hash, batch),
    )
    db.execute(
        "UPDATE devices SET manifest_number = ?, slots = ? WHERE device_hash = ?",
        (number, slots, device_hash),
    )
    return True


def take_pair(db: apsw.Connection, genesis_hash: bytes, device_hash: bytes, pick: int | None) -> Taken | None:
    row = _row(
        db,
        "SELECT batch, slots FROM devices JOIN batches USING (device_hash) "
        "WHERE device_hash = ? AND genesis_hash = ?",
        device_hash,
        genesis_hash,
    )
    if row is None:
        return None
    batch, slots = row
    if pick is None or not slots:
        return Taken(batch, None, len(slots))
    at = pick % len(slots)
    left = slots[:at] + slots[at + 1 :]
    db.execute("UPDATE devices SET slots = ? WHERE device_hash = ?", (left, device_hash))
    return Taken(batch, slots[at], len(left))


# --- names and invites ---


def _name_free(db: apsw.Connection, row: NameRow) -> bool:
    holder = _value(db, "SELECT genesis_hash FROM names WHERE name = ?", row.name)
    return holder is None or bool(holder == row.genesis_hash)


def _insert_name(db: apsw.Connection, row: NameRow) -> None:
    db.execute(
        "INSERT INTO names (name, genesis_hash, claim) VALUES (?, ?, ?) "
        "ON CONFLICT (name) DO UPDATE SET claim = excluded.claim, freed_s = NULL",
        (row.name, row.genesis_hash, row.claim),
    )


def claim_name(db: apsw.Connection, row: NameRow, now_s: int) -> bool:
    if not _name_free(db, row):
        return False
    db.execute(
        "UPDATE names SET freed_s = ? WHERE genesis_hash = ? AND freed_s IS NULL AND name != ?",
        (now_s, row.genesis_hash, row.name),
    )
    _insert_name(db, row)
    return True


def put_invite(db: apsw.Connection, row: InviteRow, open_max: int, now_s: int) -> str:
    known = _row(db, "SELECT creator FROM invites WHERE token_hash = ?", row.token_hash)
    if known is not None:
        return "" if known[0] == row.creator else api.CONFLICT
    if row.creator is None:
        db.execute("DELETE FROM invites WHERE creator IS NULL AND spent_by IS NULL")
    else:
        is_open = _value(
            db,
            "SELECT count(*) FROM invites WHERE creator = ? AND spent_by IS NULL AND expires_s > ?",
            row.creator,
            now_s,
        )
        if is_open >= open_max:
            return api.RATE_LIMITED
    db.execute(
        "INSERT INTO invites (token_hash, creator, expires_s) VALUES (?, ?, ?)",
        (row.token_hash, row.creator, row.expires_s),
    )
    return ""


# --- mailboxes ---


def append(db: apsw.Connection, mail: tuple[Mail, ...], quota: Quota, ids: MailIds) -> tuple[str, ...]:
    return tuple(_append(db, one, quota, ids) for one in mail)


def _append(db: apsw.Connection, mail: Mail, quota: Quota, ids: MailIds) -> str:
    device = _row(
        db,
        "SELECT d.id, d.mail_count, d.mail_bytes, a.head, r.count_max, r.max_bytes "
        "FROM devices d JOIN accounts a USING (genesis_hash) LEFT JOIN rulings r USING (genesis_hash) "
        "WHERE d.device_hash = ? AND d.genesis_hash = ?",
        mail.device_hash,
        mail.genesis_hash,
    )
    if device is None:
        return api.UNKNOWN
    number, count, size_bytes, head, count_max, max_bytes = device
    held = _value(
        db, "SELECT envelope FROM mail WHERE device = ? AND envelope_id = ?", number, mail.envelope_id
    )
    if held is not None:
        return "" if held == mail.envelope else api.CONFLICT
    if mail.head != head and _row(
        db, "SELECT 1 FROM heads WHERE genesis_hash = ? AND head = ?", mail.genesis_hash, mail.head
    ):
        return api.STALE_LIST
    size = len(mail.envelope)
    count_max = quota.count if count_max is None else count_max
    max_bytes = quota.size_bytes if max_bytes is None else max_bytes
    if count >= count_max or size_bytes + size > max_bytes:
        return api.MAILBOX_FULL
    db.execute(
        "INSERT INTO mail (id, device, envelope_id, expires_h, envelope) VALUES (?, ?, ?, ?, ?)",
        (ids.next(), number, mail.envelope_id, mail.expires_h, mail.envelope),
    )
    _count(db, number, 1, size)
    return ""


def acknowledge(
    db: apsw.Connection, device_hash: bytes, envelope_ids: tuple[bytes, ...]
) -> tuple[bytes, ...]:
    number = _value(db, "SELECT id FROM devices WHERE device_hash = ?", device_hash)
    if number is None:
        return ()
    deleted: list[bytes] = []
    freed = 0
    for envelope_id in envelope_ids:
        size = _value(
            db,
            "DELETE FROM mail WHERE device = ? AND envelope_id = ? RETURNING length(envelope)",
            number,
            envelope_id,
        )
        if size is not None:
            deleted.append(envelope_id)
            freed += size
    if deleted:
        _count(db, number, -len(deleted), -freed)
    return tuple(deleted)


def _count(db: apsw.Connection, number: int, count: int, size_bytes: int) -> None:
    db.execute(
        "UPDATE devices SET mail_count = mail_count + ?, mail_bytes = mail_bytes + ? WHERE id = ?",
        (count, size_bytes, number),
    )


# --- upkeep ---


def due(now_s: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Queries that find a row exactly when ``expire`` has work."""
    yield "SELECT 1 FROM mail WHERE expires_h <= ? LIMIT 1", (now_s // 3600,)
    yield "SELECT 1 FROM invites WHERE expires_s <= ? LIMIT 1", (now_s,)
    yield "SELECT 1 FROM names WHERE freed_s <= ? LIMIT 1", (_rested(now_s),)
    yield blobs.DUE, (now_s // 3600,)


def _rested(now_s: int) -> int:
    return now_s - limits.NAME_REST_DAYS * limits.DAY_S


def expire(db: apsw.Connection, now_s: int, limit: int) -> int:
    mail: list[tuple[Any, ...]] = db.execute(
        "DELETE FROM mail WHERE id IN (SELECT id FROM mail WHERE expires_h <= ? ORDER BY id LIMIT ?) "
        "RETURNING device, length(envelope)",
        (now_s // 3600, limit),
    ).fetchall()
    for number, size in mail:
        _count(db, int(number), -1, -int(size))
    others = 0
    for sql, bound in (
        (
            "DELETE FROM invites WHERE rowid IN (SELECT rowid FROM invites WHERE expires_s <= ? LIMIT ?)",
            now_s,
        ),
        (
            "DELETE FROM names WHERE rowid IN (SELECT rowid FROM names WHERE freed_s <= ? LIMIT ?)",
            _rested(now_s),
        ),
    ):
        db.execute(sql, (bound, limit))
        others += db.changes()
    return len(mail) + others + blobs.expire(db, now_s // 3600)


_HELD: Final = (
    ("accounts", "SELECT * FROM accounts WHERE genesis_hash = :g"),
    ("heads", "SELECT * FROM heads WHERE genesis_hash = :g ORDER BY rowid"),
    (
        "devices",
        "SELECT device_hash, genesis_hash, last_nonce, manifest_number, slots, mail_count, mail_bytes "
        "FROM devices WHERE genesis_hash = :g ORDER BY id",
    ),
    (
        "batches",
        "SELECT device_hash, batch FROM batches JOIN devices USING (device_hash) "
        "WHERE genesis_hash = :g ORDER BY devices.id",
    ),
    ("names", "SELECT * FROM names WHERE genesis_hash = :g ORDER BY rowid"),
    ("invites", "SELECT * FROM invites WHERE creator = :g OR spent_by = :g ORDER BY rowid"),
    ("rulings", "SELECT * FROM rulings WHERE genesis_hash = :g"),
    (
        "blobs",
        "SELECT genesis_hash, blob_id, size_bytes, received, committed, expires_h FROM blobs "
        "WHERE genesis_hash = :g ORDER BY id",
    ),
    (
        "mail",
        "SELECT m.id, d.device_hash, m.envelope_id, m.expires_h, m.envelope "
        "FROM mail m JOIN devices d ON d.id = m.device "
        "WHERE d.genesis_hash = :g OR instr(m.envelope, :g) ORDER BY m.id",
    ),
)


def held(db: apsw.Connection, genesis_hash: bytes) -> tuple[Held, ...]:
    if not _row(db, "SELECT 1 FROM accounts WHERE genesis_hash = ?", genesis_hash):
        return ()
    rows: list[Held] = []
    for table, sql in _HELD:
        cursor = db.execute(sql, {"g": genesis_hash})
        names: tuple[str, ...] = ()
        for row in cursor:
            names = names or tuple(column[0] for column in cursor.description)
            rows.append(Held(table, tuple(zip(names, row, strict=True))))
    return tuple(rows)
