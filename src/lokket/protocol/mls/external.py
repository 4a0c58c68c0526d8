"""From outside a group: external commits and proposals (RFC 9420 sections 12.1.8 and 12.4.3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from lokket.crypto.entropy import Entropy
from lokket.errors import LocalError, RemoteError
from lokket.protocol.mls import framing, key_schedule, treekem
from lokket.protocol.mls.applying import apply
from lokket.protocol.mls.group_state import GroupState
from lokket.protocol.mls.key_packages import OwnKeyPackage, make_leaf
from lokket.protocol.mls.messages import (
    AuthenticatedContent,
    External,
    FramedContent,
    FramedContentAuthData,
    GroupInfo,
    NewMemberCommit,
    NewMemberProposal,
    PublicMessage,
    Sender,
    WireFormat,
    decode_message,
    encode_message,
)
from lokket.protocol.mls.proposal_rules import Ground, check_external_list, check_proposal_sender
from lokket.protocol.mls.proposals import (
    Add,
    AnyProposal,
    Commit,
    ExternalInit,
    PreSharedKey,
    PreSharedKeyID,
    Remove,
)
from lokket.protocol.mls.proposed import Proposed
from lokket.protocol.mls.rules import Rule
from lokket.protocol.mls.settings import Identity, Settings
from lokket.protocol.mls.structs import CommitSource, ExternalPub, GroupContext, read_extension
from lokket.protocol.mls.suite import CipherSuite, find_suite
from lokket.protocol.mls.transition import (
    Ingredients,
    find_psks,
    next_epoch,
    provisional_context,
)
from lokket.protocol.mls.validation import check_support, check_unique
from lokket.protocol.mls.welcoming import check_joined, received_tree

EXTERNAL_PUB: Final = Rule("12.4.3.2-3", "a group that lets in by external commit says its external_pub")


@dataclass(frozen=True, slots=True)
class ExternalOptions:
    """``replaces`` is the leaf of a former self, which the commit removes (resync)."""

    replaces: int | None = None
    psks: tuple[PreSharedKeyID, ...] = ()
    authenticated_data: bytes = b""


def read_group_info(message: bytes) -> GroupInfo:
    """The GroupInfo of an MLSMessage. RemoteError: something else."""
    info = decode_message(message)
    if not isinstance(info, GroupInfo):
        raise RemoteError("this MLSMessage is no GroupInfo", code="mls-wire-format")
    return info


def join_externally(
    info: GroupInfo,
    ratchet_tree: bytes | None,
    identity: Identity,
    settings: Settings,
    options: ExternalOptions,
    *,
    entropy: Entropy,
) -> tuple[GroupState, bytes]:
    """(the group in the epoch that our commit begins, the commit as an MLSMessage).

    The state counts only once the delivery service has accepted the commit. RemoteError: the GroupInfo or its
    tree is not right, or has no ``external_pub``.
    """
    suite = find_suite(info.group_context.cipher_suite, settings.suites)
    tree = received_tree(info, ratchet_tree)
    check_joined(suite, settings, info, tree)
    external_pub = read_extension(info.extensions, ExternalPub)
    if external_pub is None:
        EXTERNAL_PUB.broken()
    kem_output, init_secret = key_schedule.external_init(suite, external_pub.external_pub, entropy)
    proposals: list[AnyProposal] = [ExternalInit(kem_output)]
    if options.replaces is not None:
        proposals.append(Remove(options.replaces))
    proposals += [PreSharedKey(psk) for psk in options.psks]
    context = info.group_context
    listed = [Proposed(one, NewMemberCommit()) for one in proposals]
    try:
        check_external_list(listed, Ground(suite, tree, context.group_id))
    except RemoteError as error:
        raise LocalError(f"this commit would be refused: {error}") from error
    before, leaf_index = apply(tree, context.extensions, listed).tree.with_room()
    template, _ = make_leaf(suite, identity, settings, CommitSource(b""), entropy)
    keys = treekem.LeafKeys(leaf_index, template, identity.signature.private, context.group_id)
    path = treekem.new_path(suite, before, keys, entropy)
    check_unique(path.tree, leaf_index)
    check_support(path.tree, context.extensions)
    provisional = provisional_context(suite, context, path.tree, context.extensions)
    sealed = treekem.seal_path(suite, path, frozenset(), provisional.encoded, entropy)
    given = _frame(
        suite, identity.signature.private, context, NewMemberCommit(),
        (Commit(tuple(proposals), sealed), options.authenticated_data),
    )  # fmt: skip
    interim = key_schedule.interim_transcript_hash(
        suite, context.confirmed_transcript_hash, info.confirmation_tag
    )
    psk_secret = find_psks(suite, settings, None, options.psks)
    ingredients = Ingredients(path.tree, provisional, interim, init_secret, path.commit_secret, psk_secret)
    epoch = next_epoch(suite, ingredients, given).epoch
    auth = replace(given.auth, confirmation_tag=epoch.confirmation_tag)
    state = GroupState(
        suite=suite,
        settings=settings,
        leaf_index=leaf_index,
        signature_private=identity.signature.private,
        epoch=epoch,
        private=path.private,
        resumption={epoch.context.epoch: epoch.secrets.resumption_psk},
    )
    return state, encode_message(PublicMessage(given.content, auth))


def _frame(
    suite: CipherSuite,
    private: bytes,
    context: GroupContext,
    sender: Sender,
    content: tuple[AnyProposal | Commit, bytes],
) -> AuthenticatedContent:
    """Signed content of a sender who is no member: it travels as a PublicMessage (section 6.2)."""
    body, authenticated_data = content
    framed = FramedContent(context.group_id, context.epoch, sender, authenticated_data, body)
    signature = framing.sign(suite, private, WireFormat.PUBLIC_MESSAGE, framed, context)
    return AuthenticatedContent(WireFormat.PUBLIC_MESSAGE, framed, FramedContentAuthData(signature))


def propose_joining(
    context: GroupContext, own: OwnKeyPackage, settings: Settings, authenticated_data: bytes = b""
) -> bytes:
    """An MLSMessage by which a client asks to be added (new_member_proposal, section 12.1.8)."""
    suite = find_suite(context.cipher_suite, settings.suites)
    content = (Add(own.key_package), authenticated_data)
    given = _frame(suite, own.signature_private, context, NewMemberProposal(), content)
    return encode_message(PublicMessage(given.content, given.auth))


def propose_from_outside(
    context: GroupContext,
    sender_index: int,
    signature_private: bytes,
    proposals: Sequence[AnyProposal],
    settings: Settings,
) -> list[bytes]:
    """MLSMessages of the sender at ``sender_index`` of the ``external_senders`` extension.

    LocalError: a proposal that external senders may not make.
    """
    suite = find_suite(context.cipher_suite, settings.suites)
    sender = External(sender_index)
    sent = []
    for proposal in proposals:
        try:
            check_proposal_sender(proposal, sender)
        except RemoteError as error:
            raise LocalError(f"this proposal would be refused: {error}") from error
        given = _frame(suite, signature_private, context, sender, (proposal, b""))
        sent.append(encode_message(PublicMessage(given.content, given.auth)))
    return sent
