"""Fingerprints against libsignal, both ways."""

from __future__ import annotations

import os

import pytest

from libsignal_peer import Peer, Refused, decode
from lokket.crypto.xeddsa import IdentityKeyPair
from lokket.errors import RemoteError
from lokket.protocol import fingerprint


@pytest.mark.parametrize("version", [1, 2])
def test_both_sides_show_the_same(libsignal: Peer, version: int) -> None:
    ours, theirs = IdentityKeyPair(os.urandom(32)).public, IdentityKeyPair(os.urandom(32)).public
    our_id, their_id = os.urandom(16), b"an id of another length"
    reply = libsignal.call(
        "fingerprint",
        version=version,
        local_id=their_id,
        local_key=theirs,
        remote_id=our_id,
        remote_key=ours,
    )
    display = fingerprint.displayable(version, our_id, ours, their_id, theirs)
    scannable = fingerprint.scannable(version, our_id, ours, their_id, theirs)
    assert display == reply["display"]
    assert len(display) == 60
    assert fingerprint.compare_scannable(scannable, decode(reply["scannable"]))
    compared = libsignal.call("compare_scannable", local=reply["scannable"], remote=scannable)
    assert compared["match"]


def test_both_sides_see_another_key(libsignal: Peer) -> None:
    ours, theirs, other = (IdentityKeyPair(os.urandom(32)).public for _ in range(3))
    reply = libsignal.call(
        "fingerprint", local_id=b"them", local_key=theirs, remote_id=b"us", remote_key=other
    )
    scannable = fingerprint.scannable(2, b"us", ours, b"them", theirs)
    assert not fingerprint.compare_scannable(scannable, decode(reply["scannable"]))
    assert not libsignal.call("compare_scannable", local=reply["scannable"], remote=scannable)["match"]
    assert fingerprint.displayable(2, b"us", ours, b"them", theirs) != reply["display"]


def test_both_sides_refuse_another_version_and_rubbish(libsignal: Peer) -> None:
    ours, theirs = IdentityKeyPair(os.urandom(32)).public, IdentityKeyPair(os.urandom(32)).public
    reply = libsignal.call(
        "fingerprint", version=2, local_id=b"them", local_key=theirs, remote_id=b"us", remote_key=ours
    )
    for wrong in (fingerprint.scannable(1, b"us", ours, b"them", theirs), b"", b"\xff" * 70):
        with pytest.raises(RemoteError):
            fingerprint.compare_scannable(decode(reply["scannable"]), wrong)
        with pytest.raises(Refused):
            libsignal.call("compare_scannable", local=reply["scannable"], remote=wrong)
