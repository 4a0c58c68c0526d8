"""Signing, sealing and opening of messages (RFC 9420 section 6). Knows keys, but no group.

What comes out of ``open_public`` and ``open_private`` is ``Opened``: its sender's signature is still to be
verified. ``verify`` makes it ``Verified``, and a group acts on nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.exceptions import InvalidTag

from lokket.codec import tls
from lokket.crypto.entropy import Entropy
from lokket.crypto.primitives import equal
from lokket.errors import DecodeError, DecryptionFailed, LocalError, SignatureRefused
from lokket.protocol.mls.messages import (
    ApplicationData,
    AuthenticatedContent,
    Content,
    ContentType,
    FramedContent,
    Member,
    PrivateContentAAD,
    PrivateMessage,
    PublicMessage,
    SenderData,
    SenderDataAAD,
    WireFormat,
    content_to_be_signed,
    read_auth,
    write_auth,
)
from lokket.protocol.mls.proposals import Commit, ProposalBox
from lokket.protocol.mls.secret_tree import MessageKey, SecretTree, sender_data_key
from lokket.protocol.mls.structs import GroupContext
from lokket.protocol.mls.suite import CipherSuite

_SIGNATURE_LABEL = b"FramedContentTBS"


@dataclass(frozen=True, slots=True)
class Opened:
    """Content whose tag or encryption was right, so a member sent it (or anyone, if not a Member)."""

    authenticated: AuthenticatedContent


@dataclass(frozen=True, slots=True)
class Verified:
    """Content that its sender signed."""

    authenticated: AuthenticatedContent

    @property
    def content(self) -> FramedContent:
        return self.authenticated.content


def sign(
    suite: CipherSuite, private: bytes, wire_format: WireFormat, content: FramedContent, context: GroupContext
) -> bytes:
    """The signature of section 6.1. Applications MUST NOT be sent as PublicMessage (section 6)."""
    if wire_format == WireFormat.PUBLIC_MESSAGE and isinstance(content.content, ApplicationData):
        raise LocalError("application data travels in a PrivateMessage alone")
    return suite.sign_with_label(
        private, _SIGNATURE_LABEL, content_to_be_signed(wire_format, content, context)
    )


def verify(suite: CipherSuite, opened: Opened, public: bytes, context: GroupContext) -> Verified:
    """SignatureRefused: ``public`` did not sign it in this epoch of this group (section 6.1)."""
    given = opened.authenticated
    signed = content_to_be_signed(given.wire_format, given.content, context)
    suite.verify_with_label(public, _SIGNATURE_LABEL, signed, given.auth.signature)
    return Verified(given)


# --- section 6.2 ---


def seal_public(
    suite: CipherSuite, given: AuthenticatedContent, membership_key: bytes, context: GroupContext
) -> PublicMessage:
    """With a membership tag where a member sends."""
    tag = None
    if isinstance(given.content.sender, Member):
        tag = _membership_tag(suite, given, membership_key, context)
    return PublicMessage(given.content, given.auth, tag)


def open_public(
    suite: CipherSuite, message: PublicMessage, membership_key: bytes, context: GroupContext
) -> Opened:
    """SignatureRefused: the membership tag is wrong. DecodeError: application data in the clear."""
    if isinstance(message.content.content, ApplicationData):
        raise DecodeError("application data travels in a PrivateMessage alone")  # section 6, MUST
    given = AuthenticatedContent(WireFormat.PUBLIC_MESSAGE, message.content, message.auth)
    if isinstance(message.content.sender, Member):
        tag = _membership_tag(suite, given, membership_key, context)
        if message.membership_tag is None or not equal(tag, message.membership_tag):
            raise SignatureRefused("a membership tag is wrong", code="mls-membership-tag")
    return Opened(given)


def _membership_tag(
    suite: CipherSuite, given: AuthenticatedContent, membership_key: bytes, context: GroupContext
) -> bytes:
    """MAC over AuthenticatedContentTBM."""
    bound = bytearray(content_to_be_signed(given.wire_format, given.content, context))
    write_auth(given.auth, bound)
    return suite.mac(membership_key, bytes(bound))


# --- section 6.3 ---


def seal_private(
    given: AuthenticatedContent,
    tree: SecretTree,
    sender_data_secret: bytes,
    padding_block_bytes: int,
    entropy: Entropy,
) -> tuple[SecretTree, PrivateMessage]:
    """The message, and the tree without its key. Padded to whole blocks; a block of 1 is no padding."""
    suite, content = tree.suite, given.content
    if not isinstance(content.sender, Member):
        raise LocalError("a PrivateMessage is sent by members alone")
    plaintext = bytearray()
    _write_content(content.content, plaintext)
    write_auth(given.auth, plaintext)
    plaintext += bytes(-len(plaintext) % padding_block_bytes)
    content_type, leaf = content.content_type, content.sender.leaf_index
    tree, generation, key = tree.next(leaf, content_type)
    guard = entropy.draw(4)
    aad = PrivateContentAAD(content.group_id, content.epoch, content_type, content.authenticated_data)
    ciphertext = suite.cipher(key.key).encrypt(_guarded(key, guard), bytes(plaintext), tls.encode(aad))
    around = sender_data_key(suite, sender_data_secret, ciphertext)
    sender = tls.encode(SenderData(leaf, generation, guard))
    sender_aad = tls.encode(SenderDataAAD(content.group_id, content.epoch, content_type))
    return tree, PrivateMessage(
        content.group_id,
        content.epoch,
        content_type,
        content.authenticated_data,
        suite.cipher(around.key).encrypt(around.nonce, sender, sender_aad),
        ciphertext,
    )


def open_sender(suite: CipherSuite, message: PrivateMessage, sender_data_secret: bytes) -> SenderData:
    """Who sent it, of which generation (section 6.3.2). DecryptionFailed: of another epoch, or damaged."""
    key = sender_data_key(suite, sender_data_secret, message.ciphertext)
    aad = tls.encode(SenderDataAAD(message.group_id, message.epoch, message.content_type))
    return tls.decode(SenderData, _decrypt(suite, key, key.nonce, message.encrypted_sender_data, aad))


def open_private(message: PrivateMessage, sender: SenderData, tree: SecretTree) -> tuple[SecretTree, Opened]:
    """What ``sender`` sealed, and the tree without its key.

    DecryptionFailed, DuplicateMessage: no key opens it. DecodeError: what it holds is malformed, or its
    padding is not zeros (section 6.3.1, MUST).
    """
    suite = tree.suite
    tree, key = tree.take(sender.leaf_index, message.content_type, sender.generation)
    aad = tls.encode(
        PrivateContentAAD(message.group_id, message.epoch, message.content_type, message.authenticated_data)
    )
    nonce = _guarded(key, sender.reuse_guard)
    reader = tls.Reader(_decrypt(suite, key, nonce, message.ciphertext, aad))
    content = _read_content(reader, message.content_type)
    auth = read_auth(reader, message.content_type)
    if any(reader.data[reader.position :]):
        raise DecodeError("the padding of a message is not zeros")
    framed = FramedContent(
        message.group_id, message.epoch, Member(sender.leaf_index), message.authenticated_data, content
    )
    return tree, Opened(AuthenticatedContent(WireFormat.PRIVATE_MESSAGE, framed, auth))


def _guarded(key: MessageKey, guard: bytes) -> bytes:
    """Section 6.3.1: the reuse guard is xored into the nonce's first four bytes."""
    mixed = int.from_bytes(key.nonce[:4], "big") ^ int.from_bytes(guard, "big")
    return mixed.to_bytes(4, "big") + key.nonce[4:]


def _decrypt(suite: CipherSuite, key: MessageKey, nonce: bytes, ciphertext: bytes, aad: bytes) -> bytes:
    try:
        return suite.cipher(key.key).decrypt(nonce, ciphertext, aad)
    except (InvalidTag, ValueError):
        raise DecryptionFailed("a message does not open") from None


def _write_content(content: Content, out: bytearray) -> None:
    tls.write(content if isinstance(content, ApplicationData | Commit) else ProposalBox(content), out)


def _read_content(reader: tls.Reader, content_type: ContentType) -> Content:
    if content_type == ContentType.APPLICATION:
        return tls.read(ApplicationData, reader)
    if content_type == ContentType.COMMIT:
        return tls.read(Commit, reader)
    return tls.read(ProposalBox, reader).proposal
