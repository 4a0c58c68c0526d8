"""What an earlier release stored is read, and goes on; what a later one stores is refused with a sentence.

``stored/N.json`` are states as release N wrote them (``tests/support/stored.py``): sessions in every state of
the Braid, with keys of late messages and archived sessions, private prekeys, sender keys, an account.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from lokket.crypto.keys import MLKEMKeyPair, X25519KeyPair
from lokket.errors import DecodeError
from lokket.protocol import pairwise, sender_keys
from lokket.protocol.identity import AccountState
from lokket.protocol.pairwise import (
    Address,
    Ciphertext,
    IdentityKeyPair,
    LocalDevice,
    MessageKind,
    SessionRecord,
)
from lokket.protocol.pairwise.braid_states import STATES
from lokket.protocol.pairwise.record import RECORD_VERSION
from lokket.protocol.sender_keys import OwnSenderKey, SenderKeys
from tests.support.pairwise import Device
from tests.support.stored import FOLDER, current_release

RELEASES = sorted(path.stem for path in FOLDER.glob("*.json"))
RECORDED = {release: json.loads((FOLDER / f"{release}.json").read_text()) for release in RELEASES}
each_release = pytest.mark.parametrize("release", RELEASES)


def raw(text: str) -> bytes:
    return base64.b64decode(text)


def restored(recorded: dict[str, Any], name: str) -> Device:
    """A device that begins with what is stored of it."""
    device = Device(name)
    device.local = LocalDevice(
        IdentityKeyPair(raw(recorded["identity_seed"])),
        recorded["registration_id"],
        Address(raw(recorded["service_id"]), recorded["device"]),
    )
    return device


def receive(device: Device, remote: Address, letter: dict[str, Any]) -> None:
    message = Ciphertext(MessageKind(letter["kind"]), raw(letter["body"]))
    assert device.receive(remote, message) == raw(letter["plaintext"])


def sessions(release: str) -> list[tuple[str, Device, Device, dict[str, Any]]]:
    recorded, out = RECORDED[release], []
    for moment in recorded["sessions"]:
        alice, bob = restored(recorded["alice"], "alice"), restored(recorded["bob"], "bob")
        alice.records[bob.address], bob.records[alice.address] = raw(moment["alice"]), raw(moment["bob"])
        out.append(("/".join(moment["states"]), alice, bob, moment))
    return out


def test_this_release_recorded_its_states() -> None:
    """Made anew by ``python -m tests.support.stored`` as long as the version was not published."""
    assert current_release() in RELEASES
    states = {state for moment in RECORDED[current_release()]["sessions"] for state in moment["states"]}
    assert states == {kind.__name__ for kind in STATES.values()}


@each_release
def test_sessions_go_on(release: str) -> None:
    """Both talk on from what is stored, the last of them through another epoch."""
    all_of_them = sessions(release)
    for place, (name, alice, bob, _) in enumerate(all_of_them):
        for number in range(100 if place == len(all_of_them) - 1 else 3):
            for sender, receiver in ((bob, alice), (alice, bob)):
                plaintext = b"%d in %s" % (number, name.encode())
                assert receiver.receive(sender.address, sender.send(receiver.address, plaintext)) == plaintext


@each_release
def test_what_was_on_its_way_opens(release: str) -> None:
    for _, alice, bob, moment in sessions(release):
        receive(alice, bob.address, moment["to_alice"])
        receive(bob, alice.address, moment["to_bob"])


@each_release
def test_stored_bytes_are_written_as_they_were_read(release: str) -> None:
    """While the format's version is the same. A later version writes another, and still reads this one."""
    for _, alice, bob, _ in sessions(release):
        for data in (alice.records[bob.address], bob.records[alice.address]):
            record = SessionRecord.decode(data)
            if data[0] == RECORD_VERSION:
                assert record.encode() == data
            assert record.current is not None


@each_release
def test_prekeys_serve_first_messages(release: str) -> None:
    recorded = RECORDED[release]["prekeys"]
    alice, bob = restored(recorded["alice"], "alice"), restored(recorded["bob"], "bob")
    store = bob.store
    store.signed = {int(number): X25519KeyPair(raw(key)) for number, key in recorded["signed"].items()}
    store.one_time = {int(number): X25519KeyPair(raw(key)) for number, key in recorded["one_time"].items()}
    store.kem = {int(number): MLKEMKeyPair(1024, raw(seed)) for number, seed in recorded["kem"].items()}
    for letter in recorded["first"]:
        bob.records.clear()
        receive(bob, alice.address, letter)


@each_release
def test_sender_keys_go_on(release: str) -> None:
    recorded = RECORDED[release]["groups"]
    own, record = OwnSenderKey.decode(raw(recorded["own"])), SenderKeys.decode(raw(recorded["record"]))
    record, plaintext = sender_keys.decrypt(record, raw(recorded["late"]))
    assert plaintext == b"late"
    own, message = sender_keys.encrypt(own, b"next")
    assert sender_keys.decrypt(record, message)[1] == b"next"


@each_release
def test_accounts_are_read(release: str) -> None:
    data = raw(RECORDED[release]["account"])
    state = AccountState.decode(data)
    assert state.encode() == data
    assert len(state.listed) == 1


def kinds() -> list[tuple[Callable[[bytes], object], bytes]]:
    recorded = RECORDED[current_release()]
    groups = recorded["groups"]
    return [
        (SessionRecord.decode, raw(recorded["sessions"][0]["alice"])),
        (OwnSenderKey.decode, raw(groups["own"])),
        (SenderKeys.decode, raw(groups["record"])),
    ]


@pytest.mark.parametrize("number", range(3), ids=["session", "own sender key", "sender keys"])
@pytest.mark.parametrize("version", [0, 2, 3, 127, 255])
def test_another_version_is_refused_with_a_sentence(number: int, version: int) -> None:
    decode, data = kinds()[number]
    decode(data)
    with pytest.raises(DecodeError, match="unknown version"):
        decode(bytes((version,)) + data[1:])
    with pytest.raises(DecodeError):
        decode(b"")


def test_an_account_of_another_format_is_refused() -> None:
    data = raw(RECORDED[current_release()]["account"])
    for version in (b"\x00\x00", b"\x00\x02", b"\xff\xff"):
        assert data[:2] not in (b"\x00\x00", b"\xff\xff")
        if data[:2] == version:
            continue
        with pytest.raises(DecodeError):
            AccountState.decode(version + data[2:])


def test_a_refused_record_stops_no_other() -> None:
    """The state that a newer library wrote is an error of its own, before any key is touched."""
    alice = Device("alice")
    data = bytes((RECORD_VERSION + 1,)) + kinds()[0][1][1:]
    with pytest.raises(DecodeError):
        pairwise.SessionRecord.decode(data)
    bob = Device("bob")
    alice.begin(bob.bundle())
    assert bob.receive(alice.address, alice.send(bob.address, b"still")) == b"still"
