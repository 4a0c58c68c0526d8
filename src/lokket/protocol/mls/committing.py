"""Proposals and commits of our own (RFC 9420 sections 12.1 and 12.4.1).

1. ``choose`` takes the waiting proposals that this member may commit; the caller adds its own by value.
2. The list is checked as everyone else will; what waits and does not fit is left out.
3. The next epoch follows; the commit carries its confirmation tag, and the new members get a Welcome.
4. The result waits as ``pending``: the group goes on in its old epoch until the delivery service accepts.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from lokket.crypto.entropy import Entropy
from lokket.errors import LocalError, RemoteError
from lokket.protocol.mls import framing, treekem
from lokket.protocol.mls.applying import Applied, apply
from lokket.protocol.mls.framing import Verified
from lokket.protocol.mls.group_state import GroupState, OwnKeys, Pending, replaced_leaves
from lokket.protocol.mls.messages import (
    ApplicationData,
    AuthenticatedContent,
    FramedContent,
    FramedContentAuthData,
    Member,
    WireFormat,
    encode_message,
)
from lokket.protocol.mls.proposal_rules import (
    NOT_A_MEMBER,
    Ground,
    check_proposal,
    check_together,
    needs_path,
)
from lokket.protocol.mls.proposals import (
    Add,
    AnyProposal,
    Commit,
    ExternalInit,
    GroupContextExtensions,
    PreSharedKey,
    PreSharedKeyID,
    Reference,
    ReInit,
    Remove,
    Update,
    UpdatePath,
)
from lokket.protocol.mls.proposed import Proposed
from lokket.protocol.mls.receiving import keep_proposal, proposal_changes
from lokket.protocol.mls.settings import FindPSK, Identity, Settings
from lokket.protocol.mls.structs import LeafNode, UpdateSource
from lokket.protocol.mls.transition import (
    Ingredients,
    Next,
    ask,
    find_psks,
    next_epoch,
    provisional_context,
)
from lokket.protocol.mls.validation import check_support, check_unique, check_whole_lifetime
from lokket.protocol.mls.welcoming import InfoOptions, make_group_info, seal_welcome


@dataclass(frozen=True, slots=True)
class CommitOptions:
    """How a commit is made. ``path``: also when nothing requires one (an empty commit always has it).

    ``identity``: another credential or signature key for our leaf, which needs a path.
    """

    authenticated_data: bytes = b""
    path: bool = False
    identity: Identity | None = None
    waiting: bool = True  # commit the proposals that wait, by reference
    welcome: InfoOptions = field(default_factory=InfoOptions)
    handshake: WireFormat | None = None  # None: as the settings say
    leave_out: Collection[bytes] = ()  # references of waiting proposals that the application is against


@dataclass(frozen=True, slots=True)
class Sent:
    """MLSMessages for the delivery service. The Welcome goes out only once the commit is accepted."""

    commit: bytes
    welcome: bytes | None
    _after: GroupState = field(repr=False)
    _info: InfoOptions = field(repr=False)

    @property
    def group_info(self) -> bytes:
        """The GroupInfo of the new epoch, for external joins: made when asked for, as the options say."""
        return encode_message(make_group_info(self._after, replace(self._info, external=True)))

    @property
    def ratchet_tree(self) -> bytes:
        """The tree of the new epoch, for those who join without the tree in their message."""
        return self._after.tree.encode()


# --- proposals ---


def frame(
    state: GroupState,
    content: AnyProposal | Commit | ApplicationData,
    authenticated_data: bytes,
    handshake: WireFormat,
) -> AuthenticatedContent:
    """Content of ours in this epoch, signed; a commit still without its tag."""
    context = state.context
    framed = FramedContent(
        context.group_id, context.epoch, Member(state.leaf_index), authenticated_data, content
    )
    signature = framing.sign(state.suite, state.signature_private, handshake, framed, context)
    return AuthenticatedContent(handshake, framed, FramedContentAuthData(signature))


def seal(state: GroupState, given: AuthenticatedContent, entropy: Entropy) -> tuple[GroupState, bytes]:
    """(state with the key used up, MLSMessage)."""
    epoch = state.epoch
    if given.wire_format == WireFormat.PUBLIC_MESSAGE:
        message = framing.seal_public(state.suite, given, epoch.secrets.membership_key, epoch.context)
        return state, encode_message(message)
    block = state.settings.padding_block_bytes
    tree, private = framing.seal_private(
        given, epoch.messages, epoch.secrets.sender_data_secret, block, entropy
    )
    return replace(state, epoch=replace(epoch, messages=tree)), encode_message(private)


def propose(
    state: GroupState, proposal: AnyProposal, authenticated_data: bytes, now_s: int, entropy: Entropy
) -> tuple[GroupState, bytes]:
    """(state in which it waits, MLSMessage). LocalError: the group would refuse it."""
    state.require_active()
    own = Member(state.leaf_index)
    try:
        _check_sound(state, Proposed(proposal, own, None, authenticated_data), now_s)
    except RemoteError as error:
        raise LocalError(f"this proposal would be refused: {error}") from error
    given = frame(state, proposal, authenticated_data, state.settings.handshake)
    state, _ = keep_proposal(state, Verified(given))
    return seal(state, given, entropy)


def make_update(state: GroupState, identity: Identity | None, entropy: Entropy) -> tuple[GroupState, Update]:
    """A fresh leaf of ours, whose keys the state holds until it is committed (section 12.1.2)."""
    state.require_active()
    encryption = state.suite.generate_key_pair(entropy)
    template, signature_private = _template(state, identity)
    keys = treekem.LeafKeys(state.leaf_index, template, signature_private, state.context.group_id)
    leaf = replace(template, encryption_key=encryption.public, source=UpdateSource())
    updates = {**state.updates, encryption.public: OwnKeys(encryption, signature_private)}
    return replace(state, updates=updates), Update(treekem.sign_leaf(state.suite, leaf, keys))


def _template(state: GroupState, identity: Identity | None) -> tuple[LeafNode, bytes]:
    leaf = state.own_leaf
    if identity is None:
        return leaf, state.signature_private
    changed = replace(
        leaf,
        signature_key=identity.signature.public,
        credential=identity.credential,
        capabilities=identity.capabilities,
    )
    return changed, identity.signature.private


def _check_sound(state: GroupState, one: Proposed, now_s: int) -> None:
    """RemoteError: a rule for one proposal, or the application, is against it."""
    ground = Ground(state.suite, state.tree, state.context.group_id, now_s)
    check_proposal(one.proposal, one.sender, ground)
    if isinstance(one.proposal, Add):
        check_whole_lifetime(one.proposal.key_package.leaf_node, state.settings.lifetime_max_s)
    ask(state.settings, proposal_changes(state, one))


# --- commits ---


def choose(state: GroupState, leave_out: Collection[bytes], now_s: int) -> list[Proposed]:
    """The waiting proposals that we may commit: of two that exclude each other, one (section 12.2)."""
    wanted = [one for reference, one in state.proposals.items() if reference not in leave_out]
    waiting = [one for one in wanted if _is_sound(state, one, now_s)]
    leaving = {one.proposal.removed for one in waiting if isinstance(one.proposal, Remove)}
    chosen: dict[object, Proposed] = {}
    for one in waiting:
        mark = _mark(one)
        if isinstance(one.proposal, Remove):
            if one.proposal.removed != state.leaf_index:
                chosen[mark] = one
        elif isinstance(one.proposal, Update):
            leaf_index = one.sender.leaf_index if isinstance(one.sender, Member) else None
            if leaf_index != state.leaf_index and leaf_index not in leaving:
                chosen[mark] = one  # the most recent one
        elif not isinstance(one.proposal, ExternalInit):
            chosen.setdefault(mark, one)
    reinit = chosen.pop("reinit", None)
    return list(chosen.values()) if chosen or reinit is None else [reinit]


def commit(
    state: GroupState,
    by_value: Sequence[AnyProposal],
    options: CommitOptions,
    now_s: int,
    entropy: Entropy,
    *,
    origin: tuple[PreSharedKeyID, bytes] | None = None,
) -> tuple[GroupState, Sent]:
    """(state in which the commit is pending, what to send). LocalError: others would refuse it.

    ``origin`` is id and key of the group that this one follows or branches off, in its first commit.
    """
    state.require_active()
    own, settings = Member(state.leaf_index), state.settings
    if state.pending is not None:
        raise LocalError("a commit of ours is pending: merge or discard it first")
    given = [Proposed(one, own, None, options.authenticated_data) for one in by_value]
    try:
        for one in given:
            _check_alone(state, one, now_s)
        waiting = choose(state, options.leave_out, now_s) if options.waiting else []
        proposals, applied = _fitting(state, given, waiting)
        if origin is not None:
            proposals.append(Proposed(PreSharedKey(origin[0]), own))
            settings = replace(settings, find_psk=_also(settings, origin))
            applied = replace(applied, psks=(*applied.psks, origin[0]))
        psk_secret = find_psks(state.suite, settings, state, applied.psks)
    except RemoteError as error:
        raise LocalError(f"this commit would be refused: {error}") from error
    needed = needs_path([one.proposal for one in proposals])
    with_path = options.path or options.identity is not None or needed
    plan = _Plan(tuple(proposals), applied, options, with_path, psk_secret)
    made = _advance(state, plan, entropy)
    return _finish(state, made, applied, options, entropy)


def _check_alone(state: GroupState, one: Proposed, now_s: int) -> None:
    """RemoteError: nobody would take this proposal, whatever stands beside it."""
    _check_sound(state, one, now_s)
    if isinstance(one.proposal, PreSharedKey):
        find_psks(state.suite, state.settings, state, [one.proposal.psk])


def _is_sound(state: GroupState, one: Proposed, now_s: int) -> bool:
    try:
        _check_alone(state, one, now_s)
    except RemoteError:
        return False
    return True


def _check_together(state: GroupState, proposals: Sequence[Proposed]) -> Applied:
    """The group after them, before a path. RemoteError: the list would be refused."""
    check_together(proposals, state.leaf_index, state.tree)
    applied = apply(state.tree, state.context.extensions, proposals)
    _check_tree(applied)
    return applied


def _check_tree(applied: Applied) -> None:
    for index in (*applied.new_leaves, *(at for at, _ in applied.updated)):
        check_unique(applied.tree, index)
    check_support(applied.tree, applied.extensions)


def _fitting(
    state: GroupState, given: list[Proposed], waiting: list[Proposed]
) -> tuple[list[Proposed], Applied]:
    """What waits, in front of what is ``given``: all of it, or else what does not make the list a bad one.

    One member's proposals must not keep the others from committing, nor keep them busy: in a bad list each is
    tried once. RemoteError: what is given is bad by itself.
    """
    whole = [*waiting, *given]
    try:
        return whole, _check_together(state, whole)
    except RemoteError:
        if not waiting:
            raise
    whole = [*_one_by_one(state, given, waiting), *given]
    return whole, _check_together(state, whole)


def _one_by_one(state: GroupState, given: list[Proposed], waiting: list[Proposed]) -> list[Proposed]:
    """Those that fit on top of what is given and of those before them; first removals, which make room."""
    trial, marks, kept = _check_together(state, given), {_mark(one) for one in given}, []
    removed = set(trial.removed)
    if "reinit" in marks:
        return []
    for one in sorted(waiting, key=_turn):
        if _mark(one) in marks or isinstance(one.proposal, ReInit):
            continue
        try:
            after = apply(trial.tree, trial.extensions, [one])
            if isinstance(one.proposal, Add):
                key = one.proposal.key_package.leaf_node.signature_key
                NOT_A_MEMBER.require(removed.issuperset(state.tree.signing_leaves(key)))
            _check_tree(after)
        except RemoteError:
            continue
        trial = after
        removed.update(after.removed)
        marks.add(_mark(one))
        kept.append(one)
    return kept


def _mark(one: Proposed) -> object:
    """What a list has once only: of two proposals with one mark, one at most is committed (section 12.2)."""
    match one.proposal:
        case Remove(leaf_index):
            return "leaf", leaf_index
        case Update():
            assert isinstance(one.sender, Member), "only members update"
            return "leaf", one.sender.leaf_index
        case Add(key_package):
            return "add", key_package.leaf_node.signature_key
        case PreSharedKey(psk):
            return psk
        case GroupContextExtensions():
            return "extensions"
        case ReInit():
            return "reinit"
        case _:
            return "external init"


def _turn(one: Proposed) -> int:
    return next((at for at, kind in enumerate(_TURNS) if isinstance(one.proposal, kind)), len(_TURNS))


_TURNS: Final = (Remove, Update, GroupContextExtensions, Add)


def _also(settings: Settings, origin: tuple[PreSharedKeyID, bytes]) -> FindPSK:
    """``find_psk`` that knows one key more."""
    known, secret = origin
    return lambda psk: secret if psk == known.psk else settings.find_psk(psk)


@dataclass(frozen=True, slots=True)
class _Plan:
    """A commit whose proposals are valid."""

    proposals: tuple[Proposed, ...]
    applied: Applied
    options: CommitOptions
    with_path: bool
    psk_secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Made:
    """A commit with the epoch that it leads to."""

    given: AuthenticatedContent
    following: Next
    path: treekem.NewPath | None
    signature_private: bytes


def _advance(state: GroupState, plan: _Plan, entropy: Entropy) -> _Made:
    suite, applied, options = state.suite, plan.applied, plan.options
    tree = applied.tree
    template, signature_private = _template(state, options.identity)
    new: treekem.NewPath | None = None
    if plan.with_path:
        keys = treekem.LeafKeys(state.leaf_index, template, signature_private, state.context.group_id)
        new = treekem.new_path(suite, tree, keys, entropy)
        tree = new.tree
    try:
        check_unique(tree, state.leaf_index)
        check_support(tree, applied.extensions)
    except RemoteError as error:
        raise LocalError(f"this commit would be refused: {error}") from error
    context = provisional_context(suite, state.context, tree, applied.extensions)
    sealed: UpdatePath | None = None
    if new is not None:
        sealed = treekem.seal_path(suite, new, applied.new_leaves, context.encoded, entropy)
    items = tuple(
        one.proposal if one.reference is None else Reference(one.reference) for one in plan.proposals
    )
    handshake = options.handshake or state.settings.handshake
    given = frame(state, Commit(items, sealed), options.authenticated_data, handshake)
    ingredients = Ingredients(
        tree,
        context,
        state.epoch.interim_transcript_hash,
        state.epoch.secrets.init_secret,
        suite.zeros if new is None else new.commit_secret,
        plan.psk_secret,
    )
    following = next_epoch(suite, ingredients, given)
    auth = replace(given.auth, confirmation_tag=following.epoch.confirmation_tag)
    return _Made(replace(given, auth=auth), following, new, signature_private)


def _finish(
    state: GroupState, made: _Made, applied: Applied, options: CommitOptions, entropy: Entropy
) -> tuple[GroupState, Sent]:
    epoch, suite = made.following.epoch, state.suite
    state, message = seal(state, made.given, entropy)
    private = state.private if made.path is None else {**state.private, **made.path.private}
    after = replace(
        state,
        epoch=epoch,
        private=treekem.retained(private, epoch.tree),
        signature_private=made.signature_private,
        proposals={},
        updates={},
        pending=None,
        reinit=applied.reinit,
    )
    welcome = None
    if applied.added:
        info = make_group_info(after, options.welcome)
        sent = seal_welcome(suite, made.following, info, (applied, made.path), entropy)
        welcome = encode_message(sent)
    changed = {*applied.new_leaves, *applied.removed, *(at for at, _ in applied.updated), state.leaf_index}
    pending = Pending(message, after, replaced_leaves(state.tree, changed))
    return replace(state, pending=pending), Sent(message, welcome, after, options.welcome)
