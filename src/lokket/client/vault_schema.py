"""The vault's schema: numbered migrations, each one transaction; ``user_version`` counts them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

import apsw

from lokket.errors import LocalError

APPLICATION_ID: Final = 0x6C6B_7631  # "lkv1"

# What each version added. A published version is never edited: a new table is a new line.
TABLES: Final = (
    (
        "account", "contact", "petname", "peer", "session", "prekey", "batch",
        "message", "message_id", "stream", "outbox", "awaiting", "awaiting_id",
        "inbox", "seen", "receipt", "first_message", "healing", "invite", "errand", "notice",
    ),
    ("cursor", "dead_letter"),
)  # fmt: skip
TABLES_NOW: Final = tuple(table for version in TABLES for table in version)
# Counts transactions, so that a log that went missing is noticed (``vault_mark``). Of every version.
_COUNTER: Final = "CREATE TABLE commits (number INTEGER NOT NULL) STRICT; INSERT INTO commits VALUES (0)"
COUNTED: Final = "SELECT number FROM commits"
COUNT_ON: Final = "UPDATE commits SET number = number + 1 RETURNING number"
_COLUMNS: Final = "key BLOB PRIMARY KEY NOT NULL, value BLOB NOT NULL"
SCHEMA: Final = len(TABLES)


def migrate(connection: apsw.Connection) -> None:
    """Bring the schema to this version. LocalError: a newer lokket's, or no vault."""
    version, application = connection.pragma("user_version"), connection.pragma("application_id")
    if application not in (0, APPLICATION_ID) or (application == 0 and version):
        raise LocalError("this file is another program's, not a vault: choose another --profile")
    if version > SCHEMA:
        raise LocalError(
            f"this vault has schema {version}, this lokket knows {SCHEMA}: "
            "a newer lokket wrote it; install that version again"
        )
    for number in range(version, SCHEMA):
        with _whole(connection):
            for table in TABLES[number]:
                # Measured: with values of kilobytes, faster than WITHOUT ROWID.
                connection.execute(f"CREATE TABLE {table} ({_COLUMNS}) STRICT")
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {number + 1}")
    if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'commits'").fetchall():
        with _whole(connection):
            connection.execute(_COUNTER)


@contextlib.contextmanager
def _whole(connection: apsw.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
