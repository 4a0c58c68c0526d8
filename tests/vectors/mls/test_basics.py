"""Tree math, encodings and labelled crypto: the official vectors (RFC 9420 2.1, 5.1, 5.2, appendix C)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lokket.codec import tls
from lokket.errors import LocalError, SignatureRefused
from lokket.protocol.mls import messages, proposals, structs, tree_math
from lokket.protocol.mls.suite import SUITES
from lokket.system import SystemEntropy
from tests.vectors.mls.loader import load, raw

ENTROPY = SystemEntropy()
STRUCTS: dict[str, type] = {
    "ratchet_tree": structs.RatchetTreeNodes,
    "group_secrets": messages.GroupSecrets,
    "commit": proposals.Commit,
    "add_proposal": proposals.Add,
    "update_proposal": proposals.Update,
    "remove_proposal": proposals.Remove,
    "pre_shared_key_proposal": proposals.PreSharedKey,
    "re_init_proposal": proposals.ReInit,
    "external_init_proposal": proposals.ExternalInit,
    "group_context_extensions_proposal": proposals.GroupContextExtensions,
}


def test_tree_math() -> None:
    for case in load("tree-math"):
        leaves = case["n_leaves"]
        assert tree_math.node_count(leaves) == case["n_nodes"]
        assert tree_math.leaf_count(case["n_nodes"]) == leaves
        assert tree_math.root(leaves) == case["root"]
        for node in range(case["n_nodes"]):
            found = {
                "left": or_none(tree_math.left, node),
                "right": or_none(tree_math.right, node),
                "parent": or_none(tree_math.parent, node, leaves),
                "sibling": or_none(tree_math.sibling, node, leaves),
            }
            assert found == {name: case[name][node] for name in found}


def or_none(function: Any, *arguments: int) -> int | None:
    try:
        found: int = function(*arguments)
    except LocalError:
        return None
    return found


@pytest.mark.parametrize("leaves", [1, 2, 8, 32])
def test_paths_and_common_ancestors(leaves: int) -> None:
    """Against their definitions, which the vectors do not hold."""
    nodes = range(tree_math.node_count(leaves))
    for node in nodes:
        path = tree_math.direct_path(node, leaves)
        steps = [node, *path]
        assert all(
            tree_math.parent(below, leaves) == above for below, above in zip(steps, path, strict=False)
        )
        assert steps[-1] == tree_math.root(leaves)
        assert tree_math.copath(node, leaves) == [tree_math.sibling(one, leaves) for one in steps[:-1]]
        for other in nodes:
            around = {other, *tree_math.direct_path(other, leaves)}
            assert tree_math.common_ancestor(node, other) == next(one for one in steps if one in around)
            assert tree_math.is_in_subtree(other, node) == (node in around)


def test_lengths() -> None:
    for case in load("deserialization"):
        assert tls.Reader(raw(case["vlbytes_header"])).length() == case["length"]


def test_messages() -> None:
    """Every struct decodes and encodes to the same bytes, also when nothing remembers them."""
    for case in load("messages"):
        for name, text in case.items():
            data = raw(text)
            if name in STRUCTS:
                value = tls.decode(STRUCTS[name], data)
                assert tls.encode(value) == data, name
                continue
            body = messages.decode_message(data)
            assert messages.encode_message(body) == data, name
            assert messages.encode_message(replace(body)) == data, name


def test_proposals_by_themselves() -> None:
    for case in load("messages", every=10):
        for name, kind in STRUCTS.items():
            if name.endswith("_proposal"):
                proposal = tls.decode(kind, raw(case[name]))
                encoded = proposals.encode_proposal(proposal)
                assert encoded == proposals.proposal_type(proposal).to_bytes(2, "big") + raw(case[name])
                assert proposals.decode_proposal(encoded) == proposal


def test_crypto_basics() -> None:
    cases = load("crypto-basics")
    assert [case["cipher_suite"] for case in cases] == [1, 2, 3, 4, 5, 6, 7]
    for case in cases:
        suite = SUITES[case["cipher_suite"]]
        one = case["ref_hash"]
        assert suite.ref_hash(one["label"].encode(), raw(one["value"])) == raw(one["out"])
        one = case["expand_with_label"]
        secret, label = raw(one["secret"]), one["label"].encode()
        assert suite.expand_with_label(secret, label, raw(one["context"]), one["length"]) == raw(one["out"])
        one = case["derive_secret"]
        assert suite.derive_secret(raw(one["secret"]), one["label"].encode()) == raw(one["out"])
        one = case["derive_tree_secret"]
        secret, label = raw(one["secret"]), one["label"].encode()
        found = suite.derive_tree_secret(secret, label, one["generation"], one["length"])
        assert found == raw(one["out"])
        one = case["sign_with_label"]
        public, label, content = raw(one["pub"]), one["label"].encode(), raw(one["content"])
        assert suite.signature.load(raw(one["priv"])).public == public
        for signature in (raw(one["signature"]), suite.sign_with_label(raw(one["priv"]), label, content)):
            suite.verify_with_label(public, label, content, signature)
            with pytest.raises(SignatureRefused):
                suite.verify_with_label(public, label + b"x", content, signature)
        one = case["encrypt_with_label"]
        pair, label, context = suite.kem.load(raw(one["priv"])), one["label"].encode(), raw(one["context"])
        assert pair.public == raw(one["pub"])
        sealed = proposals.HPKECiphertext(raw(one["kem_output"]), raw(one["ciphertext"]))
        again = suite.encrypt_with_label(pair.public, label, context, raw(one["plaintext"]), ENTROPY)
        for ciphertext in (sealed, again):
            assert suite.decrypt_with_label(pair, label, context, ciphertext) == raw(one["plaintext"])


@pytest.mark.parametrize("number", sorted(SUITES))
def test_every_suite_makes_its_own_keys(number: int) -> None:
    suite = SUITES[number]
    signer, pair = suite.generate_signature_key(ENTROPY), suite.generate_key_pair(ENTROPY)
    signature = suite.sign_with_label(signer.private, b"Test", b"content")
    suite.verify_with_label(signer.public, b"Test", b"content", signature)
    sealed = suite.encrypt_with_label(pair.public, b"Test", b"context", b"text", ENTROPY)
    assert suite.decrypt_with_label(pair, b"Test", b"context", sealed) == b"text"
    assert suite.kem.load(pair.private) == pair
    suite.kem.check_public(pair.public)
