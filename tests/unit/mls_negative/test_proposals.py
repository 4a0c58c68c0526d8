"""Proposals, and lists of them, that must be refused (RFC 9420 sections 12.1, 12.2 and 12.4)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lokket.errors import DecodeError
from lokket.protocol.mls.messages import External, Member, NewMemberCommit, NewMemberProposal, Sender
from lokket.protocol.mls.proposal_rules import (
    Ground,
    check_external_list,
    check_list,
    check_path_leaf,
    check_path_present,
    check_proposal,
    needs_path,
)
from lokket.protocol.mls.proposals import (
    Add,
    AnyProposal,
    Commit,
    ExternalInit,
    ExternalPSK,
    GroupContextExtensions,
    PreSharedKey,
    PreSharedKeyID,
    ReInit,
    Remove,
    ResumptionPSK,
    ResumptionUsage,
    Update,
    decode_proposal,
    encode_proposal,
)
from lokket.protocol.mls.proposed import Proposed
from lokket.protocol.mls.structs import CommitSource, Extension, ExtensionType
from tests.support.entropy import SeededEntropy
from tests.support.mls_rules import (
    GROUP_ID,
    NOW_S,
    SUITE,
    commit_path,
    people,
    refused,
    tree_of,
)

ALICE, BOB, CAROL, DAVE = people(4)
TREE = tree_of([ALICE, BOB, CAROL])
GROUND = Ground(SUITE, TREE, GROUP_ID, NOW_S)
NONCE = bytes(32)
KEY = PreSharedKey(PreSharedKeyID(ExternalPSK(b"a key"), NONCE))
INIT = ExternalInit(bytes(32))
REINIT = ReInit(b"next", 1, 1, ())
CONTEXT = GroupContextExtensions(())
ADD = Add(DAVE.key_package)
REF = b"a reference"


def by(leaf: int, proposal: AnyProposal, reference: bytes | None = REF) -> Proposed:
    return Proposed(proposal, Member(leaf), reference)


def joiner(proposal: AnyProposal, reference: bytes | None = None) -> Proposed:
    return Proposed(proposal, NewMemberCommit(), reference)


def update_of(leaf: int, seed: object = 0) -> Update:
    return Update([ALICE, BOB, CAROL][leaf].update(leaf, seed))


def test_what_is_right_passes() -> None:
    check_list([], 0, GROUND)
    everything = [by(1, update_of(1)), by(0, Remove(2), None), by(2, ADD), by(1, KEY), by(1, CONTEXT)]
    check_list(everything, 0, GROUND)
    check_list([by(1, REINIT)], 0, GROUND)
    check_external_list([joiner(INIT), joiner(Remove(1)), joiner(KEY)], GROUND)
    check_proposal(ADD, NewMemberProposal(), GROUND)
    check_proposal(Remove(1), External(0), GROUND)


# --- one by itself (12.1) ---


def test_an_add_of_a_bad_key_package() -> None:
    with refused("10.1-2"):
        check_list([by(1, Add(replace(DAVE.key_package, signature=bytes(64))))], 0, GROUND)
    with refused("7.3-5"):
        check_list([by(1, ADD)], 0, replace(GROUND, now_s=NOW_S + 90_000))
    with refused("7.3-7"):
        leaf = DAVE.signed(0, source=CommitSource(b""))
        check_list([by(1, Add(DAVE.package(leaf_node=leaf)))], 0, GROUND)


@pytest.mark.parametrize("sender", [Member(3), Member(2**32 - 1)])
def test_an_update_of_nobody(sender: Sender) -> None:
    with refused("12.1.2-1"):
        check_proposal(update_of(1), sender, GROUND)


def test_an_update_of_another_leaf() -> None:
    with refused("7.3-2"):
        check_proposal(update_of(1), Member(2), GROUND)
    with refused("7.3-2"):
        check_proposal(update_of(1), Member(1), replace(GROUND, group_id=b"another"))


def test_an_update_that_keeps_its_key() -> None:
    leaf = BOB.update(1, encryption_key=BOB.leaf.encryption_key)
    with refused("12.1.2-2"):
        check_proposal(Update(leaf), Member(1), GROUND)


def test_an_update_with_a_leaf_of_another_source() -> None:
    with refused("7.3-7"):
        check_proposal(Update(BOB.update(1, source=CommitSource(b""))), Member(1), GROUND)


@pytest.mark.parametrize("leaf", [3, 4, 2**32 - 1])
def test_a_removal_of_nobody(leaf: int) -> None:
    with refused("12.1.3-1"):
        check_list([by(1, Remove(leaf))], 0, GROUND)
    with refused("12.1.3-1"):
        check_external_list([joiner(INIT), joiner(Remove(leaf))], GROUND)


@pytest.mark.parametrize("usage", [ResumptionUsage.REINIT, ResumptionUsage.BRANCH])
def test_a_resumption_key_of_another_use(usage: ResumptionUsage) -> None:
    psk = PreSharedKeyID(ResumptionPSK(usage, b"old", 3), NONCE)
    with refused("12.1.4-1"):
        check_list([by(0, PreSharedKey(psk), None)], 0, GROUND)
    check_proposal(
        PreSharedKey(replace(psk, psk=replace(psk.psk, usage=ResumptionUsage.APPLICATION))), Member(0), GROUND
    )


@pytest.mark.parametrize("nonce", [b"", bytes(31), bytes(33)])
def test_a_key_with_a_nonce_of_another_length(nonce: bytes) -> None:
    with refused("12.1.4-2"):
        check_list([by(0, PreSharedKey(replace(KEY.psk, psk_nonce=nonce)), None)], 0, GROUND)


def test_a_reinit_to_an_older_version() -> None:
    with refused("12.1.5-1"):
        check_list([by(1, replace(REINIT, version=0))], 0, GROUND)


@pytest.mark.parametrize("proposal", [REINIT, CONTEXT])
def test_extensions_with_two_of_a_type(proposal: ReInit | GroupContextExtensions) -> None:
    twice = (Extension(ExtensionType.APPLICATION_ID, b"a"), Extension(ExtensionType.APPLICATION_ID, b"a"))
    with refused("13.4-1"):
        check_list([by(1, replace(proposal, extensions=twice))], 0, GROUND)


@pytest.mark.parametrize("proposal", [update_of(1), INIT])
def test_an_external_sender_that_proposes_what_members_do(proposal: AnyProposal) -> None:
    with refused("12.1.8-1"):
        check_proposal(proposal, External(0), GROUND)


@pytest.mark.parametrize("proposal", [update_of(1), INIT, KEY, REINIT, CONTEXT, Remove(1)])
def test_a_newcomer_that_proposes_more_than_itself(proposal: AnyProposal) -> None:
    with refused("12.1.8-2"):
        check_proposal(proposal, NewMemberProposal(), GROUND)


# --- the list (12.2) ---


def test_the_committers_own_update() -> None:
    with refused("12.2-2"):
        check_list([by(0, update_of(0))], 0, GROUND)


def test_the_committers_own_removal() -> None:
    for sender in (0, 1):
        with refused("12.2-3"):
            check_list([by(sender, Remove(0))], 0, GROUND)


def test_two_changes_of_a_leaf() -> None:
    update, other, removal = by(1, update_of(1)), by(1, update_of(1, "other")), by(2, Remove(1))
    for two in ((update, other), (update, removal), (removal, update), (removal, by(0, Remove(1), None))):
        with refused("12.2-4"):
            check_list(two, 0, GROUND)


def test_a_client_that_is_added_twice() -> None:
    init = SUITE.generate_key_pair(SeededEntropy("another init key"))
    other = Add(DAVE.package(init_key=init.public))
    for two in ((ADD, ADD), (ADD, other)):
        with refused("12.2-5"):
            check_list([by(1, one) for one in two], 0, GROUND)


def test_a_client_that_is_a_member_already() -> None:
    with refused("12.2-6"):
        check_list([by(1, Add(CAROL.key_package))], 0, GROUND)
    with refused("12.2-6"):
        check_list([by(1, Add(CAROL.key_package)), by(0, Remove(1), None)], 0, GROUND)
    check_list([by(1, Add(CAROL.key_package)), by(0, Remove(2), None)], 0, GROUND)


def test_one_key_twice() -> None:
    with refused("12.2-7"):
        check_list([by(0, KEY, None), by(1, KEY)], 0, GROUND)
    with refused("12.2-7"):
        check_external_list([joiner(INIT), joiner(KEY), joiner(KEY)], GROUND)
    other = PreSharedKey(replace(KEY.psk, psk_nonce=bytes(31) + b"\x01"))
    check_list([by(0, KEY, None), by(1, other)], 0, GROUND)


def test_extensions_twice() -> None:
    with refused("12.2-8"):
        check_list([by(0, CONTEXT, None), by(1, CONTEXT)], 0, GROUND)


@pytest.mark.parametrize("other", [REINIT, KEY, CONTEXT, Remove(2), ADD, update_of(1)])
def test_a_reinit_beside_anything(other: AnyProposal) -> None:
    for two in ((REINIT, other), (other, REINIT)):
        with refused("12.2-9"):
            check_list([by(1, one) for one in two], 0, GROUND)


def test_a_members_external_init() -> None:
    with refused("12.2-10"):
        check_list([by(0, INIT, None)], 0, GROUND)
    with refused("12.2-10"):
        check_list([by(1, INIT), by(1, KEY)], 0, GROUND)


def test_a_proposal_of_an_unknown_type() -> None:
    """12.2-11: what none of us supports does not even decode."""
    body = encode_proposal(Remove(1))[2:]
    for number in (0, 8, 0x0A0A, 0xF001, 0xFFFF):
        with pytest.raises(DecodeError):
            decode_proposal(number.to_bytes(2, "big") + body)


# --- external commits (12.2, 12.4.3.2) ---


def test_an_external_commit_without_or_with_two_inits() -> None:
    for wrong in (
        [],
        [joiner(KEY)],
        [joiner(INIT), joiner(INIT)],
        [joiner(INIT), joiner(ExternalInit(b"x"))],
    ):
        with refused("12.2-21"):
            check_external_list(wrong, GROUND)


def test_an_external_commit_that_removes_two() -> None:
    with refused("12.2-22"):
        check_external_list([joiner(INIT), joiner(Remove(1)), joiner(Remove(2))], GROUND)


@pytest.mark.parametrize("other", [REINIT, CONTEXT, ADD, update_of(1)])
def test_an_external_commit_with_anything_else(other: AnyProposal) -> None:
    with refused("12.2-23"):
        check_external_list([joiner(INIT), joiner(other)], GROUND)
    with refused("12.2-23"):
        check_proposal(other, NewMemberCommit(), GROUND)


def test_an_external_commit_that_refers_to_a_proposal() -> None:
    with refused("12.4.3.2-1"):
        check_external_list([joiner(INIT), joiner(Remove(1), REF)], GROUND)


# --- paths (12.4) ---


def test_a_commit_without_the_path_that_it_needs() -> None:
    lists: tuple[list[AnyProposal], ...] = (
        [],
        [update_of(1)],
        [Remove(1)],
        [INIT],
        [CONTEXT],
        [ADD, Remove(1)],
    )
    for proposals in lists:
        assert needs_path(proposals)
        with refused("12.4-1"):
            check_path_present(Commit((), None), proposals)
    for proposals in ([ADD], [KEY], [REINIT], [ADD, KEY]):
        check_path_present(Commit((), None), proposals)


def test_a_path_that_keeps_the_leafs_key() -> None:
    path = commit_path(TREE, ALICE, 0)[1]
    check_path_leaf(Commit((), path), TREE, 0)
    stale = replace(path.leaf_node, encryption_key=ALICE.leaf.encryption_key)
    with refused("12.4.2-1"):
        check_path_leaf(Commit((), replace(path, leaf_node=stale)), TREE, 0)
