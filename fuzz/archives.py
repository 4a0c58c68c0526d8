"""Targets and starting values of backups and exports, for ``targets.py`` and ``seeds.py``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Final

from lokket.client import export
from lokket.codec import tls
from lokket.crypto.passphrase import Costs, WrappedKey
from lokket.errors import DecodeError
from lokket.protocol import backup
from lokket.wire import archive
from tests.support.entropy import SeededEntropy

_KEY: Final = bytes(range(32))
_HASHES: Final = tuple(bytes((number,)) * 32 for number in range(1, 4))
_WRAPPED: Final = WrappedKey(Costs(), bytes(16), bytes(32), bytes(48))
_HEADERS: Final = tuple(
    backup.Header(backup.FORMAT, _HASHES[0], 7, 1_800_000_000, wrapped) for wrapped in (None, _WRAPPED)
)
_RECORDS: Final = (
    archive.Contact(_HASHES[0], "bob", True, b"state", "accepted", "verified", "bob", False, 5, 6),
    archive.Contact(_HASHES[1], "stranger", False, b"", "request", "unverified"),
    archive.Message(bytes(16), _HASHES[0], True, _HASHES[2], 3, 1_800_000_000_000, "hi", "queued"),
    archive.Message(bytes(16), _HASHES[0], False, _HASHES[1], 4, 1_800_000_000_001, "✓", "received"),
)


def start(data: bytes) -> object:
    """What stands before the stream; None wants more bytes."""
    read = backup.read_start(data)
    if read is not None:
        header, before = read
        assert data.startswith(before)
        assert before.endswith(tls.encode(header))
    return read


def inside(data: bytes) -> object:
    """The decrypted inside of an archive whose key its maker had."""
    reader = backup.ArchiveReader(_KEY, b"")
    found = [archive.decode(kind, body) for kind, body in reader._records(data)]
    if not reader._ended:
        raise DecodeError("it has no end")
    assert sum(reader.counts.values()) == len(found)
    return found


def record(data: bytes) -> object:
    """One record, its kind first."""
    decoded = archive.decode(data[0] if data else 0, data[1:])
    assert decoded is None or archive.decode(*archive.encode(decoded)) == decoded
    return decoded


def export_line(data: bytes) -> object:
    """The fields of a line whose chain its maker computed."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        raise DecodeError("a line is not JSON") from None
    if not isinstance(fields, dict):
        raise DecodeError("a line is not an object")
    return export._record(fields, first=False)


TARGETS: Final[dict[str, Callable[[bytes], object]]] = {
    "backup-start": start,
    "backup-inside": inside,
    "archive-record": record,
    "export-line": export_line,
}


def starts() -> Iterator[bytes]:
    for header in _HEADERS:
        encoded = tls.encode(header)
        yield backup.MAGIC + len(encoded).to_bytes(4, "big") + encoded + b"the stream"
    yield backup.MAGIC + bytes(2)


def insides() -> Iterator[bytes]:
    """As a writer gives them to its cipher."""
    for records in (_RECORDS, _RECORDS[:1], ()):
        writer = backup.ArchiveWriter(_KEY, _HEADERS[0], SeededEntropy("fuzz"))
        plaintext = bytearray()
        writer._sealer.feed = lambda data, into=plaintext: into.extend(data) or b""  # type: ignore[method-assign]
        for entry in records:
            writer.add(*archive.encode(entry))
        writer.finish()
        yield bytes(plaintext)


def records() -> Iterator[bytes]:
    for entry in _RECORDS:
        kind, body = archive.encode(entry)
        yield bytes((kind,)) + body


def lines() -> Iterator[bytes]:
    for entry in _RECORDS:
        fields = (
            export._contact_fields(entry)
            if isinstance(entry, archive.Contact)
            else export._message_fields(entry, "bob")
        )
        yield json.dumps(fields).encode()


SEEDS: Final[dict[str, Callable[[], Iterator[bytes]]]] = {
    "backup-start": starts,
    "backup-inside": insides,
    "archive-record": records,
    "export-line": lines,
}
