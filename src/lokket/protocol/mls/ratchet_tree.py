"""The ratchet tree: nodes, resolutions, tree hashes; adding, updating, removing (RFC 9420 sections 4 and 7).

A tree is a value. Every change makes the nodes of one direct path anew and shares all others with the tree
before, so a staged commit costs O(log n) and the tree hash of a subtree, once computed, holds wherever that
subtree goes on living. Section 7.9's parent hashes are in ``parent_hash.py``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from lokket.codec import tls
from lokket.errors import DecodeError, LocalError, RemoteError
from lokket.limits import MLS_LEAVES_MAX
from lokket.protocol.mls import tree_math
from lokket.protocol.mls.rules import Rule
from lokket.protocol.mls.structs import LeafNode, ParentNode, RatchetTreeNodes
from lokket.protocol.mls.support import NO_MEMBERS, Support

Hash = Callable[[bytes], bytes]

ENDS_IN_A_NODE: Final = Rule("12.4.3.3-1", "the last node of a ratchet_tree is not blank")
NODES_IN_PLACE: Final = Rule("12.4.3.3-2", "leaf nodes stand at even indices, parent nodes at odd ones")
UNMERGED_BELOW: Final = Rule("12.4.3.1-11", "an unmerged leaf is a member below its parent node")
UNMERGED_ALL_THE_WAY: Final = Rule(
    "12.4.3.1-12", "the parents between an unmerged leaf and its parent list it too"
)

AnyNode = LeafNode | ParentNode


class Subtree:
    """A node with all below it. Nothing in it changes but what it remembers of itself."""

    __slots__ = ("_hash", "_resolution", "_support", "index", "left", "members", "node", "right")

    def __init__(self, index: int, node: AnyNode | None, left: Subtree | None, right: Subtree | None) -> None:
        self.index = index
        self.node = node
        self.left = left
        self.right = right
        self.members: int  # leaves that are not blank
        if left is None or right is None:
            self.members = 0 if node is None else 1
        else:
            self.members = left.members + right.members
        self._hash: bytes | None = None
        self._resolution: tuple[int, ...] | None = None
        self._support: Support | None = None

    @property
    def leaves(self) -> int:
        """How many leaves there is room for."""
        return 1 << tree_math.level(self.index)

    @property
    def first_leaf(self) -> int:
        return (self.index - (self.leaves - 1)) // 2

    def children(self) -> tuple[Subtree, Subtree]:
        if self.left is None or self.right is None:
            raise LocalError("a leaf has no children")
        return self.left, self.right

    def tree_hash(self, hash_: Hash) -> bytes:
        """Section 7.8."""
        if self._hash is None:
            if self.left is None or self.right is None:
                self._hash = hash_(_leaf_input(self.index // 2, self.node))
            else:
                left, right = self.left.tree_hash(hash_), self.right.tree_hash(hash_)
                self._hash = hash_(_parent_input(self.node, left, right))
        return self._hash

    def tree_hash_without(self, hash_: Hash, leaves: tuple[int, ...]) -> bytes:
        """The tree hash with these leaves, rising, blank and in no list of unmerged leaves (section 7.9)."""
        first = self.first_leaf
        leaves = leaves[bisect_left(leaves, first) : bisect_left(leaves, first + self.leaves)]
        if not leaves:
            return self.tree_hash(hash_)
        if self.left is None or self.right is None:
            return hash_(_leaf_input(self.index // 2, None))
        left = self.left.tree_hash_without(hash_, leaves)
        right = self.right.tree_hash_without(hash_, leaves)
        node = self.node
        if isinstance(node, ParentNode) and node.unmerged_leaves:
            without = frozenset(leaves)
            node = replace(
                node, unmerged_leaves=tuple(leaf for leaf in node.unmerged_leaves if leaf not in without)
            )
        return hash_(_parent_input(node, left, right))

    def resolution(self) -> tuple[int, ...]:
        """Node indices, as section 4.1.1 orders them."""
        if self._resolution is None:
            node = self.node
            if isinstance(node, ParentNode):
                self._resolution = (self.index, *(2 * leaf for leaf in node.unmerged_leaves))
            elif node is not None:
                self._resolution = (self.index,)
            elif self.left is None or self.right is None or not self.members:
                self._resolution = ()
            else:
                self._resolution = self.left.resolution() + self.right.resolution()
        return self._resolution

    def support(self) -> Support:
        """What all members below support, and which credentials they use."""
        if self._support is None:
            if self.left is not None and self.right is not None:
                self._support = self.left.support().joined(self.right.support())
            else:
                self._support = Support.of(self.node) if isinstance(self.node, LeafNode) else NO_MEMBERS
        return self._support

    def walk(self) -> list[Subtree]:
        """All subtrees, this one too, in the order of their indices."""
        found: list[Subtree] = []
        above: list[Subtree] = []
        at: Subtree | None = self
        while at is not None or above:
            while at is not None:
                above.append(at)
                at = at.left
            last = above.pop()
            found.append(last)
            at = last.right
        return found


def _leaf_input(leaf: int, node: AnyNode | None) -> bytes:
    """TreeHashInput with LeafNodeHashInput."""
    head = b"\x01" + leaf.to_bytes(4, "big")
    return head + b"\x00" if node is None else b"".join((head, b"\x01", node.encoded))


def _parent_input(node: AnyNode | None, left: bytes, right: bytes) -> bytes:
    """TreeHashInput with ParentNodeHashInput."""
    body = b"\x00" if node is None else b"\x01" + node.encoded
    return b"".join((b"\x02", body, tls.opaque(left), tls.opaque(right)))


def _blank(index: int) -> Subtree:
    if tree_math.is_leaf(index):
        return Subtree(index, None, None, None)
    return Subtree(index, None, _blank(tree_math.left(index)), _blank(tree_math.right(index)))


@dataclass(frozen=True, slots=True)
class RatchetTree:
    """A full tree. Leaves are named by leaf index, nodes by node index (appendix C)."""

    root: Subtree
    _keys: KeyIndex = field(repr=False, compare=False)

    @property
    def leaf_count(self) -> int:
        """The size, blank leaves included: a power of two."""
        return self.root.leaves

    @property
    def member_count(self) -> int:
        return self.root.members

    # --- looking ---

    def subtree(self, node_index: int) -> Subtree:
        """LocalError: outside the tree."""
        at = self.root
        if not 0 <= node_index < 2 * self.leaf_count - 1:
            raise LocalError("a node index is outside the tree")
        while at.index != node_index:
            left, right = at.children()
            at = left if node_index < at.index else right
        return at

    def leaf(self, leaf_index: int) -> LeafNode | None:
        """The member's leaf; None where it is blank or outside the tree."""
        if not 0 <= leaf_index < self.leaf_count:
            return None
        node = self.subtree(2 * leaf_index).node
        return node if isinstance(node, LeafNode) else None

    def parent(self, node_index: int) -> ParentNode | None:
        node = self.subtree(node_index).node
        return node if isinstance(node, ParentNode) else None

    def members(self) -> Iterator[tuple[int, LeafNode]]:
        """(leaf index, leaf) of every member, in order."""
        for at in self.root.walk():
            if isinstance(at.node, LeafNode):
                yield at.index // 2, at.node

    def way_down(self, leaf_index: int) -> list[tuple[Subtree, Subtree]]:
        """(a node of the leaf's direct path, its child on the copath), from the root."""
        target, at = 2 * leaf_index, self.root
        way = []
        while at.index != target:
            left, right = at.children()
            inside, outside = (left, right) if target < at.index else (right, left)
            way.append((at, outside))
            at = inside
        return way

    def filtered_direct_path(self, leaf_index: int) -> list[tuple[Subtree, Subtree]]:
        """``way_down`` without nodes that nobody else is below, from the lowest (section 4.1.2)."""
        return [(node, outside) for node, outside in reversed(self.way_down(leaf_index)) if outside.members]

    def tree_hash(self, hash_: Hash) -> bytes:
        return self.root.tree_hash(hash_)

    def signing_leaves(self, key: bytes) -> list[int]:
        """The leaves that sign with this key: one at most in a valid tree."""
        found = []
        for index in self._keys.candidates(key):
            leaf = self.leaf(index // 2) if tree_math.is_leaf(index) else None
            if leaf is not None and leaf.signature_key == key:
                found.append(index // 2)
        return found

    def encrypted_nodes(self, key: bytes) -> list[int]:
        """The nodes with this encryption key, by node index: one at most in a valid tree."""
        found = []
        for index in self._keys.candidates(key):
            node = self.subtree(index).node if index < 2 * self.leaf_count - 1 else None
            if node is not None and node.encryption_key == key:
                found.append(index)
        return found

    # --- changing (sections 7.7 and 12.1.1 to 12.1.3) ---

    def add(self, leaf: LeafNode) -> tuple[RatchetTree, int]:
        """At the leftmost blank leaf; parents above list it as unmerged (section 12.1.1)."""
        tree, index = self.with_room()

        def unmerged(node: AnyNode | None, _: int) -> AnyNode | None:
            if not isinstance(node, ParentNode):
                return node
            listed = node.unmerged_leaves
            at = bisect_left(listed, index)
            return replace(node, unmerged_leaves=(*listed[:at], index, *listed[at:]))

        return tree._changed(2 * index, leaf, unmerged), index

    def with_room(self) -> tuple[RatchetTree, int]:
        """The tree, larger if it is full, and its leftmost blank leaf: where an external joiner goes."""
        tree = self if self.root.members < self.root.leaves else self._extended()
        at = tree.root
        while at.left is not None and at.right is not None:
            at = at.left if at.left.members < at.left.leaves else at.right
        return tree, at.index // 2

    def update(self, leaf_index: int, leaf: LeafNode) -> RatchetTree:
        """Another leaf for a member, and a blank direct path (section 12.1.2)."""
        return self._changed(2 * leaf_index, leaf, lambda node, index: None)

    def remove(self, leaf_index: int) -> RatchetTree:
        """A blank leaf and direct path; the right half goes while it is blank (section 12.1.3)."""
        tree = self._changed(2 * leaf_index, None, lambda node, index: None)
        root = tree.root
        while root.left is not None and root.right is not None and not root.right.members:
            root = root.left
        return RatchetTree(root, tree._keys)

    def with_path(self, leaf_index: int, leaf: LeafNode, parents: dict[int, ParentNode]) -> RatchetTree:
        """``leaf`` and, on its direct path, these nodes alone: others become blank (section 7.5)."""
        return self._changed(2 * leaf_index, leaf, lambda node, index: parents.get(index))

    def _extended(self) -> RatchetTree:
        """Twice the leaves, the right half and root blank (section 7.7). RemoteError: more than we carry."""
        size = self.leaf_count
        if 2 * size > MLS_LEAVES_MAX:
            raise RemoteError("the group is full", code="mls-too-large")
        return RatchetTree(Subtree(2 * size - 1, None, self.root, _blank(3 * size - 1)), self._keys)

    def _changed(
        self, target: int, leaf: LeafNode | None, above: Callable[[AnyNode | None, int], AnyNode | None]
    ) -> RatchetTree:
        made: list[tuple[bytes, int]] = []

        def rebuild(at: Subtree) -> Subtree:
            if at.index == target:
                if leaf is not None:
                    made.extend(((leaf.encryption_key, target), (leaf.signature_key, target)))
                return Subtree(target, leaf, None, None)
            node = above(at.node, at.index)
            if node is not None and node is not at.node:
                made.append((node.encryption_key, at.index))
            left, right = at.children()
            if target < at.index:
                return Subtree(at.index, node, rebuild(left), right)
            return Subtree(at.index, node, left, rebuild(right))

        root = rebuild(self.root)
        return RatchetTree(root, self._keys.with_keys(made, root))

    # --- as the wire has it (section 12.4.3.3) ---

    @classmethod
    def of(cls, leaf: LeafNode) -> RatchetTree:
        """A group of one (section 11)."""
        root = Subtree(0, leaf, None, None)
        return cls(root, KeyIndex.of(root))

    @classmethod
    def from_nodes(cls, nodes: tuple[AnyNode | None, ...]) -> RatchetTree:
        """The ``ratchet_tree`` extension. RuleBroken: its shape, or its lists of unmerged leaves.

        DecodeError: more leaves than we carry.
        """
        if len(nodes) >= 2 * MLS_LEAVES_MAX:
            raise DecodeError("a ratchet tree is larger than we carry")
        ENDS_IN_A_NODE.require(bool(nodes) and nodes[-1] is not None)
        for index, node in enumerate(nodes):
            NODES_IN_PLACE.require(node is None or isinstance(node, LeafNode) == tree_math.is_leaf(index))
        size = len(nodes)

        def build(index: int) -> Subtree:
            node = nodes[index] if index < size else None
            if tree_math.is_leaf(index):
                return Subtree(index, node, None, None)
            return Subtree(index, node, build(tree_math.left(index)), build(tree_math.right(index)))

        root = build(tree_math.root(tree_math.leaf_count(size)))
        tree = cls(root, KeyIndex.of(root))
        _check_unmerged(root, ())
        return tree

    def nodes(self) -> tuple[AnyNode | None, ...]:
        """All nodes up to the last that is not blank."""
        nodes = [at.node for at in self.root.walk()]
        while nodes and nodes[-1] is None:
            nodes.pop()
        return tuple(nodes)

    def encode(self) -> bytes:
        """As the data of a ``ratchet_tree`` extension."""
        body = bytearray()
        for node in self.nodes():
            if node is None:
                body.append(0)
            else:
                body += b"\x01\x01" if isinstance(node, LeafNode) else b"\x01\x02"
                body += node.encoded
        return tls.opaque(bytes(body))

    @classmethod
    def decode(cls, data: bytes) -> RatchetTree:
        """Inverse of ``encode``. DecodeError: malformed. RuleBroken: see ``from_nodes``."""
        return cls.from_nodes(tls.decode(RatchetTreeNodes, data).nodes)


class KeyIndex:
    """Where a key may stand: what any tree of one line of descent ever held, so look there to be sure.

    It is shared and only grows, so it answers for every version alike; when most of it is gone it is made
    anew.
    """

    __slots__ = ("_places", "_size")

    def __init__(self, places: dict[bytes, tuple[int, ...]]) -> None:
        self._places = places
        self._size = len(places)

    @classmethod
    def of(cls, root: Subtree) -> KeyIndex:
        index = cls({})
        for at in root.walk():
            if at.node is not None:
                index._put(at.node.encryption_key, at.index)
                if isinstance(at.node, LeafNode):
                    index._put(at.node.signature_key, at.index)
        index._size = len(index._places)
        return index

    def candidates(self, key: bytes) -> tuple[int, ...]:
        return self._places.get(key, ())

    def with_keys(self, made: Iterable[tuple[bytes, int]], root: Subtree) -> KeyIndex:
        for key, place in made:
            self._put(key, place)
        if len(self._places) > 1024 + 4 * max(self._size, root.members):
            return KeyIndex.of(root)
        return self

    def _put(self, key: bytes, place: int) -> None:
        places = self._places.get(key, ())
        if place not in places:
            self._places[key] = (*places, place)


def _check_unmerged(at: Subtree, above: tuple[int, ...]) -> None:
    """The checks of unmerged leaves in section 12.4.3.1; ``above``: those of the next parent, below here."""
    node = at.node
    if at.left is None or at.right is None:
        UNMERGED_BELOW.require(node is not None or not above)
        return
    if isinstance(node, ParentNode):
        listed = node.unmerged_leaves
        UNMERGED_ALL_THE_WAY.require(set(above) <= set(listed))
        first = at.first_leaf
        UNMERGED_BELOW.require(not listed or (first <= listed[0] and listed[-1] < first + at.leaves))
        above = listed
    middle = bisect_left(above, (at.index + 1) // 2)
    _check_unmerged(at.left, above[:middle])
    _check_unmerged(at.right, above[middle:])
