"""Framing, GroupInfo, Welcome and MLSMessage, as they cross the wire (RFC 9420 sections 6 and 12.4.3)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Final

from lokket.codec import tls
from lokket.errors import DecodeError
from lokket.protocol.mls.proposals import AnyProposal, Commit, HPKECiphertext, PreSharedKeyID, Proposal
from lokket.protocol.mls.structs import MLS10, Extensions, GroupContext, KeyPackage, unsigned


class WireFormat(IntEnum):
    """Section 17.2."""

    PUBLIC_MESSAGE = 1
    PRIVATE_MESSAGE = 2
    WELCOME = 3
    GROUP_INFO = 4
    KEY_PACKAGE = 5


class ContentType(IntEnum):
    """Section 6."""

    APPLICATION = 1
    PROPOSAL = 2
    COMMIT = 3


# --- senders (section 6) ---


@dataclass(frozen=True, slots=True)
class Member:
    leaf_index: tls.U32


@dataclass(frozen=True, slots=True)
class External:
    sender_index: tls.U32  # in the external_senders extension


@dataclass(frozen=True, slots=True)
class NewMemberProposal:
    pass


@dataclass(frozen=True, slots=True)
class NewMemberCommit:
    pass


Sender = Annotated[
    Member | External | NewMemberProposal | NewMemberCommit,
    tls.Select(tls.Uint(1), {1: Member, 2: External, 3: NewMemberProposal, 4: NewMemberCommit}),
]


# --- section 6 ---


@dataclass(frozen=True, slots=True)
class ApplicationData:
    application_data: tls.Opaque


AnyContent = ApplicationData | AnyProposal | Commit
Content = Annotated[AnyContent, tls.Select(tls.Uint(1), {1: ApplicationData, 2: Proposal, 3: Commit})]


@dataclass(frozen=True, slots=True)
class FramedContent(tls.Kept):
    group_id: tls.Opaque
    epoch: tls.U64
    sender: Sender
    authenticated_data: tls.Opaque
    content: Content

    @property
    def content_type(self) -> ContentType:
        if isinstance(self.content, Commit):
            return ContentType.COMMIT
        return ContentType.APPLICATION if isinstance(self.content, ApplicationData) else ContentType.PROPOSAL


@dataclass(frozen=True, slots=True)
class FramedContentAuthData:
    """``confirmation_tag`` stands in commits alone; outer structs write and read it (``write_auth``)."""

    signature: bytes
    confirmation_tag: bytes | None = None


def write_auth(auth: FramedContentAuthData, out: bytearray) -> None:
    out += tls.opaque(auth.signature)
    if auth.confirmation_tag is not None:
        out += tls.opaque(auth.confirmation_tag)


def read_auth(reader: tls.Reader, content_type: ContentType) -> FramedContentAuthData:
    signature = reader.opaque()
    return FramedContentAuthData(signature, reader.opaque() if content_type == ContentType.COMMIT else None)


@dataclass(frozen=True, slots=True)
class AuthenticatedContent:
    """What is signed and referred to, in whichever message it travels (section 6.1)."""

    wire_format: WireFormat
    content: FramedContent
    auth: FramedContentAuthData

    def write_tls(self, out: bytearray) -> None:
        out += self.wire_format.to_bytes(2, "big")
        out += self.content.encoded
        write_auth(self.auth, out)

    @classmethod
    def read_tls(cls, reader: tls.Reader) -> AuthenticatedContent:
        number = reader.uint(2)
        if number not in (WireFormat.PUBLIC_MESSAGE, WireFormat.PRIVATE_MESSAGE):
            raise DecodeError("content is framed in public and private messages alone")
        content = tls.read(FramedContent, reader)
        return cls(WireFormat(number), content, read_auth(reader, content.content_type))


def content_to_be_signed(wire_format: WireFormat, content: FramedContent, context: GroupContext) -> bytes:
    """FramedContentTBS (section 6.1)."""
    head = MLS10.to_bytes(2, "big") + wire_format.to_bytes(2, "big") + content.encoded
    if isinstance(content.sender, Member | NewMemberCommit):
        return head + context.encoded
    return head


@dataclass(frozen=True, slots=True)
class PublicMessage:
    """Section 6.2: ``membership_tag`` stands where a member sends."""

    content: FramedContent
    auth: FramedContentAuthData
    membership_tag: bytes | None = None

    def write_tls(self, out: bytearray) -> None:
        out += self.content.encoded
        write_auth(self.auth, out)
        if self.membership_tag is not None:
            out += tls.opaque(self.membership_tag)

    @classmethod
    def read_tls(cls, reader: tls.Reader) -> PublicMessage:
        content = tls.read(FramedContent, reader)
        auth = read_auth(reader, content.content_type)
        return cls(content, auth, reader.opaque() if isinstance(content.sender, Member) else None)


# --- section 6.3 ---


@dataclass(frozen=True, slots=True)
class PrivateMessage:
    group_id: tls.Opaque
    epoch: tls.U64
    content_type: Annotated[ContentType, tls.Uint(1)]
    authenticated_data: tls.Opaque
    encrypted_sender_data: tls.Opaque
    ciphertext: tls.Opaque


@dataclass(frozen=True, slots=True)
class PrivateContentAAD:
    group_id: tls.Opaque
    epoch: tls.U64
    content_type: Annotated[ContentType, tls.Uint(1)]
    authenticated_data: tls.Opaque


@dataclass(frozen=True, slots=True)
class SenderDataAAD:
    group_id: tls.Opaque
    epoch: tls.U64
    content_type: Annotated[ContentType, tls.Uint(1)]


@dataclass(frozen=True, slots=True)
class SenderData:
    leaf_index: tls.U32
    generation: tls.U32
    reuse_guard: Annotated[bytes, tls.Fixed(4)]


# --- section 12.4.3 ---


@dataclass(frozen=True, slots=True)
class GroupInfo(tls.Kept):
    group_context: GroupContext
    extensions: Extensions
    confirmation_tag: tls.Opaque
    signer: tls.U32  # leaf index
    signature: tls.Opaque

    def to_be_signed(self) -> bytes:
        """GroupInfoTBS."""
        return unsigned(self.encoded, self.signature)


@dataclass(frozen=True, slots=True)
class GroupSecrets:
    joiner_secret: tls.Opaque
    path_secret: tls.Opaque | None
    psks: tuple[PreSharedKeyID, ...]

    def __repr__(self) -> str:
        return "GroupSecrets(…)"


@dataclass(frozen=True, slots=True)
class EncryptedGroupSecrets:
    new_member: tls.Opaque  # KeyPackageRef
    encrypted_group_secrets: HPKECiphertext


@dataclass(frozen=True, slots=True)
class Welcome:
    cipher_suite: tls.U16
    secrets: tuple[EncryptedGroupSecrets, ...]
    encrypted_group_info: tls.Opaque


Body = PublicMessage | PrivateMessage | Welcome | GroupInfo | KeyPackage


@dataclass(frozen=True, slots=True)
class MLSMessage:
    """Section 6. The version is checked before anything else is looked at."""

    body: Body

    def write_tls(self, out: bytearray) -> None:
        out += MLS10.to_bytes(2, "big")
        out += _FORMATS[type(self.body)].to_bytes(2, "big")
        tls.write(self.body, out)

    @classmethod
    def read_tls(cls, reader: tls.Reader) -> MLSMessage:
        if reader.uint(2) != MLS10:
            raise DecodeError("not MLS 1.0")
        kind = _BODIES.get(reader.uint(2))
        if kind is None:
            raise DecodeError("an unknown wire format")
        return cls(tls.read(kind, reader))


_BODIES: Final[dict[int, type[Body]]] = {
    1: PublicMessage,
    2: PrivateMessage,
    3: Welcome,
    4: GroupInfo,
    5: KeyPackage,
}
_FORMATS: Final = {kind: WireFormat(number) for number, kind in _BODIES.items()}


def encode_message(body: Body) -> bytes:
    """``body`` as an MLSMessage."""
    return tls.encode(MLSMessage(body))


def decode_message(data: bytes) -> Body:
    """What an MLSMessage carries. DecodeError: malformed, another version, an unknown wire format."""
    return tls.decode(MLSMessage, data).body
