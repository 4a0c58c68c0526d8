"""Targets and starting values of MLS (RFC 9420), for ``targets.py`` and ``seeds.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from lokket.codec import tls
from lokket.protocol.mls import structs
from lokket.protocol.mls.messages import (
    ApplicationData,
    AuthenticatedContent,
    Body,
    ContentType,
    EncryptedGroupSecrets,
    External,
    FramedContent,
    FramedContentAuthData,
    GroupInfo,
    GroupSecrets,
    Member,
    NewMemberCommit,
    PrivateMessage,
    PublicMessage,
    Sender,
    Welcome,
    WireFormat,
    decode_message,
    encode_message,
)
from lokket.protocol.mls.parent_hash import check_parent_hashes
from lokket.protocol.mls.proposals import (
    Add,
    AnyProposal,
    Commit,
    ExternalInit,
    ExternalPSK,
    GroupContextExtensions,
    HPKECiphertext,
    PreSharedKey,
    PreSharedKeyID,
    Reference,
    ReInit,
    Remove,
    ResumptionPSK,
    ResumptionUsage,
    Update,
    decode_proposal,
    encode_proposal,
)
from lokket.protocol.mls.ratchet_tree import RatchetTree
from lokket.protocol.mls.structs import Extension
from lokket.protocol.mls.validation import check_tree_keys
from tests.support import mls_rules

SUITE: Final = mls_rules.SUITE


def message(data: bytes) -> object:
    """What decodes has one encoding, inside and outside."""
    body = decode_message(data)
    assert encode_message(body) == data
    if isinstance(body, structs.KeyPackage):
        read_extensions(body.extensions + body.leaf_node.extensions)
    return body


def read_extensions(extensions: tuple[Extension, ...]) -> None:
    for kind in (structs.RequiredCapabilities, structs.ExternalPub, structs.ExternalSenders):
        structs.read_extension(extensions, kind)


def extensions(data: bytes) -> object:
    """The contents of all extensions that the RFC defines, of one list."""
    given = tls.decode(_Extensions, data).extensions
    read_extensions(given)
    return structs.read_extension(given, structs.RatchetTreeNodes)


def proposal(data: bytes) -> object:
    decoded = decode_proposal(data)
    assert encode_proposal(decoded) == data
    return decoded


def tree(data: bytes) -> object:
    """A tree and all that is asked of it without its group."""
    decoded = RatchetTree.decode(data)
    assert decoded.encode() == data
    decoded.tree_hash(SUITE.hash)
    decoded.root.resolution()
    check_tree_keys(decoded)
    check_parent_hashes(decoded, SUITE.hash)
    return decoded


def canonical(kind: type[Any]) -> Callable[[bytes], object]:
    def target(data: bytes) -> object:
        value = tls.decode(kind, data)
        assert tls.encode(value) == data, f"{kind.__name__} accepts a second encoding"
        return value

    return target


@dataclass(frozen=True, slots=True)
class _Extensions:
    extensions: structs.Extensions


TARGETS: Final[dict[str, Callable[[bytes], object]]] = {
    "mls-message": message,
    "mls-extensions": extensions,
    "mls-proposal": proposal,
    "mls-tree": tree,
    "mls-commit": canonical(Commit),
    "mls-content": canonical(AuthenticatedContent),
    "mls-group-info": canonical(GroupInfo),
    "mls-group-secrets": canonical(GroupSecrets),
}


# --- starting values ---

PEOPLE: Final = mls_rules.people(3)
KEY: Final = PreSharedKeyID(ExternalPSK(b"a key"), bytes(32))
RESUMED: Final = PreSharedKeyID(ResumptionPSK(ResumptionUsage.BRANCH, b"a group", 7), bytes(32))


def some_extensions() -> structs.Extensions:
    credential = structs.basic_credential(b"a server")
    sender = structs.ExternalSender(PEOPLE[0].leaf.signature_key, credential)
    return (
        structs.make_extension(structs.RequiredCapabilities((9,), (), (1,))),
        structs.make_extension(structs.ExternalPub(bytes(32))),
        structs.make_extension(structs.ExternalSenders((sender,))),
        Extension(0x0A0A, b"grease"),
    )


def extension_values() -> Iterator[bytes]:
    tree = mls_rules.tree_of(PEOPLE)
    yield tls.encode(_Extensions(()))
    yield tls.encode(_Extensions(some_extensions()))
    yield tls.encode(_Extensions((Extension(structs.ExtensionType.RATCHET_TREE, tree.encode()),)))
    yield tls.encode(_Extensions((Extension(structs.ExtensionType.EXTERNAL_PUB, tls.opaque(b"x") + b"\0"),)))


def all_proposals() -> list[AnyProposal]:
    return [
        Add(PEOPLE[2].package(extensions=(Extension(structs.ExtensionType.LAST_RESORT, b""),))),
        Update(PEOPLE[1].update(1)),
        Remove(1),
        PreSharedKey(KEY),
        PreSharedKey(RESUMED),
        ReInit(b"the next", structs.MLS10, 2, some_extensions()),
        ExternalInit(bytes(32)),
        GroupContextExtensions(some_extensions()),
    ]


def commits() -> list[Commit]:
    tree = mls_rules.tree_of(PEOPLE)
    path = mls_rules.commit_path(tree, PEOPLE[0], 0)[1]
    return [
        Commit((), path),
        Commit((Reference(bytes(32)), Remove(2)), path),
        Commit(tuple(all_proposals()), None),
    ]


def framed(content: Any, sender: Sender) -> AuthenticatedContent:
    tag = bytes(32) if isinstance(content, Commit) else None
    form = WireFormat.PRIVATE_MESSAGE if isinstance(content, ApplicationData) else WireFormat.PUBLIC_MESSAGE
    whole = FramedContent(mls_rules.GROUP_ID, 7, sender, b"with it", content)
    return AuthenticatedContent(form, whole, FramedContentAuthData(bytes(64), tag))


def contents() -> list[AuthenticatedContent]:
    return [
        framed(ApplicationData(b"hello"), Member(1)),
        framed(Remove(2), External(0)),
        framed(commits()[0], Member(0)),
        framed(commits()[0], NewMemberCommit()),
    ]


def group_infos() -> list[GroupInfo]:
    tree = mls_rules.warm_tree(3)[0]
    context = mls_rules.context_of(tree, some_extensions())
    inside = Extension(structs.ExtensionType.RATCHET_TREE, tree.encode())
    return [
        GroupInfo(context, (inside,), bytes(32), 1, bytes(64)),
        GroupInfo(replace(context, extensions=()), (), b"", 0, b""),
    ]


def group_secrets() -> list[GroupSecrets]:
    return [GroupSecrets(bytes(32), bytes(32), (KEY, RESUMED)), GroupSecrets(bytes(32), None, ())]


def trees() -> Iterator[bytes]:
    warm, members = mls_rules.warm_tree(5)
    yield mls_rules.tree_of(members).encode()
    yield warm.encode()
    yield warm.remove(1).encode()
    yield warm.remove(3).remove(4).add(mls_rules.person("late").leaf)[0].encode()


def messages() -> Iterator[bytes]:
    sealed = HPKECiphertext(bytes(32), bytes(48))
    welcome = Welcome(1, (EncryptedGroupSecrets(bytes(32), sealed),) * 2, bytes(40))
    private = PrivateMessage(mls_rules.GROUP_ID, 7, ContentType.COMMIT, b"", bytes(28), bytes(90))
    public = [PublicMessage(one.content, one.auth, bytes(32)) for one in contents()[2:3]]
    public += [PublicMessage(one.content, one.auth) for one in (contents()[1], contents()[3])]
    bodies: list[Body] = [welcome, private, *public, *group_infos(), PEOPLE[0].key_package]
    yield from (encode_message(body) for body in bodies)
    yield encode_message(PEOPLE[0].package(extensions=some_extensions()))
    yield encode_message(welcome)[:6] + b"\x3f\xff"  # a length just below what two bytes hold, and no more


SEEDS: Final[dict[str, Callable[[], Iterator[bytes]]]] = {
    "mls-message": messages,
    "mls-extensions": extension_values,
    "mls-proposal": lambda: map(encode_proposal, all_proposals()),
    "mls-tree": trees,
    "mls-commit": lambda: map(tls.encode, commits()),
    "mls-content": lambda: map(tls.encode, contents()),
    "mls-group-info": lambda: map(tls.encode, group_infos()),
    "mls-group-secrets": lambda: map(tls.encode, group_secrets()),
}
