"""Rows 27, 28 and 35: what a thief of a device's state can still do, shown so that the limits stay known.

Each test here succeeds for the thief. What ends it stands in docs/attacks.md, "What a thief can still do".
"""

from __future__ import annotations

import contextlib
import copy
from dataclasses import replace

import pytest

from lokket.crypto.primitives import aes_cbc_encrypt, hkdf_sha256
from lokket.errors import RemoteError
from lokket.protocol import pairwise
from lokket.protocol.pairwise import Ciphertext, MessageKind, Work, double_ratchet, spqr, triple_ratchet
from lokket.protocol.pairwise.messages import encode_signal_message
from tests.support import pairwise as support
from tests.support import protobuf as lenient
from tests.support.entropy import SeededEntropy
from tests.support.pairwise import Device


def copy_of(device: Device, name: str = "thief") -> Device:
    """Everything the device has, in other hands, with randomness of their own."""
    thief = Device(name)
    thief.local = device.local
    thief.store = copy.deepcopy(device.store)
    thief.records = dict(device.records)
    thief.entropy = SeededEntropy(name)
    return thief


def only_identity_of(device: Device) -> Device:
    """The identity key and nothing that belongs to a session or to a prekey."""
    thief = Device("thief")
    thief.local = device.local
    return thief


def seals_alike(one: Device, other: Device, remote: Device) -> bool:
    """Whether two copies of a state would seal a text with the same keys: then each reads the other's."""
    texts = [copy_of(device, "sealing").send(remote.address, b"the same text") for device in (one, other)]
    return lenient.value(texts[0].body[1:-8], 4) == lenient.value(texts[1].body[1:-8], 4)


@pytest.mark.attack(35)
def test_he_reads_what_is_sent_until_one_round_trip_too() -> None:
    """The other direction of test_leaked_state.py: mail from the victim."""
    alice, bob = support.talking(messages=20)
    thief = copy_of(alice)
    assert seals_alike(thief, alice, bob)
    bob.receive(alice.address, alice.send(bob.address, b"still with a stolen key"))
    thief.send(bob.address, b"he keeps step")
    assert seals_alike(thief, alice, bob)
    for _ in range(2):  # the first answer may turn to a key that was drawn before the theft
        answer = bob.send(alice.address, b"answer")
        alice.receive(bob.address, answer)
        with contextlib.suppress(RemoteError):  # the second he does not open any more
            thief.receive(bob.address, answer)
        bob.receive(alice.address, alice.send(bob.address, b"healed"))
    assert not seals_alike(thief, alice, bob)


@pytest.mark.attack(27)
def test_he_writes_as_the_victim_while_the_state_is_fresh() -> None:
    """An active thief is not healed by a round trip: he takes the session over, and the victim falls out."""
    alice, bob = support.talking()
    thief = copy_of(alice)
    assert bob.receive(alice.address, thief.send(bob.address, b"from the thief")) == b"from the thief"
    assert thief.receive(bob.address, bob.send(alice.address, b"to whom?")) == b"to whom?"
    for number in range(3):
        bob.receive(alice.address, thief.send(bob.address, b"%d" % number))
        thief.receive(bob.address, bob.send(alice.address, b"%d" % number))
    with pytest.raises(RemoteError):  # and this the victim's engine notices: it heals, and is shown
        alice.receive(bob.address, bob.send(alice.address, b"no longer for Alice"))
    with pytest.raises(RemoteError):
        bob.receive(alice.address, alice.send(bob.address, b"no longer from Alice"))


@pytest.mark.attack(28)
def test_he_begins_anew_with_the_identity_key_alone() -> None:
    """Healing of the old session does not matter to who can open another: Sesame's hole."""
    alice, bob = support.talking(messages=30)
    thief = only_identity_of(alice)
    thief.begin(bob.bundle())
    assert bob.receive(alice.address, thief.send(bob.address, b"a new session")) == b"a new session"
    assert thief.receive(bob.address, bob.send(alice.address, b"secret")) == b"secret"
    record = bob.record(alice.address)
    assert record is not None
    assert len(record.archived) == 1  # the event that the engine shows, five a day at most
    assert bob.receive(alice.address, alice.send(bob.address, b"she is still heard")) == b"she is still heard"


@pytest.mark.attack(28)
def test_without_the_identity_key_he_begins_nothing() -> None:
    """The other side of it: sessions and prekeys without the identity open no door."""
    alice, bob = support.talking()
    thief = copy_of(alice)
    thief.local = replace(thief.local, identity=Device("thief").identity)
    thief.records = {}
    thief.begin(bob.bundle())
    with pytest.raises(RemoteError) as refused:
        bob.receive(alice.address, thief.send(bob.address, b"it is me"))
    assert refused.value.code == "identity-changed"


@pytest.mark.attack(36)
def test_he_opens_recorded_first_messages_while_their_prekeys_live() -> None:
    """Without a one-time prekey, forward secrecy of a first message begins when the prekey is deleted."""
    bob, alice, carol = Device("bob"), Device("alice"), Device("carol")
    recorded = []
    for sender, one_time in ((alice, False), (carol, True)):
        sender.begin(bob.bundle(one_time=one_time, one_time_kem=one_time))
        recorded.append((sender.address, sender.send(bob.address, b"long ago")))
        bob.receive(*recorded[-1])
    bob.records.clear()
    thief = copy_of(bob)
    assert thief.decrypt(*recorded[0]).plaintext == b"long ago"
    with pytest.raises(RemoteError):
        thief.decrypt(*recorded[1])
    thief.store.signed.clear()  # after PREKEY_PRIVATE_DAYS
    with pytest.raises(RemoteError):
        thief.decrypt(*recorded[0])


def forged_by_recipient(bob: Device, alice: Device, plaintext: bytes) -> Ciphertext:
    """A message "from Alice" that Bob writes himself, with the keys he needs to read hers."""
    record = bob.record(alice.address)
    assert record is not None
    assert record.current is not None
    double, pq = record.current.ratchet
    ratchet_key, _, counter = double_ratchet.CHAIN.unpack_from(double.receiving[-1])
    _, seed = double_ratchet.receive(double, ratchet_key, counter, bob.entropy, Work())
    epoch, _, _, _, index = spqr.LINK.unpack_from(pq.links[-1])
    pq_ratchet = b"\x01" + lenient.varint(epoch + 1) + lenient.varint(index + 1) + b"\x00"
    _, pq_key = spqr.receive(pq, pq_ratchet, Work())
    keys = hkdf_sha256(seed, salt=pq_key, info=b"WhisperMessageKeys", length=80)
    parties = (alice.identity.public, alice.address), (bob.identity.public, bob.address)
    ciphertext = aes_cbc_encrypt(keys[:32], keys[64:], plaintext)
    body = encode_signal_message(ratchet_key, (counter, 0), ciphertext, pq_ratchet, None)
    return Ciphertext(MessageKind.WHISPER, body + triple_ratchet._mac(keys[32:64], parties, body))


def test_deniability_a_recipient_can_write_what_a_sender_could() -> None:
    """Nothing that Bob holds proves to a judge what Alice wrote: he could have made it, and it opens."""
    alice, bob = support.talking()
    bob.receive(alice.address, alice.send(bob.address, b"hers"))
    assert bob.receive(alice.address, forged_by_recipient(bob, alice, b"never hers")) == b"never hers"


def test_the_limit_of_deniability_a_bundle_is_signed() -> None:
    """Prekeys carry signatures: that a device was there, and which keys it offered, can be proven."""
    bob = Device("bob")
    bundle = bob.bundle()
    pairwise.verify_xeddsa(bundle.identity_key, bundle.signed_prekey_signature, bundle.signed_prekey)


def test_the_limit_of_identity_a_key_says_nothing_of_a_person() -> None:
    """Whoever hands out the first bundle is the one talked to; only comparing safety numbers tells."""
    alice, mallory = Device("alice"), Device("mallory")
    bob = Device("bob")
    mallory.local = replace(mallory.local, address=bob.address)
    alice.begin(mallory.bundle())
    assert mallory.receive(alice.address, alice.send(bob.address, b"for Bob")) == b"for Bob"
    with pytest.raises(RemoteError) as refused:  # but once a key is known, another is refused
        alice.begin(bob.bundle())
    assert refused.value.code == "identity-changed"
