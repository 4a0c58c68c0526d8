"""Safety numbers, and the code that two people scan instead of reading them.

Source: docs/identity.md, "Safety number". The number covers both account keys and not the devices; the
scanned code covers the list head too. Iteration as Signal's numeric fingerprint does it (5,200 rounds).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from lokket.codec import tls
from lokket.codec.tls import U8, U32, Bytes32
from lokket.crypto.primitives import equal
from lokket.errors import DecodeError, RemoteError
from lokket.protocol.identity.account import AccountState
from lokket.protocol.identity.encoding import hash_labelled

ROUNDS: Final = 5_200
DIGITS: Final = 30  # of each side: 99.7 bits
NO_LOG: Final = bytes(32)  # log head where no transparency log is kept
_VERIFY_TAG: Final = "V"
_VERIFY_PREFIX: Final = "lokket:verify#"
_VERIFY_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class _Fingerprinted:
    genesis_hash: Bytes32
    key_epoch: U32
    account_key_hash: Bytes32


def fingerprint32(state: AccountState) -> bytes:
    """f(X) = H("safety number", genesis_hash || key_epoch || H("public key", account_key)), 32 bytes."""
    key_hash = hash_labelled("public key", tls.encode(state.account_key))
    return hash_labelled(
        "safety number", tls.encode(_Fingerprinted(state.genesis_hash, state.key_epoch, key_hash))
    )


def safety_number(own: AccountState, their: AccountState) -> str:
    """60 digits, the same on both sides."""
    return "".join(sorted((_digits(fingerprint32(own)), _digits(fingerprint32(their)))))


def grouped(number: str) -> str:
    """``number`` in groups of five, as people read it."""
    return " ".join(number[start : start + 5] for start in range(0, len(number), 5))


@lru_cache(maxsize=256)
def _digits(fingerprint: bytes) -> str:
    """5,200 rounds cost 4 ms, and our own half is asked for with every contact."""
    digest = fingerprint
    for _ in range(ROUNDS):
        digest = hashlib.sha512(digest + fingerprint).digest()
    chunks = (digest[start : start + 5] for start in range(0, DIGITS, 5))
    return "".join(f"{int.from_bytes(chunk, 'big') % 100_000:05d}" for chunk in chunks)


@dataclass(frozen=True, slots=True)
class _Wire:
    version: U8
    shown_by: Bytes32
    shown_to: Bytes32
    head: Bytes32
    log_head: Bytes32

    def __post_init__(self) -> None:
        if self.version != _VERIFY_VERSION:
            raise ValueError("the version is unknown")


@dataclass(frozen=True, slots=True)
class VerifyCode:
    """What one screen shows and the other scans: both fingerprints, and the shower's heads."""

    shown_by: bytes  # 32
    shown_to: bytes  # 32
    head: bytes  # 32, the device list head of the account that shows
    log_head: bytes = NO_LOG  # 32

    @classmethod
    def of(cls, own: AccountState, their: AccountState) -> VerifyCode:
        """The code that ``own`` shows to ``their``."""
        return cls(fingerprint32(own), fingerprint32(their), own.head)

    def encode(self) -> str:
        """``lokket:verify#V`` and base64url of 129 bytes."""
        data = tls.encode(_Wire(_VERIFY_VERSION, self.shown_by, self.shown_to, self.head, self.log_head))
        return _VERIFY_PREFIX + tagged(_VERIFY_TAG, data)

    @classmethod
    def decode(cls, text: str) -> VerifyCode:
        """DecodeError: anything else, an invite or a linking code included."""
        wire = tls.decode(_Wire, untagged(text, _VERIFY_PREFIX, _VERIFY_TAG))
        return cls(wire.shown_by, wire.shown_to, wire.head, wire.log_head)


def check_verify_code(own: AccountState, their: AccountState, code: VerifyCode | str) -> None:
    """Returns if ``their`` screen shows what we hold; the code was scanned in person.

    RemoteError (other-keys): the relay stands between, or an account was replaced. RemoteError
    (other-list): same keys, another device list: fetch theirs, then scan again.
    """
    if isinstance(code, str):
        code = VerifyCode.decode(code)
    pair = fingerprint32(their) + fingerprint32(own)
    if not equal(code.shown_by + code.shown_to, pair):
        raise RemoteError("the codes belong to other keys: do not trust this contact", code="other-keys")
    if code.head != their.head:
        raise RemoteError("the device lists differ: update this contact, then scan again", code="other-list")


# --- texts with a tag: V here, I in ``invite`` ---


def tagged(tag: str, data: bytes) -> str:
    """One letter and unpadded base64url."""
    return tag + base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def untagged(text: str, prefix: str, tag: str) -> bytes:
    """The bytes of ``prefix`` + ``tag`` + base64url; white space from pasting is ignored.

    DecodeError: another prefix or tag, or not the one base64url form of its bytes.
    """
    text = "".join(text.split())
    if not text.startswith(prefix + tag):
        raise DecodeError("the code is of another kind, or not a lokket code")
    coded = text[len(prefix) + len(tag) :]
    try:
        data = base64.b64decode(coded + "=" * (-len(coded) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise DecodeError("the code is damaged: copy it again") from None
    if tagged(tag, data) != tag + coded:
        raise DecodeError("the code is damaged: copy it again")
    return data
