"""Key packages, leaves and trees for tests of single MLS rules, below any group."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from lokket.crypto.kem import KEMKeyPair
from lokket.protocol.mls.proposals import UpdatePath
from lokket.protocol.mls.ratchet_tree import RatchetTree
from lokket.protocol.mls.rules import RuleBroken
from lokket.protocol.mls.signatures import SignatureKeyPair
from lokket.protocol.mls.structs import (
    MLS10,
    Capabilities,
    CommitSource,
    Extension,
    GroupContext,
    KeyPackage,
    LeafNode,
    Lifetime,
    UpdateSource,
    basic_credential,
)
from lokket.protocol.mls.suite import SUITES, CipherSuite
from lokket.protocol.mls.treekem import LeafKeys, NewPath, new_path, seal_path, sign_leaf
from tests.support.entropy import SeededEntropy

SUITE = SUITES[1]
GROUP_ID = b"a group"
NOW_S = 1_800_000_000
LIFETIME = Lifetime(NOW_S - 3600, NOW_S + 86_400)
CAPABILITIES = Capabilities((MLS10,), (1,), (), (), (1,))
UNKNOWN = 0xFF42  # a number of the private ranges


@contextmanager
def refused(rule: str) -> Iterator[None]:
    """The one way in which a negative test names the rule that it breaks; see ``test_every_rule``."""
    with pytest.raises(RuleBroken) as caught:
        yield
    assert caught.value.rule == rule, f"broke {caught.value.rule} instead of {rule}"
    assert caught.value.code == f"mls-{rule}"


@dataclass(frozen=True)
class Person:
    signature: SignatureKeyPair
    encryption: KEMKeyPair
    key_package: KeyPackage
    suite: CipherSuite = SUITE

    @property
    def leaf(self) -> LeafNode:
        return self.key_package.leaf_node

    def at(self, leaf_index: int, template: LeafNode | None = None) -> LeafKeys:
        return LeafKeys(leaf_index, template or self.leaf, self.signature.private, GROUP_ID)

    def signed(self, leaf_index: int = 0, **changes: Any) -> LeafNode:
        """The leaf with other fields, signed anew."""
        leaf = replace(self.leaf, **changes)
        return sign_leaf(self.suite, leaf, self.at(leaf_index, leaf))

    def update(self, leaf_index: int, seed: object = 0, **changes: Any) -> LeafNode:
        pair = self.suite.generate_key_pair(SeededEntropy(f"update {seed}"))
        fresh = {"encryption_key": pair.public, "source": UpdateSource(), **changes}
        return self.signed(leaf_index, **fresh)

    def package(self, **changes: Any) -> KeyPackage:
        """The key package with other fields, signed anew."""
        package = replace(self.key_package, signature=b"", **changes)
        signature = self.suite.sign_with_label(
            self.signature.private, b"KeyPackageTBS", package.to_be_signed()
        )
        return replace(package, signature=signature)


def person(name: str, suite: CipherSuite = SUITE, **changes: Any) -> Person:
    """Keys and a key package that follow from the name; ``changes`` are fields of the leaf."""
    entropy = SeededEntropy(name)
    signature = suite.generate_signature_key(entropy)
    encryption, init = suite.generate_key_pair(entropy), suite.generate_key_pair(entropy)
    fields = {
        "encryption_key": encryption.public,
        "signature_key": signature.public,
        "credential": basic_credential(name.encode()),
        "capabilities": replace(CAPABILITIES, cipher_suites=(suite.number,)),
        "source": LIFETIME,
        "extensions": (),
        **changes,
    }
    bare = LeafNode(**fields, signature=b"")
    leaf = sign_leaf(suite, bare, LeafKeys(0, bare, signature.private, b""))
    package = KeyPackage(MLS10, suite.number, init.public, leaf, (), b"")
    made = Person(signature, encryption, package, suite)
    return Person(signature, encryption, made.package(), suite)


def people(count: int) -> list[Person]:
    return [person(f"person {number}") for number in range(count)]


def tree_of(members: list[Person]) -> RatchetTree:
    """All added and nobody committed: every parent blank."""
    tree = RatchetTree.of(members[0].leaf)
    for member in members[1:]:
        tree, _ = tree.add(member.leaf)
    return tree


def commit_path(
    tree: RatchetTree, member: Person, leaf_index: int, seed: object = 0
) -> tuple[NewPath, UpdatePath, bytes]:
    """A path of this member: what it keeps, what it sends, and the context that both are bound to."""
    entropy = SeededEntropy(f"path {seed} {leaf_index}")
    made = new_path(member.suite, tree, member.at(leaf_index), entropy)
    bound = context_of(made.tree).encoded
    return made, seal_path(member.suite, made, frozenset(), bound, entropy), bound


def context_of(tree: RatchetTree, extensions: tuple[Extension, ...] = ()) -> GroupContext:
    return GroupContext(MLS10, SUITE.number, GROUP_ID, 1, tree.tree_hash(SUITE.hash), b"", extensions)


def warm_tree(count: int) -> tuple[RatchetTree, list[Person]]:
    """A tree in which everyone has committed once."""
    members = people(count)
    tree = tree_of(members)
    for index, member in enumerate(members):
        tree = commit_path(tree, member, index, "warm")[0].tree
    return tree, members


def commit_source(parent_hash: bytes = b"") -> CommitSource:
    return CommitSource(parent_hash)
