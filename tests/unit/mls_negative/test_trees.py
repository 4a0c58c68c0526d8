"""Ratchet trees, parent hashes and update paths to be refused (RFC 9420 sections 7.5 to 7.9 and 12.4.3)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lokket.codec import tls
from lokket.crypto.kem import KEMKeyPair
from lokket.errors import DecodeError, DecryptionFailed, KeyRefused, RemoteError
from lokket.protocol.mls import ratchet_tree, tree_math
from lokket.protocol.mls.messages import EncryptedGroupSecrets, GroupInfo, Welcome
from lokket.protocol.mls.parent_hash import check_parent_hashes
from lokket.protocol.mls.proposals import HPKECiphertext, UpdatePath
from lokket.protocol.mls.ratchet_tree import AnyNode, RatchetTree
from lokket.protocol.mls.structs import CommitSource, ParentNode
from lokket.protocol.mls.treekem import (
    NewPath,
    PrivateKeys,
    Receiver,
    merge_path,
    open_path,
    private_from_welcome,
    retained,
)
from lokket.protocol.mls.validation import (
    check_group_info,
    check_tree,
    check_tree_keys,
    check_welcome,
    own_leaf_index,
)
from tests.support.entropy import SeededEntropy
from tests.support.mls_rules import (
    NOW_S,
    SUITE,
    Person,
    commit_path,
    context_of,
    people,
    person,
    refused,
    tree_of,
    warm_tree,
)

ALICE, BOB, CAROL, DAVE = people(4)
TREE, MEMBERS = warm_tree(6)
NODES = TREE.nodes()
ROOT = tree_math.root(TREE.leaf_count)


def with_nodes(changes: dict[int, AnyNode | None], nodes: tuple[AnyNode | None, ...] = NODES) -> RatchetTree:
    return RatchetTree.from_nodes(tuple(changes.get(index, node) for index, node in enumerate(nodes)))


def parent(index: int) -> ParentNode:
    node = TREE.parent(index)
    assert node is not None
    return node


def test_what_is_right_passes() -> None:
    check_tree(SUITE, TREE, context_of(TREE), NOW_S)
    assert RatchetTree.decode(TREE.encode()).tree_hash(SUITE.hash) == TREE.tree_hash(SUITE.hash)


# --- shape (12.4.3.3) ---


@pytest.mark.parametrize("nodes", [(), (None,), (*NODES, None), (None, None, None)])
def test_a_tree_that_ends_in_a_blank_node(nodes: tuple[AnyNode | None, ...]) -> None:
    with refused("12.4.3.3-1"):
        RatchetTree.from_nodes(nodes)


def test_a_tree_with_nodes_in_the_wrong_places() -> None:
    with refused("12.4.3.3-2"):
        with_nodes({1: ALICE.leaf})
    with refused("12.4.3.3-2"):
        with_nodes({2: parent(ROOT)})


@pytest.mark.parametrize("tail", [b"\x00", b"\x01", b"\x01\x01", b"\x01\x03", b"\x02"])
def test_a_tree_with_bytes_after_it(tail: bytes) -> None:
    body = TREE.encode()[2:]
    with pytest.raises(DecodeError):
        RatchetTree.decode(TREE.encode() + tail)
    if tail != b"\x00":
        with pytest.raises(DecodeError):
            RatchetTree.decode(tls.opaque(body + tail))


@pytest.mark.attack(84)
def test_a_tree_that_is_larger_than_we_carry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ratchet_tree, "MLS_LEAVES_MAX", 4)
    four = tree_of(people(4))
    with pytest.raises(RemoteError, match="full"):
        four.add(person("fifth").leaf)
    assert RatchetTree.decode(four.encode()).member_count == 4
    with pytest.raises(DecodeError, match="larger"):
        RatchetTree.decode(TREE.encode())


# --- unmerged leaves (12.4.3.1) ---


@pytest.mark.parametrize("unmerged", [(4,), (2, 7), (2**32 - 1,)])
def test_an_unmerged_leaf_that_is_not_below(unmerged: tuple[int, ...]) -> None:
    with refused("12.4.3.1-11"):
        with_nodes({3: replace(parent(3), unmerged_leaves=unmerged)})


def test_an_unmerged_leaf_that_is_blank() -> None:
    nodes = dict.fromkeys([4, 5], None)
    with refused("12.4.3.1-11"):
        with_nodes({**nodes, 3: replace(parent(3), unmerged_leaves=(2,))})
    with refused("12.4.3.1-11"):
        with_nodes({ROOT: replace(parent(ROOT), unmerged_leaves=(6,))})


def test_an_unmerged_leaf_that_a_parent_between_does_not_list() -> None:
    with refused("12.4.3.1-12"):
        with_nodes({ROOT: replace(parent(ROOT), unmerged_leaves=(1,))})
    with refused("12.4.3.1-12"):
        with_nodes(
            {
                ROOT: replace(parent(ROOT), unmerged_leaves=(0, 1)),
                3: replace(parent(3), unmerged_leaves=(0, 1)),
                1: replace(parent(1), unmerged_leaves=(0,)),
            }
        )


@pytest.mark.parametrize("unmerged", [(1, 0), (1, 1)])
def test_unmerged_leaves_that_do_not_rise(unmerged: tuple[int, ...]) -> None:
    good = tls.encode(replace(parent(1), unmerged_leaves=(1,)))
    items = b"".join(leaf.to_bytes(4, "big") for leaf in unmerged)
    with pytest.raises(DecodeError):
        tls.decode(ParentNode, good[:-5] + tls.opaque(items))


# --- parent hashes (7.9.2) ---


@pytest.mark.parametrize("index", [1, 3, 5, 7, 9])
def test_a_parent_with_a_key_that_nobody_set(index: int) -> None:
    node = parent(index)
    with refused("7.9.2-1"):
        check_parent_hashes(
            with_nodes({index: replace(node, encryption_key=ALICE.key_package.init_key)}), SUITE.hash
        )


def test_a_parent_with_another_parent_hash() -> None:
    for index in (1, 3):
        with refused("7.9.2-1"):
            changed = replace(parent(index), parent_hash=bytes(32))
            check_parent_hashes(with_nodes({index: changed}), SUITE.hash)


def test_a_sibling_that_was_exchanged_below_a_parent() -> None:
    other = person("other", source=CommitSource(bytes(32)))
    broken = with_nodes({0: other.leaf})
    with refused("7.9.2-1"):
        check_parent_hashes(broken, SUITE.hash)
    with refused("12.4.3.1-7"):
        check_tree(SUITE, broken, context_of(TREE))


def test_an_unmerged_leaf_that_was_not_added_later() -> None:
    """Whoever lists a member as unmerged would shut it out of what is sealed to the parent."""
    changed = with_nodes(
        {
            ROOT: replace(parent(ROOT), unmerged_leaves=(0,)),
            3: replace(parent(3), unmerged_leaves=(0,)),
            1: replace(parent(1), unmerged_leaves=(0,)),
        }
    )
    with refused("7.9.2-1"):
        check_parent_hashes(changed, SUITE.hash)


def test_a_parent_over_nobody() -> None:
    tree = tree_of([ALICE, BOB]).remove(1)
    key = ALICE.key_package.init_key
    nodes = (tree.leaf(0), None, None, ParentNode(key, b"", ()), None, ParentNode(key, b"", ()), None)
    lonely = RatchetTree.from_nodes((*nodes[:3], nodes[3], CAROL.leaf))
    with refused("7.9.2-1"):
        check_parent_hashes(lonely, SUITE.hash)


def test_leaves_that_joined_since_leave_a_parent_hash_valid() -> None:
    tree, newcomers = TREE, [person("new 1"), person("new 2"), person("new 3")]
    for newcomer in newcomers:
        tree, _ = tree.add(newcomer.leaf)
    check_tree(SUITE, RatchetTree.decode(tree.encode()), context_of(tree))
    tree = commit_path(tree, newcomers[0], 6)[0].tree
    check_tree(SUITE, RatchetTree.decode(tree.encode()), context_of(tree))
    tree = tree.remove(2).remove(7)
    check_tree(SUITE, RatchetTree.decode(tree.encode()), context_of(tree))


# --- keys (12.4.3.1) ---


def test_a_parent_with_the_key_of_another_node() -> None:
    for key in (TREE.subtree(4).node, TREE.subtree(7).node):
        assert key is not None
        with refused("12.4.3.1-13"):
            check_tree_keys(with_nodes({1: replace(parent(1), encryption_key=key.encryption_key)}))


# --- update paths (7.5, 7.6, 12.4.2) ---


def path_of(tree: RatchetTree, member: Person, index: int) -> tuple[NewPath, UpdatePath, bytes]:
    return commit_path(tree, member, index, "again")


def test_a_path_of_another_length() -> None:
    _, path, bound = path_of(TREE, MEMBERS[0], 0)
    private: PrivateKeys = {8: MEMBERS[4].encryption}
    for nodes in (path.nodes[:-1], path.nodes[1:], (), (*path.nodes, path.nodes[0])):
        with refused("7.5-1"):
            merge_path(SUITE, TREE, 0, replace(path, nodes=nodes))
        with refused("7.5-1"):
            sent = (0, replace(path, nodes=nodes), frozenset[int]())
            open_path(SUITE, TREE, sent, Receiver(4, private), bound)


def test_a_path_whose_leaf_has_another_parent_hash() -> None:
    _, path, _ = path_of(TREE, MEMBERS[0], 0)
    for source in (CommitSource(b""), CommitSource(bytes(32))):
        leaf = MEMBERS[0].signed(0, source=source, encryption_key=path.leaf_node.encryption_key)
        with refused("7.5-2"):
            merge_path(SUITE, TREE, 0, replace(path, leaf_node=leaf))
    for position in range(len(path.nodes)):
        changed = replace(path.nodes[position], encryption_key=person("fresh").key_package.init_key)
        nodes = (*path.nodes[:position], changed, *path.nodes[position + 1 :])
        with refused("7.5-2"):
            merge_path(SUITE, TREE, 0, replace(path, nodes=nodes))


def test_a_path_that_was_made_for_another_tree() -> None:
    _, path, _ = path_of(TREE, MEMBERS[0], 0)
    other = TREE.update(4, MEMBERS[4].update(4))
    with refused("7.5-2"):
        merge_path(SUITE, other, 0, path)
    with refused("7.5-2"):
        merge_path(SUITE, TREE, 1, path)


def test_a_path_with_a_key_that_is_in_the_tree() -> None:
    _, path, _ = path_of(TREE, MEMBERS[0], 0)
    for index in (0, 1, 8, 9, ROOT):
        node = TREE.subtree(index).node
        assert node is not None
        stale = replace(path.nodes[1], encryption_key=node.encryption_key)
        with refused("7.5-3"):
            merge_path(SUITE, TREE, 0, replace(path, nodes=(path.nodes[0], stale, *path.nodes[2:])))
        leaf = replace(path.leaf_node, encryption_key=node.encryption_key)
        with refused("7.5-3"):
            merge_path(SUITE, TREE, 0, replace(path, leaf_node=leaf))


def test_a_path_with_one_key_twice() -> None:
    _, path, _ = path_of(TREE, MEMBERS[0], 0)
    twice = replace(path.nodes[1], encryption_key=path.nodes[0].encryption_key)
    with refused("7.5-3"):
        merge_path(SUITE, TREE, 0, replace(path, nodes=(path.nodes[0], twice, *path.nodes[2:])))


@pytest.mark.parametrize("key", [b"", bytes(32), b"\x02" * 31])
def test_a_path_with_a_key_that_is_none(key: bytes) -> None:
    _, path, _ = path_of(TREE, MEMBERS[0], 0)
    wrong = replace(path.nodes[0], encryption_key=key)
    with pytest.raises(KeyRefused):
        merge_path(SUITE, TREE, 0, replace(path, nodes=(wrong, *path.nodes[1:])))


def bare() -> tuple[RatchetTree, UpdatePath, bytes, Receiver]:
    """Four members of whom none has committed; the second receives the first one's path."""
    tree = tree_of([ALICE, BOB, CAROL, DAVE])
    _, path, bound = path_of(tree, ALICE, 0)
    return tree, path, bound, Receiver(1, {2: BOB.encryption})


def test_a_path_with_too_many_or_too_few_ciphertexts() -> None:
    tree, path, bound, receiver = bare()
    sealed = path.nodes[1].encrypted_path_secret
    assert len(sealed) == 2
    for wrong in ((), sealed[:1], (*sealed, sealed[0])):
        changed = replace(path.nodes[1], encrypted_path_secret=wrong)
        with refused("7.6-1"):
            sent = (0, replace(path, nodes=(path.nodes[0], changed)), frozenset[int]())
            open_path(SUITE, tree, sent, receiver, bound)


def test_a_path_that_counts_those_who_are_only_joining() -> None:
    tree, path, bound, receiver = bare()
    with refused("7.6-1"):
        open_path(SUITE, tree, (0, path, frozenset({3})), receiver, bound)


def test_a_path_secret_that_leads_to_other_keys() -> None:
    tree, path, bound, receiver = bare()
    sealed = SUITE.encrypt_with_label(
        BOB.leaf.encryption_key, b"UpdatePathNode", bound, bytes(32), SeededEntropy("lie")
    )
    changed = replace(path.nodes[0], encrypted_path_secret=(sealed,))
    with refused("7.5-4"):
        sent = (0, replace(path, nodes=(changed, path.nodes[1])), frozenset[int]())
        open_path(SUITE, tree, sent, receiver, bound)


def test_a_path_for_another_context_or_damaged() -> None:
    tree, path, bound, receiver = bare()
    with pytest.raises(DecryptionFailed):
        open_path(SUITE, tree, (0, path, frozenset()), receiver, bound + b"x")
    sealed = path.nodes[0].encrypted_path_secret[0]
    for wrong in (
        HPKECiphertext(sealed.kem_output, sealed.ciphertext[:-1] + bytes((sealed.ciphertext[-1] ^ 1,))),
        HPKECiphertext(sealed.kem_output, b""),
        HPKECiphertext(b"", sealed.ciphertext),
        HPKECiphertext(bytes(32), sealed.ciphertext),
    ):
        changed = replace(path.nodes[0], encrypted_path_secret=(wrong,))
        sent = (0, replace(path, nodes=(changed, path.nodes[1])), frozenset[int]())
        with pytest.raises(DecryptionFailed):
            open_path(SUITE, tree, sent, receiver, bound)


def test_keys_that_the_tree_no_longer_holds_are_forgotten() -> None:
    tree, path, bound, receiver = bare()
    merged = merge_path(SUITE, tree, 0, path)
    opened = open_path(SUITE, tree, (0, path, frozenset()), receiver, bound)
    assert set(opened.private) == {1, 2, 3}
    assert retained(opened.private, merged) == opened.private
    assert set(retained(opened.private, merged.remove(3))) == {1, 2}
    assert set(retained(opened.private, merged.update(1, BOB.update(1)))) == set()


# --- joining (12.4.3.1) ---


def test_a_welcome_whose_path_secret_is_of_another_tree() -> None:
    tree, made = tree_of([ALICE, BOB, CAROL]), path_of(tree_of([ALICE, BOB, CAROL]), ALICE, 0)[0]
    secret = made.path_secret_for(2)
    keys = private_from_welcome(SUITE, made.tree, (2, CAROL.encryption), (0, secret))
    assert set(keys) == {3, 4}
    with refused("7.5-4"):
        private_from_welcome(SUITE, made.tree, (2, CAROL.encryption), (0, bytes(32)))
    with refused("7.5-4"):
        private_from_welcome(SUITE, tree, (2, CAROL.encryption), (0, secret))
    assert set(private_from_welcome(SUITE, tree, (2, CAROL.encryption), (0, None))) == {4}


@pytest.mark.parametrize("count", [3, 4, 7, 9, 12, 16])
def test_whoever_commits_the_path_secret_leads_to_the_root(count: int) -> None:
    """Node indices fall as well as rise on the way up: each pair of committer and newcomer counts."""
    members = people(count)
    tree = tree_of(members)
    for committer in range(count):
        made = path_of(tree, members[committer], committer)[0]
        for own in range(count):
            if own != committer:
                leaf, sent = (own, members[own].encryption), (committer, made.path_secret_for(own))
                keys = private_from_welcome(SUITE, made.tree, leaf, sent)
                wanted = {index for index in made.private if tree_math.is_in_subtree(2 * own, index)}
                assert set(keys) == wanted | {2 * own}
                assert all(keys[index] == made.private[index] for index in wanted)


def test_a_tree_without_our_leaf() -> None:
    assert own_leaf_index(TREE, TREE.leaf(3) or ALICE.leaf) == 3
    for leaf in (person("nobody").leaf, MEMBERS[3].leaf):
        with refused("12.4.3.1-8"):
            own_leaf_index(TREE, leaf)


def test_a_group_info_that_no_member_signed() -> None:
    tree = tree_of([ALICE, BOB])
    bare_info = GroupInfo(context_of(tree), (), bytes(32), 1, b"")
    signature = SUITE.sign_with_label(BOB.signature.private, b"GroupInfoTBS", bare_info.to_be_signed())
    info = replace(bare_info, signature=signature)
    check_group_info(SUITE, info, tree)
    for wrong in (
        replace(info, signer=0),
        replace(info, signer=2),
        replace(info, signer=2**32 - 1),
        replace(info, confirmation_tag=bytes(31)),
        replace(info, group_context=replace(info.group_context, epoch=2)),
        replace(info, signature=b""),
    ):
        with refused("12.4.3.1-5"):
            check_group_info(SUITE, wrong, tree)
    with refused("12.4.3.1-2"):
        check_group_info(
            SUITE, replace(info, group_context=replace(info.group_context, cipher_suite=3)), tree
        )


def test_a_welcome_for_others() -> None:
    sealed = HPKECiphertext(b"", b"")
    entries = [EncryptedGroupSecrets(SUITE.key_package_ref(one.key_package), sealed) for one in (ALICE, BOB)]
    welcome = Welcome(1, tuple(entries), b"")
    assert check_welcome(SUITE, welcome, BOB.key_package) == 1
    with refused("12.4.3.1-1"):
        check_welcome(SUITE, welcome, CAROL.key_package)
    with refused("12.4.3.1-1"):
        check_welcome(SUITE, replace(welcome, secrets=()), BOB.key_package)
    with refused("12.4.3.1-2"):
        check_welcome(SUITE, replace(welcome, cipher_suite=3), BOB.key_package)


def test_a_pair_of_another_leaf_opens_nothing() -> None:
    tree, path, bound, _ = bare()
    stranger: KEMKeyPair = person("stranger").encryption
    with pytest.raises(DecryptionFailed):
        open_path(SUITE, tree, (0, path, frozenset()), Receiver(1, {2: stranger}), bound)


def test_many_unmerged_leaves_are_left_out_in_one_pass() -> None:
    """A tree from outside may list half its leaves at the root: no leaf is compared with all the others."""
    compared = []

    class Counted(int):
        def __lt__(self, other: int) -> bool:
            compared.append(other)
            return int(self) < other

        def __ge__(self, other: int) -> bool:
            compared.append(other)
            return int(self) >= other

        __hash__ = int.__hash__

    leaf = ALICE.leaf
    half: list[AnyNode | None] = [leaf if index % 2 == 0 else None for index in range(2 * 256 - 1)]
    tree = RatchetTree.from_nodes(tuple(half))
    found = tree.root.tree_hash_without(SUITE.hash, tuple(Counted(index) for index in range(128, 256)))
    blank = RatchetTree.from_nodes(tuple(half[: 2 * 128 - 1])).with_room()[0]
    assert found == blank.tree_hash(SUITE.hash)
    assert len(compared) < 128 * 2 * 16
