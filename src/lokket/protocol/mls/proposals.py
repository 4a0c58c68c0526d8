"""Proposals, update paths and commits, as they cross the wire (RFC 9420 sections 7.6, 8.4, 12.1 and 12.4)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

from lokket.codec import tls
from lokket.protocol.mls.structs import Extensions, KeyPackage, LeafNode


class ResumptionUsage(IntEnum):
    """Section 8.4."""

    APPLICATION = 1
    REINIT = 2
    BRANCH = 3


@dataclass(frozen=True, slots=True)
class ExternalPSK:
    """A key that the application shares out; its id is opaque (section 8.4)."""

    psk_id: tls.Opaque


@dataclass(frozen=True, slots=True)
class ResumptionPSK:
    """The resumption secret of an epoch of this group or, where usage is reinit or branch, of another."""

    usage: Annotated[ResumptionUsage, tls.Uint(1)]
    psk_group_id: tls.Opaque
    psk_epoch: tls.U64


PSK = Annotated[ExternalPSK | ResumptionPSK, tls.Select(tls.Uint(1), {1: ExternalPSK, 2: ResumptionPSK})]


@dataclass(frozen=True, slots=True)
class PreSharedKeyID:
    """Section 8.4: which secret, and a fresh nonce of Nh bytes."""

    psk: PSK
    psk_nonce: tls.Opaque


@dataclass(frozen=True, slots=True)
class PSKLabel:
    """Section 8.4: what each pre-shared key is bound to."""

    id: PreSharedKeyID
    index: tls.U16
    count: tls.U16


# --- section 12.1 ---


@dataclass(frozen=True, slots=True)
class Add:
    """A client is to become a member (section 12.1.1)."""

    key_package: KeyPackage


@dataclass(frozen=True, slots=True)
class Update:
    """A member is to have this leaf (section 12.1.2)."""

    leaf_node: LeafNode


@dataclass(frozen=True, slots=True)
class Remove:
    """A member is to go (section 12.1.3)."""

    removed: tls.U32  # leaf index


@dataclass(frozen=True, slots=True)
class PreSharedKey:
    """A key is to be mixed into the next epoch (section 12.1.4)."""

    psk: PreSharedKeyID


@dataclass(frozen=True, slots=True)
class ReInit:
    """The group is to end, and to go on with these parameters (section 12.1.5)."""

    group_id: tls.Opaque
    version: tls.U16
    cipher_suite: tls.U16
    extensions: Extensions


@dataclass(frozen=True, slots=True)
class ExternalInit:
    """The init secret that an external commit brings (section 12.1.6)."""

    kem_output: tls.Opaque


@dataclass(frozen=True, slots=True)
class GroupContextExtensions:
    """The group is to have these extensions, and no others (section 12.1.7)."""

    extensions: Extensions


AnyProposal = Add | Update | Remove | PreSharedKey | ReInit | ExternalInit | GroupContextExtensions
PROPOSAL_TYPES: dict[int, type] = {
    1: Add,
    2: Update,
    3: Remove,
    4: PreSharedKey,
    5: ReInit,
    6: ExternalInit,
    7: GroupContextExtensions,
}
Proposal = Annotated[AnyProposal, tls.Select(tls.Uint(2), PROPOSAL_TYPES)]


@dataclass(frozen=True, slots=True)
class Reference:
    """ProposalRef: the hash of an AuthenticatedContent (section 12.4)."""

    reference: tls.Opaque


ProposalOrRef = Annotated[AnyProposal | Reference, tls.Select(tls.Uint(1), {1: Proposal, 2: Reference})]


# --- sections 7.6 and 12.4 ---


@dataclass(frozen=True, slots=True)
class HPKECiphertext:
    kem_output: tls.Opaque
    ciphertext: tls.Opaque


@dataclass(frozen=True, slots=True)
class UpdatePathNode:
    encryption_key: tls.Opaque
    encrypted_path_secret: tuple[HPKECiphertext, ...]


@dataclass(frozen=True, slots=True)
class UpdatePath:
    leaf_node: LeafNode
    nodes: tuple[UpdatePathNode, ...]


@dataclass(frozen=True, slots=True)
class Commit(tls.Kept):
    proposals: tuple[ProposalOrRef, ...]
    path: UpdatePath | None


@dataclass(frozen=True, slots=True)
class ProposalBox:
    """A proposal by itself, as the official vectors hold it."""

    proposal: Proposal


def encode_proposal(proposal: AnyProposal) -> bytes:
    return tls.encode(ProposalBox(proposal))


def decode_proposal(data: bytes) -> AnyProposal:
    """DecodeError: malformed, or of a type that RFC 9420 does not define."""
    return tls.decode(ProposalBox, data).proposal


def proposal_type(proposal: AnyProposal) -> int:
    """The number of section 17.4."""
    return _NUMBERS[type(proposal)]


_NUMBERS = {kind: number for number, kind in PROPOSAL_TYPES.items()}
