"""What members support (RFC 9420 sections 7.2 and 7.3), summed up so that a commit need not ask each of them.

A subtree of thousands of leaves has one ``Support``. GREASE (section 13.5) is left out: nobody uses it, and
members draw it differently.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from lokket.protocol.mls.structs import (
    DEFAULT_EXTENSIONS,
    DEFAULT_PROPOSALS,
    GREASE,
    LeafNode,
    RequiredCapabilities,
)

Numbers = frozenset[int]
_NONE: Final[Numbers] = frozenset()
_REMEMBERED_MAX: Final = (
    256  # numbers of one client: a member that lists thousands, ever others, fills no memory
)


@dataclass(frozen=True, slots=True)
class Support:
    """Of one member or of several: what they all support, and which credential types are in use.

    ``None`` stands for "everything", which is what no members at all support.
    """

    extensions: Numbers | None
    proposals: Numbers | None
    credentials: Numbers | None
    used_credentials: Numbers

    @staticmethod
    def of(leaf: LeafNode) -> Support:
        able = leaf.capabilities
        size = len(able.extensions) + len(able.proposals) + len(able.credentials)
        make = _of if size <= _REMEMBERED_MAX else _of.__wrapped__
        return make(able.extensions, able.proposals, able.credentials, leaf.credential.credential_type)

    def joined(self, other: Support) -> Support:
        """Of the members of both."""
        if self is other or other is NO_MEMBERS:
            return self
        if self is NO_MEMBERS:
            return other
        make = _joined if max(self._size, other._size) <= _REMEMBERED_MAX else _joined.__wrapped__
        return make(self, other)

    @property
    def _size(self) -> int:
        return sum(len(numbers or ()) for numbers in (self.extensions, self.proposals, self.credentials))

    def has(self, required: RequiredCapabilities) -> bool:
        """Section 11.1."""
        return (
            self.has_extensions(required.extension_types)
            and (self.proposals is None or self.proposals.issuperset(required.proposal_types))
            and (self.credentials is None or self.credentials.issuperset(required.credential_types))
        )

    def has_extensions(self, numbers: tuple[int, ...]) -> bool:
        return self.extensions is None or self.extensions.issuperset(numbers)

    def has_credentials(self, numbers: Numbers) -> bool:
        return self.credentials is None or numbers <= self.credentials


NO_MEMBERS: Final = Support(None, None, None, _NONE)


@lru_cache(maxsize=1024)
def _of(
    extensions: tuple[int, ...], proposals: tuple[int, ...], credentials: tuple[int, ...], used: int
) -> Support:
    return Support(
        DEFAULT_EXTENSIONS.union(extensions).difference(GREASE),
        DEFAULT_PROPOSALS.union(proposals).difference(GREASE),
        frozenset(credentials).difference(GREASE),
        frozenset((used,)),
    )


@lru_cache(maxsize=4096)
def _joined(one: Support, other: Support) -> Support:
    def both(left: Numbers | None, right: Numbers | None) -> Numbers | None:
        return right if left is None else left if right is None else left & right

    return Support(
        both(one.extensions, other.extensions),
        both(one.proposals, other.proposals),
        both(one.credentials, other.credentials),
        one.used_credentials | other.used_credentials,
    )
