"""Recorded sessions and values of libsignal-client 0.103.0 replay byte for byte, randomness included."""

from __future__ import annotations

import base64
import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from lokket.crypto.keys import MLKEMKeyPair, X25519KeyPair
from lokket.errors import SignatureRefused
from lokket.protocol import fingerprint
from lokket.protocol.pairwise import (
    Address,
    Ciphertext,
    IdentityKeyPair,
    LocalDevice,
    MessageKind,
    PreKeyBundle,
    SessionRecord,
    begin,
    check_identity_key,
    decrypt,
    encrypt,
    verify_xeddsa,
)

FOLDER = Path(__file__).parent / "libsignal"
SESSIONS = json.loads((FOLDER / "sessions.json").read_text())["sessions"]
STATICS = json.loads((FOLDER / "statics.json").read_text())
SIZES = {"x25519": 32, "mlkem768_seed": 64, "mlkem768_m": 32}
SEALED = {"sender_key", "certificate", "sealed_v1", "sealed_v2"}  # test_libsignal_sealed.py


def raw(text: str) -> bytes:
    return base64.b64decode(text)


class Recorded:
    """Entropy that gives the recorded draws, in order, each of its kind."""

    def __init__(self) -> None:
        self.draws: list[list[str]] = []

    def next(self, *kinds: str) -> bytes:
        kind, data = self.draws.pop(0)
        assert kind in kinds
        return raw(data)

    def draw(self, size: int) -> bytes:
        return self.next(*(kind for kind, bytes_ in SIZES.items() if bytes_ == size))

    def encapsulate(self, public_key: bytes) -> tuple[bytes, bytes]:
        assert len(public_key) == 1568
        data = self.next("mlkem1024_encaps")
        return data[:32], data[32:]

    def sign_mldsa(self, key: object, message: bytes, context: bytes) -> bytes:
        raise AssertionError("no ML-DSA in a pairwise session")


class Prekeys:
    def __init__(self, recorded: dict[str, Any]) -> None:
        self.recorded = recorded

    def signed_prekey(self, prekey_id: int) -> X25519KeyPair | None:
        return X25519KeyPair(self.secret("signed")) if prekey_id == self.recorded["signed_id"] else None

    def one_time_prekey(self, prekey_id: int) -> X25519KeyPair | None:
        return X25519KeyPair(self.secret("one_time")) if prekey_id == self.recorded["one_time_id"] else None

    def kem_prekey(self, prekey_id: int) -> MLKEMKeyPair | None:
        assert prekey_id == self.recorded["kyber_id"]
        return MLKEMKeyPair(1024, raw(self.recorded["kyber_seed"]))

    def secret(self, name: str) -> bytes:
        return raw(self.recorded[f"{name}_private"])


def address(recorded: dict[str, Any]) -> Address:
    return Address(uuid.UUID(recorded["name"]).bytes, recorded["device_id"])


def bundle_of(session: dict[str, Any]) -> PreKeyBundle:
    recorded = session["bundle"]
    return PreKeyBundle(
        recorded["registration_id"],
        address(session["remote"]),
        raw(recorded["identity_key"]),
        recorded["signed_prekey_id"],
        raw(recorded["signed_prekey"]),
        raw(recorded["signed_prekey_signature"]),
        recorded["kyber_prekey_id"],
        raw(recorded["kyber_prekey"]),
        raw(recorded["kyber_prekey_signature"]),
        recorded["prekey_id"],
        raw(recorded["prekey"]),
    )


class Replay:
    """Our side of one recorded session."""

    def __init__(self, session: dict[str, Any], *, stored: bool) -> None:
        recorded = session["local"]
        identity = IdentityKeyPair(raw(recorded["identity_ed25519_seed"]))
        assert identity.public == raw(recorded["identity_key"])
        self.local = LocalDevice(identity, recorded.get("registration_id", 1), address(recorded))
        self.remote = address(session["remote"])
        self.prekeys = Prekeys(session.get("prekeys", {}))
        self.entropy = Recorded()
        self.record: SessionRecord | None = None
        self.stored = stored
        if "bundle" in session:
            self.entropy.draws = list(session["start_draws"])
            self.record = begin(None, self.local, bundle_of(session), 0, self.entropy)
            assert not self.entropy.draws

    def step(self, event: dict[str, Any]) -> None:
        if self.stored and self.record is not None:
            data = self.record.encode()
            self.record = SessionRecord.decode(data)
            assert self.record.encode() == data
        self.entropy.draws = list(event["draws"])
        if event["op"] == "send":
            assert self.record is not None
            self.record, sent = encrypt(self.record, self.local, raw(event["plaintext"]), 0, self.entropy)
            assert (sent.kind, sent.body) == (event["type"], raw(event["message"]))
        else:
            message = Ciphertext(MessageKind(event["type"]), raw(event["message"]))
            opened = decrypt(self.record, self.local, self.remote, message, self.prekeys, 0, self.entropy)
            assert opened.plaintext == raw(event["plaintext"])
            self.record = opened.record
        assert not self.entropy.draws


@pytest.mark.parametrize("stored", [False, True], ids=["in memory", "stored after every event"])
@pytest.mark.parametrize("number", range(len(SESSIONS)))
def test_session_replays(number: int, stored: bool) -> None:
    session = SESSIONS[number]
    replay = Replay(session, stored=stored)
    for event in session["events"]:
        replay.step(event)


def test_every_event_is_there() -> None:
    assert [len(session["events"]) for session in SESSIONS] == [380, 811, 218]


@pytest.mark.parametrize("vector", STATICS["xeddsa"], ids=range(len(STATICS["xeddsa"])))
def test_xeddsa(vector: dict[str, str]) -> None:
    public, message, signature = (raw(vector[name]) for name in ("public", "message", "signature"))
    check_identity_key(public)
    verify_xeddsa(public, signature, message)
    for place in (0, 31, 32, 63):
        changed = signature[:place] + bytes((signature[place] ^ 1,)) + signature[place + 1 :]
        with pytest.raises(SignatureRefused):
            verify_xeddsa(public, changed, message)
    with pytest.raises(SignatureRefused):
        verify_xeddsa(public, signature, message + b"\x00")


@pytest.mark.parametrize("vector", STATICS["fingerprints"], ids=lambda vector: f"version {vector['version']}")
def test_fingerprint(vector: dict[str, Any]) -> None:
    keys = {"local": raw(STATICS["local"]["identity_key"]), "remote": raw(STATICS["remote"]["identity_key"])}
    if "local_key" in vector:
        keys = {side: raw(vector[f"{side}_key"]) for side in keys}
    sides = (raw(vector["local_id"]), keys["local"], raw(vector["remote_id"]), keys["remote"])
    version, iterations = vector["version"], vector["iterations"]
    assert fingerprint.displayable(version, *sides, iterations) == vector["display"]
    own = fingerprint.scannable(version, *sides, iterations)
    assert own == raw(vector["scannable"])
    their = fingerprint.scannable(version, *sides[2:], *sides[:2], iterations)
    assert fingerprint.compare_scannable(own, their)
    assert not fingerprint.compare_scannable(own, own)


def test_nothing_of_the_recording_is_forgotten() -> None:
    assert set(STATICS) - SEALED == {"note", "local", "remote", "xeddsa", "fingerprints"}
