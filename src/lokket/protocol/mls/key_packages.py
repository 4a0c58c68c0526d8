"""Key packages: what a client publishes so that others can add it (RFC 9420 section 10)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from lokket.codec import tls
from lokket.crypto.entropy import Entropy
from lokket.crypto.kem import KEMKeyPair
from lokket.errors import LocalError, RemoteError
from lokket.protocol.mls.messages import decode_message, encode_message
from lokket.protocol.mls.settings import Identity, Settings, greased
from lokket.protocol.mls.structs import (
    DEFAULT_EXTENSIONS,
    MLS10,
    Extension,
    Extensions,
    ExtensionType,
    KeyPackage,
    LeafNode,
    LeafSource,
    Lifetime,
)
from lokket.protocol.mls.suite import CipherSuite, find_suite
from lokket.protocol.mls.treekem import LeafKeys, sign_leaf
from lokket.protocol.mls.validation import check_key_package, check_whole_lifetime

_FORMAT = 1
_CLOCK_SKEW_S = 3_600  # a key package counts from an hour before it was made


@dataclass(frozen=True, slots=True)
class _Stored:
    format: tls.U8
    key_package: KeyPackage
    init_private: tls.Opaque
    encryption_private: tls.Opaque
    signature_private: tls.Opaque


@dataclass(frozen=True, slots=True)
class OwnKeyPackage:
    """A key package with its private keys. Delete it once a Welcome used it, unless it is a last resort."""

    key_package: KeyPackage
    init: KEMKeyPair = field(repr=False)
    encryption: KEMKeyPair = field(repr=False)
    signature_private: bytes = field(repr=False)

    @property
    def message(self) -> bytes:
        """What is published: the key package as an MLSMessage, about 300 bytes in suite 1."""
        return encode_message(self.key_package)

    def reference(self, suite: CipherSuite) -> bytes:
        """KeyPackageRef: Nh bytes, by which Welcomes name it."""
        return suite.key_package_ref(self.key_package)

    def encode(self) -> bytes:
        """For storage. Holds private keys."""
        return tls.encode(
            _Stored(
                _FORMAT, self.key_package, self.init.private, self.encryption.private, self.signature_private
            )
        )

    @classmethod
    def decode(cls, data: bytes, settings: Settings) -> OwnKeyPackage:
        """Inverse of ``encode``. DecodeError: malformed. LocalError: of another format."""
        stored = tls.decode(_Stored, data)
        if stored.format != _FORMAT:
            raise LocalError("this key package was stored by a newer version")
        package = stored.key_package
        return cls(
            package,
            KEMKeyPair(stored.init_private, package.init_key),
            KEMKeyPair(stored.encryption_private, package.leaf_node.encryption_key),
            stored.signature_private,
        )


def make_key_package(
    suite: CipherSuite,
    identity: Identity,
    settings: Settings,
    now_s: int,
    entropy: Entropy,
    *,
    last_resort: bool = False,
    extensions: Extensions = (),
) -> OwnKeyPackage:
    """A new key package, valid from an hour ago for ``settings.key_package_s``.

    ``last_resort``: it may be used again and again (draft-ietf-mls-extensions, last_resort_key_package).
    LocalError: an extension that ``identity.capabilities`` does not list (section 10, MUST).
    """
    lifetime = Lifetime(max(0, now_s - _CLOCK_SKEW_S), now_s + settings.key_package_s)
    leaf, encryption = make_leaf(suite, identity, settings, lifetime, entropy)
    init = suite.generate_key_pair(entropy)
    if last_resort:
        extensions = (*extensions, Extension(ExtensionType.LAST_RESORT, b""))
    listed = DEFAULT_EXTENSIONS.union(leaf.capabilities.extensions)
    if not listed.issuperset(one.extension_type for one in extensions):
        raise LocalError("the capabilities do not list every extension of the key package")
    unsigned = KeyPackage(MLS10, suite.number, init.public, leaf, extensions, b"")
    signature = suite.sign_with_label(identity.signature.private, b"KeyPackageTBS", unsigned.to_be_signed())
    package = replace(unsigned, signature=signature)
    return OwnKeyPackage(package, init, encryption, identity.signature.private)


def make_leaf(
    suite: CipherSuite, identity: Identity, settings: Settings, source: LeafSource, entropy: Entropy
) -> tuple[LeafNode, KEMKeyPair]:
    """A leaf of ours with a fresh encryption key, signed if it is a key package's."""
    encryption = suite.generate_key_pair(entropy)
    able = greased(identity.capabilities, entropy) if settings.grease else identity.capabilities
    leaf = LeafNode(encryption.public, identity.signature.public, identity.credential, able, source, (), b"")
    if isinstance(source, Lifetime):
        leaf = sign_leaf(suite, leaf, LeafKeys(0, leaf, identity.signature.private, b""))
    return leaf, encryption


def read_key_package(message: bytes, settings: Settings, now_s: int) -> KeyPackage:
    """A key package of another client, with all rules of section 10.1 but the credential's.

    RemoteError: no MLSMessage of a key package, a suite not carried, or a broken rule; ``now_s`` outside its
    lifetime too, or one that is longer than ``settings.lifetime_max_s``.
    """
    package = decode_message(message)
    if not isinstance(package, KeyPackage):
        raise RemoteError("this MLSMessage is no key package", code="mls-wire-format")
    check_key_package(find_suite(package.cipher_suite, settings.suites), package, now_s)
    check_whole_lifetime(package.leaf_node, settings.lifetime_max_s)
    return package
