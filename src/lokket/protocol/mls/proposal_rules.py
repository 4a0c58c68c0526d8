"""Rules for proposals, by themselves and as the list of a commit (RFC 9420 sections 12.1, 12.2 and 12.4).

The rules of 12.2 are numbered in its order; 12.2-1 ("each by itself") is section 12.1, 12.2-12 ("the tree
afterwards") is ``validation.py``, and 12.2-11 (types beyond the RFC) holds since none decodes. Whether a
joiner may replace the member that it removes is the credential hook's to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lokket.protocol.mls.messages import External, Member, NewMemberCommit, NewMemberProposal, Sender
from lokket.protocol.mls.proposals import (
    Add,
    AnyProposal,
    Commit,
    ExternalInit,
    GroupContextExtensions,
    PreSharedKey,
    PreSharedKeyID,
    ReInit,
    Remove,
    ResumptionPSK,
    ResumptionUsage,
    Update,
)
from lokket.protocol.mls.proposed import Proposed
from lokket.protocol.mls.ratchet_tree import RatchetTree
from lokket.protocol.mls.rules import Rule
from lokket.protocol.mls.structs import MLS10, LeafNode, UpdateSource
from lokket.protocol.mls.suite import CipherSuite
from lokket.protocol.mls.validation import Place, check_context_extensions, check_key_package, check_leaf

UPDATE_SENDER: Final = Rule("12.1.2-1", "a member updates its own leaf")
UPDATE_KEY: Final = Rule("12.1.2-2", "an Update has another encryption key than the leaf before")
REMOVE_MEMBER: Final = Rule("12.1.3-1", "a Remove names a member")
PSK_USAGE: Final = Rule("12.1.4-1", "a proposed resumption key is for applications")
PSK_NONCE: Final = Rule("12.1.4-2", "a key's nonce has the length of the hash")
REINIT_VERSION: Final = Rule("12.1.5-1", "a ReInit does not go back to an older version")
EXTERNAL_TYPES: Final = Rule("12.1.8-1", "an external sender proposes no Update and no ExternalInit")
NEW_MEMBER_TYPES: Final = Rule("12.1.8-2", "one who wants to join proposes an Add of itself, nothing else")
EXTERNAL_SENDER: Final = Rule("12.1.8-3", "the group context lists the external sender")

NO_OWN_UPDATE: Final = Rule("12.2-2", "a committer commits no Update of its own")
NO_OWN_REMOVE: Final = Rule("12.2-3", "a committer does not remove itself")
ONE_CHANGE_A_LEAF: Final = Rule("12.2-4", "a leaf is updated or removed once")
ADDED_ONCE: Final = Rule("12.2-5", "a client is added once")
NOT_A_MEMBER: Final = Rule("12.2-6", "a client that is added is not in the group, or leaves it")
PSK_ONCE: Final = Rule("12.2-7", "a pre-shared key is used once")
ONE_CONTEXT: Final = Rule("12.2-8", "the extensions are replaced once")
REINIT_ALONE: Final = Rule("12.2-9", "a ReInit stands alone")
NO_EXTERNAL_INIT: Final = Rule("12.2-10", "members commit no ExternalInit")
KNOWN_REFERENCE: Final = Rule("12.2-13", "a reference is to a proposal that we received (erratum 8815)")
ONE_EXTERNAL_INIT: Final = Rule("12.2-21", "an external commit has one ExternalInit")
ONE_RESYNC: Final = Rule("12.2-22", "an external commit has one Remove at most")
EXTERNAL_LIST: Final = Rule("12.2-23", "an external commit has ExternalInit, Remove and keys alone")
RESYNC_KEY: Final = Rule("12.2-24", "a joiner has another encryption key than the self that it removes")

PATH_PRESENT: Final = Rule("12.4-1", "a commit has a path unless all that it has may go without")
PATH_SOURCE_KEY: Final = Rule("12.4.2-1", "a path has another leaf key than the leaf before")
EXTERNAL_BY_VALUE: Final = Rule("12.4.3.2-1", "an external commit has its proposals by value")
EXTERNAL_PATH: Final = Rule("12.4.3.2-2", "an external commit has a path")

NEEDS_PATH: Final = (Update, Remove, ExternalInit, GroupContextExtensions)


@dataclass(frozen=True, slots=True)
class Ground:
    """The group that proposals are made in, before any of them."""

    suite: CipherSuite
    tree: RatchetTree
    group_id: bytes
    now_s: int | None = None


# --- section 12.1: one proposal ---


def check_proposal(proposal: AnyProposal, sender: Sender, ground: Ground) -> None:
    """The rules of 12.1 that need no list: also when a proposal is received. RuleBroken, KeyRefused."""
    check_proposal_sender(proposal, sender)
    match proposal:
        case Add(key_package):
            check_key_package(ground.suite, key_package, ground.now_s)
        case Update():
            check_update(proposal, sender, ground)
        case Remove(removed):
            REMOVE_MEMBER.require(ground.tree.leaf(removed) is not None)
        case PreSharedKey(psk):
            check_psk_id(ground.suite, psk)
        case ReInit():
            REINIT_VERSION.require(proposal.version >= MLS10)
            check_context_extensions(proposal.extensions)
        case GroupContextExtensions(extensions):
            check_context_extensions(extensions)
        case ExternalInit():
            pass


def check_proposal_sender(proposal: AnyProposal, sender: Sender) -> None:
    """12.1.8-1, 12.1.8-2 and 12.1.2-1's first half: what each kind of sender may propose."""
    if isinstance(sender, External):
        EXTERNAL_TYPES.require(not isinstance(proposal, Update | ExternalInit))
    elif isinstance(sender, NewMemberProposal):
        NEW_MEMBER_TYPES.require(isinstance(proposal, Add))
    elif isinstance(sender, NewMemberCommit):
        EXTERNAL_LIST.require(isinstance(proposal, ExternalInit | Remove | PreSharedKey))


def check_update(update: Update, sender: Sender, ground: Ground) -> None:
    """12.1.2-1 and 12.1.2-2, and 7.3 for the leaf by itself."""
    leaf = ground.tree.leaf(sender.leaf_index) if isinstance(sender, Member) else None
    if leaf is None or not isinstance(sender, Member):
        UPDATE_SENDER.broken()
    UPDATE_KEY.require(update.leaf_node.encryption_key != leaf.encryption_key)
    ground.suite.kem.check_public(update.leaf_node.encryption_key)
    place = Place(ground.group_id, sender.leaf_index, UpdateSource, ground.now_s)
    check_leaf(ground.suite, update.leaf_node, place)


def check_psk_id(suite: CipherSuite, psk: PreSharedKeyID) -> None:
    """12.1.4-1 and 12.1.4-2; reinit and branch keys stand in Welcomes, not in proposals."""
    if isinstance(psk.psk, ResumptionPSK):
        PSK_USAGE.require(psk.psk.usage == ResumptionUsage.APPLICATION)
    PSK_NONCE.require(len(psk.psk_nonce) == suite.hash_bytes)


# --- section 12.2: the list of a commit ---


def check_list(listed: Sequence[Proposed], committer: int, ground: Ground) -> None:
    """A member's commit: 12.1 for each proposal, 12.2-2 to 12.2-10. RuleBroken, KeyRefused."""
    for item in listed:
        check_proposal(item.proposal, item.sender, ground)
    check_together(listed, committer, ground.tree)


def check_together(listed: Sequence[Proposed], committer: int, tree: RatchetTree) -> None:
    """12.2-2 to 12.2-10, for proposals that are valid by themselves. RuleBroken."""
    proposals = [item.proposal for item in listed]
    check_own(listed, committer)
    check_changes(listed)
    check_added(proposals, tree)
    check_keys_once(proposals)
    ONE_CONTEXT.require(sum(isinstance(one, GroupContextExtensions) for one in proposals) <= 1)
    REINIT_ALONE.require(len(proposals) == 1 or not any(isinstance(one, ReInit) for one in proposals))
    NO_EXTERNAL_INIT.require(not any(isinstance(one, ExternalInit) for one in proposals))


def check_own(listed: Sequence[Proposed], committer: int) -> None:
    """12.2-2 and 12.2-3."""
    for item in listed:
        if isinstance(item.proposal, Update):
            NO_OWN_UPDATE.require(item.sender != Member(committer))
        elif isinstance(item.proposal, Remove):
            NO_OWN_REMOVE.require(item.proposal.removed != committer)


def check_changes(listed: Sequence[Proposed]) -> None:
    """12.2-4."""
    changed: set[int] = set()
    for item in listed:
        if isinstance(item.proposal, Update) and isinstance(item.sender, Member):
            leaf = item.sender.leaf_index
        elif isinstance(item.proposal, Remove):
            leaf = item.proposal.removed
        else:
            continue
        ONE_CHANGE_A_LEAF.require(leaf not in changed)
        changed.add(leaf)


def check_added(proposals: Sequence[AnyProposal], tree: RatchetTree) -> None:
    """12.2-5 and 12.2-6: a client is its signature key, as far as MLS itself can tell."""
    removed = {one.removed for one in proposals if isinstance(one, Remove)}
    added: set[bytes] = set()
    for one in proposals:
        if isinstance(one, Add):
            key = one.key_package.leaf_node.signature_key
            ADDED_ONCE.require(key not in added)
            added.add(key)
            NOT_A_MEMBER.require(all(leaf in removed for leaf in tree.signing_leaves(key)))


def check_keys_once(proposals: Sequence[AnyProposal]) -> None:
    """12.2-7. Ids with different nonces are different ids."""
    ids = [one.psk for one in proposals if isinstance(one, PreSharedKey)]
    PSK_ONCE.require(len(set(ids)) == len(ids))


def check_external_list(listed: Sequence[Proposed], ground: Ground) -> None:
    """An external commit: 12.1 for each proposal, 12.2-21 to 12.2-23, 12.2-7, 12.4.3.2-1. RuleBroken."""
    proposals = [item.proposal for item in listed]
    for item in listed:
        EXTERNAL_BY_VALUE.require(item.reference is None)
        EXTERNAL_LIST.require(isinstance(item.proposal, ExternalInit | Remove | PreSharedKey))
        check_proposal(item.proposal, item.sender, ground)
    ONE_EXTERNAL_INIT.require(sum(isinstance(one, ExternalInit) for one in proposals) == 1)
    ONE_RESYNC.require(sum(isinstance(one, Remove) for one in proposals) <= 1)
    check_keys_once(proposals)


def check_resync(leaf: LeafNode, removed: LeafNode | None) -> None:
    """12.2-24: as an Update of the removed leaf would have (12.1.2-2)."""
    RESYNC_KEY.require(removed is None or leaf.encryption_key != removed.encryption_key)


# --- section 12.4 ---


def needs_path(proposals: Sequence[AnyProposal]) -> bool:
    """Unless something is committed, and only Add, PreSharedKey or ReInit."""
    return not proposals or any(isinstance(one, NEEDS_PATH) for one in proposals)


def check_path_present(commit: Commit, proposals: Sequence[AnyProposal]) -> None:
    """12.4-1."""
    PATH_PRESENT.require(commit.path is not None or not needs_path(proposals))


def check_path_leaf(commit: Commit, tree: RatchetTree, committer: int) -> None:
    """12.4.2-1, which 7.5-3 would also refuse."""
    before = tree.leaf(committer)
    if commit.path is not None and before is not None:
        PATH_SOURCE_KEY.require(commit.path.leaf_node.encryption_key != before.encryption_key)
