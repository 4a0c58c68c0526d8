"""What a thief with the vault's key reads: every page of its files, the free ones and the log's too.

SQLite3 Multiple Ciphers, ChaCha20: each page ends in a 16-byte nonce and a 16-byte tag; the page's key is
drawn from the first block of the cipher's stream, whose counter is mixed with the page number. Page 1 keeps
its first 24 bytes for SQLite.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

PAGE_BYTES = 4096
_LOG_HEADER_BYTES, _FRAME_HEADER_BYTES = 32, 24


def readable(folder: Path, key: bytes) -> bytes:
    """The plain bytes of all pages in ``folder``'s database and write-ahead log."""
    database = (folder / "vault.db").read_bytes()
    plain = [
        _page(database[start : start + PAGE_BYTES], 1 + start // PAGE_BYTES, key)
        for start in range(0, len(database), PAGE_BYTES)
    ]
    log_path = folder / "vault.db-wal"
    log = log_path.read_bytes() if log_path.exists() else b""
    for start in range(_LOG_HEADER_BYTES, len(log), _FRAME_HEADER_BYTES + PAGE_BYTES):
        number = int.from_bytes(log[start : start + 4], "big")
        frame = log[start + _FRAME_HEADER_BYTES :][:PAGE_BYTES]
        if len(frame) == PAGE_BYTES:
            plain.append(_page(frame, number, key))
    return b"".join(plain)


def _page(data: bytes, number: int, key: bytes) -> bytes:
    body, nonce = data[:-32], data[-32:-16]
    counter = int.from_bytes(nonce[12:], "little") ^ number
    page_key = _stream(key, nonce[:12], counter, bytes(64))[32:]
    start = 24 if number == 1 else 0
    return body[:start] + _stream(page_key, nonce[:12], counter + 1, body[start:])


def _stream(key: bytes, nonce: bytes, counter: int, data: bytes) -> bytes:
    full = (counter & 0xFFFFFFFF).to_bytes(4, "little") + nonce
    return Cipher(algorithms.ChaCha20(key, full), None).encryptor().update(data)
