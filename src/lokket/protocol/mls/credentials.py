"""Who a leaf belongs to is the application's to say: it is asked at every change (RFC 9420 section 5.3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from lokket.protocol.mls.structs import Credential, LeafNode


class ChangeKind(Enum):
    """How a leaf came to stand where it stands."""

    FOUND = "found"  # in the tree of a group that we join
    ADDED = "added"  # by an Add, or as the leaf of a member who joins by an external commit
    UPDATED = "updated"  # by an Update or by the path of a commit
    EXTERNAL_SENDER = "external sender"  # listed in the group's external_senders


@dataclass(frozen=True, slots=True)
class LeafChange:
    """One question. ``leaf`` is None for an external sender, ``before`` where no leaf stood.

    Where a client adds itself and takes away a leaf (resync), ``before`` is that leaf: section 12.4.3.2 asks
    that both are one client's, which the application alone can tell.

    ``authenticated_data`` is that of the commit or proposal which makes the change, empty for ``FOUND``.
    """

    kind: ChangeKind
    group_id: bytes
    leaf_index: int | None  # None: the place is not known yet
    credential: Credential
    signature_key: bytes
    leaf: LeafNode | None
    before: LeafNode | None = None
    authenticated_data: bytes = b""


class CredentialCheck(Protocol):
    """The authentication service. The answer may depend on the change and on what it names, not on a clock:
    members who answer differently part ways."""

    def __call__(self, change: LeafChange) -> None:
        """RemoteError (``CredentialRefused``) if the credential is not that of the signature key's holder."""
