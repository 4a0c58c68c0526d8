"""From one epoch to the next: what a committer and all who follow it compute alike (RFC 9420 section 8).

1. The tree after proposals and path gives the provisional context, to which path secrets are sealed.
2. The signed commit gives the confirmed transcript hash, and with it the context of the new epoch.
3. Init secret, commit secret and pre-shared keys give the new epoch's secrets and its confirmation tag.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from lokket.errors import RemoteError
from lokket.protocol.mls import key_schedule
from lokket.protocol.mls.credentials import ChangeKind, LeafChange
from lokket.protocol.mls.group_state import Epoch, GroupState
from lokket.protocol.mls.messages import AuthenticatedContent
from lokket.protocol.mls.proposals import PreSharedKeyID, ResumptionPSK
from lokket.protocol.mls.psk import psk_secret
from lokket.protocol.mls.ratchet_tree import RatchetTree
from lokket.protocol.mls.rules import Rule
from lokket.protocol.mls.secret_tree import secret_tree
from lokket.protocol.mls.settings import Settings
from lokket.protocol.mls.structs import Extensions, ExternalSenders, GroupContext, LeafNode, read_extension
from lokket.protocol.mls.suite import CipherSuite

_EPOCH_MAX: Final = (1 << 64) - 1
_PSKS_MAX: Final = (1 << 16) - 1  # PSKLabel counts them in 16 bits
PSKS_COUNTED: Final = Rule("8.4-1", "at most 65,535 pre-shared keys go into one epoch")
PSKS_KNOWN: Final = Rule("12.4.2-2", "we have every pre-shared key that a commit names")


@dataclass(frozen=True, slots=True)
class Ingredients:
    """What the key schedule takes beside the commit itself."""

    tree: RatchetTree
    context: GroupContext  # provisional: with the old confirmed transcript hash
    interim_before: bytes
    init_secret: bytes = field(repr=False)
    commit_secret: bytes = field(repr=False)
    psk_secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Next:
    """The next epoch, and what a Welcome to it carries."""

    epoch: Epoch
    joiner_secret: bytes = field(repr=False)
    member_secret: bytes = field(repr=False)


def provisional_context(
    suite: CipherSuite, before: GroupContext, tree: RatchetTree, extensions: Extensions
) -> GroupContext:
    """Of the next epoch, still with the confirmed transcript hash of this one (section 7.6).

    RemoteError: whoever founded the group left no epoch after this one.
    """
    if before.epoch == _EPOCH_MAX:
        raise RemoteError("a group has come to its last epoch", code="mls-last-epoch")
    return replace(
        before, epoch=before.epoch + 1, tree_hash=tree.tree_hash(suite.hash), extensions=extensions
    )


def next_epoch(suite: CipherSuite, given: Ingredients, commit: AuthenticatedContent) -> Next:
    """``commit`` needs no confirmation tag yet: the tag is in the result."""
    confirmed = key_schedule.confirmed_transcript_hash(suite, given.interim_before, commit)
    context = replace(given.context, confirmed_transcript_hash=confirmed)
    joiner = key_schedule.joiner_secret(suite, given.init_secret, given.commit_secret, context)
    member = key_schedule.member_secret(suite, joiner, given.psk_secret)
    return Next(enter(suite, given.tree, context, member), joiner, member)


def enter(suite: CipherSuite, tree: RatchetTree, context: GroupContext, member_secret: bytes) -> Epoch:
    """The epoch of a finished context: of the next one, or of the one that a Welcome tells of."""
    return begin(suite, tree, context, key_schedule.epoch_secret(suite, member_secret, context))


def begin(suite: CipherSuite, tree: RatchetTree, context: GroupContext, epoch_secret: bytes) -> Epoch:
    """The epoch of a finished context and its secret."""
    secrets, encryption_secret = key_schedule.epoch_secrets(suite, epoch_secret)
    confirmed = context.confirmed_transcript_hash
    tag = key_schedule.confirmation_tag(suite, secrets, confirmed)
    return Epoch(
        context,
        tree,
        secrets,
        secret_tree(suite, tree.leaf_count, encryption_secret),
        key_schedule.interim_transcript_hash(suite, confirmed, tag),
        tag,
    )


def find_psks(
    suite: CipherSuite, settings: Settings, state: GroupState | None, psks: Sequence[PreSharedKeyID]
) -> bytes:
    """The psk_secret of these ids; ``state`` gives its own group's resumption keys.

    RuleBroken: one lacks, or they are too many.
    """
    PSKS_COUNTED.require(len(psks) <= _PSKS_MAX)
    found = []
    for one in psks:
        secret = find_psk(settings, state, one)
        if secret is None:
            PSKS_KNOWN.broken()
        found.append((one, secret))
    return psk_secret(suite, found)


def find_psk(settings: Settings, state: GroupState | None, psk: PreSharedKeyID) -> bytes | None:
    """The group's own resumption key, or what the application has."""
    named, secret = psk.psk, None
    if (
        state is not None
        and isinstance(named, ResumptionPSK)
        and named.psk_group_id == state.context.group_id
    ):
        secret = state.resumption.get(named.psk_epoch)
    return settings.find_psk(named) if secret is None else secret


# --- what the application is asked (section 5.3.1) ---


def ask(settings: Settings, changes: Iterable[LeafChange]) -> None:
    """RemoteError: the application refuses one of them."""
    for change in changes:
        settings.check_credential(change)


def leaf_change(
    kind: ChangeKind,
    group_id: bytes,
    leaf_index: int | None,
    leaf: LeafNode,
    rest: tuple[LeafNode | None, bytes] = (None, b""),
) -> LeafChange:
    """``rest``: the leaf that stood there before, and the message's authenticated data."""
    before, data = rest
    return LeafChange(kind, group_id, leaf_index, leaf.credential, leaf.signature_key, leaf, before, data)


def sender_changes(
    group_id: bytes, extensions: Extensions, before: Extensions, authenticated_data: bytes = b""
) -> list[LeafChange]:
    """A question for each external sender that was not listed before."""
    senders, known = read_extension(extensions, ExternalSenders), read_extension(before, ExternalSenders)
    listed = frozenset(known.senders if known is not None else ())  # a member may list thousands
    return [
        LeafChange(
            ChangeKind.EXTERNAL_SENDER,
            group_id,
            None,
            one.credential,
            one.signature_key,
            None,
            None,
            authenticated_data,
        )
        for one in (senders.senders if senders is not None else ())
        if one not in listed
    ]
