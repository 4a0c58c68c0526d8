"""GroupInfo and Welcome: how new members are let in, and how they come in (RFC 9420 section 12.4.3)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from cryptography.exceptions import InvalidTag

from lokket.codec import tls
from lokket.crypto.entropy import Entropy
from lokket.crypto.primitives import equal
from lokket.errors import DecryptionFailed, RemoteError
from lokket.protocol.mls import key_schedule, treekem
from lokket.protocol.mls.applying import Applied
from lokket.protocol.mls.credentials import ChangeKind
from lokket.protocol.mls.group_state import GroupState
from lokket.protocol.mls.key_packages import OwnKeyPackage
from lokket.protocol.mls.messages import (
    EncryptedGroupSecrets,
    GroupInfo,
    GroupSecrets,
    Welcome,
    decode_message,
)
from lokket.protocol.mls.proposals import PreSharedKeyID, ResumptionPSK, ResumptionUsage
from lokket.protocol.mls.ratchet_tree import RatchetTree
from lokket.protocol.mls.rules import RuleBroken
from lokket.protocol.mls.settings import Settings
from lokket.protocol.mls.structs import (
    Extension,
    ExtensionType,
    ExternalPub,
    find_extension,
    make_extension,
)
from lokket.protocol.mls.suite import CipherSuite, find_suite
from lokket.protocol.mls.transition import (
    PSKS_KNOWN,
    Next,
    ask,
    enter,
    find_psks,
    leaf_change,
    sender_changes,
)
from lokket.protocol.mls.validation import (
    CONFIRMATION,
    GROUP_ID_NEW,
    TREE_PRESENT,
    WELCOME_FOR_US,
    WELCOME_ONE_ORIGIN,
    WELCOME_PSKS,
    check_group_info,
    check_tree,
    check_welcome,
    own_leaf_index,
)


@dataclass(frozen=True, slots=True)
class InfoOptions:
    """What a GroupInfo holds beside the context. With many members the tree is better sent beside it."""

    tree: bool = True  # the ratchet_tree extension
    external: bool = False  # the external_pub extension
    extensions: tuple[Extension, ...] = field(default=())


def make_group_info(state: GroupState, options: InfoOptions) -> GroupInfo:
    """The group's present epoch, signed by us (section 12.4.3)."""
    epoch = state.epoch
    extensions = list(options.extensions)
    if options.tree:
        extensions.append(Extension(ExtensionType.RATCHET_TREE, epoch.tree.encode()))
    if options.external:
        pair = key_schedule.external_key_pair(state.suite, epoch.secrets)
        extensions.append(make_extension(ExternalPub(pair.public)))
    unsigned = GroupInfo(epoch.context, tuple(extensions), epoch.confirmation_tag, state.leaf_index, b"")
    signature = state.suite.sign_with_label(state.signature_private, b"GroupInfoTBS", unsigned.to_be_signed())
    return replace(unsigned, signature=signature)


def seal_welcome(
    suite: CipherSuite,
    following: Next,
    info: GroupInfo,
    commit: tuple[Applied, treekem.NewPath | None],
    entropy: Entropy,
) -> Welcome:
    """One Welcome for all whom the commit adds (section 12.4.3.1)."""
    applied, path = commit
    key, nonce = key_schedule.welcome_key(suite, following.member_secret)
    encrypted_info = suite.cipher(key).encrypt(nonce, info.encoded, b"")
    secrets = []
    for index, package in applied.added:
        path_secret = None if path is None else path.path_secret_for(index)
        plain = tls.encode(GroupSecrets(following.joiner_secret, path_secret, applied.psks))
        sealed = suite.encrypt_with_label(package.init_key, b"Welcome", encrypted_info, plain, entropy)
        secrets.append(EncryptedGroupSecrets(suite.key_package_ref(package), sealed))
    return Welcome(suite.number, tuple(secrets), encrypted_info)


# --- joining ---


@dataclass(frozen=True, slots=True)
class Invitation:
    """A Welcome that one of our key packages opened. Nothing in it is verified yet."""

    suite: CipherSuite
    own: OwnKeyPackage
    secrets: GroupSecrets = field(repr=False)
    info: GroupInfo
    member_secret: bytes = field(repr=False)


def open_welcome(
    message: bytes, own: Sequence[OwnKeyPackage], settings: Settings, origin: GroupState | None = None
) -> Invitation:
    """Steps 1 to 3 of section 12.4.3.1. ``origin`` is the group that this one follows or branches off.

    RemoteError: for none of our key packages, damaged, or with a pre-shared key that we lack.
    """
    welcome = decode_message(message)
    if not isinstance(welcome, Welcome):
        raise RemoteError("this MLSMessage is no Welcome", code="mls-wire-format")
    suite = find_suite(welcome.cipher_suite, settings.suites)
    package, position = _ours(suite, welcome, own)
    sealed = welcome.secrets[position].encrypted_group_secrets
    plain = suite.decrypt_with_label(package.init, b"Welcome", welcome.encrypted_group_info, sealed)
    secrets = tls.decode(GroupSecrets, plain)
    _check_origin_count(secrets.psks)
    try:
        psk_secret = find_psks(suite, settings, origin, secrets.psks)
    except RuleBroken as error:
        if error.rule != PSKS_KNOWN.id:
            raise
        WELCOME_PSKS.broken()
    member = key_schedule.member_secret(suite, secrets.joiner_secret, psk_secret)
    key, nonce = key_schedule.welcome_key(suite, member)
    try:
        info = suite.cipher(key).decrypt(nonce, welcome.encrypted_group_info, b"")
    except (InvalidTag, ValueError):
        raise DecryptionFailed("a Welcome does not open", code="mls-welcome") from None
    return Invitation(suite, package, secrets, tls.decode(GroupInfo, info), member)


def _ours(suite: CipherSuite, welcome: Welcome, own: Sequence[OwnKeyPackage]) -> tuple[OwnKeyPackage, int]:
    for package in own:
        if package.key_package.cipher_suite == suite.number:
            try:
                return package, check_welcome(suite, welcome, package.key_package)
            except RuleBroken:
                continue
    WELCOME_FOR_US.broken()


def origins(psks: Sequence[PreSharedKeyID]) -> list[ResumptionPSK]:
    """The keys among these that say which group this one comes from."""
    return [
        one.psk
        for one in psks
        if isinstance(one.psk, ResumptionPSK) and one.psk.usage != ResumptionUsage.APPLICATION
    ]


def _check_origin_count(psks: Sequence[PreSharedKeyID]) -> None:
    WELCOME_ONE_ORIGIN.require(len(origins(psks)) <= 1)


def received_tree(info: GroupInfo, beside: bytes | None) -> RatchetTree:
    """The tree in the message, or else the one that came beside it. RuleBroken: neither, or malformed."""
    data = find_extension(info.extensions, ExtensionType.RATCHET_TREE)
    if data is None:
        data = beside
    if data is None:
        TREE_PRESENT.broken()
    return RatchetTree.decode(data)


def check_joined(suite: CipherSuite, settings: Settings, info: GroupInfo, tree: RatchetTree) -> None:
    """All rules of section 12.4.3.1 for the group as it is told of, and the application's answers."""
    context = info.group_context
    check_group_info(suite, info, tree)
    check_tree(suite, tree, context, None, settings.verified_leaves)
    ask(
        settings,
        [
            *(leaf_change(ChangeKind.FOUND, context.group_id, index, leaf) for index, leaf in tree.members()),
            *sender_changes(context.group_id, context.extensions, ()),
        ],
    )


def join(
    invitation: Invitation, settings: Settings, ratchet_tree: bytes | None, in_use: Collection[bytes]
) -> GroupState:
    """The rest of section 12.4.3.1. ``in_use`` are the ids of the groups that we are in. RemoteError."""
    suite, info, own = invitation.suite, invitation.info, invitation.own
    context = info.group_context
    GROUP_ID_NEW.require(context.group_id not in in_use)
    WELCOME_ONE_ORIGIN.require(not origins(invitation.secrets.psks) or context.epoch == 1)
    tree = received_tree(info, ratchet_tree)
    check_joined(suite, settings, info, tree)
    leaf_index = own_leaf_index(tree, own.key_package.leaf_node)
    sent = (info.signer, invitation.secrets.path_secret)
    private = treekem.private_from_welcome(suite, tree, (leaf_index, own.encryption), sent)
    epoch = enter(suite, tree, context, invitation.member_secret)
    CONFIRMATION.require(equal(epoch.confirmation_tag, info.confirmation_tag))
    return GroupState(
        suite=suite,
        settings=settings,
        leaf_index=leaf_index,
        signature_private=own.signature_private,
        epoch=epoch,
        private=private,
        resumption={context.epoch: epoch.secrets.resumption_psk},
    )
