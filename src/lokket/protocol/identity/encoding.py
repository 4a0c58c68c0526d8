"""Labelled hashes, MACs and signature messages: the contexts every signed object stands in.

Source: docs/identity.md, "Encoding and contexts". Everything hashed or signed is the TLS presentation
language of RFC 9420 section 2.1 (``lokket.codec.tls``). A label has 16 to 48 bytes, so what we sign
never begins like the unlabelled prekeys that libsignal's identity key signs (05 or 08).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Final

from lokket import limits
from lokket.codec.tls import U16, OpaqueV, Vector, opaque
from lokket.crypto.primitives import hkdf_sha256, hmac_sha256, sha256
from lokket.errors import LocalError, RemoteError

LABEL_PREFIX: Final = b"lokket v1 "
CRITICAL_EXTENSIONS: Final = 0x8000  # from this type on, not knowing means refusing


@dataclass(frozen=True, slots=True)
class Extension:
    """``uint16 type, opaque data<V>``."""

    type: U16
    data: Annotated[bytes, OpaqueV(limits.EXTENSION_MAX_BYTES)]


Extensions = Annotated[tuple[Extension, ...], Vector(limits.EXTENSIONS_MAX, ascending=True)]


def label(name: str) -> bytes:
    """``name`` with the common prefix. LocalError: outside 16 to 48 bytes."""
    full = LABEL_PREFIX + name.encode("ascii")
    if not 16 <= len(full) <= 48:
        raise LocalError("a label has 16 to 48 bytes")
    return full


def hash_labelled(name: str, data: bytes) -> bytes:
    """H(L, x) = SHA-256(opaque L<V> || opaque x<V>), 32 bytes."""
    return sha256(opaque(label(name)) + opaque(data))


def message(name: str, public_key: bytes, data: bytes) -> bytes:
    """M(L, pk, x) = opaque L<V> || H("public key", pk) || opaque x<V>: what every signature covers."""
    return opaque(label(name)) + hash_labelled("public key", public_key) + opaque(data)


def mac(key: bytes, name: str, data: bytes) -> bytes:
    """MAC(k, L, x) = HMAC-SHA256(k, opaque L<V> || opaque x<V>), 32 bytes."""
    return hmac_sha256(key, opaque(label(name)) + opaque(data))


def derive(secret: bytes, name: str, data: bytes, length: int) -> bytes:
    """HKDF-SHA256 without salt, info = opaque L<V> || opaque x<V>."""
    return hkdf_sha256(secret, salt=None, info=opaque(label(name)) + opaque(data), length=length)


def require_ascending_types(extensions: tuple[Extension, ...]) -> None:
    """ValueError unless the types rise: sorted, and none twice. For ``__post_init__``."""
    types = [extension.type for extension in extensions]
    if any(left >= right for left, right in pairwise(types)):
        raise ValueError("extension types are out of order or repeat")


def check_extensions(extensions: tuple[Extension, ...]) -> None:
    """RemoteError (critical-extension): one of them must be understood, and is not. Others are kept."""
    for extension in extensions:
        if extension.type >= CRITICAL_EXTENSIONS:
            raise RemoteError(
                f"extension {extension.type:#06x} is critical and unknown to this version",
                code="critical-extension",
            )
