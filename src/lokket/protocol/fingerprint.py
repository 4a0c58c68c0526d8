"""Fingerprints of two identity keys in libsignal's numeric format: 60 digits to compare, bytes to scan.

Source: libsignal's format, fixed by recorded outputs (it has no public specification). ``version`` is 2
today; version 1 differs in that number only. lokket's own safety number covers account keys and lives in
``identity``; this one serves libraries that speak libsignal's.
"""

from __future__ import annotations

import hashlib
from typing import Final

from lokket.codec import protobuf
from lokket.codec.protobuf import BYTES, VARINT
from lokket.crypto.primitives import equal
from lokket.errors import DecodeError, LocalError

VERSIONS: Final = (1, 2)
ITERATIONS: Final = 5200
_HASH_VERSION: Final = b"\x00\x00"
_GROUPS: Final = 6  # of five digits, per party
_SCANNED_BYTES: Final = 32
_ITERATIONS_MAX: Final = 1_000_000


def displayable(  # noqa: PLR0917
    version: int,
    local_id: bytes,
    local_key: bytes,
    remote_id: bytes,
    remote_key: bytes,
    iterations: int = ITERATIONS,
) -> str:
    """60 digits, the same on both sides and in both versions; keys are 33 bytes (05 || u)."""
    _check_version(version)
    halves = (_hash(local_id, local_key, iterations), _hash(remote_id, remote_key, iterations))
    return "".join(sorted(_digits(half) for half in halves))


def scannable(  # noqa: PLR0917
    version: int,
    local_id: bytes,
    local_key: bytes,
    remote_id: bytes,
    remote_key: bytes,
    iterations: int = ITERATIONS,
) -> bytes:
    """The bytes of a QR code: protobuf {1: version, 2: {1: local hash}, 3: {1: remote hash}}."""
    _check_version(version)
    halves = (_hash(local_id, local_key, iterations), _hash(remote_id, remote_key, iterations))
    local, remote = (protobuf.encode(((1, half[:_SCANNED_BYTES]),)) for half in halves)
    return protobuf.encode(((1, version), (2, local), (3, remote)))


def compare_scannable(own: bytes, their: bytes) -> bool:
    """Whether what we scanned is the mirror of our own. DecodeError: malformed, or of another version."""
    own_version, own_local, own_remote = _decode(own)
    their_version, their_local, their_remote = _decode(their)
    if own_version != their_version:
        raise DecodeError("a fingerprint has another version", code="bad-version")
    return equal(own_local, their_remote) and equal(own_remote, their_local)


def _check_version(version: int) -> None:
    if version not in VERSIONS:
        raise LocalError("a fingerprint has version 1 or 2")


def _decode(data: bytes) -> tuple[int, bytes, bytes]:
    fields = protobuf.decode(data, {1: VARINT, 2: BYTES, 3: BYTES})
    hashes = [protobuf.decode(fields.string(part), {1: BYTES}).string(1, _SCANNED_BYTES) for part in (2, 3)]
    return fields.number(1), hashes[0], hashes[1]


def _hash(identifier: bytes, key: bytes, iterations: int) -> bytes:
    """64 bytes; ``iterations`` counts every SHA-512, the first included."""
    if not 1 <= iterations <= _ITERATIONS_MAX:
        raise LocalError("a fingerprint takes 1 to 1,000,000 iterations")
    digest = _HASH_VERSION + key + identifier
    for _ in range(iterations):
        digest = hashlib.sha512(digest + key).digest()
    return digest


def _digits(digest: bytes) -> str:
    groups = (int.from_bytes(digest[5 * group : 5 * group + 5], "big") for group in range(_GROUPS))
    return "".join(f"{group % 100_000:05d}" for group in groups)
