"""Encryption keys of one epoch (RFC 9420 section 9): a tree of secrets and two ratchets for each leaf.

A secret is deleted as soon as what follows from it is made (section 9.2), so the tree holds the deepest
secrets alone; a leaf's are derived when it first sends. Every step returns another tree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from lokket.errors import DecryptionFailed, DuplicateMessage, LocalError
from lokket.limits import MLS_SKIP_AHEAD_MAX, MLS_SKIPPED_KEYS_MAX
from lokket.protocol.mls import tree_math
from lokket.protocol.mls.messages import ContentType
from lokket.protocol.mls.persistent import IndexMap
from lokket.protocol.mls.suite import CipherSuite

_GENERATIONS: Final = 1 << 32


class MessageKey(NamedTuple):
    """Key (Nk) and nonce (12 bytes) of one message."""

    key: bytes
    nonce: bytes


@dataclass(frozen=True, slots=True)
class Ratchet:
    """Section 9.1: ``secret`` makes the key of ``generation``; ``skipped`` are earlier ones not yet used."""

    secret: bytes
    generation: int = 0
    skipped: tuple[tuple[int, MessageKey], ...] = ()

    def take(self, suite: CipherSuite, generation: int) -> tuple[Ratchet, MessageKey]:
        """The key of ``generation``, and the ratchet without it.

        DuplicateMessage: taken before, or so old that it was dropped. DecryptionFailed: too far ahead.
        """
        if generation < self.generation:
            for place, (number, key) in enumerate(self.skipped):
                if number == generation:
                    rest = self.skipped[:place] + self.skipped[place + 1 :]
                    return Ratchet(self.secret, self.generation, rest), key
            raise DuplicateMessage("the key of this generation is gone")
        if generation - self.generation > MLS_SKIP_AHEAD_MAX:
            raise DecryptionFailed("a generation lies too far ahead", code="mls-too-far-ahead")
        secret, skipped = self.secret, list(self.skipped)
        for number in range(self.generation, generation):
            skipped.append((number, _key(suite, secret, number)))
            secret = suite.derive_tree_secret(secret, b"secret", number, suite.hash_bytes)
        key = _key(suite, secret, generation)
        after = suite.derive_tree_secret(secret, b"secret", generation, suite.hash_bytes)
        return Ratchet(after, generation + 1, tuple(skipped[-MLS_SKIPPED_KEYS_MAX:])), key

    def __repr__(self) -> str:
        return f"Ratchet(generation {self.generation}, {len(self.skipped)} skipped)"


def _key(suite: CipherSuite, secret: bytes, generation: int) -> MessageKey:
    return MessageKey(
        suite.derive_tree_secret(secret, b"key", generation, suite.key_bytes),
        suite.derive_tree_secret(secret, b"nonce", generation, 12),
    )


class LeafRatchets(NamedTuple):
    handshake: Ratchet
    application: Ratchet


@dataclass(frozen=True, slots=True)
class SecretTree:
    """``nodes``: secrets by node index that still stand; ``ratchets``: by leaf index, once begun."""

    suite: CipherSuite
    leaves: int  # of the full tree
    nodes: IndexMap[bytes]
    ratchets: IndexMap[LeafRatchets]

    def next_generation(self, leaf: int, content_type: ContentType) -> int:
        """The generation that ``leaf`` would send next."""
        _, ratchets = self._begun(leaf)
        return _chosen(ratchets, content_type).generation

    def take(self, leaf: int, content_type: ContentType, generation: int) -> tuple[SecretTree, MessageKey]:
        """The key of one message, and the tree that no longer has it. Errors as of ``Ratchet.take``."""
        nodes, ratchets = self._begun(leaf)
        ratchet, key = _chosen(ratchets, content_type).take(self.suite, generation)
        if content_type == ContentType.APPLICATION:
            ratchets = LeafRatchets(ratchets.handshake, ratchet)
        else:
            ratchets = LeafRatchets(ratchet, ratchets.application)
        return SecretTree(self.suite, self.leaves, nodes, self.ratchets.set({leaf: ratchets})), key

    def next(self, leaf: int, content_type: ContentType) -> tuple[SecretTree, int, MessageKey]:
        """The next key to send with. LocalError: 2^32 messages were sent in this epoch."""
        generation = self.next_generation(leaf, content_type)
        if generation >= _GENERATIONS:
            raise LocalError("this epoch's keys are used up: commit first")
        tree, key = self.take(leaf, content_type, generation)
        return tree, generation, key

    def _begun(self, leaf: int) -> tuple[IndexMap[bytes], LeafRatchets]:
        ratchets = self.ratchets.get(leaf)
        if ratchets is not None:
            return self.nodes, ratchets
        suite, node = self.suite, tree_math.leaf_to_node(leaf)
        if not 0 <= leaf < self.leaves:
            raise DecryptionFailed("no such leaf", code="mls-no-such-leaf")
        path = [node, *tree_math.direct_path(node, self.leaves)]
        above = next((one for one in path if one in self.nodes), None)
        secret = None if above is None else self.nodes.get(above)
        if above is None or secret is None:
            raise DecryptionFailed("this leaf's secrets are gone", code="mls-no-such-leaf")
        changes: dict[int, bytes | None] = {above: None}
        for below in reversed(path[: path.index(above)]):
            left = suite.expand_with_label(secret, b"tree", b"left", suite.hash_bytes)
            right = suite.expand_with_label(secret, b"tree", b"right", suite.hash_bytes)
            if below < above:
                secret, changes[tree_math.right(above)] = left, right
            else:
                secret, changes[tree_math.left(above)] = right, left
            above = below
        return self.nodes.set(changes), LeafRatchets(
            Ratchet(suite.expand_with_label(secret, b"handshake", b"", suite.hash_bytes)),
            Ratchet(suite.expand_with_label(secret, b"application", b"", suite.hash_bytes)),
        )

    def __repr__(self) -> str:
        return f"SecretTree({self.leaves} leaves)"


def _chosen(ratchets: LeafRatchets, content_type: ContentType) -> Ratchet:
    return ratchets.application if content_type == ContentType.APPLICATION else ratchets.handshake


def secret_tree(suite: CipherSuite, leaves: int, encryption_secret: bytes) -> SecretTree:
    """A new epoch's tree, of ``leaves`` places (a power of two)."""
    root = tree_math.root(leaves)
    return SecretTree(suite, leaves, IndexMap({root: encryption_secret}), IndexMap())


def sender_data_key(suite: CipherSuite, sender_data_secret: bytes, ciphertext: bytes) -> MessageKey:
    """Section 6.3.2: from the first Nh bytes of the ciphertext."""
    sample = ciphertext[: suite.hash_bytes]
    return MessageKey(
        suite.expand_with_label(sender_data_secret, b"key", sample, suite.key_bytes),
        suite.expand_with_label(sender_data_secret, b"nonce", sample, 12),
    )
