"""Joining and following groups that others lead: official vectors (RFC 9420 sections 12.4.2 and 12.4.3)."""

from __future__ import annotations

from typing import Any

import pytest

from lokket.codec import tls
from lokket.crypto.primitives import equal
from lokket.protocol.mls import key_schedule, messages, receiving, welcoming
from lokket.protocol.mls.credentials import LeafChange
from lokket.protocol.mls.group_state import GroupState, succeed
from lokket.protocol.mls.key_packages import OwnKeyPackage
from lokket.protocol.mls.proposals import ExternalPSK, ResumptionPSK
from lokket.protocol.mls.settings import Settings
from lokket.protocol.mls.structs import KeyPackage
from lokket.protocol.mls.suite import SUITES
from tests.vectors.mls.loader import load, raw


def anybody(change: LeafChange) -> None:
    """The vectors' credentials are made up."""


def key_package(case: dict[str, Any], name: str = "key_package") -> KeyPackage:
    package = messages.decode_message(raw(case[name]))
    assert isinstance(package, KeyPackage)
    return package


def test_welcome() -> None:
    for case in load("welcome"):
        suite = SUITES[case["cipher_suite"]]
        package, init = key_package(case), suite.kem.load(raw(case["init_priv"]))
        assert init.public == package.init_key
        own = OwnKeyPackage(package, init, init, b"")
        invitation = welcoming.open_welcome(raw(case["welcome"]), [own], Settings(anybody))
        info = invitation.info
        suite.verify_with_label(raw(case["signer_pub"]), b"GroupInfoTBS", info.to_be_signed(), info.signature)
        epoch = key_schedule.epoch_secret(suite, invitation.member_secret, info.group_context)
        secrets, _ = key_schedule.epoch_secrets(suite, epoch)
        tag = key_schedule.confirmation_tag(suite, secrets, info.group_context.confirmed_transcript_hash)
        assert equal(tag, info.confirmation_tag)


def join(case: dict[str, Any]) -> GroupState:
    suite = SUITES[case["cipher_suite"]]
    package = key_package(case)
    leaf = package.leaf_node
    init, encryption = suite.kem.load(raw(case["init_priv"])), suite.kem.load(raw(case["encryption_priv"]))
    assert (init.public, encryption.public) == (package.init_key, leaf.encryption_key)
    assert suite.signature.load(raw(case["signature_priv"])).public == leaf.signature_key
    psks = {raw(one["psk_id"]): raw(one["psk"]) for one in case["external_psks"]}

    def find_psk(psk: ExternalPSK | ResumptionPSK) -> bytes | None:
        return psks.get(psk.psk_id) if isinstance(psk, ExternalPSK) else None

    settings = Settings(anybody, find_psk)
    own = OwnKeyPackage(package, init, encryption, raw(case["signature_priv"]))
    invitation = welcoming.open_welcome(raw(case["welcome"]), [own], settings)
    tree = raw(case["ratchet_tree"]) if case["ratchet_tree"] else None
    state = welcoming.join(invitation, settings, tree, ())
    assert state.epoch.secrets.epoch_authenticator == raw(case["initial_epoch_authenticator"])
    return state


def follow(case: dict[str, Any]) -> None:
    state = join(case)
    for epoch in case["epochs"]:
        for proposal in epoch["proposals"]:
            state, received = receiving.receive(state, raw(proposal))
            assert isinstance(received, receiving.ProposalReceived)
        before, staged = receiving.receive(state, raw(epoch["commit"]))
        assert isinstance(staged, receiving.Staged)
        state = succeed(before, staged.after, staged.replaced, 0)
        assert state.epoch.secrets.epoch_authenticator == raw(epoch["epoch_authenticator"])


@pytest.mark.parametrize(
    ("name", "folder", "every"),
    [
        ("passive-client-welcome", "test-vectors", 5),
        ("passive-client-handling-commit", "test-vectors", 9),
        ("passive-client-random", "test-vectors", 1),
        ("application", "interop-passive", 5),
        ("branch", "interop-passive", 20),
        ("commit", "interop-passive", 20),
        ("external_join", "interop-passive", 5),
        ("external_proposals", "interop-passive", 20),
        ("reinit", "interop-passive", 20),
        ("welcome_join", "interop-passive", 5),
    ],
)
def test_passive_client(name: str, folder: str, every: int) -> None:
    for case in load(name, folder, every):
        follow(case)


def test_what_the_vectors_hold_encodes_to_itself() -> None:
    for case in load("passive-client-welcome", every=5):
        tree = case["ratchet_tree"]
        if tree:
            assert join(case).tree.encode() == raw(tree)
        assert tls.encode(key_package(case)) == raw(case["key_package"])[4:]
