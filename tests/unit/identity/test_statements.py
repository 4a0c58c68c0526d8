"""Hello, login, registration: of one relay, one nonce, one device."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lokket.codec import tls
from lokket.crypto.keys import Ed25519KeyPair
from lokket.errors import LocalError, RemoteError, SignatureRefused
from lokket.protocol import identity
from lokket.protocol.identity import LoginStatement, RegisterProof, RegisterStatement
from tests.support.identity import NOW_S, found

ALICE = found("alice")
RELAY = Ed25519KeyPair(b"r" * 32)
LOGIN = LoginStatement(
    b"wss://relay.example", RELAY.public, ALICE.hash, ALICE.device_hash, b"n" * 32, b"c" * 32, NOW_S
)
REGISTER = RegisterStatement(
    b"wss://relay.example", RELAY.public, b"t" * 32, ALICE.hash, ALICE.device_hash, b"n" * 32
)


def test_hello() -> None:
    signature = identity.sign_hello(RELAY, "wss://relay.example", b"n" * 32, 7)
    identity.check_hello("wss://relay.example", RELAY.public, b"n" * 32, 7, signature)
    for changed in (
        ("wss://other.example", RELAY.public, b"n" * 32, 7),
        ("wss://relay.example", Ed25519KeyPair(b"x" * 32).public, b"n" * 32, 7),
        ("wss://relay.example", RELAY.public, b"m" * 32, 7),
        ("wss://relay.example", RELAY.public, b"n" * 32, 8),
    ):
        with pytest.raises(SignatureRefused):
            identity.check_hello(*changed, signature)
    for malformed in (
        ("", RELAY.public, b"n" * 32, 7),
        ("wss://r\u00e9lay", RELAY.public, b"n" * 32, 7),
        ("x" * 256, RELAY.public, b"n" * 32, 7),
        ("wss://relay.example", RELAY.public, b"n" * 31, 7),
        ("wss://relay.example", RELAY.public, b"n" * 32, -1),
    ):
        with pytest.raises(RemoteError):
            identity.check_hello(*malformed, signature)
    with pytest.raises(LocalError):
        identity.sign_hello(RELAY, "", b"n" * 32, 7)


@pytest.mark.attack(46)
def test_a_login_is_worth_nothing_elsewhere_or_again() -> None:
    signature = identity.sign_login(ALICE.device_keys.auth, LOGIN)
    identity.check_login(ALICE.device.auth_key, LOGIN, signature)
    for changed in (
        {"origin": b"wss://other.example"},
        {"relay_key": bytes(32)},
        {"genesis_hash": bytes(32)},
        {"device_hash": bytes(32)},
        {"nonce": bytes(32)},
        {"client_nonce": bytes(32)},
        {"time_s": NOW_S + 1},
    ):
        with pytest.raises(SignatureRefused):
            identity.check_login(ALICE.device.auth_key, replace(LOGIN, **changed), signature)
    with pytest.raises(SignatureRefused):
        identity.check_login(ALICE.device.mls_key, LOGIN, signature)


@pytest.mark.attack(8)
def test_registration_proves_every_key() -> None:
    proof = identity.sign_register(ALICE.key, ALICE.device_keys, REGISTER, ALICE.entropy)
    assert len(tls.encode(proof)) == 5985
    identity.check_register(ALICE.key.public, ALICE.device, REGISTER, proof)
    thief = found("thief")
    stolen = identity.sign_register(thief.key, thief.device_keys, REGISTER, thief.entropy)
    for part in ("account", "identity", "auth", "mls", "bundle"):
        mixed = replace(proof, **{part: getattr(stolen, part)})
        with pytest.raises(SignatureRefused):
            identity.check_register(ALICE.key.public, ALICE.device, REGISTER, mixed)
    for changed in (
        {"origin": b"wss://other.example"},
        {"relay_key": bytes(32)},
        {"token_hash": bytes(32)},
        {"genesis_hash": bytes(32)},
        {"nonce": bytes(32)},
    ):
        with pytest.raises(SignatureRefused):
            identity.check_register(ALICE.key.public, ALICE.device, replace(REGISTER, **changed), proof)
    with pytest.raises(RemoteError, match="another device"):
        identity.check_register(ALICE.key.public, thief.device, REGISTER, proof)


@pytest.mark.attack(16)
def test_every_byte_of_a_registration_proof_counts() -> None:
    proof = identity.sign_register(ALICE.key, ALICE.device_keys, REGISTER, ALICE.entropy)
    data = tls.encode(proof)
    singles = range(3373, 3373 + 192)
    for position in [*range(64), *range(64, 3373, 97), *singles, *range(3565, len(data), 97)]:
        changed = bytearray(data)
        changed[position] ^= 1
        with pytest.raises(SignatureRefused):
            identity.check_register(
                ALICE.key.public, ALICE.device, REGISTER, tls.decode(RegisterProof, bytes(changed))
            )
