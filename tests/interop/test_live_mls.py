"""Groups of lokket with ts-mls, mls-rs and OpenMLS: every operation by each side that can do it (RFC 9420).

lokket's capabilities and key packages carry GREASE throughout, so the peers ignore what they must ignore.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from libsignal_peer import decode as decoded
from lokket.errors import LocalError, RemoteError
from lokket.protocol import mls
from mls_ours import ENTROPY, Ours
from mls_peers import MlsRs, OpenMls, Refused, TsMls, TsMlsProcess, wait_for_the_next_second

Party = Ours | TsMls | MlsRs | OpenMls
POST_QUANTUM = {
    "id": mls.POST_QUANTUM_ID,
    "name": "MLS_128_MLKEM768X25519_AES128GCM_SHA256_Ed25519",
    "kem": "X-Wing",
    "kdf": "HKDF-SHA256",
    "aead": "AES128GCM",
    "hash": "SHA-256",
    "signature": "Ed25519",
}
SUITES = [1, 2, 3, 4, 5, 6, 7, mls.POST_QUANTUM_ID]


def speaks(speaker: Ours | TsMls | MlsRs, *listeners: Party) -> None:
    text = f"from {speaker.name}".encode()
    message = speaker.encrypt(text)
    for listener in listeners:
        assert listener.process(message) == (b"" if isinstance(listener, OpenMls) else text)


def same_epoch(*parties: Party) -> None:
    exporters = [one for one in parties if not isinstance(one, OpenMls)]
    assert len({one.export("label", b"context", 40) for one in exporters}) == 1
    knowing = [one for one in parties if not isinstance(one, MlsRs)]
    assert len({one.epoch_authenticator() for one in knowing}) == 1


def follow(commit: bytes, *parties: Party) -> None:
    for one in parties:
        assert one.process(commit) is None


def of_suite(ts_mls: TsMlsProcess, suite: int) -> Callable[[str], TsMls]:
    if suite == mls.POST_QUANTUM_ID:
        ts_mls.call("register", suite=POST_QUANTUM)
    return lambda name: ts_mls.endpoint(name, suite)


@pytest.fixture(params=SUITES)
def ts_of_suite(request: pytest.FixtureRequest, ts_mls: TsMlsProcess) -> Callable[[str], TsMls]:
    return of_suite(ts_mls, request.param)


@pytest.fixture(params=[1, 2, mls.POST_QUANTUM_ID])
def ts_of_three(request: pytest.FixtureRequest, ts_mls: TsMlsProcess) -> Callable[[str], TsMls]:
    """An Edwards suite, an ECDSA one and the post-quantum one: the others take long in JavaScript."""
    return of_suite(ts_mls, request.param)


# --- two parties ---


def both_ways(ours: Ours, peer: TsMls | MlsRs) -> None:
    same_epoch(ours, peer)
    for _ in range(2):
        speaks(ours, peer)
        speaks(peer, ours)
        follow(ours.update(), peer)
        follow(peer.update(), ours)
    same_epoch(ours, peer)


def test_ts_mls_joins_us(ts_of_suite: Callable[[str], TsMls]) -> None:
    peer = ts_of_suite("peer")
    ours = Ours("ours", peer.suite)
    ours.create()
    _, welcome = ours.add(peer.key_package())
    peer.join(welcome)
    both_ways(ours, peer)
    follow(ours.remove(1), peer)
    with pytest.raises(Refused):
        peer.process(ours.encrypt(b"without you"))


def test_we_join_ts_mls(ts_of_suite: Callable[[str], TsMls]) -> None:
    peer = ts_of_suite("peer")
    ours = Ours("ours", peer.suite)
    peer.create()
    _, welcome = peer.add(ours.key_package())
    ours.join(welcome)
    both_ways(ours, peer)
    removed(ours, peer.remove(1), peer)


def removed(ours: Ours, commit: bytes, peer: TsMls | MlsRs | None) -> None:
    """The commit removes us: it says so, and what follows does not open."""
    before = ours.group
    ours.process(commit)
    assert ours.group.removed
    with pytest.raises(LocalError):
        ours.encrypt(b"still here?")
    if peer is not None:
        message = peer.encrypt(b"without you")
        with pytest.raises(RemoteError):
            before.process(message)
        with pytest.raises(LocalError):
            ours.process(message)


def test_mls_rs_joins_us(mls_rs: type[MlsRs]) -> None:
    ours, peer = Ours("ours"), mls_rs("peer")
    ours.create()
    _, welcome = ours.add(peer.key_package())
    peer.join(welcome)
    both_ways(ours, peer)
    follow(ours.remove(1), peer)
    assert peer.removed
    with pytest.raises(Refused):
        peer.process(ours.encrypt(b"without you"))


def test_we_join_mls_rs(mls_rs: type[MlsRs]) -> None:
    ours, peer = Ours("ours"), mls_rs("peer")
    peer.create()
    _, welcome = peer.add(ours.key_package())
    ours.join(welcome)
    both_ways(ours, peer)
    removed(ours, peer.remove_last_sender(), peer)


def test_openmls_joins_us(openmls: type[OpenMls]) -> None:
    ours, peer, third = Ours("ours"), openmls("peer"), Ours("third")
    ours.create()
    _, welcome = ours.add(peer.key_package())
    peer.join(welcome)
    same_epoch(ours, peer)
    speaks(ours, peer)
    follow(ours.update(), peer)
    commit, welcome = peer.add(third.key_package())
    follow(commit, ours)
    third.join(welcome)
    same_epoch(ours, peer, third)
    speaks(third, ours, peer)
    follow(third.update(), ours, peer)
    removed(third, follow_and_give(peer.remove(2), ours), None)
    same_epoch(ours, peer)
    follow(ours.remove(1), peer)
    with pytest.raises(Refused):
        peer.process(ours.encrypt(b"without you"))


def follow_and_give(commit: bytes, *parties: Party) -> bytes:
    follow(commit, *parties)
    return commit


def test_we_join_openmls(openmls: type[OpenMls]) -> None:
    ours, peer = Ours("ours"), openmls("peer")
    peer.create()
    _, welcome = peer.add(ours.key_package())
    ours.join(welcome)
    same_epoch(ours, peer)
    speaks(ours, peer)
    follow(ours.update(), peer)
    speaks(ours, peer)
    same_epoch(ours, peer)
    removed(ours, peer.remove(1), None)


# --- four implementations in one group ---


def test_four_implementations(ts_mls: TsMlsProcess, mls_rs: type[MlsRs], openmls: type[OpenMls]) -> None:
    """mls-rs makes no commit here: its commits are public, and OpenMLS's binding takes private ones alone."""
    ours, second = Ours("ours"), Ours("second")
    script, rust, other = ts_mls.endpoint("ts"), mls_rs("rs"), openmls("open")
    ours.create()
    packages = [one.key_package() for one in (script, rust, other)]
    wait_for_the_next_second()
    _, welcome = ours.add(*packages)
    for one in (script, rust, other):
        one.join(welcome)
    everyone: list[Any] = [ours, script, rust, other]
    same_epoch(*everyone)
    commit, welcome = other.add(second.key_package())
    follow(commit, ours, script, rust)
    second.join(welcome)
    everyone.append(second)
    for committer in (ours, script, second):
        follow(committer.update(), *(one for one in everyone if one is not committer))
        same_epoch(*everyone)
    for speaker in (ours, script, rust, second):
        speaks(speaker, *(one for one in everyone if one is not speaker))
    commit = second.remove(2)
    follow(commit, ours, script, rust, other)
    assert rust.removed
    same_epoch(ours, script, other, second)
    with pytest.raises(Refused):
        rust.process(ours.encrypt(b"without you"))


# --- what ts-mls alone can do beside us ---


def pair(ts: TsMls, **options: Any) -> Ours:
    """A group of ours and one ts-mls member."""
    ours = Ours("ours", ts.suite, **options)
    ours.create()
    _, welcome = ours.add(ts.key_package())
    ts.join(welcome)
    return ours


def test_external_join_both_ways(ts_of_three: Callable[[str], TsMls]) -> None:
    first, second = ts_of_three("first"), ts_of_three("second")
    ours = pair(first)
    follow(second.join_external(ours.group.group_info()), ours, first)
    same_epoch(ours, first, second)
    third = Ours("third", first.suite)
    follow(third.join_external(first.group_info()), ours, first, second)
    same_epoch(ours, first, second, third)
    speaks(third, ours, first, second)
    speaks(second, ours, first, third)


def test_we_come_back_in_our_own_place(ts_mls: TsMlsProcess) -> None:
    first, second = ts_mls.endpoint("first"), ts_mls.endpoint("second")
    ours = pair(first)
    commit, welcome = ours.add(second.key_package())
    follow(commit, first)
    second.join(welcome)
    again = Ours("ours")
    follow(again.join_external(first.group_info(), replaces=0), first, second)
    assert [leaf for leaf, _ in again.group.members()] == [0, 1, 2]
    same_epoch(again, first, second)
    with pytest.raises(RemoteError):
        ours.process(again.encrypt(b"not for the old one"))


def test_external_keys_both_ways(ts_of_three: Callable[[str], TsMls]) -> None:
    peer = ts_of_three("peer")
    ours = pair(peer)
    ours.psks[b"a key"] = b"secret" * 6
    peer.psk(b"a key", b"secret" * 6)
    nonce = ENTROPY.draw(ours.suite.hash_bytes)
    key = mls.PreSharedKey(mls.PreSharedKeyID(mls.ExternalPSK(b"a key"), nonce))
    follow(ours.commit(key).commit, peer)
    same_epoch(ours, peer)
    follow(peer.commit({"type": "psk", "psk_id": b"a key"}), ours)
    same_epoch(ours, peer)
    ours.psks[b"a key"] = b"another"
    before = ours.group
    with pytest.raises(RemoteError):
        ours.process(peer.commit({"type": "psk", "psk_id": b"a key"}))
    assert ours.group is before


def test_a_welcome_with_a_key(ts_mls: TsMlsProcess) -> None:
    first, second = ts_mls.endpoint("first"), Ours("second")
    ours = pair(first)
    first.psk(b"for newcomers", b"k" * 32)
    ours.psks[b"for newcomers"] = second.psks[b"for newcomers"] = b"k" * 32
    package = mls.read_key_package(second.key_package(), ours.settings, int(time.time()))
    key = mls.PreSharedKey(mls.PreSharedKeyID(mls.ExternalPSK(b"for newcomers"), ENTROPY.draw(32)))
    sent = ours.commit(mls.Add(package), key)
    assert sent.welcome is not None
    follow(sent.commit, first)
    second.join(sent.welcome)
    same_epoch(ours, first, second)


def test_proposals_by_reference_both_ways(ts_mls: TsMlsProcess) -> None:
    first, second = ts_mls.endpoint("first"), ts_mls.endpoint("second")
    ours, fourth = pair(first), Ours("fourth")
    commit, welcome = ours.add(second.key_package())
    follow(commit, first)
    second.join(welcome)
    proposal = first.propose({"type": "remove", "leaf": 2})
    assert ours.process(proposal) is None
    assert second.process(proposal) is None
    follow(ours.update(), first, second)
    assert [leaf for leaf, _ in ours.group.members()] == [0, 1]
    same_epoch(ours, first)
    now_s = int(time.time())
    package = mls.read_key_package(fourth.key_package(), ours.settings, now_s)
    assert first.process(ours.propose(mls.Add(package))) is None
    reply = first.call("commit", group=first.group, proposals=[])
    follow(decoded(reply["commit"]), ours)
    fourth.join(decoded(reply["welcome"]))
    same_epoch(ours, first, fourth)


def test_proposals_of_mls_rs(mls_rs: type[MlsRs]) -> None:
    """Ours commits what mls-rs proposes, and mls-rs what ours does."""
    ours, peer, third, fourth = Ours("ours"), mls_rs("peer"), Ours("third"), Ours("fourth")
    ours.create()
    _, welcome = ours.add(peer.key_package(), third.key_package())
    peer.join(welcome)
    third.join(welcome)
    speaks(third, ours, peer)
    proposal = peer.propose_removing_last_sender()
    for one in (ours, third):
        assert one.process(proposal) is None
    commit = ours.update()
    follow(commit, peer, third)
    assert third.group.removed
    same_epoch(ours, peer)
    assert ours.process(peer.propose_adding(fourth.key_package())) is None
    sent = ours.commit()
    assert sent.welcome is not None
    follow(sent.commit, peer)
    fourth.join(sent.welcome)
    same_epoch(ours, peer, fourth)
    proposal = ours.propose(mls.Remove(fourth.group.leaf_index))
    for one in (peer, fourth):
        assert one.process(proposal) is None
    follow(peer.update(), ours, fourth)
    assert fourth.group.removed
    same_epoch(ours, peer)


def test_our_update_committed_by_ts_mls(ts_mls: TsMlsProcess) -> None:
    peer = ts_mls.endpoint("peer")
    ours = pair(peer)
    ours.group, proposal = ours.group.propose_update(int(time.time()), ENTROPY)
    assert peer.process(proposal) is None
    follow(peer.update(), ours)
    same_epoch(ours, peer)
    follow(ours.update(), peer)
    speaks(peer, ours)


def test_public_handshakes_both_ways(ts_mls: TsMlsProcess) -> None:
    peer = ts_mls.endpoint("peer")
    ours = pair(peer, handshake=mls.WireFormat.PUBLIC_MESSAGE)
    follow(ours.update(), peer)
    follow(peer.update(public=True), ours)
    assert peer.process(ours.propose(mls.Remove(1))) is None
    assert ours.process(peer.propose({"type": "remove", "leaf": 0}, public=True)) is None
    same_epoch(ours, peer)


def test_the_tree_beside_the_welcome_both_ways(ts_mls: TsMlsProcess) -> None:
    first, second = ts_mls.endpoint("first"), ts_mls.endpoint("second")
    ours, third = pair(first), Ours("third")
    options = mls.CommitOptions(welcome=mls.InfoOptions(tree=False))
    commit, welcome = ours.add(second.key_package(), options=options)
    with pytest.raises(Refused):
        second.join(welcome)
    second.join(welcome, ratchet_tree=ours.group.ratchet_tree())
    follow(commit, first)
    fields = {"key_packages": [third.key_package()], "tree_in_welcome": False}
    reply = first.call("add", group=first.group, **fields)
    follow(decoded(reply["commit"]), ours, second)
    with pytest.raises(mls.RuleBroken):
        third.join(decoded(reply["welcome"]))
    third.join(decoded(reply["welcome"]), decoded(reply["ratchet_tree"]))
    same_epoch(ours, first, second, third)


def test_another_identity_in_a_commit(ts_mls: TsMlsProcess) -> None:
    peer = ts_mls.endpoint("peer")
    ours = pair(peer)
    key = ours.suite.generate_signature_key(ENTROPY)
    ours.identity = mls.Identity(mls.basic_credential(b"renamed"), key, mls.capabilities())
    follow(ours.commit(options=mls.CommitOptions(identity=ours.identity)).commit, peer)
    same_epoch(ours, peer)
    speaks(ours, peer)
    members = peer.call("state", group=peer.group)["members"]
    assert decoded(members[0]["identity"]) == b"renamed"


def test_a_larger_group_with_changes_by_both(ts_mls: TsMlsProcess) -> None:
    ours = Ours("ours")
    ours.create()
    scripts = [ts_mls.endpoint(f"ts {number}") for number in range(5)]
    more = [Ours(f"ours {number}") for number in range(4)]
    _, welcome = ours.add(*(one.key_package() for one in (*scripts, *more)))
    everyone: list[Any] = [ours, *scripts, *more]
    for one in everyone[1:]:
        one.join(welcome)
    for committer in (scripts[0], more[1], scripts[4]):
        follow(committer.update(), *(one for one in everyone if one is not committer))
    follow(more[0].remove(2), *(one for one in everyone if one is not more[0]))
    everyone.remove(scripts[1])
    late = ts_mls.endpoint("late")
    commit, welcome = scripts[2].add(late.key_package())
    follow(commit, *(one for one in everyone if one is not scripts[2]))
    late.join(welcome)
    everyone.append(late)
    for committer in (late, ours, scripts[3], more[3]):
        follow(committer.update(), *(one for one in everyone if one is not committer))
        same_epoch(*everyone)
    for speaker in (late, more[2]):
        speaks(speaker, *(one for one in everyone if one is not speaker))


@pytest.mark.parametrize("name", ["ts-mls", "mls-rs"])
def test_messages_out_of_order_and_of_the_epoch_before(name: str, request: pytest.FixtureRequest) -> None:
    peer: Any
    if name == "ts-mls":
        peer = request.getfixturevalue("ts_mls").endpoint("peer")
    else:
        peer = request.getfixturevalue("mls_rs")("peer")
    ours = Ours("ours")
    ours.create()
    _, welcome = ours.add(peer.key_package())
    peer.join(welcome)
    for speaker, listener in ((ours, peer), (peer, ours)):
        texts = [f"{number}".encode() for number in range(6)]
        messages = [speaker.encrypt(text) for text in texts]
        for number in (4, 0, 2, 1, 5):
            assert listener.process(messages[number]) == texts[number]
        follow(ours.update(), peer)
        assert listener.process(messages[3]) == texts[3]
        for again in (messages[0], messages[3], messages[4]):
            with pytest.raises((Refused, RemoteError)):
                listener.process(again)
    same_epoch(ours, peer)
