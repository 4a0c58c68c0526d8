"""A Merkle tree of fixed depth 7 over 128 leaves: one signature covers them all.

Source: docs/identity.md, "Prekeys". Leaves and nodes are hashed under labels of their own, so neither
passes for the other; a leaf's content names its tree and its place, so it proves for no other. Unused
places hold random hashes: a path does not tell how many are used.
"""

from __future__ import annotations

from typing import Final

from lokket.errors import LocalError, RemoteError
from lokket.protocol.identity.encoding import hash_labelled

DEPTH: Final = 7
LEAVES: Final = 1 << DEPTH
HASH_BYTES: Final = 32
PATH_BYTES: Final = DEPTH * HASH_BYTES


def leaf_hash(content: bytes) -> bytes:
    """H("merkle leaf", content), 32 bytes."""
    return hash_labelled("merkle leaf", content)


def node_hash(left: bytes, right: bytes) -> bytes:
    """H("merkle node", left || right), 32 bytes."""
    return hash_labelled("merkle node", left + right)


class Tree:
    """All levels over exactly 128 leaf hashes. LocalError: another number of them."""

    def __init__(self, leaves: tuple[bytes, ...]) -> None:
        if len(leaves) != LEAVES or any(len(leaf) != HASH_BYTES for leaf in leaves):
            raise LocalError("a tree has 128 leaf hashes of 32 bytes")
        self._levels = [leaves]
        for _ in range(DEPTH):
            below = self._levels[-1]
            pairs = range(0, len(below), 2)
            self._levels.append(tuple(node_hash(below[left], below[left + 1]) for left in pairs))

    @property
    def root(self) -> bytes:
        """32 bytes."""
        return self._levels[DEPTH][0]

    def path(self, index: int) -> bytes:
        """The siblings from leaf ``index`` up to the root, 224 bytes."""
        if not 0 <= index < LEAVES:
            raise LocalError("a leaf's index is 0 to 127")
        return b"".join(level[index >> depth ^ 1] for depth, level in enumerate(self._levels[:DEPTH]))


def check_path(root: bytes, index: int, content: bytes, path: bytes) -> None:
    """RemoteError (bad-path) unless ``content`` is leaf ``index`` under ``root``; all of ``path`` is used."""
    if not 0 <= index < LEAVES or len(path) != PATH_BYTES:
        raise RemoteError("a Merkle path has the wrong shape", code="bad-path")
    node = leaf_hash(content)
    for depth in range(DEPTH):
        sibling = path[depth * HASH_BYTES : (depth + 1) * HASH_BYTES]
        node = node_hash(sibling, node) if index >> depth & 1 else node_hash(node, sibling)
    if node != root:
        raise RemoteError("a Merkle path does not lead to the signed root", code="bad-path")
