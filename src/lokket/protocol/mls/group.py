"""A group as an application holds it: a value whose steps give another value (RFC 9420).

1. ``create_group``, ``join_group`` or ``join_by_commit`` gives a ``Group``.
2. ``protect`` and ``process`` carry application messages; ``process`` takes everything that arrives.
3. ``commit`` makes a commit that is pending until the delivery service accepts it: then ``merge_pending``,
   else ``discard_pending``. A commit of another member arrives as a ``StagedCommit``: look, then ``merge``.

What is refused raises and gives no value, so the group that was there is still the group.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from lokket.crypto.entropy import Entropy
from lokket.errors import LocalError
from lokket.protocol.mls import committing, creation, external, key_schedule, receiving, stored, welcoming
from lokket.protocol.mls.committing import CommitOptions, Sent
from lokket.protocol.mls.creation import Founding
from lokket.protocol.mls.external import ExternalOptions
from lokket.protocol.mls.group_state import GroupState, forget, succeed
from lokket.protocol.mls.key_packages import OwnKeyPackage
from lokket.protocol.mls.messages import ApplicationData, WireFormat, encode_message
from lokket.protocol.mls.proposals import (
    AnyProposal,
    PreSharedKeyID,
    ReInit,
    ResumptionPSK,
    ResumptionUsage,
)
from lokket.protocol.mls.proposed import Proposed
from lokket.protocol.mls.receiving import Application, ProposalReceived, Staged
from lokket.protocol.mls.settings import Identity, Settings
from lokket.protocol.mls.structs import Extensions, GroupContext, LeafNode
from lokket.protocol.mls.suite import CipherSuite
from lokket.protocol.mls.welcoming import InfoOptions


@dataclass(frozen=True, slots=True)
class Group:
    """One member's view of one group, in one epoch."""

    _state: GroupState = field(repr=False)

    # --- looking ---

    @property
    def group_id(self) -> bytes:
        return self._state.context.group_id

    @property
    def epoch(self) -> int:
        return self._state.context.epoch

    @property
    def context(self) -> GroupContext:
        """Section 8.1, with the group's extensions."""
        return self._state.context

    @property
    def suite(self) -> CipherSuite:
        return self._state.suite

    @property
    def leaf_index(self) -> int:
        """Our own place."""
        return self._state.leaf_index

    def members(self) -> Iterator[tuple[int, LeafNode]]:
        """(leaf index, leaf) of everybody, ourselves too."""
        return self._state.tree.members()

    def member(self, leaf_index: int) -> LeafNode | None:
        """None: nobody is there."""
        return self._state.tree.leaf(leaf_index)

    @property
    def member_count(self) -> int:
        return self._state.tree.member_count

    @property
    def waiting(self) -> tuple[Proposed, ...]:
        """Proposals of this epoch that no commit has taken up yet."""
        return tuple(self._state.proposals.values())

    @property
    def has_pending(self) -> bool:
        """Whether a commit of ours waits for the delivery service."""
        return self._state.pending is not None

    @property
    def reinit(self) -> ReInit | None:
        """The ReInit that ended this group: go on with ``reinitialise_group``, or by its Welcome."""
        return self._state.reinit

    @property
    def removed(self) -> bool:
        """Whether we were removed: nothing can be sent or received any more."""
        return self._state.removed

    @property
    def epoch_authenticator(self) -> bytes:
        """Nh bytes that all members of this epoch share, to be compared out of band (section 8.7)."""
        return self._state.epoch.secrets.epoch_authenticator

    def export(self, label: bytes, context: bytes, length: int) -> bytes:
        """MLS-Exporter (section 8.5): a secret of this epoch, of ``length`` bytes, for the application.

        ``label`` without its "MLS 1.0 ". LocalError: more than 255 * Nh bytes.
        """
        return key_schedule.export(self.suite, self._state.epoch.secrets, label, context, length)

    def ratchet_tree(self) -> bytes:
        """The tree, for those whose Welcome or GroupInfo comes without (section 12.4.3.3)."""
        return self._state.tree.encode()

    def group_info(self, *, tree: bool = True, extensions: Extensions = ()) -> bytes:
        """A GroupInfo as an MLSMessage, by which others can join externally (section 12.4.3.2)."""
        self._state.require_active()
        return encode_message(
            welcoming.make_group_info(self._state, InfoOptions(tree, external=True, extensions=extensions))
        )

    def resumption_psk(self, entropy: Entropy) -> PreSharedKeyID:
        """The id of this epoch's resumption secret, for a PreSharedKey proposal later on (section 8.6)."""
        psk = ResumptionPSK(ResumptionUsage.APPLICATION, self.group_id, self.epoch)
        return PreSharedKeyID(psk, entropy.draw(self.suite.hash_bytes))

    # --- messages ---

    def protect(self, body: bytes, entropy: Entropy, authenticated_data: bytes = b"") -> tuple[Group, bytes]:
        """(group with the key used up, ``body`` as a PrivateMessage for everyone). LocalError: not active.

        ``authenticated_data`` travels in the clear and cannot be altered. Where proposals wait, section 12.4
        asks for a commit first; that is left to the caller.
        """
        self._state.require_active()
        given = committing.frame(
            self._state, ApplicationData(body), authenticated_data, WireFormat.PRIVATE_MESSAGE
        )
        state, message = committing.seal(self._state, given, entropy)
        return Group(state), message

    def process(self, message: bytes) -> tuple[Group, Application | ProposalReceived] | StagedCommit:
        """What a message of this group brings.

        The own commit that is pending gives its ``StagedCommit`` too. RemoteError: refused, see docs/mls.md;
        DuplicateMessage: opened before.
        """
        pending = self._state.pending
        if pending is not None and pending.commit == message:
            return StagedCommit(self._state, pending.after, pending.replaced, None)
        state, received = receiving.receive(self._state, message)
        if isinstance(received, Staged):
            return StagedCommit(state, received.after, received.replaced, received)
        return Group(state), received

    # --- proposals and commits ---

    def propose(
        self, proposal: AnyProposal, now_s: int, entropy: Entropy, authenticated_data: bytes = b""
    ) -> tuple[Group, bytes]:
        """(group in which it waits, the proposal as an MLSMessage). LocalError: it would be refused."""
        state, message = committing.propose(self._state, proposal, authenticated_data, now_s, entropy)
        return Group(state), message

    def propose_update(
        self, now_s: int, entropy: Entropy, identity: Identity | None = None
    ) -> tuple[Group, bytes]:
        """An Update of our own leaf: fresh keys, another ``identity`` where given (section 12.1.2)."""
        state, update = committing.make_update(self._state, identity, entropy)
        return Group(state).propose(update, now_s, entropy)

    def commit(
        self,
        now_s: int,
        entropy: Entropy,
        proposals: Sequence[AnyProposal] = (),
        options: CommitOptions | None = None,
    ) -> tuple[Group, Sent]:
        """(group with the commit pending, what to send): of what waits, and of ``proposals`` by value.

        With nothing to commit it renews our own keys. LocalError: one is pending, or it would be refused.
        """
        given = options or CommitOptions()
        state, sent = committing.commit(self._state, proposals, given, now_s, entropy)
        return Group(state), sent

    def merge_pending(self, now_s: int) -> Group:
        """The group after our own commit, which the delivery service accepted. LocalError: none pending."""
        pending = self._state.pending
        if pending is None:
            raise LocalError("no commit is pending")
        return Group(succeed(self._state, pending.after, pending.replaced, now_s))

    def discard_pending(self) -> Group:
        """The group without our own commit, which the delivery service refused."""
        return Group(replace(self._state, pending=None))

    def discard_waiting(self) -> Group:
        """The group without the proposals that wait. It cannot follow a commit that refers to one of them
        (12.2-13): to leave some out of a commit of ours, ``CommitOptions.leave_out``."""
        return Group(replace(self._state, proposals={}, updates={}))

    def forget(self, now_s: int) -> Group:
        """The group without past epochs that ended too long ago (``Settings.past_epoch_s``)."""
        return Group(forget(self._state, now_s))

    # --- storage ---

    def encode(self) -> bytes:
        """The whole group as versioned bytes. Holds private keys."""
        return stored.pack(stored.rows(self._state))

    @classmethod
    def decode(cls, data: bytes, settings: Settings) -> Group:
        """Inverse of ``encode``. RemoteError: malformed. LocalError: stored by a newer version."""
        return cls.from_rows(stored.unpack(data), settings)

    def rows(self) -> dict[bytes, bytes]:
        """The same as rows of a table, for large groups: a step changes few of them."""
        return stored.rows(self._state)

    def changes_since(self, before: Group) -> dict[bytes, bytes | None]:
        """The rows that differ from those of ``before``; None: to be deleted."""
        return stored.changes(before._state, self._state)

    @classmethod
    def from_rows(cls, rows: Mapping[bytes, bytes], settings: Settings) -> Group:
        """Inverse of ``rows``. Errors as of ``decode``."""
        return cls(stored.load(rows, settings))


@dataclass(frozen=True, slots=True)
class StagedCommit:
    """A commit that is verified and computed, and not entered.

    Of our own, which we knew when it was made, ``proposals``, ``added`` and ``removed`` are empty.
    """

    _before: GroupState = field(repr=False)
    _after: GroupState = field(repr=False)
    _replaced: Mapping[int, LeafNode | None] = field(repr=False)
    _details: Staged | None = field(repr=False)

    @property
    def own(self) -> bool:
        """Whether it is the commit of ours that was pending."""
        return self._details is None

    @property
    def committer(self) -> int:
        """Leaf index; of a client who joined by an external commit, its new one."""
        return self._before.leaf_index if self._details is None else self._details.committer

    @property
    def external(self) -> bool:
        """Whether the committer joins by it."""
        return self._details is not None and self._details.external

    @property
    def proposals(self) -> tuple[Proposed, ...]:
        """What it commits, with authors, in its order."""
        return () if self._details is None else self._details.proposals

    @property
    def authenticated_data(self) -> bytes:
        return b"" if self._details is None else self._details.authenticated_data

    @property
    def added(self) -> tuple[tuple[int, LeafNode], ...]:
        """(leaf index, leaf) of those whom Adds bring; an external committer is not among them."""
        found = () if self._details is None else self._details.applied.added
        return tuple((index, package.leaf_node) for index, package in found)

    @property
    def removed(self) -> tuple[int, ...]:
        """The leaf indices of those who go."""
        return () if self._details is None else self._details.applied.removed

    @property
    def removes_us(self) -> bool:
        return self._after.removed

    @property
    def epoch(self) -> int:
        """The epoch that it begins."""
        return self._before.context.epoch + 1

    def merge(self, now_s: int) -> Group:
        """The group after it. ``now_s`` dates the end of the epoch before."""
        if self._after.removed:
            return Group(self._after)
        return Group(succeed(self._before, self._after, self._replaced, now_s))

    def refuse(self) -> Group:
        """The group without it, but with its message key used up: where the application says no."""
        return Group(self._before)


# --- ways into a group ---


def create_group(
    group_id: bytes,
    own: OwnKeyPackage,
    settings: Settings,
    entropy: Entropy,
    extensions: Extensions = (),
) -> Group:
    """A group of one, epoch 0 (section 11). ``own`` is used up."""
    return Group(creation.create(group_id, own, settings, entropy, extensions))


def join_group(
    welcome: bytes,
    own: Sequence[OwnKeyPackage],
    settings: Settings,
    *,
    ratchet_tree: bytes | None = None,
    origin: Group | None = None,
    in_use: Collection[bytes] = (),
) -> tuple[Group, OwnKeyPackage]:
    """(group, the key package that was used: delete it, unless a last resort), from a Welcome (12.4.3.1).

    ``ratchet_tree`` where it came beside the Welcome; ``origin`` is the group that this one must follow or
    branch off; ``in_use`` are ids of groups that we are in. RemoteError: refused, see docs/mls.md.
    """
    before = None if origin is None else origin._state
    invitation = welcoming.open_welcome(welcome, own, settings, before)
    state = welcoming.join(invitation, settings, ratchet_tree, in_use)
    origins = welcoming.origins(invitation.secrets.psks)
    creation.ORIGIN_NAMED.require(before is None or bool(origins))
    for psk in origins:
        creation.check_origin(before, state, psk)
    return Group(state), invitation.own


def join_by_commit(
    group_info: bytes,
    identity: Identity,
    settings: Settings,
    entropy: Entropy,
    *,
    ratchet_tree: bytes | None = None,
    options: ExternalOptions | None = None,
) -> tuple[Group, bytes]:
    """(group, external commit as an MLSMessage): it counts once the delivery service took it (12.4.3.2)."""
    state, message = external.join_externally(
        external.read_group_info(group_info),
        ratchet_tree,
        identity,
        settings,
        options or ExternalOptions(),
        entropy=entropy,
    )
    return Group(state), message


def reinitialise_group(before: Group, founding: Founding, now_s: int, entropy: Entropy) -> tuple[Group, Sent]:
    """The group that follows a ReInit, its first commit pending (section 11.2)."""
    state, sent = creation.reinitialise(before._state, founding, now_s, entropy)
    return Group(state), sent


def branch_group(
    before: Group, group_id: bytes, founding: Founding, now_s: int, entropy: Entropy
) -> tuple[Group, Sent]:
    """A group of some members of another, its first commit pending (section 11.3)."""
    state, sent = creation.branch(before._state, group_id, founding, now_s, entropy)
    return Group(state), sent
