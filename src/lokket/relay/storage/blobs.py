"""What the SQLite storage does with blobs: one function per verb of ``base.Storage``.

Parts are rows, so that an upload which was cut goes on where it was. Their sum stands in ``received``.
"""

from __future__ import annotations

from typing import Any, Final

import apsw

from lokket import limits
from lokket.relay.storage.base import BlobRow, Quota
from lokket.wire import api

_COLUMNS: Final = "blob_id, size_bytes, received, committed, expires_h"
LIST: Final = f"SELECT {_COLUMNS} FROM blobs WHERE genesis_hash = ? ORDER BY id"  # noqa: S608 (constants)
# The part that covers an offset is the last one which begins at it or before.
PART: Final = (
    "SELECT at, part FROM blob_parts WHERE blob = "
    "(SELECT id FROM blobs WHERE genesis_hash = ? AND blob_id = ? AND committed) AND at <= ? "
    "ORDER BY at DESC LIMIT 1"
)
DUE: Final = "SELECT 1 FROM blobs WHERE expires_h <= ? LIMIT 1"


def of(row: tuple[Any, ...]) -> BlobRow:
    return BlobRow(row[0], row[1], row[2], bool(row[3]), row[4])


def _row(db: apsw.Connection, sql: str, *bindings: Any) -> tuple[Any, ...] | None:
    rows = db.execute(sql, bindings).fetchall()
    return rows[0] if rows else None


def _found(db: apsw.Connection, genesis_hash: bytes, blob_id: bytes) -> tuple[int, BlobRow] | None:
    row = _row(
        db,
        f"SELECT id, {_COLUMNS} FROM blobs WHERE genesis_hash = ? AND blob_id = ?",  # noqa: S608
        genesis_hash,
        blob_id,
    )
    return (int(row[0]), of(row[1:])) if row is not None else None


def begin(db: apsw.Connection, genesis_hash: bytes, row: BlobRow, quota: Quota) -> str:
    found = _found(db, genesis_hash, row.blob_id)
    if found is not None:
        return "" if found[1].size_bytes == row.size_bytes else api.CONFLICT
    if not _row(db, "SELECT 1 FROM accounts WHERE genesis_hash = ?", genesis_hash):
        return api.UNKNOWN
    ruling = _row(db, "SELECT blobs_max_bytes FROM rulings WHERE genesis_hash = ?", genesis_hash)
    max_bytes = ruling[0] if ruling is not None and ruling[0] is not None else quota.size_bytes
    held = _row(
        db, "SELECT count(*), coalesce(sum(size_bytes), 0) FROM blobs WHERE genesis_hash = ?", genesis_hash
    )
    assert held is not None
    if held[0] >= quota.count or held[1] + row.size_bytes > max_bytes:
        return api.QUOTA_FULL
    db.execute(
        "INSERT INTO blobs (genesis_hash, blob_id, size_bytes, expires_h) VALUES (?, ?, ?, ?)",
        (genesis_hash, row.blob_id, row.size_bytes, row.expires_h),
    )
    return ""


def put_part(
    db: apsw.Connection, genesis_hash: bytes, blob_id: bytes, offset: int, part: bytes
) -> BlobRow | None:
    found = _found(db, genesis_hash, blob_id)
    if found is None:
        return None
    number, held = found
    if not held.committed and offset == held.received and offset + len(part) <= held.size_bytes:
        db.execute("INSERT INTO blob_parts (blob, at, part) VALUES (?, ?, ?)", (number, offset, part))
        db.execute("UPDATE blobs SET received = received + ? WHERE id = ?", (len(part), number))
        found = _found(db, genesis_hash, blob_id)
        assert found is not None
    return found[1]


def commit(db: apsw.Connection, genesis_hash: bytes, blob_id: bytes, expires_h: int) -> BlobRow | None:
    db.execute(
        "UPDATE blobs SET committed = 1, expires_h = ? "
        "WHERE genesis_hash = ? AND blob_id = ? AND received = size_bytes AND NOT committed",
        (expires_h, genesis_hash, blob_id),
    )
    found = _found(db, genesis_hash, blob_id)
    return found[1] if found is not None else None


def delete(db: apsw.Connection, genesis_hash: bytes, blob_id: bytes) -> None:
    found = _found(db, genesis_hash, blob_id)
    if found is not None:
        _delete(db, found[0])


def delete_all(db: apsw.Connection, genesis_hash: bytes) -> None:
    mine: list[tuple[Any, ...]] = db.execute(
        "SELECT id FROM blobs WHERE genesis_hash = ?", (genesis_hash,)
    ).fetchall()
    for (number,) in mine:
        _delete(db, int(number))


def expire(db: apsw.Connection, now_h: int) -> int:
    """Few of them in one call: one may have a thousand parts."""
    over: list[tuple[Any, ...]] = db.execute(
        "SELECT id FROM blobs WHERE expires_h <= ? LIMIT ?", (now_h, limits.EXPIRE_BLOBS_PER_UPKEEP)
    ).fetchall()
    for (number,) in over:
        _delete(db, int(number))
    return len(over)


def _delete(db: apsw.Connection, number: int) -> None:
    db.execute("DELETE FROM blob_parts WHERE blob = ?", (number,))
    db.execute("DELETE FROM blobs WHERE id = ?", (number,))
