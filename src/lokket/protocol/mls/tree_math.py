"""Which node is where in a tree kept as an array (RFC 9420 section 4 and appendix C).

Leaves have even indices, parents odd ones. The number of leaves is a power of two, so the tree is full.
"""

from __future__ import annotations

from lokket.errors import LocalError


def node_count(leaves: int) -> int:
    """How many nodes a tree of ``leaves`` leaves has."""
    return 2 * leaves - 1 if leaves else 0


def leaf_count(nodes: int) -> int:
    """How many leaves the smallest full tree with at least ``nodes`` nodes has."""
    return 1 << (nodes // 2).bit_length() if nodes else 0


def leaf_to_node(leaf: int) -> int:
    return 2 * leaf


def is_leaf(node: int) -> bool:
    return not node & 1


def level(node: int) -> int:
    """Height above the leaves: the number of trailing ones."""
    return (node ^ (node + 1)).bit_length() - 1


def root(leaves: int) -> int:
    """The root's index: 2^depth - 1."""
    return leaves - 1


def left(node: int) -> int:
    """The left child. LocalError: a leaf has none."""
    height = level(node)
    if not height:
        raise LocalError("a leaf has no children")
    return node ^ (1 << (height - 1))


def right(node: int) -> int:
    """The right child. LocalError: a leaf has none."""
    height = level(node)
    if not height:
        raise LocalError("a leaf has no children")
    return node ^ (3 << (height - 1))


def parent(node: int, leaves: int) -> int:
    """The parent in a tree of ``leaves`` leaves. LocalError: the root has none."""
    if node == leaves - 1:
        raise LocalError("the root has no parent")
    bit = 1 << level(node)
    return (node | bit) & ~(bit << 1)


def sibling(node: int, leaves: int) -> int:
    """The other child of the parent. LocalError: the root has none."""
    above = parent(node, leaves)
    return right(above) if node < above else left(above)


def direct_path(node: int, leaves: int) -> list[int]:
    """The ancestors, from the parent to the root; empty for the root."""
    path = []
    top = leaves - 1
    while node != top:
        bit = node ^ (node + 1)
        bit = (bit + 1) >> 1
        node = (node | bit) & ~(bit << 1)
        path.append(node)
    return path


def copath(node: int, leaves: int) -> list[int]:
    """The siblings of the node and of its direct path without the root, from below."""
    nodes = [node, *direct_path(node, leaves)]
    return [sibling(below, leaves) for below in nodes[:-1]]


def common_ancestor(one: int, other: int) -> int:
    """The lowest node that has both in its subtree, where a node is in its own subtree."""
    if is_in_subtree(one, other):
        return other
    if is_in_subtree(other, one):
        return one
    shift = (one ^ other).bit_length()
    return (one >> shift << shift) + (1 << (shift - 1)) - 1


def is_in_subtree(node: int, top: int) -> bool:
    """Whether ``node`` is ``top`` or below it."""
    reach = (1 << level(top)) - 1
    return top - reach <= node <= top + reach
