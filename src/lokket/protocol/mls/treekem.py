"""TreeKEM: path secrets, and making and applying an UpdatePath (RFC 9420 sections 7.4 to 7.6).

A committer goes: ``new_path`` (fresh keys, the tree with them), then, once the group context holds that
tree's hash, ``seal_path``. Everyone else: ``merge_path`` (the tree with the public keys), then ``open_path``
(the private ones). Both start from the tree after the commit's proposals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Final

from lokket.crypto.entropy import Entropy
from lokket.crypto.kem import KEMKeyPair
from lokket.errors import LocalError
from lokket.protocol.mls import tree_math
from lokket.protocol.mls.parent_hash import parent_hash, stored_parent_hash
from lokket.protocol.mls.proposals import UpdatePath, UpdatePathNode
from lokket.protocol.mls.ratchet_tree import RatchetTree, Subtree
from lokket.protocol.mls.rules import Rule
from lokket.protocol.mls.structs import CommitSource, LeafNode, ParentNode
from lokket.protocol.mls.suite import CipherSuite

PATH_LENGTH: Final = Rule("7.5-1", "an UpdatePath has one node for each of the filtered direct path")
PATH_PARENT_HASH: Final = Rule("7.5-2", "an UpdatePath's leaf has the parent hash of the path")
PATH_KEYS_FRESH: Final = Rule("7.5-3", "no key of an UpdatePath is in the tree already, or in it twice")
CIPHERTEXT_COUNT: Final = Rule("7.6-1", "a path secret is encrypted once to each node of the resolution")
PATH_KEYS_MATCH: Final = Rule("7.5-4", "the keys that follow from a path secret are those of the tree")
KEYS_GIVEN: Final = Rule(
    "12.4.3.1-14", "a newcomer gets the key of every parent that does not list it as unmerged"
)

Path = Sequence[tuple[Subtree, Subtree]]  # a filtered direct path, from below, and its copath
PrivateKeys = Mapping[int, KEMKeyPair]  # by node index: the own leaf and what is known of its direct path
_UPDATE_PATH_NODE: Final = b"UpdatePathNode"


@dataclass(frozen=True, slots=True)
class LeafKeys:
    """What a member makes its leaves with: the leaf as it was or shall be, and the key that signs."""

    leaf_index: int
    template: LeafNode  # its keys, source and signature are replaced
    signature_private: bytes = field(repr=False)
    group_id: bytes


@dataclass(frozen=True, slots=True)
class NewPath:
    """A path that is made and not yet sealed."""

    tree: RatchetTree
    leaf: LeafNode
    leaf_index: int
    nodes: Path
    path_secrets: Mapping[int, bytes] = field(repr=False)  # by node index
    private: PrivateKeys = field(repr=False)
    commit_secret: bytes = field(repr=False)

    def path_secret_for(self, leaf_index: int) -> bytes | None:
        """For a new member's Welcome: of the lowest node of the path above both (section 12.4.3.1)."""
        for node, _ in self.nodes:
            if tree_math.is_in_subtree(2 * leaf_index, node.index):
                return self.path_secrets[node.index]
        return None


def new_path(suite: CipherSuite, tree: RatchetTree, keys: LeafKeys, entropy: Entropy) -> NewPath:
    """Fresh keys for the leaf and its filtered direct path (section 7.4), and a signed leaf (7.5)."""
    path = tuple(tree.filtered_direct_path(keys.leaf_index))
    leaf_pair = suite.generate_key_pair(entropy)
    secrets, pairs, commit_secret = _ladder(suite, path, entropy.draw(suite.hash_bytes))
    public = {index: pair.public for index, pair in pairs.items()}
    parents, leaf_hash = _parents(suite, path, public)
    leaf = sign_leaf(
        suite,
        replace(keys.template, encryption_key=leaf_pair.public, source=CommitSource(leaf_hash)),
        keys,
    )
    return NewPath(
        tree=tree.with_path(keys.leaf_index, leaf, parents),
        leaf=leaf,
        leaf_index=keys.leaf_index,
        nodes=path,
        path_secrets=secrets,
        private={**pairs, 2 * keys.leaf_index: leaf_pair},
        commit_secret=commit_secret,
    )


def seal_path(
    suite: CipherSuite, path: NewPath, new_leaves: Set[int], context: bytes, entropy: Entropy
) -> UpdatePath:
    """Each path secret to the copath's resolution, without the leaves that this commit adds (section 7.5).

    ``context`` is the encoded GroupContext of the new epoch, still with the old confirmed transcript hash.
    """
    nodes = []
    for node, copath in path.nodes:
        secret = path.path_secrets[node.index]
        sealed = tuple(
            suite.encrypt_with_label(key, _UPDATE_PATH_NODE, context, secret, entropy)
            for key in _keys_of(path.tree, copath, new_leaves)
        )
        nodes.append(UpdatePathNode(path.private[node.index].public, sealed))
    return UpdatePath(path.leaf, tuple(nodes))


def merge_path(suite: CipherSuite, tree: RatchetTree, sender: int, path: UpdatePath) -> RatchetTree:
    """The tree with the path's public keys. RuleBroken: 7.5-1 to 7.5-3. The leaf's own rules are 7.3's."""
    nodes = tree.filtered_direct_path(sender)
    PATH_LENGTH.require(len(nodes) == len(path.nodes))
    keys = [path.leaf_node.encryption_key, *(node.encryption_key for node in path.nodes)]
    PATH_KEYS_FRESH.require(len(set(keys)) == len(keys))
    for key in keys:
        PATH_KEYS_FRESH.require(not tree.encrypted_nodes(key))  # section 12.4.2
    public = {node.index: sent.encryption_key for (node, _), sent in zip(nodes, path.nodes, strict=True)}
    for key in public.values():
        suite.kem.check_public(key)
    parents, leaf_hash = _parents(suite, nodes, public)
    PATH_PARENT_HASH.require(stored_parent_hash(path.leaf_node) == leaf_hash)
    return tree.with_path(sender, path.leaf_node, parents)


@dataclass(frozen=True, slots=True)
class Receiver:
    """A member who opens a path: its leaf, and the private keys from before the commit."""

    leaf_index: int
    private: PrivateKeys = field(repr=False)


@dataclass(frozen=True, slots=True)
class OpenedPath:
    path_secret: bytes = field(repr=False)  # of the lowest common node
    private: PrivateKeys = field(repr=False)
    commit_secret: bytes = field(repr=False)


def open_path(
    suite: CipherSuite,
    tree: RatchetTree,
    sent: tuple[int, UpdatePath, Set[int]],
    receiver: Receiver,
    context: bytes,
) -> OpenedPath:
    """What a path gives ``receiver``; ``sent`` is (sender's leaf, path, leaves that the commit adds).

    ``tree`` is the one before ``merge_path``; ``context`` as for ``seal_path``. RuleBroken, DecryptionFailed.
    """
    sender, path, new_leaves = sent
    nodes = tree.filtered_direct_path(sender)
    PATH_LENGTH.require(len(nodes) == len(path.nodes))
    for (_, copath), sent_node in zip(nodes, path.nodes, strict=True):
        targets = _targets(copath.resolution(), new_leaves)
        CIPHERTEXT_COUNT.require(len(sent_node.encrypted_path_secret) == len(targets))
    at = next(
        position
        for position, (_, copath) in enumerate(nodes)
        if tree_math.is_in_subtree(2 * receiver.leaf_index, copath.index)
    )
    targets = _targets(nodes[at][1].resolution(), new_leaves)
    position = next((number for number, index in enumerate(targets) if index in receiver.private), None)
    if position is None:
        raise LocalError("no private key of ours is in the resolution")
    sealed = path.nodes[at].encrypted_path_secret[position]
    pair = receiver.private[targets[position]]
    secret = suite.decrypt_with_label(pair, _UPDATE_PATH_NODE, context, sealed)
    _, pairs, commit_secret = _ladder(suite, nodes[at:], secret)
    for (node, _), sent_node in zip(nodes[at:], path.nodes[at:], strict=True):
        PATH_KEYS_MATCH.require(pairs[node.index].public == sent_node.encryption_key)
    return OpenedPath(secret, {**receiver.private, **pairs}, commit_secret)


def private_from_welcome(
    suite: CipherSuite, tree: RatchetTree, leaf: tuple[int, KEMKeyPair], sent: tuple[int, bytes | None]
) -> PrivateKeys:
    """A new member's keys: its leaf's, and what the committer's path secret gives (section 12.4.3.1).

    ``leaf`` is (own leaf index, its pair), ``sent`` is (committer's leaf index, path secret or None).
    """
    (own, pair), (committer, secret) = leaf, sent
    pairs: dict[int, KEMKeyPair] = {}
    if secret is not None:
        path = tree.filtered_direct_path(committer)
        nodes = [entry for entry in path if tree_math.is_in_subtree(2 * own, entry[0].index)]
        _, pairs, _ = _ladder(suite, nodes, secret)
    for index, derived in pairs.items():
        node = tree.parent(index)
        PATH_KEYS_MATCH.require(node is not None and node.encryption_key == derived.public)
    for at, _ in tree.way_down(own):
        parent = at.node
        if isinstance(parent, ParentNode) and own not in parent.unmerged_leaves:
            KEYS_GIVEN.require(at.index in pairs)  # else later paths would be sealed to what we lack
    return {**pairs, 2 * own: pair}


def retained(private: PrivateKeys, tree: RatchetTree) -> PrivateKeys:
    """The keys that the tree still holds: others must be deleted (sections 7.5 and 14)."""
    size = 2 * tree.leaf_count - 1
    kept = {}
    for index, pair in private.items():
        node = tree.subtree(index).node if index < size else None
        if node is not None and node.encryption_key == pair.public:
            kept[index] = pair
    return kept


def sign_leaf(suite: CipherSuite, leaf: LeafNode, keys: LeafKeys) -> LeafNode:
    """``leaf`` with its signature (section 7.2)."""
    blank = replace(leaf, signature=b"")
    content = blank.to_be_signed(keys.group_id, keys.leaf_index)
    return replace(leaf, signature=suite.sign_with_label(keys.signature_private, b"LeafNodeTBS", content))


def _ladder(
    suite: CipherSuite,
    path: Path,
    secret: bytes,
) -> tuple[dict[int, bytes], dict[int, KEMKeyPair], bytes]:
    """(path secrets, key pairs, commit secret) from the lowest node's path secret upwards (section 7.4)."""
    secrets, pairs = {}, {}
    for node, _ in path:
        secrets[node.index] = secret
        pairs[node.index] = suite.derive_key_pair(suite.derive_secret(secret, b"node"))
        secret = suite.derive_secret(secret, b"path")
    return secrets, pairs, secret


def _parents(
    suite: CipherSuite,
    path: Path,
    public: Mapping[int, bytes],
) -> tuple[dict[int, ParentNode], bytes]:
    """(new parent nodes, parent hash of the leaf), computed from the root down (section 7.9.1)."""
    parents, above = {}, b""
    for node, copath in reversed(path):
        parents[node.index] = ParentNode(public[node.index], above, ())
        above = parent_hash(parents[node.index], copath, suite.hash)
    return parents, above


def _targets(resolution: Sequence[int], new_leaves: Set[int]) -> Sequence[int]:
    if not new_leaves:
        return resolution
    return [index for index in resolution if index & 1 or index // 2 not in new_leaves]


def _keys_of(tree: RatchetTree, copath: Subtree, new_leaves: Set[int]) -> list[bytes]:
    keys = []
    for index in _targets(copath.resolution(), new_leaves):
        node = tree.subtree(index).node
        assert node is not None, "a resolution has no blank nodes"
        keys.append(node.encryption_key)
    return keys
