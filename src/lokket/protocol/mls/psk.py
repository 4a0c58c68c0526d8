"""Pre-shared keys in the key schedule (RFC 9420 section 8.4)."""

from __future__ import annotations

from collections.abc import Sequence

from lokket.codec import tls
from lokket.protocol.mls.proposals import PreSharedKeyID, PSKLabel
from lokket.protocol.mls.suite import CipherSuite


def psk_secret(suite: CipherSuite, psks: Sequence[tuple[PreSharedKeyID, bytes]]) -> bytes:
    """One secret of Nh bytes from all keys, in the order of their proposals; zeros where there is none."""
    secret = suite.zeros
    for index, (identity, psk) in enumerate(psks):
        label = tls.encode(PSKLabel(identity, index, len(psks)))
        extracted = suite.extract(suite.zeros, psk)
        key = suite.expand_with_label(extracted, b"derived psk", label, suite.hash_bytes)
        secret = suite.extract(key, secret)
    return secret
