"""Message keys kept for messages that come late: one byte string at a chain's end, oldest first.

An entry is its index (uint32) and its 32-byte key. Indices only grow, so the oldest entry is the lowest
and a look-up bisects. Bytes are an immutable map that costs nothing to keep, copy, store or load.
"""

from __future__ import annotations

from typing import Final

ENTRY_BYTES: Final = 36


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


def replaced(chains: tuple[bytes, ...], place: int, chain: bytes) -> tuple[bytes, ...]:
    """``chains`` with ``chain`` at ``place``."""
    if len(chains) == 1:
        return (chain,)
    return (*chains[:place], chain, *chains[place + 1 :])


def bound(chains: tuple[bytes, ...], head_bytes: int, keys_max: int) -> tuple[bytes, ...]:
    """Packed chains with at most ``keys_max`` entries in all: the oldest go first, of the oldest chain."""
    excess = sum((len(chain) - head_bytes) // ENTRY_BYTES for chain in chains) - keys_max
    if excess <= 0:
        return chains
    out = []
    for chain in chains:
        dropped = min(excess, (len(chain) - head_bytes) // ENTRY_BYTES)
        excess -= dropped
        out.append(chain[:head_bytes] + chain[head_bytes + dropped * ENTRY_BYTES :])
    return tuple(out)


def well_formed(size: int, head_bytes: int) -> bool:
    """A whole head and whole entries, which is what the other functions rely on."""
    return size >= head_bytes and (size - head_bytes) % ENTRY_BYTES == 0
