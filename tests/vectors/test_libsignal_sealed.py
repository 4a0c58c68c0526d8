"""Recorded certificates, sealed messages and sender keys of libsignal-client 0.103.0 open, byte for byte."""

from __future__ import annotations

import base64
import json
import uuid
from pathlib import Path

import pytest

from lokket.crypto.keys import MLKEMKeyPair, X25519KeyPair
from lokket.errors import DuplicateMessage, RemoteError, SignatureRefused
from lokket.protocol import certificates, sealed, sender_keys
from lokket.protocol.pairwise import Address, IdentityKeyPair, LocalDevice
from lokket.protocol.sealed import ContentKind
from lokket.protocol.sender_keys import SenderKeys
from tests.support.entropy import SeededEntropy
from tests.support.pairwise import Store

STATICS = json.loads((Path(__file__).parent / "libsignal" / "statics.json").read_text())
LOCAL, REMOTE = STATICS["local"], STATICS["remote"]


def raw(text: str) -> bytes:
    return base64.b64decode(text)


IDENTITY = IdentityKeyPair(raw(LOCAL["identity_ed25519_seed"]))
THEIR_KEY = raw(REMOTE["identity_key"])
THEIR_ADDRESS = Address(uuid.UUID(REMOTE["name"]).bytes, REMOTE["device_id"])
ROOT = raw(STATICS["certificate"]["trust_root"])


def group_key() -> SenderKeys:
    return sender_keys.process(None, raw(STATICS["sender_key"]["distribution"]))


def test_certificate() -> None:
    recorded = STATICS["certificate"]
    certificate = certificates.decode_sender_certificate(raw(recorded["certificate"]))
    assert (certificate.sender, certificate.identity_key) == (THEIR_ADDRESS, THEIR_KEY)
    assert certificate.encode() == raw(recorded["certificate"])
    server = certificates.decode_server_certificate(raw(recorded["server_certificate"]))
    assert server == certificate.server
    assert server.encode() == raw(recorded["server_certificate"])
    certificates.check_certificate(certificate, (ROOT,), 1_800_000_000_000)
    certificates.check_certificate(certificate, (THEIR_KEY, ROOT), 1_800_000_000_000)
    with pytest.raises(SignatureRefused):
        certificates.check_certificate(certificate, (THEIR_KEY,), 1_800_000_000_000)


def test_our_certificates_have_the_recorded_form() -> None:
    """The same fields give the same signed bytes; only the signatures are of other keys."""
    recorded = certificates.decode_sender_certificate(raw(STATICS["certificate"]["certificate"]))
    root, server_key = (IdentityKeyPair(bytes((number,)) * 32) for number in (1, 2))
    server = certificates.issue_server_certificate(root, 1, server_key.public)
    ours = certificates.issue_sender_certificate(
        server_key, server, recorded.sender, recorded.identity_key, recorded.expires_ms
    )
    swapped = recorded.signed.replace(recorded.server.encode(), server.encode())
    assert ours.signed == swapped
    assert server.signed == recorded.server.signed.replace(recorded.server.key, server_key.public)
    again = certificates.decode_sender_certificate(ours.encode())
    assert again == ours
    certificates.check_certificate(again, (root.public,), 0)


def test_sender_keys() -> None:
    recorded = STATICS["sender_key"]
    record = group_key()
    assert record.distribution == uuid.UUID(recorded["distribution_id"]).bytes
    for vector in recorded["messages"]:
        record, plaintext = sender_keys.decrypt(record, raw(vector["message"]))
        assert plaintext == raw(vector["plaintext"])
        data = record.encode()
        record = SenderKeys.decode(data)
        assert record.encode() == data


def test_sender_keys_in_any_order() -> None:
    recorded = STATICS["sender_key"]["messages"]
    record = group_key()
    for number in (3, 0, 5, 4, 1, 2):
        message = raw(recorded[number]["message"])
        record, plaintext = sender_keys.decrypt(record, message)
        assert plaintext == raw(recorded[number]["plaintext"])
        with pytest.raises(DuplicateMessage):
            sender_keys.decrypt(record, message)


def test_sealed_v1() -> None:
    """From the sealed bytes to the plaintext of the session inside."""
    recorded = STATICS["sealed_v1"]
    opened = sealed.open_sealed(raw(recorded["received"]), IDENTITY)
    verified = sealed.check(opened, (ROOT,), 0)
    assert (verified.sender, verified.identity_key) == (THEIR_ADDRESS, THEIR_KEY)
    assert verified.content.kind == ContentKind.PREKEY
    store = Store()
    store.signed[recorded["signed_id"]] = X25519KeyPair(raw(recorded["signed_private"]))
    store.kem[recorded["kyber_id"]] = MLKEMKeyPair(1024, raw(recorded["kyber_seed"]))
    local = LocalDevice(IDENTITY, 1234, Address(uuid.UUID(LOCAL["name"]).bytes, LOCAL["device_id"]))
    decrypted = sealed.decrypt(None, local, verified, store, 0, SeededEntropy("sealed"))
    assert decrypted.plaintext == raw(recorded["plaintext"])
    assert decrypted.record.remote == THEIR_ADDRESS


def test_sealed_v2() -> None:
    recorded = STATICS["sealed_v2"]
    (share,) = sealed.split(raw(recorded["sent"]))
    assert share.service_id == uuid.UUID(LOCAL["name"]).bytes
    assert share.devices == ((LOCAL["device_id"], 1234),)
    assert share.body == raw(recorded["received"])
    verified = sealed.check(sealed.open_sealed(share.body, IDENTITY), (ROOT,), 0)
    assert verified.sender == THEIR_ADDRESS
    assert verified.content.kind == ContentKind.SENDER_KEY
    assert verified.content.group_id == raw(recorded["group_id"])
    _, plaintext = sender_keys.decrypt(group_key(), verified.content.body)
    assert plaintext == raw(recorded["sender_key_plaintext"])


@pytest.mark.attack(54)
@pytest.mark.parametrize("version", ["sealed_v1", "sealed_v2"])
def test_every_byte_of_a_recorded_message_counts(version: str) -> None:
    """Every byte of the head, and a sample of the long ciphertext."""
    data = raw(STATICS[version]["received"])
    for place in (*range(100), *range(100, len(data), 17), len(data) - 1):
        changed = bytearray(data)
        changed[place] ^= 1
        with pytest.raises(RemoteError):
            sealed.open_sealed(bytes(changed), IDENTITY)
