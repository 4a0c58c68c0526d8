"""The backup archive: what one file says of itself, and its records inside an encrypted stream.

Source: docs/backup.md.

    archive = "lokketBK" || uint32 size || Header[size] || sealed stream (``crypto.stream``)
    stream  = Record* || Record{0, Totals} || zero bytes
    Record  = uint8 kind || uint32 size || body[size]

All before the stream is the stream's header: archives of another account, version or counter do not pass
for this one. The zeros round the size up (Padmé), so that it tells little. Nothing is compressed. Must not
know what a record holds, nor where an archive lies.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final

from lokket import limits
from lokket.codec import tls
from lokket.codec.tls import U8, U16, U64, Bytes32, Vector
from lokket.crypto.entropy import Entropy
from lokket.crypto.passphrase import WrappedKey, unwrap_key
from lokket.crypto.stream import KEY_BYTES, Opener, Sealer
from lokket.errors import DecodeError, LocalError, RemoteError
from lokket.protocol.identity import read_code, write_code

FORMAT: Final = 1
MAGIC: Final = b"lokketBK"
_KIND: Final = "backup code"
_END: Final = 0
_SIZE: Final = struct.Struct(">I")
_RECORD: Final = struct.Struct(">BI")
_START_BYTES: Final = len(MAGIC) + _SIZE.size
_PADDING_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Header:
    """``wrapped``: the same key under a passphrase, the weaker way in, if the person chose one."""

    format: U16
    genesis_hash: Bytes32
    counter: U64  # rises with every archive of an account
    created_s: U64
    wrapped: WrappedKey | None


@dataclass(frozen=True, slots=True)
class _Total:
    kind: U8
    count: U64


@dataclass(frozen=True, slots=True)
class _Totals:
    totals: Annotated[tuple[_Total, ...], Vector(255, ascending=True)]


def new_key(entropy: Entropy) -> bytes:
    """32 bytes: what opens every archive made with it."""
    return entropy.draw(KEY_BYTES)


def backup_code(key: bytes) -> str:
    """The key as a person writes it down: fourteen groups of four characters."""
    return write_code(key, _KIND)


def read_backup_code(code: str) -> bytes:
    """LocalError: a slip of the pen, or another kind of code."""
    return read_code(code, _KIND)


def unlock(header: Header, passphrase: str) -> bytes:
    """The key of an archive. LocalError: it has no passphrase, or another one. Slow on purpose."""
    if header.wrapped is None:
        raise LocalError("this backup has no passphrase: give its code")
    return unwrap_key(header.wrapped, passphrase)


def read_start(data: bytes) -> tuple[Header, bytes] | None:
    """Header, and all that stands before the stream. None: more bytes are needed. RemoteError: no archive.

    Nothing here is authentic until the stream has opened.
    """
    if not data.startswith(MAGIC[: len(data)]):
        raise DecodeError("this is not a backup of lokket")
    if len(data) < _START_BYTES:
        return None
    (size,) = _SIZE.unpack_from(data, len(MAGIC))
    if size > limits.BACKUP_HEADER_MAX_BYTES:
        raise DecodeError("the backup's header is damaged")
    if len(data) < _START_BYTES + size:
        return None
    encoded = data[_START_BYTES : _START_BYTES + size]
    if int.from_bytes(encoded[:2], "big") != FORMAT:
        raise RemoteError("the backup was made by a newer lokket: install that version", code="version")
    return tls.decode(Header, encoded), data[: _START_BYTES + size]


class ArchiveWriter:
    """``start`` goes first, then what ``add`` returns, then what ``finish`` returns."""

    def __init__(self, key: bytes, header: Header, entropy: Entropy) -> None:
        encoded = tls.encode(header)
        before = MAGIC + _SIZE.pack(len(encoded)) + encoded
        self._sealer = Sealer(key, before, entropy)
        self.start = before + self._sealer.prologue
        self._counts: Counter[int] = Counter()
        self._written = 0

    def add(self, kind: int, body: bytes) -> bytes:
        """One record. LocalError: it is too large, or there are too many."""
        if not _END < kind < 256 or len(body) > limits.BACKUP_RECORD_MAX_BYTES:
            raise LocalError("a record does not fit into a backup")
        if self._counts.total() >= limits.BACKUP_RECORDS_MAX:
            raise LocalError("there are more records than one backup may have")
        self._counts[kind] += 1
        return self._feed(_RECORD.pack(kind, len(body)) + body)

    def finish(self) -> bytes:
        totals = _Totals(tuple(_Total(kind, self._counts[kind]) for kind in sorted(self._counts)))
        body = tls.encode(totals)
        out = bytearray(self._feed(_RECORD.pack(_END, len(body)) + body))
        left = _padded(self._written) - self._written
        while left:
            part = min(left, _PADDING_BYTES)
            out += self._sealer.feed(bytes(part))
            left -= part
        return bytes(out) + self._sealer.finish()

    def _feed(self, record: bytes) -> bytes:
        self._written += len(record)
        return self._sealer.feed(record)


class ArchiveReader:
    """Takes an archive's bytes in any pieces and gives its records; complete and true after ``finish``.

    What an archive holds is as hostile as a peer's message: its key may be another's.
    """

    def __init__(self, key: bytes, start: bytes) -> None:
        """``start``: as ``read_start`` gave it. Feed what comes after it."""
        self._opener = Opener(key, start)
        self._waiting = bytearray()
        self._counts: Counter[int] = Counter()
        self._ended = False

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Authentic records, kind and body. RemoteError: another key, damage, or a limit passed."""
        return self._records(self._opener.feed(data))

    def finish(self) -> list[tuple[int, bytes]]:
        """The last ones. RemoteError: the archive is cut, or does not hold what it says."""
        records = self._records(self._opener.finish())
        if not self._ended or self._waiting:
            raise DecodeError("the backup ends in the middle")
        return records

    @property
    def counts(self) -> Mapping[int, int]:
        """Records by kind, so far."""
        return self._counts

    def _records(self, plaintext: bytes) -> list[tuple[int, bytes]]:
        self._waiting += plaintext
        found: list[tuple[int, bytes]] = []
        at = 0
        while not self._ended and len(self._waiting) - at >= _RECORD.size:
            kind, size = _RECORD.unpack_from(self._waiting, at)
            if size > limits.BACKUP_RECORD_MAX_BYTES:
                raise DecodeError("a record of the backup is too large")
            if len(self._waiting) - at < _RECORD.size + size:
                break
            at += _RECORD.size
            body = bytes(self._waiting[at : at + size])
            at += size
            if kind == _END:
                self._check(tls.decode(_Totals, body))
            else:
                self._counts[kind] += 1
                if self._counts.total() > limits.BACKUP_RECORDS_MAX:
                    raise DecodeError("the backup has more records than one may have")
                found.append((kind, body))
        del self._waiting[:at]
        if self._ended:
            if self._waiting.strip(b"\x00"):
                raise DecodeError("something stands behind the backup's end")
            self._waiting.clear()
        return found

    def _check(self, totals: _Totals) -> None:
        if {total.kind: total.count for total in totals.totals} != dict(self._counts):
            raise DecodeError("the backup does not hold what it says")
        self._ended = True


def _padded(size: int) -> int:
    """Padmé (Nikitin et al., PETS 2019): at most an eighth more, and few sizes to tell apart."""
    exponent = max(size, 2).bit_length() - 1
    low = exponent - exponent.bit_length()
    mask = (1 << max(low, 0)) - 1
    return (size + mask) & ~mask
