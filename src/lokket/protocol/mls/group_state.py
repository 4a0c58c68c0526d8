"""A group as one member holds it, as values: an epoch, what is left of past ones, and what waits.

Only data: the steps are in the modules beside it, and ``group.py`` is what an application holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import takewhile

from lokket.crypto.kem import KEMKeyPair
from lokket.errors import LocalError
from lokket.limits import MLS_RESUMPTION_PSKS_MAX
from lokket.protocol.mls.key_schedule import EpochSecrets
from lokket.protocol.mls.proposals import ReInit
from lokket.protocol.mls.proposed import Proposed
from lokket.protocol.mls.ratchet_tree import RatchetTree
from lokket.protocol.mls.secret_tree import SecretTree
from lokket.protocol.mls.settings import Settings
from lokket.protocol.mls.structs import GroupContext, LeafNode
from lokket.protocol.mls.suite import CipherSuite
from lokket.protocol.mls.treekem import PrivateKeys


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch of a group, as every member knows it (section 8)."""

    context: GroupContext
    tree: RatchetTree
    secrets: EpochSecrets
    messages: SecretTree
    interim_transcript_hash: bytes
    confirmation_tag: bytes


@dataclass(frozen=True, slots=True)
class PastEpoch:
    """What late application messages need. ``replaced``: the leaves that the epoch after it changed."""

    context: GroupContext
    replaced: Mapping[int, LeafNode | None]
    sender_data_secret: bytes = field(repr=False)
    messages: SecretTree
    ended_s: int


@dataclass(frozen=True, slots=True)
class OwnKeys:
    """The private half of an Update that we proposed."""

    encryption: KEMKeyPair
    signature_private: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Pending:
    """A commit of ours that the delivery service has not yet accepted, and the group after it."""

    commit: bytes
    after: GroupState
    replaced: Mapping[int, LeafNode | None]


@dataclass(frozen=True, slots=True)
class GroupState:
    """``proposals`` are those of this epoch by reference, in the order of their arrival."""

    suite: CipherSuite
    settings: Settings
    leaf_index: int
    signature_private: bytes = field(repr=False)
    epoch: Epoch
    private: PrivateKeys = field(repr=False)
    proposals: Mapping[bytes, Proposed] = field(default_factory=dict)
    updates: Mapping[bytes, OwnKeys] = field(default_factory=dict, repr=False)  # by new encryption key
    past: tuple[PastEpoch, ...] = ()  # newest first
    resumption: Mapping[int, bytes] = field(default_factory=dict, repr=False)  # by epoch, this one too
    pending: Pending | None = None
    reinit: ReInit | None = None  # committed: this group is over (section 11.2)
    removed: bool = False

    @property
    def context(self) -> GroupContext:
        return self.epoch.context

    @property
    def tree(self) -> RatchetTree:
        return self.epoch.tree

    @property
    def own_leaf(self) -> LeafNode:
        leaf = self.tree.leaf(self.leaf_index)
        assert leaf is not None, "a member's own leaf stands in its tree"
        return leaf

    def past_leaf(self, epoch: int, leaf_index: int) -> LeafNode | None:
        """The leaf as it stood in a past epoch that is kept."""
        for past in sorted(self.past, key=lambda one: one.context.epoch):
            if past.context.epoch >= epoch and leaf_index in past.replaced:
                return past.replaced[leaf_index]
        return self.tree.leaf(leaf_index)

    def require_active(self) -> None:
        """LocalError: this group sends nothing more."""
        if self.removed:
            raise LocalError("we were removed from this group")
        if self.reinit is not None:
            raise LocalError("this group is over: go on in the one that follows it")


def succeed(
    before: GroupState, after: GroupState, replaced: Mapping[int, LeafNode | None], now_s: int
) -> GroupState:
    """``after`` with what it inherits: the epoch that ends now, earlier ones, resumption secrets."""
    ended = PastEpoch(
        before.context, replaced, before.epoch.secrets.sender_data_secret, before.epoch.messages, now_s
    )
    resumption = {**before.resumption, after.context.epoch: after.epoch.secrets.resumption_psk}
    return forget(
        replace(after, past=(ended, *before.past), resumption=_newest(resumption), pending=None), now_s
    )


def forget(state: GroupState, now_s: int) -> GroupState:
    """Without the past epochs that are too many, or ended too long ago (section 14), and without older ones.

    What leaves stood in an epoch follows from all that came after it (``past_leaf``): a clock that was set
    back must not make a gap.
    """
    settings = state.settings
    recent = state.past[: settings.past_epochs]
    kept = tuple(takewhile(lambda past: now_s - past.ended_s < settings.past_epoch_s, recent))
    return state if len(kept) == len(state.past) else replace(state, past=kept)


def replaced_leaves(tree: RatchetTree, indices: Iterable[int]) -> dict[int, LeafNode | None]:
    """The leaves at these places, as they stand in ``tree``."""
    return {index: tree.leaf(index) for index in indices}


def _newest(resumption: Mapping[int, bytes]) -> Mapping[int, bytes]:
    from_here = sorted(resumption)[-MLS_RESUMPTION_PSKS_MAX:]
    return {epoch: resumption[epoch] for epoch in from_here}
