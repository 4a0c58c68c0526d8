"""Ratchet trees and TreeKEM against the official vectors (RFC 9420 sections 4 and 7)."""

from __future__ import annotations

from typing import Any

from lokket.codec import tls
from lokket.crypto.kem import KEMKeyPair
from lokket.protocol.mls.parent_hash import check_parent_hashes
from lokket.protocol.mls.proposals import Add, Remove, Update, UpdatePath, decode_proposal
from lokket.protocol.mls.ratchet_tree import RatchetTree
from lokket.protocol.mls.structs import GroupContext
from lokket.protocol.mls.suite import SUITES, CipherSuite
from lokket.protocol.mls.treekem import (
    LeafKeys,
    PrivateKeys,
    Receiver,
    merge_path,
    new_path,
    open_path,
    retained,
    seal_path,
)
from lokket.system import SystemEntropy
from tests.vectors.mls.loader import load, raw

ENTROPY = SystemEntropy()


def test_tree_operations() -> None:
    for case in load("tree-operations"):
        suite = SUITES[case["cipher_suite"]]
        before = RatchetTree.decode(raw(case["tree_before"]))
        assert before.encode() == raw(case["tree_before"])
        assert before.tree_hash(suite.hash) == raw(case["tree_hash_before"])
        match decode_proposal(raw(case["proposal"])):
            case Add(key_package):
                after, _ = before.add(key_package.leaf_node)
            case Update(leaf):
                after = before.update(case["proposal_sender"], leaf)
            case Remove(removed):
                after = before.remove(removed)
            case other:
                raise AssertionError(other)
        assert after.encode() == raw(case["tree_after"])
        assert after.tree_hash(suite.hash) == raw(case["tree_hash_after"])
        assert before.encode() == raw(case["tree_before"])
        assert before.tree_hash(suite.hash) == raw(case["tree_hash_before"])


def test_tree_validation() -> None:
    for case in load("tree-validation"):
        suite = SUITES[case["cipher_suite"]]
        tree = RatchetTree.decode(raw(case["tree"]))
        assert tree.encode() == raw(case["tree"])
        for index, (resolution, tree_hash) in enumerate(
            zip(case["resolutions"], case["tree_hashes"], strict=True)
        ):
            assert list(tree.subtree(index).resolution()) == resolution
            assert tree.subtree(index).tree_hash(suite.hash) == raw(tree_hash)
        check_parent_hashes(tree, suite.hash)
        for index, leaf in tree.members():
            content = leaf.to_be_signed(raw(case["group_id"]), index)
            suite.verify_with_label(leaf.signature_key, b"LeafNodeTBS", content, leaf.signature)


def test_treekem() -> None:
    for case in load("treekem", every=5):
        suite = SUITES[case["cipher_suite"]]
        tree = RatchetTree.decode(raw(case["ratchet_tree"]))
        members = {leaf["index"]: private_keys(suite, tree, leaf) for leaf in case["leaves_private"]}
        for update in case["update_paths"]:
            receive(suite, case, tree, update, members)
        for leaf in case["leaves_private"]:
            send(suite, case, tree, leaf, members)


def private_keys(suite: CipherSuite, tree: RatchetTree, leaf: dict[str, Any]) -> PrivateKeys:
    private: dict[int, KEMKeyPair] = {2 * leaf["index"]: suite.kem.load(raw(leaf["encryption_priv"]))}
    for entry in leaf["path_secrets"]:
        node_secret = suite.derive_secret(raw(entry["path_secret"]), b"node")
        private[entry["node"]] = suite.derive_key_pair(node_secret)
    assert retained(private, tree) == private
    return private


def context(suite: CipherSuite, case: dict[str, Any], tree: RatchetTree) -> bytes:
    transcript = raw(case["confirmed_transcript_hash"])
    group_id, tree_hash = raw(case["group_id"]), tree.tree_hash(suite.hash)
    return GroupContext(1, suite.number, group_id, case["epoch"], tree_hash, transcript, ()).encoded


def receive(
    suite: CipherSuite,
    case: dict[str, Any],
    tree: RatchetTree,
    update: dict[str, Any],
    members: dict[int, PrivateKeys],
) -> None:
    sender, path = update["sender"], tls.decode(UpdatePath, raw(update["update_path"]))
    merged = merge_path(suite, tree, sender, path)
    assert merged.tree_hash(suite.hash) == raw(update["tree_hash_after"])
    check_parent_hashes(merged, suite.hash)
    for index, private in members.items():
        if index == sender:
            continue
        given = (sender, path, frozenset[int]())
        opened = open_path(suite, tree, given, Receiver(index, private), context(suite, case, merged))
        assert opened.path_secret == raw(update["path_secrets"][index])
        assert opened.commit_secret == raw(update["commit_secret"])


def send(
    suite: CipherSuite,
    case: dict[str, Any],
    tree: RatchetTree,
    leaf: dict[str, Any],
    members: dict[int, PrivateKeys],
) -> None:
    sender = leaf["index"]
    template = tree.leaf(sender)
    assert template is not None
    keys = LeafKeys(sender, template, raw(leaf["signature_priv"]), raw(case["group_id"]))
    made = new_path(suite, tree, keys, ENTROPY)
    bound = context(suite, case, made.tree)
    path = seal_path(suite, made, frozenset(), bound, ENTROPY)
    assert tls.decode(UpdatePath, tls.encode(path)) == path
    assert merge_path(suite, tree, sender, path).encode() == made.tree.encode()
    content = path.leaf_node.to_be_signed(raw(case["group_id"]), sender)
    suite.verify_with_label(path.leaf_node.signature_key, b"LeafNodeTBS", content, path.leaf_node.signature)
    for index, private in members.items():
        if index != sender:
            given = (sender, path, frozenset[int]())
            opened = open_path(suite, tree, given, Receiver(index, private), bound)
            assert opened.commit_secret == made.commit_secret
            assert retained(opened.private, made.tree).keys() <= opened.private.keys()
