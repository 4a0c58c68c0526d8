"""The SQLite schema of the relay: numbered migrations, each one transaction; ``user_version`` counts them."""

from __future__ import annotations

from typing import Final

import apsw

from lokket.errors import LocalError

APPLICATION_ID: Final = 0x6C6B_7231  # "lkr1": a relay's data, not some other database

MIGRATIONS: Final[tuple[str, ...]] = (
    """
    CREATE TABLE accounts (
        genesis_hash BLOB NOT NULL UNIQUE,
        account_id BLOB NOT NULL UNIQUE,
        head BLOB NOT NULL,
        key_epoch INTEGER NOT NULL,
        version INTEGER NOT NULL,
        state BLOB NOT NULL,
        chain BLOB NOT NULL
    ) STRICT;
    CREATE TABLE heads (
        genesis_hash BLOB NOT NULL,
        head BLOB NOT NULL,
        UNIQUE (genesis_hash, head)
    ) STRICT;
    CREATE TABLE devices (
        id INTEGER PRIMARY KEY,
        device_hash BLOB NOT NULL UNIQUE,
        genesis_hash BLOB NOT NULL,
        last_nonce BLOB,
        manifest_number INTEGER NOT NULL DEFAULT 0,
        slots BLOB NOT NULL DEFAULT x'',
        mail_count INTEGER NOT NULL DEFAULT 0,
        mail_bytes INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX devices_by_account ON devices (genesis_hash);
    CREATE TABLE batches (
        device_hash BLOB NOT NULL UNIQUE,
        batch BLOB NOT NULL
    ) STRICT;
    CREATE TABLE names (
        name TEXT NOT NULL UNIQUE,
        genesis_hash BLOB NOT NULL,
        claim BLOB NOT NULL,
        freed_s INTEGER
    ) STRICT;
    CREATE INDEX names_by_account ON names (genesis_hash);
    CREATE INDEX names_by_rest ON names (freed_s) WHERE freed_s IS NOT NULL;
    CREATE TABLE invites (
        token_hash BLOB NOT NULL UNIQUE,
        creator BLOB,
        expires_s INTEGER NOT NULL,
        spent_by BLOB
    ) STRICT;
    CREATE INDEX invites_by_creator ON invites (creator);
    CREATE INDEX invites_by_expiry ON invites (expires_s);
    CREATE TABLE mail (
        id INTEGER PRIMARY KEY,
        device INTEGER NOT NULL,
        envelope_id BLOB NOT NULL,
        expires_h INTEGER NOT NULL,
        envelope BLOB NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX mail_by_envelope ON mail (device, envelope_id);
    CREATE INDEX mail_by_device ON mail (device, id);
    CREATE INDEX mail_by_expiry ON mail (expires_h);
    """,
    """
    CREATE TABLE rulings (
        genesis_hash BLOB NOT NULL UNIQUE,
        banned INTEGER NOT NULL,
        count_max INTEGER,
        max_bytes INTEGER
    ) STRICT;
    """,
    """
    CREATE TABLE blobs (
        id INTEGER PRIMARY KEY,
        genesis_hash BLOB NOT NULL,
        blob_id BLOB NOT NULL,
        size_bytes INTEGER NOT NULL,
        received INTEGER NOT NULL DEFAULT 0,
        committed INTEGER NOT NULL DEFAULT 0,
        expires_h INTEGER NOT NULL,
        UNIQUE (genesis_hash, blob_id)
    ) STRICT;
    CREATE INDEX blobs_by_expiry ON blobs (expires_h);
    CREATE TABLE blob_parts (
        blob INTEGER NOT NULL,
        at INTEGER NOT NULL,
        part BLOB NOT NULL,
        UNIQUE (blob, at)
    ) STRICT;
    ALTER TABLE rulings ADD COLUMN blobs_max_bytes INTEGER;
    """,
)


def require_current(connection: apsw.Connection) -> None:
    """LocalError unless the schema is exactly this version's: for reading without migrating."""
    found = (pragma(connection, "application_id"), pragma(connection, "user_version"))
    if found != (APPLICATION_ID, len(MIGRATIONS)):
        raise LocalError("the data file is not of this version of lokket; start the relay once with this one")


def migrate(connection: apsw.Connection) -> None:
    """Bring the schema to this version. LocalError: the file is another program's, or of a newer lokket."""
    version = pragma(connection, "user_version")
    application = pragma(connection, "application_id")
    if application not in (0, APPLICATION_ID) or (application == 0 and version):
        raise LocalError("the data file is not a lokket relay's; name another data directory")
    if version > len(MIGRATIONS):
        raise LocalError(
            f"the relay's data has schema {version}, this lokket knows {len(MIGRATIONS)}: "
            "it was written by a newer version; install that version again"
        )
    for number in range(version, len(MIGRATIONS)):
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.execute(MIGRATIONS[number])
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {number + 1}")
            connection.execute("COMMIT")
        except apsw.Error:
            connection.execute("ROLLBACK")
            raise


def pragma(connection: apsw.Connection, name: str) -> int:
    """Of those that are numbers."""
    value = connection.pragma(name)
    assert isinstance(value, int)
    return value
