"""Stored states of a release, as the library wrote them: ``python -m tests.support.stored`` records them.

A later version must go on from these bytes (``tests/vectors/test_stored.py``). Record once for a release,
into a file of its own; a file of a version that was published is never changed.
"""

from __future__ import annotations

import base64
import json
import tomllib
from collections.abc import Iterator
from typing import Any, Final

from lokket.protocol import sender_keys
from lokket.protocol.pairwise import Ciphertext
from lokket.protocol.pairwise.braid_states import STATES
from tests.house.tree import ROOT
from tests.support.entropy import SeededEntropy
from tests.support.identity import found
from tests.support.pairwise import Device

FOLDER: Final = ROOT / "tests" / "vectors" / "stored"


def current_release() -> str:
    """The first two parts of the version: formats may change between minor versions, and only there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return ".".join(project["version"].split(".")[:2])


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def letter(message: Ciphertext, plaintext: bytes) -> dict[str, Any]:
    return {"kind": int(message.kind), "body": text(message.body), "plaintext": text(plaintext)}


def device(one: Device) -> dict[str, Any]:
    return {
        "identity_seed": text(one.identity.seed),
        "registration_id": one.local.registration_id,
        "service_id": text(one.address.service_id),
        "device": one.address.device,
    }


def aside(sender: Device, receiver: Device, plaintext: bytes) -> dict[str, Any]:
    """A next message, while the sender's stored record stays as it is."""
    before = sender.records[receiver.address]
    message = sender.send(receiver.address, plaintext)
    sender.records[receiver.address] = before
    return letter(message, plaintext)


def moments(alice: Device, bob: Device) -> Iterator[dict[str, Any]]:
    """Both records whenever a state of the Braid is seen for the first time, and a next message each way."""
    seen: set[str] = set()
    for lost in (0, 1):  # loss in one direction brings about the states that order alone never reaches
        alice.begin(bob.bundle())
        bob.receive(alice.address, alice.send(bob.address, b"again"))
        alice.receive(bob.address, bob.send(alice.address, b"answer"))
        for turn in range(300):
            sender, receiver = ((alice, bob), (bob, alice))[turn % 2]
            message = sender.send(receiver.address, b"x")
            if turn % 2 != lost or turn % 6 == lost:
                receiver.receive(sender.address, message)
            states = [_state(alice, bob), _state(bob, alice)]
            if set(states) <= seen:
                continue
            seen |= set(states)
            yield {
                "states": states,
                "alice": text(alice.records[bob.address]),
                "bob": text(bob.records[alice.address]),
                "to_bob": aside(alice, bob, b"to Bob, %d" % turn),
                "to_alice": aside(bob, alice, b"to Alice, %d" % turn),
            }
    assert seen == {kind.__name__ for kind in STATES.values()}


def _state(one: Device, other: Device) -> str:
    record = one.record(other.address)
    assert record is not None
    assert record.current is not None
    return type(record.current.ratchet[1].braid.state).__name__


def prekeys() -> dict[str, Any]:
    """Private prekeys as they are kept, and a first message to each kind of bundle."""
    alice, bob = Device("prekeys alice"), Device("prekeys bob")
    first = []
    for one_time in (True, False):
        bundle = bob.bundle(one_time=one_time)
        alice.records.clear()
        alice.begin(bundle)
        first.append(letter(alice.send(bob.address, b"first"), b"first"))
    store = bob.store
    return {
        "alice": device(alice),
        "bob": device(bob),
        "signed": {number: text(pair.private) for number, pair in store.signed.items()},
        "one_time": {number: text(pair.private) for number, pair in store.one_time.items()},
        "kem": {number: text(pair.seed) for number, pair in store.kem.items()},
        "first": first,
    }


def groups() -> dict[str, Any]:
    """A sender key of ours, and a member's record that lacks a message."""
    own = sender_keys.create(bytes(range(16)), SeededEntropy("stored group"))
    record = sender_keys.process(None, sender_keys.distribution_message(own))
    own, late = sender_keys.encrypt(own, b"late")
    own, message = sender_keys.encrypt(own, b"read")
    record, _ = sender_keys.decrypt(record, message)
    return {"own": text(own.encode()), "record": text(record.encode()), "late": text(late)}


def recorded() -> dict[str, Any]:
    alice, bob = Device("stored alice"), Device("stored bob")
    return {
        "release": current_release(),
        "alice": device(alice),
        "bob": device(bob),
        "now_ms": alice.now_ms,
        "sessions": list(moments(alice, bob)),
        "prekeys": prekeys(),
        "groups": groups(),
        "account": text(found("stored").state.encode()),
    }


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{current_release()}.json"
    path.write_text(json.dumps(recorded(), indent=1) + "\n", encoding="utf-8")
    print(path.relative_to(ROOT), path.stat().st_size)


if __name__ == "__main__":
    main()
