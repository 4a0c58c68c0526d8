"""Two lokket devices under random schedules: every message once, refusals without a trace, one key history.

Both restart from their stored bytes at every step (``tests.support.pairwise.Device``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lokket.crypto.mlkem import encapsulate_with
from lokket.errors import RemoteError
from lokket.protocol.pairwise import Address, Ciphertext, triple_ratchet
from tests.support.conversation import Conversation, Party, whisper
from tests.support.entropy import SeededEntropy
from tests.support.pairwise import Device
from tests.support.schedules import Schedule, run_schedules


class Replayable(SeededEntropy):
    """Encapsulates with what it draws, so that a schedule that fails fails again."""

    def encapsulate(self, public_key: bytes) -> tuple[bytes, bytes]:
        return encapsulate_with(public_key, self.draw(32))


class Watched(Device):
    """Notes which message seed and post-quantum key each message was sealed and opened with."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.entropy = Replayable(name)
        self.history: dict[bytes, tuple[bytes, bytes]] = {}

    def send(self, remote: Address, plaintext: bytes) -> Ciphertext:
        with derived() as keys:
            message = super().send(remote, plaintext)
        self.history[whisper(message)[-8:]] = keys[-1]
        return message

    def receive(self, remote: Address, ciphertext: Ciphertext) -> bytes:
        with derived() as keys:
            plaintext = super().receive(remote, ciphertext)
        self.history[whisper(ciphertext)[-8:]] = keys[-1]  # the one that opened it comes last
        return plaintext


@contextmanager
def derived() -> Iterator[list[tuple[bytes, bytes]]]:
    """(Double Ratchet seed, post-quantum key) of every message key derived meanwhile."""
    found: list[tuple[bytes, bytes]] = []
    honest = triple_ratchet.hkdf_sha256_triple

    def watch(seed: bytes, salt: bytes, info: bytes) -> tuple[bytes, bytes, bytes]:
        found.append((seed, salt))
        return honest(seed, salt, info)

    triple_ratchet.hkdf_sha256_triple = watch  # type: ignore[assignment,attr-defined]
    try:
        yield found
    finally:
        triple_ratchet.hkdf_sha256_triple = honest  # type: ignore[attr-defined]


def snapshot(party: Party, remote: Address) -> object:
    assert isinstance(party, Device)
    store = party.store
    return party.records.get(remote), set(store.one_time), set(store.kem), set(store.signed)


class TwoOfUs(Schedule):
    def settled(self) -> None:
        """One session with one handshake on both sides, and one key history."""
        alice, bob = self.conversation.parties
        assert isinstance(alice, Watched)
        assert isinstance(bob, Watched)
        ours, theirs = alice.record(bob.address), bob.record(alice.address)
        assert ours is not None
        assert theirs is not None
        assert ours.handshake == theirs.handshake
        for letter in list(self.conversation.opened.values())[-100:]:
            tag = whisper(letter.message)[-8:]
            assert alice.history[tag] == bob.history[tag], "two histories of one key"
        for device in (alice, bob):
            seeds, keys = zip(*device.history.values(), strict=True)
            assert len(set(seeds)) == len(set(keys)) == len(device.history), "a key was used twice"


@pytest.mark.timeout(0)
@pytest.mark.attack(23, 24, 25)
def test_two_of_us_under_random_schedules() -> None:
    def make() -> Conversation:
        return Conversation((Watched("alice"), Watched("bob")), refusals=(RemoteError,), snapshot=snapshot)

    run_schedules(TwoOfUs, make)
