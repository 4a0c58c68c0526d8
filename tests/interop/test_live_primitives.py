"""XEdDSA, X25519 and HKDF against libsignal, both ways."""

from __future__ import annotations

import os

import pytest

from libsignal_peer import Peer, Refused, decode
from lokket.crypto.keys import X25519KeyPair, check_x25519_public
from lokket.crypto.primitives import hkdf_sha256
from lokket.crypto.xeddsa import IdentityKeyPair, check_identity_key, verify_xeddsa
from lokket.errors import RemoteError, SignatureRefused
from tests.support import points


def test_libsignal_accepts_our_signatures(libsignal: Peer) -> None:
    for size in (0, 1, 33, 1569):
        for _ in range(4):  # both sign bits
            identity, message = IdentityKeyPair(os.urandom(32)), os.urandom(size)
            reply = libsignal.call(
                "verify", public=identity.public, message=message, signature=identity.sign(message)
            )
            assert reply["valid"]
            wrong = libsignal.call(
                "verify", public=identity.public, message=message + b"x", signature=identity.sign(message)
            )
            assert not wrong["valid"]


def test_we_accept_libsignals_signatures(libsignal: Peer) -> None:
    for size in (0, 1, 33, 1569):
        for _ in range(4):
            pair, message = libsignal.call("new_keypair"), os.urandom(size)
            public = decode(pair["public"])
            signature = decode(libsignal.call("sign", private=pair["private"], message=message)["signature"])
            check_identity_key(public)
            verify_xeddsa(public, signature, message)
            with pytest.raises(SignatureRefused):
                verify_xeddsa(public, signature, message + b"x")
            for bit in (0, 255, 256, 504, 505, 510, 511):
                changed = bytearray(signature)
                changed[bit // 8] ^= 1 << bit % 8
                with pytest.raises(SignatureRefused):
                    verify_xeddsa(public, bytes(changed), message)


def test_agreement(libsignal: Peer) -> None:
    ours = X25519KeyPair(os.urandom(32))
    pair = libsignal.call("new_keypair")
    theirs = decode(pair["public"])[1:]
    check_x25519_public(theirs)
    reply = libsignal.call("agree", private=pair["private"], public=b"\x05" + ours.public)
    assert decode(reply["secret"]) == ours.exchange(theirs)


def test_hkdf(libsignal: Peer) -> None:
    for salt in (None, os.urandom(32)):
        reply = libsignal.call("hkdf", length=96, key_material=b"material", info=b"info", salt=salt)
        assert decode(reply["output"]) == hkdf_sha256(b"material", salt=salt, info=b"info", length=96)


def test_both_refuse_a_secret_of_zeros(libsignal: Peer) -> None:
    pair = libsignal.call("new_keypair")
    ours = X25519KeyPair(os.urandom(32))
    for point in points.LOW_ORDER_X25519:
        with pytest.raises(RemoteError):
            ours.exchange(point)
        with pytest.raises(Refused):
            libsignal.call("agree", private=pair["private"], public=b"\x05" + point)
