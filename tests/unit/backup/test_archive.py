"""The archive format: bound to its account, version and counter, committed to its key, hostile inside."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lokket import limits
from lokket.codec import tls
from lokket.crypto.passphrase import USUAL, Costs, unwrap_key, wrap_key
from lokket.crypto.stream import Sealer
from lokket.errors import DecodeError, LocalError, LokketError, RemoteError
from lokket.protocol import backup, identity
from tests.support.entropy import SeededEntropy

ENTROPY = SeededEntropy("archive")
KEY = bytes(range(32))
HEADER = backup.Header(backup.FORMAT, b"g" * 32, 7, 1_790_000_000, None)
CHEAP = Costs(limits.BACKUP_MEMORY_MIN_KIB, 1, 1)
Records = list[tuple[int, bytes]]


def archive(records: Records, *, key: bytes = KEY, header: backup.Header = HEADER) -> bytes:
    writer = backup.ArchiveWriter(key, header, ENTROPY)
    return writer.start + b"".join(writer.add(*record) for record in records) + writer.finish()


def read(data: bytes, *, key: bytes = KEY, piece: int = 10_000) -> Records:
    started = backup.read_start(data)
    if started is None:
        raise DecodeError("cut in the header")
    _, start = started
    reader = backup.ArchiveReader(key, start)
    found: Records = []
    for at in range(len(start), len(data), piece):
        found += reader.feed(data[at : at + piece])
    return found + reader.finish()


def hostile(plaintext: bytes) -> bytes:
    """An archive whose key its maker has, and whose inside is as given."""
    start = backup.ArchiveWriter(KEY, HEADER, ENTROPY).start[: -(32 + 32)]
    sealer = Sealer(KEY, start, ENTROPY)
    return start + sealer.prologue + sealer.feed(plaintext) + sealer.finish()


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(1, 255), st.binary(max_size=300)), max_size=60), st.integers(1, 70_000))
def test_what_goes_in_comes_out(records: Records, piece: int) -> None:
    assert read(archive(records), piece=piece) == records


def test_large_archives() -> None:
    records = [(2, ENTROPY.draw(40_000)) for _ in range(20)]
    assert read(archive(records)) == records


def test_the_size_tells_little() -> None:
    """Of a hundred sizes a few are left; an eighth more at most."""
    sizes = {len(archive([(2, bytes(50_000 + extra))])) for extra in range(0, 1_000, 10)}
    assert len(sizes) <= 3
    for size in (10, 1_000, 123_456):
        assert size <= backup._padded(size) <= size * 1.13
        assert backup._padded(backup._padded(size)) == backup._padded(size)


@pytest.mark.attack(34)
def test_the_size_depends_on_lengths_alone() -> None:
    """Nothing is compressed: text that repeats takes what random text takes."""
    assert len(archive([(2, bytes(30_000))])) == len(archive([(2, ENTROPY.draw(30_000))]))


@pytest.mark.attack(99, 103)
def test_every_flipped_byte_is_refused() -> None:
    data = archive([(1, b"a contact"), (2, b"a message")])
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << at % 8
        with pytest.raises(LokketError):
            read(bytes(changed))


@pytest.mark.attack(103)
def test_every_cut_is_refused() -> None:
    data = archive([(2, ENTROPY.draw(60_000)) for _ in range(3)])
    _, start = backup.read_start(data) or (None, b"")
    chunks = range(len(start) + 64, len(data), 64 * 1024 + 16)
    cuts = {0, 3, 11, 12, 40, len(start), *chunks, *(at + 1 for at in chunks), len(data) - 1}
    for cut in cuts:
        with pytest.raises(RemoteError):
            read(data[:cut])
    with pytest.raises(RemoteError):
        read(data + b"\x00")


@pytest.mark.attack(99)
def test_no_archive_passes_for_one_of_another_account_version_or_counter() -> None:
    """Even with the right key: what the header says is under the commitment."""
    data = archive([(2, b"text")])
    header, start = backup.read_start(data) or (HEADER, b"")
    assert header == HEADER
    for other in (
        replace(header, genesis_hash=b"h" * 32),
        replace(header, counter=8),
        replace(header, created_s=header.created_s + 1),
        replace(header, wrapped=wrap_key(KEY, "another way in", ENTROPY, CHEAP)),
    ):
        encoded = tls.encode(other)
        forged = backup.MAGIC + len(encoded).to_bytes(4, "big") + encoded + data[len(start) :]
        with pytest.raises(RemoteError) as refused:
            read(forged)
        assert refused.value.code == "wrong-key"
    newer = bytearray(data)
    newer[len(backup.MAGIC) + 5] = backup.FORMAT + 1
    with pytest.raises(RemoteError) as refused:
        read(bytes(newer))
    assert refused.value.code == "version"


@pytest.mark.attack(100)
def test_another_key_is_refused_before_anything_is_opened() -> None:
    with pytest.raises(RemoteError) as refused:
        read(archive([(2, b"text")]), key=bytes(32))
    assert refused.value.code == "wrong-key"


@pytest.mark.attack(100, 101)
def test_a_passphrase_is_committed_to_and_costs_what_it_should() -> None:
    wrapped = wrap_key(KEY, "correct horse", ENTROPY, CHEAP)
    header = replace(HEADER, wrapped=wrapped)
    assert backup.unlock(header, "correct horse") == KEY
    assert backup.unlock(tls.decode(backup.Header, tls.encode(header)), "correct horse") == KEY
    for other in ("correct horsf", "", "CORRECT HORSE"):
        with pytest.raises(LocalError):
            backup.unlock(header, other)
    with pytest.raises(LocalError):
        backup.unlock(HEADER, "correct horse")
    # Of one sealed key under many guesses: the commitment is compared, the cipher never asked.
    with pytest.raises(LocalError, match="not the right one"):
        unwrap_key(replace(wrapped, commitment=bytes(32)), "correct horse")
    assert Costs(256 * 1024, 3, 4) == USUAL
    for costs in ((1024, 3, 4), (limits.ARGON2_MEMORY_MAX_KIB + 1, 3, 4), (256 * 1024, 0, 4)):
        with pytest.raises(ValueError, match="out of bounds"):
            Costs(*costs)


@pytest.mark.attack(102)
@pytest.mark.parametrize(
    "plaintext",
    [
        b"",
        b"\x02\x00\x00\x00\x01",  # cut in a record
        b"\x02\xff\xff\xff\xff" + b"x" * 1000,  # a record larger than memory
        b"\x02\x00\x00\x00\x01x\x00\x00\x00\x00\x01\x00",  # totals that leave the record out
        b"\x00\x00\x00\x00\x01\x00\x00\x00x",  # something behind the end
        b"\x00\x00\x00\x00\x02\x00\x00",  # totals that do not decode
        b"\x00" * 100,
    ],
)
def test_a_hostile_inside_is_refused(plaintext: bytes) -> None:
    with pytest.raises(RemoteError):
        read(hostile(plaintext))


@pytest.mark.attack(102)
def test_a_hostile_header_costs_nothing() -> None:
    huge = backup.MAGIC + (1 << 31).to_bytes(4, "big") + bytes(100)
    for data in (huge, b"PK\x03\x04", b"not a backup at all"):
        with pytest.raises(RemoteError):
            backup.read_start(data)
    expensive = bytearray(tls.encode(replace(HEADER, wrapped=wrap_key(KEY, "x", ENTROPY, CHEAP))))
    at = bytes(expensive).index(limits.BACKUP_MEMORY_MIN_KIB.to_bytes(4, "big"))
    expensive[at : at + 4] = b"\xff\xff\xff\xff"
    with pytest.raises(RemoteError):
        backup.read_start(backup.MAGIC + len(expensive).to_bytes(4, "big") + bytes(expensive))


def test_a_reader_counts() -> None:
    data = archive([(1, b"a"), (2, b"b"), (2, b"c")])
    _, start = backup.read_start(data) or (None, b"")
    reader = backup.ArchiveReader(KEY, start)
    reader.feed(data[len(start) :])
    reader.finish()
    assert reader.counts == Counter({2: 2, 1: 1})


@pytest.mark.attack(101)
def test_codes_have_256_bits_and_one_use() -> None:
    code = backup.backup_code(KEY)
    assert backup.read_backup_code(code.lower().replace("-", " ")) == KEY
    assert len(code.replace("-", "")) == 56
    with pytest.raises(LocalError):
        identity.recovery_key(code, 0)
    with pytest.raises(LocalError):
        backup.read_backup_code(identity.new_recovery_code(ENTROPY))
    with pytest.raises(LocalError):
        backup.read_backup_code("1" + code[1:])


def test_a_record_that_does_not_fit_is_ours() -> None:
    writer = backup.ArchiveWriter(KEY, HEADER, ENTROPY)
    for kind, body in ((0, b""), (256, b""), (1, bytes(limits.BACKUP_RECORD_MAX_BYTES + 1))):
        with pytest.raises(LocalError):
            writer.add(kind, body)
