"""Name claims: an account says which name it goes by on its relay.

Source: docs/identity.md, "Names". A name is a hint that leads to a genesis hash once; nothing is ever
sent to a name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Final

from lokket import limits
from lokket.codec import tls
from lokket.codec.tls import U64, Bytes32, OpaqueV
from lokket.crypto.entropy import Entropy
from lokket.errors import LocalError, RemoteError
from lokket.protocol.identity.account import AccountState
from lokket.protocol.identity.keys import HybridKeyPair, HybridSignature

NAME_CLAIM: Final = "name claim"
_NAME: Final = re.compile(rf"[a-z][a-z0-9._-]{{0,{limits.NAME_MAX_CHARS - 1}}}")


def is_name(text: str) -> bool:
    """Whether ``text`` may be a name: 1 to 32 of ``a-z 0-9 . _ -``, a letter first. ASCII: no look-alikes."""
    return _NAME.fullmatch(text) is not None


def check_name(text: str) -> None:
    """LocalError: ``text`` is no name."""
    if not is_name(text):
        raise LocalError("a name is 1 to 32 of a-z, 0-9, dot, dash and underscore, and begins with a letter")


@dataclass(frozen=True, slots=True)
class NameClaim:
    """``name<V>`` (ASCII, see ``is_name``), genesis hash, second of issue."""

    name: Annotated[bytes, OpaqueV(limits.NAME_MAX_CHARS)]
    genesis_hash: Bytes32
    issued_s: U64

    def __post_init__(self) -> None:
        if not is_name(self.name.decode("latin-1")):
            raise ValueError("the name has characters that names do not have")


@dataclass(frozen=True, slots=True)
class SignedNameClaim:
    """A claim and the account key's signature."""

    claim: NameClaim
    signature: HybridSignature

    def encode(self) -> bytes:
        return tls.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> SignedNameClaim:
        """DecodeError: not a claim."""
        return tls.decode(cls, data)


def sign_name_claim(
    account: HybridKeyPair, name: str, genesis_hash: bytes, now_s: int, entropy: Entropy
) -> SignedNameClaim:
    """LocalError: the name is none."""
    check_name(name)
    claim = NameClaim(name.encode("ascii"), genesis_hash, now_s)
    return SignedNameClaim(claim, account.sign(NAME_CLAIM, tls.encode(claim), entropy))


def check_name_claim(account: AccountState, signed: SignedNameClaim) -> NameClaim:
    """The claim, made by this account's current key. SignatureRefused; RemoteError (other-genesis)."""
    if signed.claim.genesis_hash != account.genesis_hash:
        raise RemoteError("a name claim belongs to another account", code="other-genesis")
    account.account_key.verify(NAME_CLAIM, tls.encode(signed.claim), signed.signature)
    return signed.claim


def check_name_of(signed: SignedNameClaim, name: str, genesis_hash: bytes) -> None:
    """RemoteError (other-name) unless the claim says ``name`` of this account; checks no signature."""
    if (signed.claim.name, signed.claim.genesis_hash) != (name.encode(), genesis_hash):
        raise RemoteError("the relay answered with the claim of another name or account", code="other-name")
