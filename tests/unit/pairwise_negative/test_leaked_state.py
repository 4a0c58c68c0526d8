"""Rows 35 and 36: what a thief of a whole session state reads afterwards, and before."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from lokket.errors import DecryptionFailed, DuplicateMessage, RemoteError
from lokket.protocol import pairwise
from lokket.protocol.pairwise import Ciphertext, SessionRecord, double_ratchet, spqr, triple_ratchet
from lokket.protocol.pairwise.record import Session
from tests.support import pairwise as support
from tests.support.entropy import SeededEntropy
from tests.support.pairwise import Device


@dataclass
class Thief:
    """Holds a copy of ``victim``'s record and follows the mail to it, with randomness of his own."""

    victim: Device
    peer: Device
    stored: bytes

    def reads(self, message: Ciphertext) -> bool:
        """Whether the copy opens a message; it moves on when it does."""
        try:
            decrypted = pairwise.decrypt(
                SessionRecord.decode(self.stored),
                self.victim.local,
                self.peer.address,
                message,
                self.victim.store,
                self.victim.now_ms,
                SeededEntropy(f"thief {hashlib.sha256(message.body).hexdigest()}"),
            )
        except RemoteError:
            return False
        self.stored = decrypted.record.encode()
        return True

    def breaks_diffie_hellman(self) -> None:
        """Take the Double Ratchet that the victim has now; the post-quantum half stays what was stolen."""
        now, stolen = self.victim.record(self.peer.address), SessionRecord.decode(self.stored)
        assert now is not None
        assert now.current is not None
        assert stolen.current is not None
        ratchet = now.current.ratchet[0], stolen.current.ratchet[1]
        spliced = Session(now.current.facts, now.current.kem_ciphertext, ratchet)
        self.stored = now.with_current(spliced).encode()


either_role = pytest.mark.parametrize("role", ["initiator", "responder"])


def robbed(role: str) -> tuple[Device, Device, Thief]:
    """The peer, the victim, and who copied the victim's record in the middle of an epoch."""
    initiator, responder = support.talking(messages=20)
    victim, peer = (initiator, responder) if role == "initiator" else (responder, initiator)
    return peer, victim, Thief(victim, peer, victim.records[peer.address])


@pytest.mark.attack(35)
@either_role
def test_a_passive_thief_is_out_after_one_round_trip(role: str) -> None:
    peer, victim, thief = robbed(role)
    for _ in range(3):  # nothing has healed yet: the copy is as good as the original
        message = peer.send(victim.address, b"before")
        assert thief.reads(message)
        victim.receive(peer.address, message)
    peer.receive(victim.address, victim.send(peer.address, b"may carry a key drawn before the theft"))
    message = peer.send(victim.address, b"the last that may be read")
    thief.reads(message)
    victim.receive(peer.address, message)
    peer.receive(victim.address, victim.send(peer.address, b"carries a key that the thief cannot know"))
    for number in range(5):
        message = peer.send(victim.address, b"after %d" % number)
        assert not thief.reads(message)
        assert victim.receive(peer.address, message)
        peer.receive(victim.address, victim.send(peer.address, b"and on"))


@pytest.mark.attack(35)
@either_role
def test_a_thief_who_breaks_diffie_hellman_is_out_after_a_post_quantum_epoch(role: str) -> None:
    """Every X25519 secret is his, for ever; only ML-KEM heals."""
    peer, victim, thief = robbed(role)
    read = []
    for _ in range(200):
        message = peer.send(victim.address, b"in")
        thief.breaks_diffie_hellman()
        read.append(thief.reads(message))
        victim.receive(peer.address, message)
        peer.receive(victim.address, victim.send(peer.address, b"out"))
    assert read[0]
    healed = read.index(False)
    print(f"{role}: the thief read {healed} messages more")
    assert healed <= 2 * 88  # the epoch under way when the state was stolen, and a whole one
    assert not any(read[healed:])


@pytest.mark.attack(36)
def test_a_thief_reads_nothing_that_was_delivered() -> None:
    alice, bob = support.talking()
    delivered = []
    for _ in range(6):
        messages = [alice.send(bob.address, b"%d" % number) for number in range(3)]
        for message in reversed(messages):
            bob.receive(alice.address, message)
        delivered += messages
        alice.receive(bob.address, bob.send(alice.address, b"answer"))
    thief = Thief(bob, alice, bob.records[alice.address])
    for message in delivered:
        with pytest.raises((DuplicateMessage, DecryptionFailed)):
            bob.decrypt(alice.address, message)
        assert not thief.reads(message)


@pytest.mark.attack(36)
def test_no_used_key_stays_in_the_stored_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every seed, post-quantum key, message key and left chain key is a canary: none is found afterwards."""
    canaries: set[bytes] = set()
    watched: list[tuple[object, str, Callable[..., tuple[bytes, ...]]]] = [
        (double_ratchet, "_chain_step", double_ratchet._chain_step),
        (spqr, "_chain_step", spqr._chain_step),
        (triple_ratchet, "hkdf_sha256_triple", triple_ratchet.hkdf_sha256_triple),
    ]
    alice, bob = support.talking()
    for module, name, honest in watched:

        def watch(*values: Any, honest: Callable[..., tuple[bytes, ...]] = honest) -> tuple[bytes, ...]:
            result = honest(*values)
            # of a chain step, the old chain key and the message's key are over
            canaries.update(result[1:] if len(result) == 2 else result, values[:1])
            return result

        monkeypatch.setattr(module, name, watch)
    for _ in range(30):
        for message in [alice.send(bob.address, b"%d" % number) for number in range(3)][::-1]:
            bob.receive(alice.address, message)
        alice.receive(bob.address, bob.send(alice.address, b"answer"))
    assert len(canaries) > 500
    for record in (bob.records[alice.address], alice.records[bob.address]):
        assert not [canary for canary in canaries if canary in record]


@pytest.mark.attack(36)
def test_a_consumed_one_time_prekey_is_needed_no_more() -> None:
    """The private half appears in no record, so deleting it from the store deletes it."""
    alice, bob = support.pair()
    (one_time,) = bob.store.one_time.values()
    bob.receive(alice.address, alice.send(bob.address, b"first"))
    assert not bob.store.one_time
    assert one_time.private not in bob.records[alice.address]
    alice.receive(bob.address, bob.send(alice.address, b"answer"))
    assert bob.receive(alice.address, alice.send(bob.address, b"goes on")) == b"goes on"
