"""Leaf nodes and key packages that must be refused (RFC 9420 sections 7.3, 10.1 and 13.4)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lokket.errors import KeyRefused
from lokket.protocol.mls import support
from lokket.protocol.mls.signatures import ED448, ED25519
from lokket.protocol.mls.structs import (
    CommitSource,
    Extension,
    ExtensionType,
    Lifetime,
    RequiredCapabilities,
    UpdateSource,
    basic_credential,
    make_extension,
)
from lokket.protocol.mls.suite import SUITES
from lokket.protocol.mls.validation import (
    Place,
    check_key_package,
    check_leaf,
    check_support,
    check_tree,
    check_unique,
)
from tests.support import points
from tests.support.mls_rules import (
    CAPABILITIES,
    GROUP_ID,
    NOW_S,
    SUITE,
    UNKNOWN,
    context_of,
    people,
    person,
    refused,
    tree_of,
)
from tests.support.refusals import refusal

ALICE, BOB, CAROL = people(3)
PACKAGE = Place(source=Lifetime, now_s=NOW_S)
REQUIRE = {
    "extension": RequiredCapabilities(extension_types=(UNKNOWN,)),
    "proposal": RequiredCapabilities(proposal_types=(UNKNOWN,)),
    "credential": RequiredCapabilities(credential_types=(2,)),
}


def test_what_is_right_passes() -> None:
    check_key_package(SUITE, ALICE.key_package, NOW_S)
    check_leaf(SUITE, ALICE.update(3), Place(GROUP_ID, 3, UpdateSource, NOW_S))
    tree = tree_of([ALICE, BOB, CAROL])
    check_tree(SUITE, tree, context_of(tree), NOW_S)


def test_endless_capabilities_are_not_remembered() -> None:
    """80 kB of numbers are megabytes as sets, and a member may send others with every Update."""

    def remembered() -> int:
        return support._of.cache_info().currsize + support._joined.cache_info().currsize

    support._of.cache_clear()
    support._joined.cache_clear()
    few = support.Support.of(ALICE.leaf)
    assert remembered() == 1
    for start in range(3):
        able = replace(CAPABILITIES, extensions=tuple(range(0x8000 + start, 0xA000 + start)))
        many = support.Support.of(replace(ALICE.leaf, capabilities=able))
        assert many.has_extensions((0x9000, 1))
        both = few.joined(many)
        assert both.has_extensions((1,))
        assert not both.has_extensions((0x9000,))
    assert remembered() == 1


def test_signature_keys_of_low_order() -> None:
    """They verify what nobody signed: with (1, 0) of Ed448, R = (1, 0) and S = 0 do so for every message."""
    p448 = 2**448 - 2**224 - 1
    for key in points.low_order_ed25519():
        with refusal(KeyRefused):
            ED25519.verify(key, b"message", key + bytes(32))
    for y in (0, 1, p448 - 1, p448, p448 + 1):
        for sign in (b"\x00", b"\x80", b"\x01"):
            key = y.to_bytes(56, "little") + sign
            for point in (key, bytes(57), bytes(56) + b"\x80"):
                with refusal(KeyRefused):
                    ED448.verify(key, b"message", point + bytes(57))


def test_a_leaf_that_was_verified_before_in_another_place_or_suite() -> None:
    known: set[bytes] = set()
    leaf = ALICE.update(3)
    check_leaf(SUITE, leaf, Place(GROUP_ID, 3), known)
    check_leaf(SUITE, leaf, Place(GROUP_ID, 3), known)
    assert len(known) == 1
    for suite, place in (
        (SUITE, Place(GROUP_ID, 2)),
        (SUITE, Place(b"other", 3)),
        (SUITES[2], Place(GROUP_ID, 3)),
    ):
        with refused("7.3-2"):
            check_leaf(suite, leaf, place, known)
    with refused("7.3-2"):
        check_leaf(SUITE, replace(leaf, signature=bytes(64)), Place(GROUP_ID, 3), known)
    assert len(known) == 1


@pytest.mark.parametrize("change", ["credential", "capabilities", "encryption_key", "signature", "key"])
def test_a_leaf_that_its_key_did_not_sign(change: str) -> None:
    leaf = ALICE.leaf
    changed = {
        "credential": replace(leaf, credential=basic_credential(b"mallory")),
        "capabilities": replace(leaf, capabilities=replace(CAPABILITIES, extensions=(UNKNOWN,))),
        "encryption_key": replace(leaf, encryption_key=BOB.leaf.encryption_key),
        "signature": replace(leaf, signature=BOB.leaf.signature),
        "key": replace(leaf, signature_key=BOB.leaf.signature_key),
    }[change]
    with refused("7.3-2"):
        check_leaf(SUITE, changed, PACKAGE)


@pytest.mark.parametrize("key", [b"", bytes(32), b"\x01" + bytes(31), b"\xff" * 32, bytes(31)])
def test_a_leaf_whose_signature_key_is_none(key: bytes) -> None:
    with refused("7.3-2"):
        check_leaf(SUITE, replace(ALICE.leaf, signature_key=key), PACKAGE)


@pytest.mark.parametrize(("group_id", "index"), [(GROUP_ID, 4), (b"another group", 3)])
def test_a_leaf_of_another_place(group_id: bytes, index: int) -> None:
    leaf = ALICE.update(3)
    check_leaf(SUITE, leaf, Place(GROUP_ID, 3))
    with refused("7.3-2"):
        check_leaf(SUITE, leaf, Place(group_id, index))


def test_a_leaf_that_was_verified_elsewhere_is_verified_here() -> None:
    known: set[bytes] = set()
    leaf = ALICE.update(3)
    check_leaf(SUITE, leaf, Place(GROUP_ID, 3), known)
    assert len(known) == 1
    check_leaf(SUITE, leaf, Place(GROUP_ID, 3), known)
    for wrong in (Place(GROUP_ID, 4), Place(b"another group", 3)):
        with refused("7.3-2"):
            check_leaf(SUITE, leaf, wrong, known)
    with refused("7.3-2"):
        check_leaf(SUITE, replace(leaf, signature=bytes(64)), Place(GROUP_ID, 3), known)
    assert len(known) == 1


@pytest.mark.parametrize("what", list(REQUIRE))
def test_a_member_without_what_the_group_requires(what: str) -> None:
    able = replace(CAPABILITIES, extensions=(UNKNOWN,), proposals=(UNKNOWN,), credentials=(1, 2))
    can = [person("able 1", capabilities=able), person("able 2", capabilities=able)]
    extensions = (make_extension(REQUIRE[what]),)
    check_support(tree_of(can), extensions)
    with refused("7.3-3"):
        check_support(tree_of([*can, BOB]), extensions)
    with refused("7.3-3"):
        check_support(tree_of([BOB, *can]), extensions)


def test_a_credential_type_that_a_member_does_not_read() -> None:
    reads_both = replace(CAPABILITIES, credentials=(1, UNKNOWN))
    other = replace(basic_credential(b"odd"), credential_type=UNKNOWN)
    odd = person("odd", credential=other, capabilities=reads_both)
    willing = person("willing", capabilities=reads_both)
    check_support(tree_of([willing, odd]), ())
    with refused("7.3-4"):
        check_support(tree_of([ALICE, odd]), ())


def test_a_member_that_does_not_read_the_others_credentials() -> None:
    deaf = person("deaf", capabilities=replace(CAPABILITIES, credentials=(UNKNOWN,)))
    with refused("7.3-4"):
        check_support(tree_of([ALICE, deaf]), ())


@pytest.mark.parametrize("now_s", [0, NOW_S - 3601, NOW_S + 86_401, 2**64 - 1])
def test_a_key_package_outside_its_lifetime(now_s: int) -> None:
    with refused("7.3-5"):
        check_key_package(SUITE, ALICE.key_package, now_s)
    check_key_package(SUITE, ALICE.key_package, None)


@pytest.mark.parametrize("now_s", [NOW_S - 3600, NOW_S + 86_400])
def test_both_ends_of_a_lifetime_belong_to_it(now_s: int) -> None:
    check_key_package(SUITE, ALICE.key_package, now_s)


def test_a_lifetime_that_ends_before_it_begins() -> None:
    turned = person("turned", source=Lifetime(NOW_S + 1, NOW_S - 1))
    with refused("7.3-5"):
        check_key_package(SUITE, turned.key_package, NOW_S)


def test_a_leaf_with_an_extension_that_it_does_not_list() -> None:
    extension = (Extension(UNKNOWN, b""),)
    listed = replace(CAPABILITIES, extensions=(UNKNOWN,))
    check_leaf(SUITE, person("lists", extensions=extension, capabilities=listed).leaf, PACKAGE)
    with refused("7.3-6"):
        check_leaf(SUITE, person("does not", extensions=extension).leaf, PACKAGE)
    default = (Extension(ExtensionType.APPLICATION_ID, b"\x00"),)
    check_leaf(SUITE, person("application id", extensions=default).leaf, PACKAGE)


@pytest.mark.parametrize("wanted", [Lifetime, UpdateSource, CommitSource])
@pytest.mark.parametrize("given", [Lifetime(0, 2**64 - 1), UpdateSource(), CommitSource(b"")])
def test_a_leaf_from_where_it_does_not_come(wanted: Any, given: Any) -> None:
    leaf = ALICE.signed(0, source=given)
    if isinstance(given, wanted):
        check_leaf(SUITE, leaf, Place(GROUP_ID, 0, wanted))
    else:
        with refused("7.3-7"):
            check_leaf(SUITE, leaf, Place(GROUP_ID, 0, wanted))


def test_two_members_with_one_signature_key() -> None:
    twin = replace(BOB, signature=ALICE.signature)
    leaf = twin.signed(1, signature_key=ALICE.leaf.signature_key)
    tree, index = tree_of([ALICE]).add(leaf)
    with refused("7.3-8"):
        check_unique(tree, index)
    with refused("7.3-8"):
        check_tree(SUITE, tree, context_of(tree))


def test_two_members_with_one_encryption_key() -> None:
    leaf = BOB.signed(1, encryption_key=ALICE.leaf.encryption_key)
    tree, index = tree_of([ALICE]).add(leaf)
    with refused("7.3-9"):
        check_unique(tree, index)
    with refused("7.3-9"):
        check_tree(SUITE, tree, context_of(tree))


def test_a_key_that_left_may_come_back() -> None:
    tree, index = tree_of([ALICE, BOB]).remove(1).add(BOB.leaf)
    check_unique(tree, index)


def test_a_list_with_two_extensions_of_a_type() -> None:
    twice = (Extension(ExtensionType.APPLICATION_ID, b"a"), Extension(ExtensionType.APPLICATION_ID, b"b"))
    with refused("13.4-1"):
        check_leaf(SUITE, person("twice", extensions=twice).leaf, PACKAGE)
    with refused("13.4-1"):
        check_key_package(SUITE, ALICE.package(extensions=twice), NOW_S)
    tree = tree_of([ALICE])
    with refused("13.4-1"):
        check_tree(SUITE, tree, context_of(tree, twice))


def test_a_member_without_an_extension_of_the_group() -> None:
    able = person("able", capabilities=replace(CAPABILITIES, extensions=(UNKNOWN,)))
    extensions = (Extension(UNKNOWN, b"data"),)
    check_support(tree_of([able]), extensions)
    with refused("13.4-2"):
        check_support(tree_of([able, ALICE]), extensions)


def test_a_key_package_of_another_suite_or_version() -> None:
    for changes in ({"cipher_suite": 3}, {"version": 2}, {"version": 0}):
        with refused("10.1-1"):
            check_key_package(SUITE, ALICE.package(**changes), NOW_S)
    with refused("10.1-1"):
        check_key_package(SUITES[3], ALICE.key_package, NOW_S)


def test_a_key_package_that_its_leaf_did_not_sign() -> None:
    for changed in (
        replace(ALICE.key_package, init_key=BOB.key_package.init_key),
        replace(ALICE.key_package, extensions=(Extension(ExtensionType.LAST_RESORT, b""),)),
        replace(ALICE.key_package, signature=ALICE.leaf.signature),
        replace(ALICE.key_package, signature=b""),
        replace(BOB, signature=ALICE.signature).package(),
    ):
        with refused("10.1-2"):
            check_key_package(SUITE, changed, NOW_S)


def test_a_key_package_with_one_key_for_both() -> None:
    with refused("10.1-3"):
        check_key_package(SUITE, ALICE.package(init_key=ALICE.leaf.encryption_key), NOW_S)


@pytest.mark.parametrize("key", [b"", bytes(32), b"\x01" * 31, b"\x01" * 33])
def test_a_key_package_with_an_init_key_that_is_none(key: bytes) -> None:
    with pytest.raises(KeyRefused):
        check_key_package(SUITE, ALICE.package(init_key=key), NOW_S)
