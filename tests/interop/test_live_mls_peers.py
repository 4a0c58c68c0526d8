"""The three MLS peers among themselves: what our adapters say of them holds before lokket is a party."""

from __future__ import annotations

import pytest

from mls_peers import MlsRs, OpenMls, Refused, TsMls, TsMlsProcess, wait_for_the_next_second


def speaks(speaker: TsMls | MlsRs, *listeners: TsMls | MlsRs | OpenMls) -> None:
    text = f"from {speaker.name}".encode()
    message = speaker.encrypt(text)
    for listener in listeners:
        assert listener.process(message) == (b"" if isinstance(listener, OpenMls) else text)


def test_ts_mls_and_mls_rs(ts_mls: TsMlsProcess, mls_rs: type[MlsRs]) -> None:
    for creator, joiner in (
        (ts_mls.endpoint("alice"), mls_rs("bob")),
        (mls_rs("carol"), ts_mls.endpoint("dave")),
    ):
        creator.create()
        _, welcome = creator.add(joiner.key_package())
        joiner.join(welcome)
        for one, other in ((creator, joiner), (joiner, creator)):
            speaks(one, other)
            assert other.process(one.update()) is None
            speaks(other, one)
            assert one.export("label", b"context", 32) == other.export("label", b"context", 32)
        commit = creator.remove(1) if isinstance(creator, TsMls) else creator.remove_last_sender()
        joiner.process(commit)
        with pytest.raises(Refused):
            joiner.process(creator.encrypt(b"without you"))


def test_ts_mls_and_openmls(ts_mls: TsMlsProcess, openmls: type[OpenMls]) -> None:
    alice, bob, carol = ts_mls.endpoint("alice"), openmls("bob"), ts_mls.endpoint("carol")
    alice.create()
    _, welcome = alice.add(bob.key_package())
    bob.join(welcome)
    speaks(alice, bob)
    bob.process(alice.update())
    commit, welcome = bob.add(carol.key_package())
    alice.process(commit)
    carol.join(welcome)
    speaks(carol, alice, bob)
    assert alice.epoch_authenticator() == bob.epoch_authenticator() == carol.epoch_authenticator()
    commit = bob.remove(2)
    alice.process(commit)
    carol.process(commit)
    assert alice.epoch_authenticator() == bob.epoch_authenticator()
    with pytest.raises(Refused):
        carol.process(alice.encrypt(b"without you"))


def test_mls_rs_and_openmls(mls_rs: type[MlsRs], openmls: type[OpenMls]) -> None:
    alice, bob = mls_rs("alice"), openmls("bob")
    key_package = alice.key_package()
    wait_for_the_next_second()
    _, welcome = bob.add(key_package)
    alice.join(welcome)
    speaks(alice, bob)
    alice.process(bob.remove(1))
    assert alice.removed


def test_openmls_joins_mls_rs_and_follows_no_public_commit(
    mls_rs: type[MlsRs], openmls: type[OpenMls]
) -> None:
    alice, bob = mls_rs("alice"), openmls("bob")
    alice.create()
    wait_for_the_next_second()
    _, welcome = alice.add(bob.key_package())
    bob.join(welcome)
    speaks(alice, bob)
    with pytest.raises(Refused, match="IncompatibleWireFormat"):
        bob.process(alice.update())
