"""Credentials, leaf and parent nodes, key packages, extensions and the group context, as they cross the wire.

RFC 9420 sections 5.3, 7.1, 7.2, 8.1, 10, 11.1 and 12.1.8. Bytes alone: nothing here is verified. Numbers
that nobody assigned, GREASE among them (section 13.5), are kept as they came.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Annotated, Final, TypeVar

from lokket.codec import tls
from lokket.errors import DecodeError, LocalError

MLS10: Final = 1  # ProtocolVersion


class CredentialType(IntEnum):
    """Section 17.5."""

    BASIC = 1
    X509 = 2


class ExtensionType(IntEnum):
    """Section 17.3; last_resort is draft-ietf-mls-extensions."""

    APPLICATION_ID = 1
    RATCHET_TREE = 2
    REQUIRED_CAPABILITIES = 3
    EXTERNAL_PUB = 4
    EXTERNAL_SENDERS = 5
    LAST_RESORT = 10


# What every client supports without saying so (section 7.2).
DEFAULT_EXTENSIONS: Final = frozenset(range(1, 6))
DEFAULT_PROPOSALS: Final = frozenset(range(1, 8))

GREASE: Final = tuple(0x0A0A + 0x1010 * number for number in range(15))  # 0x0A0A ... 0xEAEA, section 13.5

Numbers = tuple[tls.U16, ...]


@dataclass(frozen=True, slots=True)
class Certificate:
    """One DER certificate of an X.509 credential."""

    cert_data: tls.Opaque


@dataclass(frozen=True, slots=True)
class CertificateChain:
    certificates: tuple[Certificate, ...]


@dataclass(frozen=True, slots=True)
class Credential:
    """Section 5.3. ``content`` is the identity (basic) or the encoded certificates (X.509)."""

    credential_type: tls.U16
    content: tls.Opaque

    def certificates(self) -> tuple[bytes, ...]:
        """The chain, end entity first, in DER. DecodeError: not an X.509 credential, or malformed."""
        if self.credential_type != CredentialType.X509:
            raise DecodeError("the credential is not X.509")
        chain = tls.decode(CertificateChain, tls.opaque(self.content))
        return tuple(item.cert_data for item in chain.certificates)


def basic_credential(identity: bytes) -> Credential:
    """A credential that is only a name, of any length; the application says what it means (section 5.3.1)."""
    return Credential(CredentialType.BASIC, identity)


def x509_credential(certificates: tuple[bytes, ...]) -> Credential:
    """A credential of DER certificates, end entity first (section 5.3)."""
    chain = b"".join(tls.encode(Certificate(item)) for item in certificates)
    return Credential(CredentialType.X509, chain)


@dataclass(frozen=True, slots=True)
class Extension:
    """Section 13.4: a number and opaque data, known or not."""

    extension_type: tls.U16
    extension_data: tls.Opaque


Extensions = tuple[Extension, ...]


@dataclass(frozen=True, slots=True)
class Capabilities(tls.Kept):
    """What a client supports (section 7.2): unknown numbers are kept and ignored."""

    versions: Numbers
    cipher_suites: Numbers
    extensions: Numbers
    proposals: Numbers
    credentials: Numbers


@dataclass(frozen=True, slots=True)
class Lifetime:
    """Seconds since 1970, both inclusive (section 7.2)."""

    not_before: tls.U64
    not_after: tls.U64


@dataclass(frozen=True, slots=True)
class UpdateSource:
    """``leaf_node_source`` update: nothing more."""


@dataclass(frozen=True, slots=True)
class CommitSource:
    """``leaf_node_source`` commit: the parent hash of section 7.9."""

    parent_hash: tls.Opaque


LeafSource = Annotated[
    Lifetime | UpdateSource | CommitSource,
    tls.Select(tls.Uint(1), {1: Lifetime, 2: UpdateSource, 3: CommitSource}),
]


@dataclass(frozen=True, slots=True)
class LeafNode(tls.Kept):
    """Section 7.2. ``source`` is a ``Lifetime`` where leaf_node_source says key_package."""

    encryption_key: tls.Opaque
    signature_key: tls.Opaque
    credential: Credential
    capabilities: Capabilities
    source: LeafSource
    extensions: Extensions
    signature: tls.Opaque

    def to_be_signed(self, group_id: bytes, leaf_index: int) -> bytes:
        """LeafNodeTBS (section 7.2); group and index count for update and commit alone."""
        body = unsigned(self.encoded, self.signature)
        if isinstance(self.source, Lifetime):
            return body
        return body + tls.opaque(group_id) + leaf_index.to_bytes(4, "big")


@dataclass(frozen=True, slots=True)
class ParentNode(tls.Kept):
    """Section 7.1. ``unmerged_leaves`` MUST be in increasing order (section 7.1)."""

    encryption_key: tls.Opaque
    parent_hash: tls.Opaque
    unmerged_leaves: Annotated[tuple[tls.U32, ...], tls.Vector(ascending=True)]


Node = Annotated[LeafNode | ParentNode, tls.Select(tls.Uint(1), {1: LeafNode, 2: ParentNode})]


@dataclass(frozen=True, slots=True)
class RatchetTreeNodes:
    """The ``ratchet_tree`` extension (section 12.4.3.3): nodes in array order, the last one not blank."""

    nodes: tuple[Node | None, ...]


@dataclass(frozen=True, slots=True)
class KeyPackage(tls.Kept):
    """Section 10."""

    version: tls.U16
    cipher_suite: tls.U16
    init_key: tls.Opaque
    leaf_node: LeafNode
    extensions: Extensions
    signature: tls.Opaque

    def to_be_signed(self) -> bytes:
        """KeyPackageTBS."""
        return unsigned(self.encoded, self.signature)

    @property
    def last_resort(self) -> bool:
        """Whether it may be used more than once (draft-ietf-mls-extensions, last_resort_key_package)."""
        return find_extension(self.extensions, ExtensionType.LAST_RESORT) is not None


@dataclass(frozen=True, slots=True)
class GroupContext(tls.Kept):
    """Section 8.1."""

    version: tls.U16
    cipher_suite: tls.U16
    group_id: tls.Opaque
    epoch: tls.U64
    tree_hash: tls.Opaque
    confirmed_transcript_hash: tls.Opaque
    extensions: Extensions


# --- contents of extensions ---


@dataclass(frozen=True, slots=True)
class RequiredCapabilities:
    """Section 11.1."""

    extension_types: Numbers = ()
    proposal_types: Numbers = ()
    credential_types: Numbers = ()


@dataclass(frozen=True, slots=True)
class ExternalPub:
    """Section 12.4.3.2: the HPKE key of external commits."""

    external_pub: tls.Opaque


@dataclass(frozen=True, slots=True)
class ExternalSender:
    """Section 12.1.8.1: who may propose from outside."""

    signature_key: tls.Opaque
    credential: Credential


@dataclass(frozen=True, slots=True)
class ExternalSenders:
    """Section 12.1.8.1: an external sender is named by its place in this list."""

    senders: tuple[ExternalSender, ...] = field(default=())


def unsigned(encoded: bytes, signature: bytes) -> bytes:
    """An encoding without the ``opaque signature<V>`` at its end."""
    return encoded[: len(encoded) - len(tls.opaque(signature))]


def find_extension(extensions: Extensions, extension_type: int) -> bytes | None:
    """The data of the extension of that number, or None."""
    for extension in extensions:
        if extension.extension_type == extension_type:
            return extension.extension_data
    return None


Content = TypeVar("Content")

_CONTENT_TYPES: Final[dict[type, ExtensionType]] = {
    RatchetTreeNodes: ExtensionType.RATCHET_TREE,
    RequiredCapabilities: ExtensionType.REQUIRED_CAPABILITIES,
    ExternalPub: ExtensionType.EXTERNAL_PUB,
    ExternalSenders: ExtensionType.EXTERNAL_SENDERS,
}


def read_extension(extensions: Extensions, kind: type[Content]) -> Content | None:
    """The content of the extension that ``kind`` is, or None. DecodeError: malformed, or bytes trail it."""
    data = find_extension(extensions, _CONTENT_TYPES[kind])
    return None if data is None else tls.decode(kind, data)


def make_extension(content: object) -> Extension:
    """An extension of one of the contents above. LocalError: of anything else."""
    number = _CONTENT_TYPES.get(type(content))
    if number is None:
        raise LocalError(f"{type(content).__name__} is not the content of an extension")
    return Extension(number, tls.encode(content))
