"""Message keys kept for messages that come late: one byte string, oldest first.

An entry is its index (uint32) and its 32-byte key. Indices only grow, so the oldest entry is the lowest
and a look-up bisects. Bytes are an immutable map that costs nothing to keep, copy, store or load.
"""

from __future__ import annotations

from typing import Final

ENTRY_BYTES: Final = 36
EMPTY: Final = b""


def entry(index: int, key: bytes) -> bytes:
    return index.to_bytes(4, "big") + key


def take(entries: bytes, index: int) -> tuple[bytes, bytes] | None:
    """(the entries without it, the key of ``index``), or None."""
    wanted = index.to_bytes(4, "big")
    low, high = 0, len(entries) // ENTRY_BYTES
    while low < high:
        middle = (low + high) // 2
        start = ENTRY_BYTES * middle
        found = entries[start : start + 4]
        if found == wanted:
            stop = start + ENTRY_BYTES
            return entries[:start] + entries[stop:], entries[start + 4 : stop]
        if found < wanted:
            low = middle + 1
        else:
            high = middle
    return None


def count(entries: bytes) -> int:
    return len(entries) // ENTRY_BYTES


def well_formed(entries: bytes) -> bool:
    """Whole entries with ascending indices: what ``take`` relies on."""
    indices = [entries[start : start + 4] for start in range(0, len(entries), ENTRY_BYTES)]
    return len(entries) % ENTRY_BYTES == 0 and all(a < b for a, b in zip(indices, indices[1:], strict=False))


def drop_oldest(entries: bytes, number: int) -> bytes:
    return entries[ENTRY_BYTES * number :]
