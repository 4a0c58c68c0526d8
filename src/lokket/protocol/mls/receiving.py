"""What arrives in a group: opened, verified, and as a commit staged (RFC 9420 sections 6.1, 12.2 and 12.4.2).

1. ``receive`` looks at group and epoch, opens the message and verifies its signature.
2. Application data and proposals give another state at once.
3. A commit gives ``Staged``: the next epoch, computed and confirmed, and not yet entered.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from lokket.codec import tls
from lokket.crypto.primitives import equal
from lokket.errors import DecryptionFailed, LocalError, RemoteError
from lokket.limits import MLS_PROPOSALS_MAX
from lokket.protocol.mls import framing, key_schedule, treekem
from lokket.protocol.mls.applying import Applied, apply
from lokket.protocol.mls.credentials import ChangeKind, LeafChange
from lokket.protocol.mls.framing import Verified
from lokket.protocol.mls.group_state import GroupState, replaced_leaves
from lokket.protocol.mls.messages import (
    ApplicationData,
    ContentType,
    External,
    FramedContent,
    Member,
    NewMemberCommit,
    NewMemberProposal,
    PrivateMessage,
    PublicMessage,
    Sender,
    decode_message,
)
from lokket.protocol.mls.proposal_rules import (
    EXTERNAL_PATH,
    EXTERNAL_SENDER,
    KNOWN_REFERENCE,
    NEW_MEMBER_TYPES,
    Ground,
    check_external_list,
    check_list,
    check_path_leaf,
    check_path_present,
    check_proposal,
    check_resync,
)
from lokket.protocol.mls.proposals import (
    Add,
    AnyProposal,
    Commit,
    GroupContextExtensions,
    Reference,
    Remove,
    Update,
    UpdatePath,
)
from lokket.protocol.mls.proposed import Proposed
from lokket.protocol.mls.ratchet_tree import RatchetTree
from lokket.protocol.mls.rules import Rule
from lokket.protocol.mls.structs import CommitSource, ExternalSenders, LeafNode, read_extension
from lokket.protocol.mls.transition import (
    Ingredients,
    ask,
    find_psks,
    leaf_change,
    next_epoch,
    provisional_context,
    sender_changes,
)
from lokket.protocol.mls.validation import Place, check_leaf, check_support, check_unique

KNOWN_SENDER: Final = Rule("6.1-1", "a message's sender is a member of the group")
RIGHT_GROUP: Final = Rule("6.1-2", "a message is of this group")
RIGHT_EPOCH: Final = Rule("6.1-3", "a message is of this epoch, or application data of one that is kept")
EPOCH_BEGUN: Final = Rule("6.1-4", "a message is of no epoch that begins later: keep it until then")
COMMIT_SENDER: Final = Rule("12.4.2-3", "a member or a new member commits")
COMMIT_TAG: Final = Rule("12.4.2-4", "a commit's confirmation tag is that of the epoch which it begins")
GROUP_OVER: Final = Rule("12.4.2-5", "a group that a ReInit ended has no more proposals and commits")


@dataclass(frozen=True, slots=True)
class Application:
    """What a member said, opened and verified."""

    sender: int  # leaf index
    epoch: int
    data: bytes
    authenticated_data: bytes
    leaf: LeafNode  # of the sender, as it stood in that epoch


@dataclass(frozen=True, slots=True)
class ProposalReceived:
    """A proposal that waits for a commit; ``reference`` names it."""

    reference: bytes
    proposal: AnyProposal
    sender: Sender
    authenticated_data: bytes


@dataclass(frozen=True, slots=True)
class Staged:
    """A commit that was verified whole. Nothing is entered before ``merge``."""

    before: GroupState  # with the commit's key used up
    after: GroupState
    committer: int  # leaf index
    proposals: tuple[Proposed, ...]
    applied: Applied
    authenticated_data: bytes
    external: bool
    replaced: dict[int, LeafNode | None]


def receive(
    state: GroupState, data: bytes
) -> tuple[GroupState, Application | ProposalReceived] | tuple[GroupState, Staged]:
    """One MLSMessage of this group. RemoteError: refused, and ``state`` holds as it was."""
    if state.removed:
        raise LocalError("we were removed from this group")
    message = decode_message(data)
    if isinstance(message, PrivateMessage):
        return _receive_private(state, message)
    if isinstance(message, PublicMessage):
        return _receive_public(state, message)
    raise RemoteError("not a message of a group", code="mls-wire-format")


def _receive_public(
    state: GroupState, message: PublicMessage
) -> tuple[GroupState, ProposalReceived] | tuple[GroupState, Staged]:
    epoch, context = state.epoch, state.context
    RIGHT_GROUP.require(message.content.group_id == context.group_id)
    EPOCH_BEGUN.require(message.content.epoch <= context.epoch)
    RIGHT_EPOCH.require(message.content.epoch == context.epoch)
    opened = framing.open_public(state.suite, message, epoch.secrets.membership_key, context)
    verified = framing.verify(state.suite, opened, _signature_key(state, message.content), context)
    if isinstance(verified.content.content, Commit):
        return _handle_commit(state, verified)
    return _handle_proposal(state, verified)


def _receive_private(
    state: GroupState, message: PrivateMessage
) -> tuple[GroupState, Application | ProposalReceived] | tuple[GroupState, Staged]:
    context, suite = state.context, state.suite
    RIGHT_GROUP.require(message.group_id == context.group_id)
    if message.epoch != context.epoch:
        return _receive_late(state, message)
    sender = framing.open_sender(suite, message, state.epoch.secrets.sender_data_secret)
    leaf = _member(state.tree.leaf(sender.leaf_index))
    if sender.leaf_index == state.leaf_index:
        raise DecryptionFailed("a message of our own", code="mls-own-message")
    messages, opened = framing.open_private(message, sender, state.epoch.messages)
    verified = framing.verify(suite, opened, leaf.signature_key, context)
    state = replace(state, epoch=replace(state.epoch, messages=messages))
    content = verified.content.content
    if isinstance(content, ApplicationData):
        return state, Application(
            sender.leaf_index,
            message.epoch,
            content.application_data,
            message.authenticated_data,
            leaf,
        )
    if isinstance(content, Commit):
        return _handle_commit(state, verified)
    return _handle_proposal(state, verified)


def _receive_late(state: GroupState, message: PrivateMessage) -> tuple[GroupState, Application]:
    """Application data of an epoch that is over (section 14): handshakes count in their epoch alone."""
    EPOCH_BEGUN.require(message.epoch < state.context.epoch)
    place = next((at for at, past in enumerate(state.past) if past.context.epoch == message.epoch), None)
    if place is None or message.content_type != ContentType.APPLICATION:
        RIGHT_EPOCH.broken()
    past = state.past[place]
    sender = framing.open_sender(state.suite, message, past.sender_data_secret)
    leaf = _member(state.past_leaf(message.epoch, sender.leaf_index))
    messages, opened = framing.open_private(message, sender, past.messages)
    verified = framing.verify(state.suite, opened, leaf.signature_key, past.context)
    content = verified.content.content
    assert isinstance(content, ApplicationData), "the content type is authenticated"
    kept = (*state.past[:place], replace(past, messages=messages), *state.past[place + 1 :])
    return replace(state, past=kept), Application(
        sender.leaf_index, message.epoch, content.application_data, message.authenticated_data, leaf
    )


def _member(leaf: LeafNode | None) -> LeafNode:
    if leaf is None:
        KNOWN_SENDER.broken()
    return leaf


def _signature_key(state: GroupState, content: FramedContent) -> bytes:
    """Whose signature a PublicMessage carries (section 6.1)."""
    sender = content.sender
    if isinstance(sender, Member):
        return _member(state.tree.leaf(sender.leaf_index)).signature_key
    if isinstance(sender, External):
        listed = read_extension(state.context.extensions, ExternalSenders)
        if listed is None or sender.sender_index >= len(listed.senders):
            EXTERNAL_SENDER.broken()
        return listed.senders[sender.sender_index].signature_key
    if isinstance(sender, NewMemberProposal):
        if not isinstance(content.content, Add):
            NEW_MEMBER_TYPES.broken()
        return content.content.key_package.leaf_node.signature_key
    if not isinstance(content.content, Commit):
        COMMIT_SENDER.broken()
    if content.content.path is None:
        EXTERNAL_PATH.broken()
    return content.content.path.leaf_node.signature_key


# --- proposals ---


def _ground(state: GroupState) -> Ground:
    """Without a clock: members who look at different clocks must not part ways."""
    return Ground(state.suite, state.tree, state.context.group_id)


def _handle_proposal(state: GroupState, verified: Verified) -> tuple[GroupState, ProposalReceived]:
    GROUP_OVER.require(state.reinit is None)
    content = verified.content
    proposal = content.content
    assert not isinstance(proposal, ApplicationData | Commit), "dispatched by type"
    check_proposal(proposal, content.sender, _ground(state))
    data = content.authenticated_data
    ask(state.settings, proposal_changes(state, Proposed(proposal, content.sender, None, data)))
    state, reference = keep_proposal(state, verified)
    return state, ProposalReceived(reference, proposal, content.sender, data)


def keep_proposal(state: GroupState, verified: Verified) -> tuple[GroupState, bytes]:
    """(state, reference): a proposal, ours or another's, waits for a commit."""
    content = verified.content
    proposal = content.content
    assert not isinstance(proposal, ApplicationData | Commit), "dispatched by type"
    reference = state.suite.proposal_ref(tls.encode(verified.authenticated))
    if reference not in state.proposals and len(state.proposals) >= MLS_PROPOSALS_MAX:
        raise RemoteError("too many proposals wait in this epoch", code="mls-too-many-proposals")
    proposed = Proposed(proposal, content.sender, reference, content.authenticated_data)
    return replace(state, proposals={**state.proposals, reference: proposed}), reference


def proposal_changes(state: GroupState, proposed: Proposed) -> list[LeafChange]:
    """What the application is asked about one proposal."""
    group_id, proposal, data = state.context.group_id, proposed.proposal, proposed.authenticated_data
    if isinstance(proposal, Add):
        leaf = proposal.key_package.leaf_node
        return [leaf_change(ChangeKind.ADDED, group_id, None, leaf, (None, data))]
    if isinstance(proposal, Update) and isinstance(proposed.sender, Member):
        index = proposed.sender.leaf_index
        rest = (state.tree.leaf(index), data)
        return [leaf_change(ChangeKind.UPDATED, group_id, index, proposal.leaf_node, rest)]
    if isinstance(proposal, GroupContextExtensions):
        return sender_changes(group_id, proposal.extensions, state.context.extensions, data)
    return []


# --- commits (section 12.4.2) ---


def resolve(state: GroupState, commit: Commit, sender: Sender, data: bytes) -> tuple[Proposed, ...]:
    """The proposals of a commit in its order. RuleBroken: a reference to none that we know."""
    found = []
    for item in commit.proposals:
        if isinstance(item, Reference):
            known = state.proposals.get(item.reference)
            if known is None:
                KNOWN_REFERENCE.broken()
            found.append(known)
        else:
            found.append(Proposed(item, sender, None, data))
    return tuple(found)


def _handle_commit(state: GroupState, verified: Verified) -> tuple[GroupState, Staged]:
    GROUP_OVER.require(state.reinit is None)
    content = verified.content
    commit, sender = content.content, content.sender
    assert isinstance(commit, Commit), "dispatched by type"
    if isinstance(sender, Member) and sender.leaf_index == state.leaf_index:
        raise RemoteError("a commit of our own that does not wait here", code="mls-own-message")
    proposals = resolve(state, commit, sender, content.authenticated_data)
    check_path_present(commit, [one.proposal for one in proposals])
    if isinstance(sender, Member):
        committer: int | None = sender.leaf_index
        check_list(proposals, sender.leaf_index, _ground(state))
        check_path_leaf(commit, state.tree, sender.leaf_index)
    elif isinstance(sender, NewMemberCommit):
        committer = None
        check_external_list(proposals, _ground(state))
        EXTERNAL_PATH.require(commit.path is not None)
    else:
        COMMIT_SENDER.broken()
    for one in proposals:
        ask(state.settings, proposal_changes(state, one))
    applied = apply(state.tree, state.context.extensions, proposals)
    tree = applied.tree
    if committer is None:
        tree, committer = tree.with_room()
    staged = _Staging(state, verified, commit, proposals, applied, committer)
    return state, _stage(staged, tree, external=isinstance(sender, NewMemberCommit))


@dataclass(frozen=True, slots=True)
class _Staging:
    """A commit whose proposals are valid."""

    state: GroupState
    verified: Verified
    commit: Commit
    proposals: tuple[Proposed, ...]
    applied: Applied
    committer: int


def _stage(given: _Staging, tree: RatchetTree, *, external: bool) -> Staged:
    state, applied, suite = given.state, given.applied, given.state.suite
    path, content = given.commit.path, given.verified.content
    merged = tree if path is None else _merge_path(given, tree, path, external=external)
    _check_tree_after(given, merged)
    changed = {given.committer, *applied.new_leaves, *applied.removed, *(at for at, _ in applied.updated)}
    replaced = replaced_leaves(state.tree, changed)
    if state.leaf_index in applied.removed:
        after = replace(state, removed=True, proposals={}, updates={}, pending=None)
        return Staged(
            state, after, given.committer, given.proposals, applied, content.authenticated_data,
            external, replaced,
        )  # fmt: skip
    context = provisional_context(suite, state.context, merged, applied.extensions)
    private, signature_private = _own_after(state, given.proposals)
    commit_secret = suite.zeros
    if path is not None:
        sent = (given.committer, path, applied.new_leaves)
        receiver = treekem.Receiver(state.leaf_index, private)
        opened = treekem.open_path(suite, tree, sent, receiver, context.encoded)
        private, commit_secret = opened.private, opened.commit_secret
    ingredients = Ingredients(
        merged,
        context,
        state.epoch.interim_transcript_hash,
        _init_secret(state, applied),
        commit_secret,
        find_psks(suite, state.settings, state, applied.psks),
    )
    following = next_epoch(suite, ingredients, given.verified.authenticated)
    tag = given.verified.authenticated.auth.confirmation_tag
    COMMIT_TAG.require(tag is not None and equal(tag, following.epoch.confirmation_tag))
    after = replace(
        state,
        epoch=following.epoch,
        private=treekem.retained(private, merged),
        signature_private=signature_private,
        proposals={},
        updates={},
        pending=None,
        reinit=applied.reinit,
    )
    return Staged(
        state, after, given.committer, given.proposals, applied, content.authenticated_data,
        external, replaced,
    )  # fmt: skip


def _merge_path(given: _Staging, tree: RatchetTree, path: UpdatePath, *, external: bool) -> RatchetTree:
    """The tree with the path, its leaf checked as section 7.3 asks, and by the application."""
    state, committer = given.state, given.committer
    group_id, data = state.context.group_id, given.verified.content.authenticated_data
    check_leaf(state.suite, path.leaf_node, Place(group_id, committer, CommitSource))
    before = state.tree.leaf(committer)
    kind = ChangeKind.UPDATED
    if external:
        kind = ChangeKind.ADDED
        gone = [one.proposal.removed for one in given.proposals if isinstance(one.proposal, Remove)]
        before = state.tree.leaf(gone[0]) if gone else None  # resync: the leaf that it replaces
        check_resync(path.leaf_node, before)
    ask(state.settings, [leaf_change(kind, group_id, committer, path.leaf_node, (before, data))])
    state.suite.kem.check_public(path.leaf_node.encryption_key)
    return treekem.merge_path(state.suite, tree, committer, path)


def _check_tree_after(given: _Staging, tree: RatchetTree) -> None:
    """The rules of section 7.3 that look at leaves beside each other, for what changed."""
    applied = given.applied
    touched = {*applied.new_leaves, *(index for index, _ in applied.updated)}
    if given.commit.path is not None:
        touched.add(given.committer)
    for index in touched:
        check_unique(tree, index)
    check_support(tree, applied.extensions)


def _own_after(state: GroupState, proposals: tuple[Proposed, ...]) -> tuple[treekem.PrivateKeys, bytes]:
    """Our private keys once an Update of ours is committed."""
    for one in proposals:
        if isinstance(one.proposal, Update) and one.sender == Member(state.leaf_index):
            keys = state.updates.get(one.proposal.leaf_node.encryption_key)
            if keys is None:
                raise LocalError("the private half of our own Update is not here")
            return {**state.private, 2 * state.leaf_index: keys.encryption}, keys.signature_private
    return state.private, state.signature_private


def _init_secret(state: GroupState, applied: Applied) -> bytes:
    """Of the epoch before, or what an external commit brings (section 8.3)."""
    secrets = state.epoch.secrets
    if applied.external_init is None:
        return secrets.init_secret
    return key_schedule.external_init_secret(state.suite, secrets, applied.external_init)
