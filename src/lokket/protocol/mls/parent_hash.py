"""Parent hashes: each parent node is bound to a leaf that set it (RFC 9420 section 7.9)."""

from __future__ import annotations

from typing import Final

from lokket.codec import tls
from lokket.protocol.mls.ratchet_tree import AnyNode, Hash, RatchetTree, Subtree
from lokket.protocol.mls.rules import Rule
from lokket.protocol.mls.structs import CommitSource, LeafNode, ParentNode

PARENTS_BOUND: Final = Rule("7.9.2-1", "every parent node has a node below it with its parent hash")


def parent_hash(node: ParentNode, sibling: Subtree, hash_: Hash) -> bytes:
    """Of ``node``, as stored below it on the side away from ``sibling``, its other child (section 7.9)."""
    original = sibling.tree_hash_without(hash_, node.unmerged_leaves)
    return hash_(
        b"".join((tls.opaque(node.encryption_key), tls.opaque(node.parent_hash), tls.opaque(original)))
    )


def stored_parent_hash(node: AnyNode | None) -> bytes | None:
    """The field, where the node has one."""
    if isinstance(node, ParentNode):
        return node.parent_hash
    if isinstance(node, LeafNode) and isinstance(node.source, CommitSource):
        return node.source.parent_hash
    return None


def check_parent_hashes(tree: RatchetTree, hash_: Hash) -> None:
    """As when joining (section 7.9.2). RuleBroken: a parent node that no member's signature covers."""
    for at in tree.root.walk():
        if isinstance(at.node, ParentNode):
            left, right = at.children()
            PARENTS_BOUND.require(
                _bound(tree, at.node, (left, right), hash_) or _bound(tree, at.node, (right, left), hash_)
            )


def _bound(tree: RatchetTree, node: ParentNode, sides: tuple[Subtree, Subtree], hash_: Hash) -> bool:
    """Whether a node in the resolution of the first child carries the hash, and only unmerged leaves stand
    beside it there."""
    child, sibling = sides
    first, size = child.first_leaf, child.leaves
    unmerged = tuple(leaf for leaf in node.unmerged_leaves if first <= leaf < first + size)
    found = child.node
    if found is not None:  # the resolution is the child and what is unmerged there
        if unmerged != (found.unmerged_leaves if isinstance(found, ParentNode) else ()):
            return False
    else:
        resolution = child.resolution()
        rest = [index for index in resolution if index & 1 or index // 2 not in unmerged]
        if len(rest) != 1 or len(resolution) != len(unmerged) + 1:
            return False
        found = tree.subtree(rest[0]).node
    stored = stored_parent_hash(found)
    return stored is not None and stored == parent_hash(node, sibling, hash_)
