"""Rules for leaf nodes, key packages and whole trees (RFC 9420 sections 7.3, 10.1, 12.4.3.1 and 13.4).

Each rule is one function under its number. What an application must answer (7.3-1, whose credential this is)
is asked by the group. ``proposal_rules.py`` has the rules of proposals.
"""

from __future__ import annotations

from collections.abc import MutableSet
from dataclasses import dataclass
from typing import Final

from lokket.errors import RemoteError
from lokket.protocol.mls.messages import GroupInfo, Welcome
from lokket.protocol.mls.parent_hash import check_parent_hashes
from lokket.protocol.mls.ratchet_tree import RatchetTree
from lokket.protocol.mls.rules import Rule
from lokket.protocol.mls.structs import (
    DEFAULT_EXTENSIONS,
    MLS10,
    CommitSource,
    Extensions,
    ExternalSenders,
    GroupContext,
    KeyPackage,
    LeafNode,
    Lifetime,
    ParentNode,
    RequiredCapabilities,
    UpdateSource,
    read_extension,
)
from lokket.protocol.mls.suite import CipherSuite

LIFETIME_BOUNDED: Final = Rule(
    "7.2-1", "a key package's whole lifetime is no longer than the application takes"
)
LEAF_SIGNATURE: Final = Rule("7.3-2", "a leaf is signed by its signature key")
REQUIRED: Final = Rule("7.3-3", "members support what the group requires")
CREDENTIAL_TYPES: Final = Rule("7.3-4", "members support the credential types of all members")
LIFETIME: Final = Rule("7.3-5", "a key package is used within its lifetime")
OWN_EXTENSIONS: Final = Rule("7.3-6", "a leaf's capabilities list its extensions")
SOURCE: Final = Rule("7.3-7", "a leaf says rightly where it comes from")
SIGNATURE_KEY_UNIQUE: Final = Rule("7.3-8", "no two members have one signature key")
ENCRYPTION_KEY_UNIQUE: Final = Rule("7.3-9", "no two nodes have one encryption key")
ONE_OF_A_TYPE: Final = Rule("13.4-1", "a list has one extension of each type")
GROUP_EXTENSIONS: Final = Rule("13.4-2", "members support every extension of the group context")

KEY_PACKAGE_GROUP: Final = Rule("10.1-1", "a key package has the group's version and cipher suite")
KEY_PACKAGE_SIGNATURE: Final = Rule("10.1-2", "a key package is signed by its leaf's signature key")
INIT_KEY: Final = Rule("10.1-3", "the init key is not the leaf's encryption key")

WELCOME_FOR_US: Final = Rule("12.4.3.1-1", "a Welcome names a key package of ours")
WELCOME_SUITE: Final = Rule("12.4.3.1-2", "Welcome, GroupInfo and key package have one cipher suite")
WELCOME_PSKS: Final = Rule("12.4.3.1-3", "we have every pre-shared key that a Welcome names")
WELCOME_ONE_ORIGIN: Final = Rule("12.4.3.1-4", "at most one reinit or branch key, and then in epoch 1")
GROUP_INFO_SIGNER: Final = Rule("12.4.3.1-5", "a member signed the GroupInfo")
GROUP_ID_NEW: Final = Rule("12.4.3.1-6", "we are in no group of that id")
TREE_HASH: Final = Rule("12.4.3.1-7", "the tree has the hash of the group context")
OWN_LEAF: Final = Rule("12.4.3.1-8", "the leaf of our key package is in the tree")
CONFIRMATION: Final = Rule("12.4.3.1-9", "the confirmation tag is that of the epoch")
TREE_PRESENT: Final = Rule("12.4.3.1-10", "the tree comes with the message or beside it")
PARENT_KEY_UNIQUE: Final = Rule("12.4.3.1-13", "a parent's encryption key is nowhere else")

_LEAF_LABEL: Final = b"LeafNodeTBS"
_KEY_PACKAGE_LABEL: Final = b"KeyPackageTBS"
_GROUP_INFO_LABEL: Final = b"GroupInfoTBS"

Source = type[Lifetime] | type[UpdateSource] | type[CommitSource]
Known = MutableSet[bytes]  # hashes of leaves in their places whose signatures were verified before


@dataclass(frozen=True, slots=True)
class Place:
    """Where a leaf is met: in which group and at which leaf index, and the source that it must name."""

    group_id: bytes = b""
    leaf_index: int = 0
    source: Source | None = None  # None: any, as in a tree
    now_s: int | None = None  # None: lifetimes are not looked at


# --- section 7.3: one leaf by itself ---


def check_leaf(suite: CipherSuite, leaf: LeafNode, place: Place, known: Known | None = None) -> None:
    """7.3-2 and 7.3-5 to 7.3-7, 13.4-1: what a leaf shows without its group. RuleBroken."""
    check_source(leaf, place.source)
    check_lifetime(leaf, place.now_s)
    check_one_of_a_type(leaf.extensions)
    check_own_extensions(leaf)
    check_leaf_signature(suite, leaf, place, known)


def check_source(leaf: LeafNode, source: Source | None) -> None:
    """7.3-7."""
    SOURCE.require(source is None or isinstance(leaf.source, source))


def check_lifetime(leaf: LeafNode, now_s: int | None) -> None:
    """7.3-5. Other sources have no lifetime."""
    if now_s is not None and isinstance(leaf.source, Lifetime):
        LIFETIME.require(leaf.source.not_before <= now_s <= leaf.source.not_after)


def check_whole_lifetime(leaf: LeafNode, lifetime_max_s: int) -> None:
    """7.2-1, of what we add: members with other bounds would part ways over what others added."""
    if isinstance(leaf.source, Lifetime):
        LIFETIME_BOUNDED.require(leaf.source.not_after - leaf.source.not_before <= lifetime_max_s)


def check_one_of_a_type(extensions: Extensions) -> None:
    """13.4-1, for any list of extensions."""
    ONE_OF_A_TYPE.require(len({one.extension_type for one in extensions}) == len(extensions))


def check_context_extensions(extensions: Extensions) -> None:
    """13.4-1 for those of a group context, and their contents. DecodeError: malformed, or bytes trail one."""
    check_one_of_a_type(extensions)
    read_extension(extensions, RequiredCapabilities)
    read_extension(extensions, ExternalSenders)


def check_own_extensions(leaf: LeafNode) -> None:
    """7.3-6. Every type must be listed; those of the RFC itself count as listed (section 7.2)."""
    if leaf.extensions:
        listed = DEFAULT_EXTENSIONS.union(leaf.capabilities.extensions)
        OWN_EXTENSIONS.require(all(one.extension_type in listed for one in leaf.extensions))


def check_leaf_signature(
    suite: CipherSuite, leaf: LeafNode, place: Place, known: Known | None = None
) -> None:
    """7.3-2. A leaf that was verified at this place and in this suite before is not verified again."""
    content = leaf.to_be_signed(place.group_id, place.leaf_index)
    mark = b"" if known is None else suite.hash(suite.number.to_bytes(2, "big") + content + leaf.signature)
    if known is not None and mark in known:
        return
    _verify(suite, leaf.signature_key, (_LEAF_LABEL, content, leaf.signature), LEAF_SIGNATURE)
    if known is not None:
        known.add(mark)


# --- section 7.3: leaves beside each other ---


def check_unique(tree: RatchetTree, leaf_index: int) -> None:
    """7.3-8 and 7.3-9 for one leaf of the tree as it shall be."""
    leaf = tree.leaf(leaf_index)
    if leaf is not None:
        SIGNATURE_KEY_UNIQUE.require(tree.signing_leaves(leaf.signature_key) == [leaf_index])
        ENCRYPTION_KEY_UNIQUE.require(tree.encrypted_nodes(leaf.encryption_key) == [2 * leaf_index])


def check_support(tree: RatchetTree, extensions: Extensions) -> None:
    """7.3-3, 7.3-4 and 13.4-2 for all members at once; ``extensions`` are the group context's.

    The same for what a GroupContextExtensions proposal asks (section 12.1.7).
    """
    everyone = tree.root.support()
    CREDENTIAL_TYPES.require(everyone.has_credentials(everyone.used_credentials))
    required = read_extension(extensions, RequiredCapabilities)
    REQUIRED.require(required is None or everyone.has(required))
    GROUP_EXTENSIONS.require(everyone.has_extensions(tuple(one.extension_type for one in extensions)))


# --- section 10.1 ---


def check_key_package(suite: CipherSuite, key_package: KeyPackage, now_s: int | None) -> None:
    """All rules of 10.1, and those of 7.3 for its leaf. RuleBroken; KeyRefused: the init key."""
    KEY_PACKAGE_GROUP.require(key_package.version == MLS10 and key_package.cipher_suite == suite.number)
    leaf = key_package.leaf_node
    INIT_KEY.require(key_package.init_key != leaf.encryption_key)
    check_one_of_a_type(key_package.extensions)
    suite.kem.check_public(key_package.init_key)
    suite.kem.check_public(leaf.encryption_key)
    check_leaf(suite, leaf, Place(source=Lifetime, now_s=now_s))
    signed = (_KEY_PACKAGE_LABEL, key_package.to_be_signed(), key_package.signature)
    _verify(suite, leaf.signature_key, signed, KEY_PACKAGE_SIGNATURE)


# --- section 12.4.3.1 ---


def check_tree(
    suite: CipherSuite,
    tree: RatchetTree,
    context: GroupContext,
    now_s: int | None = None,
    known: Known | None = None,
) -> None:
    """A tree from outside, whole: its hash, parent hashes, every leaf, every key. RuleBroken.

    ``RatchetTree.decode`` has already looked at its shape and its unmerged leaves.
    """
    TREE_HASH.require(tree.tree_hash(suite.hash) == context.tree_hash)
    check_tree_keys(tree)
    check_context_extensions(context.extensions)
    check_support(tree, context.extensions)
    check_parent_hashes(tree, suite.hash)
    for leaf_index, leaf in tree.members():
        check_leaf(suite, leaf, Place(context.group_id, leaf_index, now_s=now_s), known)


def check_tree_keys(tree: RatchetTree) -> None:
    """7.3-8, 7.3-9 and 12.4.3.1-13."""
    signing: set[bytes] = set()
    encryption: set[bytes] = set()
    parents: list[bytes] = []
    for at in tree.root.walk():
        if isinstance(at.node, ParentNode):
            parents.append(at.node.encryption_key)
        elif at.node is not None:
            SIGNATURE_KEY_UNIQUE.require(at.node.signature_key not in signing)
            ENCRYPTION_KEY_UNIQUE.require(at.node.encryption_key not in encryption)
            signing.add(at.node.signature_key)
            encryption.add(at.node.encryption_key)
    for key in parents:
        PARENT_KEY_UNIQUE.require(key not in encryption)
        encryption.add(key)


def check_group_info(suite: CipherSuite, group_info: GroupInfo, tree: RatchetTree) -> None:
    """12.4.3.1-2, 12.4.3.1-5 and 13.4-1. The tree is not verified by this."""
    context = group_info.group_context
    WELCOME_SUITE.require(context.version == MLS10 and context.cipher_suite == suite.number)
    check_one_of_a_type(group_info.extensions)
    signer = tree.leaf(group_info.signer)
    if signer is None:
        GROUP_INFO_SIGNER.broken()
    signed = (_GROUP_INFO_LABEL, group_info.to_be_signed(), group_info.signature)
    _verify(suite, signer.signature_key, signed, GROUP_INFO_SIGNER)


def check_welcome(suite: CipherSuite, welcome: Welcome, key_package: KeyPackage) -> int:
    """12.4.3.1-1 and 12.4.3.1-2: the position of the secrets for this key package."""
    WELCOME_SUITE.require(welcome.cipher_suite == suite.number == key_package.cipher_suite)
    reference = suite.key_package_ref(key_package)
    for position, entry in enumerate(welcome.secrets):
        if entry.new_member == reference:
            return position
    WELCOME_FOR_US.broken()


def own_leaf_index(tree: RatchetTree, leaf: LeafNode) -> int:
    """12.4.3.1-8: where the leaf of our key package stands."""
    for index in tree.signing_leaves(leaf.signature_key):
        found = tree.leaf(index)
        if found is not None and found.encoded == leaf.encoded:
            return index
    OWN_LEAF.broken()


def _verify(suite: CipherSuite, public: bytes, signed: tuple[bytes, bytes, bytes], rule: Rule) -> None:
    """``signed``: label, content, signature."""
    try:
        suite.verify_with_label(public, *signed)
    except RemoteError:
        rule.broken()
