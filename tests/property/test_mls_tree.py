"""The shared ratchet tree beside a plain one: an array, computed from nothing every time (RFC 9420 4, 7).

The array follows appendix C and knows no sharing, no remembered hashes and no index of keys.
"""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache

import pytest

from lokket.codec import tls
from lokket.protocol.mls import tree_math
from lokket.protocol.mls.ratchet_tree import AnyNode, RatchetTree
from lokket.protocol.mls.structs import LeafNode, ParentNode
from lokket.protocol.mls.treekem import merge_path
from lokket.protocol.mls.validation import check_tree
from tests.support.mls_rules import SUITE, Person, commit_path, context_of, person

Nodes = list[AnyNode | None]
STEPS = 70


class Plain:
    """The array and the four operations of sections 7.5 and 12.1, as the RFC tells them."""

    def __init__(self, leaf: LeafNode) -> None:
        self.nodes: Nodes = [leaf]

    @property
    def leaves(self) -> int:
        return (len(self.nodes) + 1) // 2

    def add(self, leaf: LeafNode) -> int:
        place = next((at for at in range(self.leaves) if self.nodes[2 * at] is None), None)
        if place is None:
            place = self.leaves
            self.nodes += [None] * (len(self.nodes) + 1)
        for above in tree_math.direct_path(2 * place, self.leaves):
            node = self.nodes[above]
            if isinstance(node, ParentNode):
                self.nodes[above] = replace(
                    node, unmerged_leaves=tuple(sorted((*node.unmerged_leaves, place)))
                )
        self.nodes[2 * place] = leaf
        return place

    def blank_above(self, leaf: int) -> None:
        for above in tree_math.direct_path(2 * leaf, self.leaves):
            self.nodes[above] = None

    def update(self, place: int, leaf: LeafNode) -> None:
        self.blank_above(place)
        self.nodes[2 * place] = leaf

    def remove(self, place: int) -> None:
        self.blank_above(place)
        self.nodes[2 * place] = None
        while self.leaves > 1 and not any(self.nodes[self.leaves :]):
            self.nodes = self.nodes[: self.leaves - 1]

    def resolution(self, index: int) -> list[int]:
        node = self.nodes[index]
        if node is not None:
            unmerged = node.unmerged_leaves if isinstance(node, ParentNode) else ()
            return [index, *(2 * leaf for leaf in unmerged)]
        if tree_math.is_leaf(index):
            return []
        return self.resolution(tree_math.left(index)) + self.resolution(tree_math.right(index))

    def tree_hash(self, index: int) -> bytes:
        node = self.nodes[index]
        body = b"\x00" if node is None else b"\x01" + tls.encode(node)
        if tree_math.is_leaf(index):
            return SUITE.hash(b"\x01" + (index // 2).to_bytes(4, "big") + body)
        left, right = self.tree_hash(tree_math.left(index)), self.tree_hash(tree_math.right(index))
        return SUITE.hash(b"\x02" + body + tls.opaque(left) + tls.opaque(right))

    def written(self) -> tuple[AnyNode | None, ...]:
        nodes = list(self.nodes)
        while nodes[-1] is None:
            nodes.pop()
        return tuple(nodes)


@cache
def somebody(number: int) -> Person:
    return person(f"tree {number}")


class Walk:
    """Random changes to both trees; ``tree`` stays a valid one throughout."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(f"mls tree {seed}")
        self.serial = 0
        first = self.newcomer()
        self.tree, self.plain = RatchetTree.of(first.leaf), Plain(first.leaf)
        self.people = {0: first}
        self.versions: list[tuple[RatchetTree, bytes]] = []

    def newcomer(self) -> Person:
        self.serial += 1
        return somebody(self.serial)

    def step(self) -> None:
        self.versions.append((self.tree, self.tree.encode()))
        place = self.random.choice(sorted(self.people))
        kind = self.random.choice(["add", "add", "add", "path", "path", "update", "remove"])
        if kind == "add":
            one = self.newcomer()
            self.tree, where = self.tree.add(one.leaf)
            assert where == self.plain.add(one.leaf)
            self.people[where] = one
        elif kind == "update":
            leaf = self.people[place].update(place, f"{self.serial} {len(self.versions)}")
            self.tree = self.tree.update(place, leaf)
            self.plain.update(place, leaf)
        elif kind == "path":
            made, path, _ = commit_path(self.tree, self.people[place], place, len(self.versions))
            self.tree = merge_path(SUITE, self.tree, place, path)
            assert self.tree.encode() == made.tree.encode()
            self.plain.update(place, path.leaf_node)
            for node, _ in made.nodes:
                self.plain.nodes[node.index] = made.tree.parent(node.index)
        elif len(self.people) > 1:
            self.tree = self.tree.remove(place)
            self.plain.remove(place)
            del self.people[place]

    def compare(self) -> None:
        tree, plain = self.tree, self.plain
        assert tree.nodes() == plain.written()
        assert tree.leaf_count == plain.leaves
        assert [index for index, _ in tree.members()] == sorted(self.people)
        for index in range(len(plain.nodes)):
            at = tree.subtree(index)
            assert (at.index, at.node) == (index, plain.nodes[index])
            assert list(at.resolution()) == plain.resolution(index)
            assert at.tree_hash(SUITE.hash) == plain.tree_hash(index)
        for index, node in enumerate(plain.nodes):
            if node is not None:
                assert tree.encrypted_nodes(node.encryption_key) == [index]
        for place, one in self.people.items():
            assert tree.signing_leaves(one.leaf.signature_key) == [place]
        assert not tree.signing_leaves(somebody(0).leaf.signature_key)
        check_tree(SUITE, RatchetTree.decode(tree.encode()), context_of(tree))


@pytest.mark.parametrize("seed", range(4))
def test_both_trees_stay_the_same(seed: int) -> None:
    walk = Walk(seed)
    for _ in range(STEPS):
        walk.step()
        walk.compare()
    for version, encoded in walk.versions:
        assert version.encode() == encoded, "an older tree changed"
        assert version.tree_hash(SUITE.hash) == RatchetTree.decode(encoded).tree_hash(SUITE.hash)
