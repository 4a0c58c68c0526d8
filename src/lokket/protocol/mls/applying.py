"""What a list of proposals makes of a tree and of the group's extensions (RFC 9420 section 12.3).

The list was validated before (section 12.2). The order is the RFC's: extensions, updates, removals, adds,
then what touches neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lokket.protocol.mls.messages import Member
from lokket.protocol.mls.proposals import (
    Add,
    ExternalInit,
    GroupContextExtensions,
    PreSharedKey,
    PreSharedKeyID,
    ReInit,
    Remove,
    Update,
)
from lokket.protocol.mls.proposed import Proposed
from lokket.protocol.mls.ratchet_tree import RatchetTree
from lokket.protocol.mls.structs import Extensions, KeyPackage, LeafNode


@dataclass(frozen=True, slots=True)
class Applied:
    """The group after its proposals and before a path."""

    tree: RatchetTree
    extensions: Extensions
    added: tuple[tuple[int, KeyPackage], ...]
    updated: tuple[tuple[int, LeafNode], ...]
    removed: tuple[int, ...]
    psks: tuple[PreSharedKeyID, ...]
    external_init: bytes | None  # kem_output
    reinit: ReInit | None

    @property
    def new_leaves(self) -> frozenset[int]:
        return frozenset(index for index, _ in self.added)


def apply(tree: RatchetTree, extensions: Extensions, proposals: Sequence[Proposed]) -> Applied:
    """Section 12.3. The order within the list counts for additions alone."""
    updated: list[tuple[int, LeafNode]] = []
    removed: list[int] = []
    added: list[tuple[int, KeyPackage]] = []
    psks: list[PreSharedKeyID] = []
    external_init, reinit = None, None
    packages: list[KeyPackage] = []
    for one in proposals:
        proposal = one.proposal
        if isinstance(proposal, GroupContextExtensions):
            extensions = proposal.extensions
        elif isinstance(proposal, Update):
            assert isinstance(one.sender, Member), "only members update (section 12.2)"
            updated.append((one.sender.leaf_index, proposal.leaf_node))
        elif isinstance(proposal, Remove):
            removed.append(proposal.removed)
        elif isinstance(proposal, Add):
            packages.append(proposal.key_package)
        elif isinstance(proposal, PreSharedKey):
            psks.append(proposal.psk)
        elif isinstance(proposal, ExternalInit):
            external_init = proposal.kem_output
        else:
            reinit = proposal
    for index, leaf in updated:
        tree = tree.update(index, leaf)
    for index in removed:
        tree = tree.remove(index)
    for package in packages:
        tree, index = tree.add(package.leaf_node)
        added.append((index, package))
    return Applied(
        tree, extensions, tuple(added), tuple(updated), tuple(removed), tuple(psks), external_init, reinit
    )
