"""New groups: from nothing, after a ReInit, or as a branch of another (RFC 9420 section 11)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from lokket.crypto.entropy import Entropy
from lokket.errors import LocalError, RemoteError
from lokket.protocol.mls.committing import CommitOptions, Sent, commit
from lokket.protocol.mls.group_state import GroupState
from lokket.protocol.mls.key_packages import OwnKeyPackage
from lokket.protocol.mls.proposals import Add, PreSharedKeyID, ReInit, ResumptionPSK, ResumptionUsage
from lokket.protocol.mls.ratchet_tree import RatchetTree
from lokket.protocol.mls.rules import Rule
from lokket.protocol.mls.settings import Settings
from lokket.protocol.mls.structs import MLS10, Extensions, GroupContext, KeyPackage
from lokket.protocol.mls.suite import find_suite
from lokket.protocol.mls.transition import ask, begin, sender_changes
from lokket.protocol.mls.validation import check_one_of_a_type, check_support

ORIGIN_GIVEN: Final = Rule("11-1", "who joins a group that comes from another was in that other")
ORIGIN_NAMED: Final = Rule("11-2", "a group that is to come from another says so by a key of that other")
REINIT_AS_SAID: Final = Rule("11.2-1", "a group after a ReInit has the id, suite and extensions it named")
REINIT_EXPECTED: Final = Rule("11.2-2", "a reinit key is of the last epoch of a group that ended")
REINIT_MEMBERS: Final = Rule("11.2-3", "every member of the group before is in the group after a ReInit")
BRANCH_AS_BEFORE: Final = Rule("11.3-1", "a branch has the version and cipher suite of its group")
BRANCH_MEMBERS: Final = Rule("11.3-2", "every member of a branch is in the group that it branches off")


def create(
    group_id: bytes,
    own: OwnKeyPackage,
    settings: Settings,
    entropy: Entropy,
    extensions: Extensions = (),
) -> GroupState:
    """A group of one in epoch 0 (section 11). ``own`` gives suite, leaf and keys, and is not used again.

    LocalError: extensions that our own leaf does not support.
    """
    suite = find_suite(own.key_package.cipher_suite, settings.suites)
    tree = RatchetTree.of(own.key_package.leaf_node)
    try:
        check_one_of_a_type(extensions)
        check_support(tree, extensions)
        ask(settings, sender_changes(group_id, extensions, ()))
    except RemoteError as error:
        raise LocalError(f"this group would be refused: {error}") from error
    tree_hash = tree.tree_hash(suite.hash)
    context = GroupContext(MLS10, suite.number, group_id, 0, tree_hash, b"", extensions)
    epoch = begin(suite, tree, context, entropy.draw(suite.hash_bytes))
    return GroupState(
        suite=suite,
        settings=settings,
        leaf_index=0,
        signature_private=own.signature_private,
        epoch=epoch,
        private={0: own.encryption},
        resumption={0: epoch.secrets.resumption_psk},
    )


@dataclass(frozen=True, slots=True)
class Founding:
    """What a group that comes from another starts with: our own key package and those of the others."""

    own: OwnKeyPackage
    others: Sequence[KeyPackage]
    options: CommitOptions = field(default_factory=CommitOptions)
    extensions: Extensions = ()  # of a branch; after a ReInit they are those that it named


def reinitialise(
    before: GroupState, founding: Founding, now_s: int, entropy: Entropy
) -> tuple[GroupState, Sent]:
    """The group that follows a committed ReInit, its first commit pending (section 11.2).

    LocalError: no ReInit was committed, or the key packages are not of its suite.
    """
    reinit = before.reinit
    if reinit is None:
        raise LocalError("this group was not ended by a ReInit")
    if founding.own.key_package.cipher_suite != reinit.cipher_suite:
        raise LocalError("the ReInit names another cipher suite")
    state = create(reinit.group_id, founding.own, before.settings, entropy, reinit.extensions)
    return _populate(before, state, founding, ResumptionUsage.REINIT, now_s, entropy=entropy)


def branch(
    before: GroupState, group_id: bytes, founding: Founding, now_s: int, entropy: Entropy
) -> tuple[GroupState, Sent]:
    """A group of some of the members, its first commit pending (section 11.3). LocalError: another suite."""
    if founding.own.key_package.cipher_suite != before.suite.number:
        raise LocalError("a branch has the cipher suite of its group")
    state = create(group_id, founding.own, before.settings, entropy, founding.extensions)
    return _populate(before, state, founding, ResumptionUsage.BRANCH, now_s, entropy=entropy)


def _populate(
    before: GroupState,
    state: GroupState,
    founding: Founding,
    usage: ResumptionUsage,
    now_s: int,
    *,
    entropy: Entropy,
) -> tuple[GroupState, Sent]:
    """The first commit: everybody added, and the key that ties the group to the one before."""
    if not founding.others:
        raise LocalError("a group that follows another needs a second member")
    context = before.context
    psk = ResumptionPSK(usage, context.group_id, context.epoch)
    origin = PreSharedKeyID(psk, entropy.draw(state.suite.hash_bytes))
    adds = [Add(package) for package in founding.others]
    return commit(
        state, adds, founding.options, now_s, entropy, origin=(origin, before.epoch.secrets.resumption_psk)
    )


def check_origin(before: GroupState | None, after: GroupState, psk: ResumptionPSK) -> None:
    """What a joiner checks of a group that names another as its origin (sections 11.2, 11.3). RuleBroken."""
    if before is None or psk.psk_group_id != before.context.group_id:
        ORIGIN_GIVEN.broken()
    context = after.context
    new = {leaf.credential for _, leaf in after.tree.members()}
    old = {leaf.credential for _, leaf in before.tree.members()}
    if psk.usage == ResumptionUsage.BRANCH:
        same = (context.version, context.cipher_suite) == (MLS10, before.suite.number)
        BRANCH_AS_BEFORE.require(same)
        BRANCH_MEMBERS.require(new <= old)
        return
    reinit = before.reinit
    if reinit is None or psk.psk_epoch != before.context.epoch:
        REINIT_EXPECTED.broken()
    said = ReInit(context.group_id, context.version, context.cipher_suite, context.extensions)
    REINIT_AS_SAID.require(said == reinit)
    REINIT_MEMBERS.require(old <= new)
