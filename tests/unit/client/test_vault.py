"""The vault: what it keeps, what it refuses, and what a thief of its files finds."""

from __future__ import annotations

import multiprocessing
import os
import random
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from lokket.client import vault, vault_schema
from lokket.client.vault import Vault, open_vault, require_cipher_sqlite
from lokket.engine.store import MESSAGE, SEEN, SESSION, TABLES
from lokket.errors import LocalError
from tests.support.pages import readable

KEY = bytes(range(1, 33))
CANARY = b"the canary sings only in memory"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "profile"


@pytest.fixture
def opened(folder: Path) -> Iterator[Vault]:
    made = open_vault(folder, KEY, create=True)
    yield made
    made.close()


def file_bytes(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


def open_and_check(folder: Path) -> None:
    made = open_vault(folder, KEY)
    faults = made.faults()
    made.close()
    if faults:
        raise LocalError(f"damaged: {faults}")


# --- a transaction ---


def test_every_table_of_the_engine_has_one_in_the_schema() -> None:
    assert set(vault_schema.TABLES_NOW) == set(TABLES), "add a migration to vault_schema.TABLES"


def test_get_put_delete(opened: Vault) -> None:
    with opened.transaction() as tx:
        assert tx.get(SEEN, b"a") is None
        tx.put(SEEN, b"a", b"1")
        tx.put(SEEN, b"a", b"2")
        tx.put(SESSION, b"a", b"other table")
        tx.delete(SEEN, b"nobody")
    with opened.transaction() as tx:
        assert tx.get(SEEN, b"a") == b"2"
        tx.delete(SEEN, b"a")
        assert tx.get(SEEN, b"a") is None


def test_scan_is_the_reference_scan(opened: Vault) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    alphabet = [b"", b"\x00", b"a", b"a\x00", b"a\xff", b"a\xff\xff", b"b", b"\xff", b"\xff\xff"]
    rows = {
        chance.choice(alphabet) + chance.randbytes(chance.randrange(3)): chance.randbytes(4)
        for _ in range(900)
    }
    with opened.transaction() as tx:
        for key, value in rows.items():
            tx.put(SEEN, key, value)
        for prefix in alphabet:
            for after in (None, *chance.sample(sorted(rows), 5), b"\xff\xff\xff\xff"):
                for reverse in (False, True):
                    expected = sorted(
                        (
                            (key, value)
                            for key, value in rows.items()
                            if key.startswith(prefix)
                            and (after is None or (key < after if reverse else key > after))
                        ),
                        reverse=reverse,
                    )
                    found = list(tx.scan(SEEN, prefix, after=after, reverse=reverse))
                    assert found == expected, (seed, prefix, after, reverse)


def test_rows_may_change_while_a_scan_goes_on(opened: Vault) -> None:
    with opened.transaction() as tx:
        for at in range(1000):
            tx.put(SEEN, at.to_bytes(2, "big"), b"")
        for key, _ in tx.scan(SEEN):
            tx.delete(SEEN, key)
        assert list(tx.scan(SEEN)) == []


def test_an_exception_takes_everything_back(opened: Vault) -> None:
    with opened.transaction() as tx:
        tx.put(SEEN, b"kept", b"1")

    def fail() -> None:
        with opened.transaction() as tx:
            tx.put(SEEN, b"kept", b"2")
            tx.put(SEEN, b"new", b"2")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with opened.transaction() as tx:
        assert dict(tx.scan(SEEN)) == {b"kept": b"1"}


def test_what_was_committed_survives_the_process(folder: Path) -> None:
    """The child is killed right after its commit; nothing was closed or tidied."""

    def child() -> None:
        made = open_vault(folder, KEY, create=True)
        with made.transaction() as tx:
            tx.put(SEEN, b"a", b"1")
        os.kill(os.getpid(), 9)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(30)
    assert process.exitcode == -9
    again = open_vault(folder, KEY)
    with again.transaction() as tx:
        assert tx.get(SEEN, b"a") == b"1"
    again.close()


def test_settings_hold(opened: Vault) -> None:
    connection = opened._connection
    assert connection.pragma("journal_mode") == "wal"
    assert connection.pragma("synchronous") == 2  # FULL
    assert connection.pragma("secure_delete") == 1
    assert connection.pragma("cipher") == "chacha20"
    assert connection.pragma("locking_mode") == "exclusive"


# --- what a thief finds ---


@pytest.mark.attack(92)
def test_neither_plaintext_nor_key_is_in_any_file(folder: Path, opened: Vault) -> None:
    with opened.transaction() as tx:
        tx.put(MESSAGE, b"key " + CANARY, CANARY * 500)
    for _ in range(2):  # with the log, then without
        data = file_bytes(folder)
        assert len(data) > 10_000
        for secret in (CANARY, KEY, KEY.hex().encode(), b"SQLite format", b"CREATE TABLE"):
            assert secret not in data
        opened.close()
    assert not (folder / "vault.db-wal").exists()


@pytest.mark.attack(36)
@pytest.mark.parametrize("size", [40, 300, 5_000, 40_000])
def test_what_was_deleted_is_gone_even_for_who_has_the_key(folder: Path, opened: Vault, size: int) -> None:
    value = (CANARY * (1 + size // len(CANARY)))[:size]
    with opened.transaction() as tx:
        tx.put(MESSAGE, b"kept", b"what stays is found")
        tx.put(SESSION, b"deleted", value)
        tx.put(SESSION, b"replaced", value)
    assert CANARY in readable(folder, KEY)  # the search works
    with opened.transaction() as tx:
        tx.delete(SESSION, b"deleted")
        tx.put(SESSION, b"replaced", b"another")
    opened.tidy()
    assert (folder / "vault.db-wal").stat().st_size == 0
    plain = readable(folder, KEY)
    assert b"what stays is found" in plain
    assert CANARY not in plain


@pytest.mark.attack(92)
def test_files_are_for_their_owner_alone(folder: Path) -> None:
    before = os.umask(0)
    try:
        made = open_vault(folder, KEY, create=True)
        with made.transaction() as tx:
            tx.put(SEEN, b"a", b"1")
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
        made.close()
    finally:
        os.umask(before)
    assert set(modes) == {"vault.db", "vault.db-wal", "vault.lock", "vault.mark"}
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_loose_modes_are_tightened(folder: Path) -> None:
    open_vault(folder, KEY, create=True).close()
    (folder / "vault.db").chmod(0o644)
    open_vault(folder, KEY).close()
    assert stat.S_IMODE((folder / "vault.db").stat().st_mode) == 0o600


@pytest.mark.attack(98)
def test_no_trace_is_shown_the_key(folder: Path) -> None:
    """A host program traces every statement of every connection; the key is in none that it sees."""
    seen: list[str] = []

    def hook(connection: apsw.Connection) -> None:
        def trace(cursor: apsw.Cursor, sql: str, bindings: object) -> bool:
            seen.append(f"{sql} {bindings}")
            return True

        connection.exec_trace = trace
        connection.trace_v2(apsw.SQLITE_TRACE_STMT, lambda event: seen.append(str(event)))

    apsw.connection_hooks.append(hook)
    try:
        open_vault(folder, KEY, create=True).close()
    finally:
        apsw.connection_hooks.remove(hook)
    assert KEY.hex() not in " ".join(seen)


# --- what it refuses ---


@pytest.mark.attack(92)
@pytest.mark.parametrize("key", [bytes(32), KEY[:-1] + b"\x00"])
def test_the_wrong_key_is_refused_in_a_sentence(folder: Path, key: bytes) -> None:
    open_vault(folder, KEY, create=True).close()
    before = (folder / "vault.db").read_bytes()
    with pytest.raises(LocalError, match="does not open the vault"):
        open_vault(folder, key)
    assert (folder / "vault.db").read_bytes() == before
    open_vault(folder, KEY).close()  # and the refused one left no lock


@pytest.mark.parametrize("key", [b"", KEY[:-1], KEY + b"\x00", b"passphrase"])
def test_a_malformed_key_never_becomes_a_passphrase(folder: Path, key: bytes) -> None:
    with pytest.raises(LocalError, match="32 bytes"):
        open_vault(folder, key, create=True)


@pytest.mark.attack(92)
def test_a_plaintext_file_is_refused_and_left_alone(folder: Path) -> None:
    folder.mkdir()
    plain = sqlite3.connect(folder / "vault.db")
    plain.execute("CREATE TABLE account (key, value)")
    plain.commit()
    plain.close()
    before = (folder / "vault.db").read_bytes()
    with pytest.raises(LocalError, match="not encrypted"):
        open_vault(folder, KEY)
    assert (folder / "vault.db").read_bytes() == before


def test_a_cipher_that_does_not_take_is_noticed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a mistyped pragma would leave it: SQLite goes on happily, in the clear."""
    monkeypatch.setattr(vault, "unlock", lambda connection, key: None)
    with pytest.raises(LocalError, match="not encrypted"):
        open_vault(folder, KEY, create=True)


@pytest.mark.attack(97)
def test_a_second_process_is_refused_with_the_first_one_named(folder: Path, opened: Vault) -> None:
    def child(connection: multiprocessing.connection.Connection) -> None:
        try:
            open_vault(folder, KEY)
        except LocalError as error:
            connection.send(str(error))
        else:
            connection.send("it was opened")

    here, there = multiprocessing.get_context("fork").Pipe()
    process = multiprocessing.get_context("fork").Process(target=child, args=(there,))
    process.start()
    assert here.poll(30)
    sentence = here.recv()
    process.join(30)
    assert f"process {os.getpid()}" in sentence
    assert "using this vault" in sentence


@pytest.mark.attack(97)
def test_a_second_vault_in_this_process_is_refused_too(folder: Path, opened: Vault) -> None:
    with pytest.raises(LocalError, match="using this vault"):
        open_vault(folder, KEY)
    opened.close()
    open_vault(folder, KEY).close()


@pytest.mark.attack(40)
@pytest.mark.parametrize(
    ("version", "ciphers", "sentence"),
    [
        ("3.54.0", "", "cannot encrypt"),
        ("3.51.2", "SQLite3 Multiple Ciphers 2.2.7", "corrupt its log"),
        ("3.40.1", "SQLite3 Multiple Ciphers 1.5", "corrupt its log"),
    ],
)
def test_the_wrong_sqlite_is_refused(version: str, ciphers: str, sentence: str) -> None:
    with pytest.raises(LocalError, match=sentence):
        require_cipher_sqlite(version, ciphers)


def test_the_right_sqlite_is_installed() -> None:
    require_cipher_sqlite("3.51.3", "SQLite3 Multiple Ciphers 2.2.8")
    require_cipher_sqlite(apsw.sqlite_lib_version(), apsw.mc_version)


@pytest.mark.attack(117)
def test_a_newer_schema_is_refused(folder: Path) -> None:
    made = open_vault(folder, KEY, create=True)
    made._connection.pragma("user_version", vault_schema.SCHEMA + 1)
    made.close()
    with pytest.raises(LocalError, match="newer lokket"):
        open_vault(folder, KEY)


@pytest.mark.attack(117)
def test_a_migration_that_fails_leaves_the_schema_before_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_vault(folder, KEY, create=True).close()
    monkeypatch.setattr(vault_schema, "SCHEMA", vault_schema.SCHEMA + 1)
    monkeypatch.setattr(vault_schema, "TABLES", (*vault_schema.TABLES, ("fine", "not a name;")))
    with pytest.raises(apsw.SQLError):
        open_vault(folder, KEY)
    monkeypatch.undo()
    again = open_vault(folder, KEY)
    names = {row[0] for row in again._connection.execute("SELECT name FROM sqlite_schema")}
    assert "fine" not in names
    again.close()


def test_another_programs_file_is_refused(folder: Path) -> None:
    open_vault(folder, KEY, create=True).close()
    connection = apsw.Connection(str(folder / "vault.db"))
    vault.unlock(connection, KEY)
    connection.pragma("application_id", 7)
    connection.close()
    with pytest.raises(LocalError, match="another program"):
        open_vault(folder, KEY)


def test_create_never_overwrites(folder: Path) -> None:
    open_vault(folder, KEY, create=True).close()
    before = (folder / "vault.db").read_bytes()
    with pytest.raises(LocalError, match="already"):
        open_vault(folder, KEY, create=True)
    assert (folder / "vault.db").read_bytes() == before


def test_a_vault_that_was_never_finished_does_not_stand_in_the_way(folder: Path) -> None:
    folder.mkdir()
    (folder / "vault.draft").write_bytes(b"left by a crash")
    (folder / "vault.draft-wal").write_bytes(b"left by a crash")
    open_vault(folder, KEY, create=True).close()
    assert sorted(path.name for path in folder.iterdir()) == ["vault.db", "vault.lock", "vault.mark"]


def test_no_vault_there(folder: Path) -> None:
    with pytest.raises(LocalError, match="no vault"):
        open_vault(folder, KEY)
    assert not folder.exists()


@pytest.mark.attack(94)
def test_a_flipped_bit_is_noticed_and_nothing_is_written(folder: Path) -> None:
    """Wherever it is: at opening, when the row is read, or by the doctor; never a wrong value."""
    made = open_vault(folder, KEY, create=True)
    rows = {at.to_bytes(2, "big"): random.Random(at).randbytes(600) for at in range(60)}
    with made.transaction() as tx:
        for key, value in rows.items():
            tx.put(MESSAGE, key, value)
    made.close()
    original = (folder / "vault.db").read_bytes()
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(60):
        place = chance.randrange(len(original))
        damaged = bytearray(original)
        damaged[place] ^= 1 << chance.randrange(8)
        (folder / "vault.db").write_bytes(damaged)
        noticed = False
        try:
            made = open_vault(folder, KEY)
        except LocalError:
            noticed = True
        else:
            try:
                with made.transaction() as tx:
                    assert dict(tx.scan(MESSAGE)) == rows
            except LocalError:
                noticed = True
            noticed = noticed or bool(made.faults())
            made.close()
        # Bytes 16 to 23 of page 1 stay in the clear for SQLite, which may not care about each bit of them.
        assert noticed or 16 <= place < 24, (seed, place)


@pytest.mark.attack(94)
@pytest.mark.parametrize("size", [0, 1, 15, 100, 4096, 5000])
def test_a_truncated_file_is_refused_in_a_sentence(folder: Path, size: int) -> None:
    made = open_vault(folder, KEY, create=True)
    with made.transaction() as tx:
        tx.put(MESSAGE, b"a", CANARY * 1000)
    made.close()
    with (folder / "vault.db").open("r+b") as file:
        file.truncate(size)
    with pytest.raises(LocalError, match="damaged"):
        open_and_check(folder)


def killed_after(folder: Path, commits: int, key: bytes = KEY) -> bytes:
    """The log that a killed process left: so many transactions of two rows each."""

    def child() -> None:
        made = open_vault(folder, key, create=True)
        for at in range(commits):
            with made.transaction() as tx:
                tx.put(SEEN, b"first" + bytes([at]), b"1" * 900)
                tx.put(SESSION, b"second" + bytes([at]), b"1" * 900)
        os.kill(os.getpid(), 9)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(30)
    return (folder / "vault.db-wal").read_bytes()


@pytest.mark.attack(94)
def test_a_log_that_was_cut_short_ends_at_a_commit(folder: Path) -> None:
    """A torn end of the log is a power cut like any other: whole transactions, none in part."""
    log, whole = folder / "vault.db-wal", killed_after(folder, 20)
    database = (folder / "vault.db").read_bytes()
    assert len(whole) > 40_000
    for size in (len(whole) - 1, len(whole) // 2, 5000, 32, 0):
        (folder / "vault.mark").unlink()  # never synced: the power took it, too
        (folder / "vault.db").write_bytes(database)
        log.write_bytes(whole[:size])
        made = open_vault(folder, KEY)
        with made.transaction() as tx:
            firsts = {key[5:] for key, _ in tx.scan(SEEN)}
            seconds = {key[6:] for key, _ in tx.scan(SESSION)}
        assert firsts == seconds
        made.close()


@pytest.mark.attack(93, 94)
@pytest.mark.parametrize("what", ["cut", "missing", "bit", "older", "foreign"])
def test_a_log_that_lost_what_was_committed_is_noticed_and_left_alone(folder: Path, what: str) -> None:
    log, whole = folder / "vault.db-wal", killed_after(folder, 20)
    match what:
        case "cut":
            log.write_bytes(whole[:-1])
        case "missing":
            log.unlink()
        case "bit":
            log.write_bytes(whole[:-2000] + bytes([whole[-2000] ^ 4]) + whole[-1999:])
        case "older":
            log.write_bytes(whole[: len(whole) // 2])
        case "foreign":
            log.write_bytes(killed_after(folder.with_name("other"), 25, bytes(32)))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(vault.VaultDamaged):
        open_vault(folder, KEY)
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    if what == "missing":
        assert after.pop("vault.db-wal") == b""
    before["vault.lock"] = after["vault.lock"]
    assert after == before


@pytest.mark.attack(93)
def test_an_older_database_in_its_place_is_noticed(folder: Path) -> None:
    made = open_vault(folder, KEY, create=True)
    made.close()
    older = (folder / "vault.db").read_bytes()
    made = open_vault(folder, KEY)
    with made.transaction() as tx:
        tx.put(SEEN, b"a", b"1")
    made.close()
    (folder / "vault.db").write_bytes(older)
    with pytest.raises(vault.VaultDamaged, match="lacks its last changes"):
        open_vault(folder, KEY)


@pytest.mark.parametrize("mark", [b"", b"torn", bytes(40), b"\xff" * 40])
def test_a_mark_that_does_not_hold_says_nothing(folder: Path, mark: bytes) -> None:
    made = open_vault(folder, KEY, create=True)
    with made.transaction() as tx:
        tx.put(SEEN, b"a", b"1")
    made.close()
    (folder / "vault.mark").write_bytes(mark)
    open_vault(folder, KEY).close()


def test_reading_is_no_commit(folder: Path) -> None:
    made = open_vault(folder, KEY, create=True)
    with made.transaction() as tx:
        tx.put(SEEN, b"a", b"1")
    mark = (folder / "vault.mark").read_bytes()
    with made.transaction() as tx:
        assert tx.get(SEEN, b"a") == b"1"
    assert (folder / "vault.mark").read_bytes() == mark
    made.probe()
    assert (folder / "vault.mark").read_bytes() != mark
    made.close()


@pytest.mark.attack(98)
def test_repr_shows_no_key(opened: Vault) -> None:
    assert KEY.hex() not in repr(opened)
    assert repr(KEY) not in repr(vars(opened))
