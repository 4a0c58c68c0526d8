"""From the secrets of one epoch to those of the next (RFC 9420 section 8), with transcripts and exporters.

1. ``joiner_secret`` takes the previous init secret and the commit's secret; a Welcome carries it.
2. ``member_secret`` mixes the pre-shared keys in.
3. ``epoch_secrets`` derives everything that the epoch uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lokket.codec.tls import opaque
from lokket.crypto.entropy import Entropy
from lokket.crypto.kem import KEMKeyPair
from lokket.errors import LocalError
from lokket.protocol.mls.messages import AuthenticatedContent
from lokket.protocol.mls.structs import GroupContext
from lokket.protocol.mls.suite import CipherSuite

_EXTERNAL_INIT: Final = b"MLS 1.0 external init secret"


@dataclass(frozen=True, slots=True)
class EpochSecrets:
    """Table 4 of section 8, Nh bytes each, without ``encryption_secret``: the secret tree has that."""

    sender_data_secret: bytes
    exporter_secret: bytes
    external_secret: bytes
    confirmation_key: bytes
    membership_key: bytes
    resumption_psk: bytes
    epoch_authenticator: bytes
    init_secret: bytes

    def __repr__(self) -> str:
        return "EpochSecrets(…)"


def joiner_secret(suite: CipherSuite, init: bytes, commit_secret: bytes, context: GroupContext) -> bytes:
    """``init`` is the init secret of the epoch before, ``context`` that of the new epoch."""
    extracted = suite.extract(init, commit_secret)
    return suite.expand_with_label(extracted, b"joiner", context.encoded, suite.hash_bytes)


def member_secret(suite: CipherSuite, joiner: bytes, psk_secret: bytes) -> bytes:
    return suite.extract(joiner, psk_secret)


def welcome_key(suite: CipherSuite, member: bytes) -> tuple[bytes, bytes]:
    """(key, nonce) of a Welcome's GroupInfo (section 12.4.3.1)."""
    secret = suite.derive_secret(member, b"welcome")
    return (
        suite.expand_with_label(secret, b"key", b"", suite.key_bytes),
        suite.expand_with_label(secret, b"nonce", b"", 12),
    )


def epoch_secret(suite: CipherSuite, member: bytes, context: GroupContext) -> bytes:
    return suite.expand_with_label(member, b"epoch", context.encoded, suite.hash_bytes)


def epoch_secrets(suite: CipherSuite, epoch: bytes) -> tuple[EpochSecrets, bytes]:
    """What follows from the epoch secret: (secrets, encryption secret)."""
    derive = suite.derive_secret
    secrets = EpochSecrets(
        sender_data_secret=derive(epoch, b"sender data"),
        exporter_secret=derive(epoch, b"exporter"),
        external_secret=derive(epoch, b"external"),
        confirmation_key=derive(epoch, b"confirm"),
        membership_key=derive(epoch, b"membership"),
        resumption_psk=derive(epoch, b"resumption"),
        epoch_authenticator=derive(epoch, b"authentication"),
        init_secret=derive(epoch, b"init"),
    )
    return secrets, derive(epoch, b"encryption")


# --- section 8.2 ---


def confirmed_transcript_hash(
    suite: CipherSuite, interim_before: bytes, commit: AuthenticatedContent
) -> bytes:
    signed = commit.wire_format.to_bytes(2, "big") + commit.content.encoded + opaque(commit.auth.signature)
    return suite.hash(interim_before + signed)


def interim_transcript_hash(suite: CipherSuite, confirmed: bytes, confirmation_tag: bytes) -> bytes:
    return suite.hash(confirmed + opaque(confirmation_tag))


def confirmation_tag(suite: CipherSuite, secrets: EpochSecrets, confirmed: bytes) -> bytes:
    """Section 6.1: that the committer arrived at the same epoch."""
    return suite.mac(secrets.confirmation_key, confirmed)


# --- sections 8.3 and 8.5 ---


def external_key_pair(suite: CipherSuite, secrets: EpochSecrets) -> KEMKeyPair:
    """The pair whose public half stands in the ``external_pub`` extension."""
    return suite.derive_key_pair(secrets.external_secret)


def external_init(suite: CipherSuite, external_pub: bytes, entropy: Entropy) -> tuple[bytes, bytes]:
    """(kem_output, init secret) of an external commit. KeyRefused: the key gives no secret."""
    kem_output, context = suite.hpke.sender(external_pub, b"", entropy)
    return kem_output, context.export(_EXTERNAL_INIT, suite.hash_bytes)


def external_init_secret(suite: CipherSuite, secrets: EpochSecrets, kem_output: bytes) -> bytes:
    """The members' side. DecryptionFailed: the output is malformed."""
    context = suite.hpke.receiver(external_key_pair(suite, secrets), kem_output, b"")
    return context.export(_EXTERNAL_INIT, suite.hash_bytes)


def export(suite: CipherSuite, secrets: EpochSecrets, label: bytes, context: bytes, length: int) -> bytes:
    """MLS-Exporter(label, context, length). LocalError: not 0 to 255 * Nh bytes."""
    if not 0 <= length <= 255 * suite.hash_bytes:
        raise LocalError(f"an exported secret has at most {255 * suite.hash_bytes} bytes")
    derived = suite.derive_secret(secrets.exporter_secret, label)
    return suite.expand_with_label(derived, b"exported", suite.hash(context), length)
