"""A device for tests of pairwise sessions: identity, prekeys, and one stored record per remote device.

Records are kept as bytes and decoded for every step, so each step is also a restart from stored state.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from lokket.crypto.keys import MLKEMKeyPair, X25519KeyPair
from lokket.protocol import pairwise
from lokket.protocol.pairwise import (
    Address,
    Ciphertext,
    Decrypted,
    IdentityKeyPair,
    LocalDevice,
    PreKeyBundle,
)
from tests.support.entropy import SeededEntropy

START_MS = 1_800_000_000_000


class Store:
    """Our prekeys by id."""

    def __init__(self) -> None:
        self.signed: dict[int, X25519KeyPair] = {}
        self.one_time: dict[int, X25519KeyPair] = {}
        self.kem: dict[int, MLKEMKeyPair] = {}
        self.one_time_kem: set[int] = set()

    def signed_prekey(self, prekey_id: int) -> X25519KeyPair | None:
        return self.signed.get(prekey_id)

    def one_time_prekey(self, prekey_id: int) -> X25519KeyPair | None:
        return self.one_time.get(prekey_id)

    def kem_prekey(self, prekey_id: int) -> MLKEMKeyPair | None:
        return self.kem.get(prekey_id)


class Device:
    """One device. ``send`` and ``receive`` advance the stored record; a failure leaves it as it was."""

    def __init__(self, name: str, number: int = 1, *, require_addresses: bool = True) -> None:
        self.entropy = SeededEntropy(f"{name}.{number}")
        self.local = LocalDevice(
            IdentityKeyPair(self.entropy.draw(32)),
            int.from_bytes(self.entropy.draw(2), "big") & 0x3FFF,
            Address(hashlib.sha256(name.encode()).digest()[:16], number),
            require_addresses,
        )
        self.store = Store()
        self.records: dict[Address, bytes] = {}
        self.now_ms = START_MS
        self._next_id = 1

    @property
    def address(self) -> Address:
        return self.local.address

    @property
    def identity(self) -> IdentityKeyPair:
        return self.local.identity

    def bundle(self, *, one_time: bool = True, one_time_kem: bool = False) -> PreKeyBundle:
        """A new bundle; its private halves go into the store."""
        signed_id, kem_id, one_time_id = (self._new_id() for _ in range(3))
        signed = self.store.signed[signed_id] = X25519KeyPair(self.entropy.draw(32))
        kem = self.store.kem[kem_id] = MLKEMKeyPair(1024, self.entropy.draw(64))
        if one_time_kem:
            self.store.one_time_kem.add(kem_id)
        made = PreKeyBundle(
            registration_id=self.local.registration_id,
            address=self.address,
            identity_key=self.identity.public,
            signed_prekey_id=signed_id,
            signed_prekey=b"\x05" + signed.public,
            signed_prekey_signature=self.identity.sign(b"\x05" + signed.public),
            kem_prekey_id=kem_id,
            kem_prekey=b"\x08" + kem.public,
            kem_prekey_signature=self.identity.sign(b"\x08" + kem.public),
            one_time_prekey_id=None,
            one_time_prekey=None,
        )
        if not one_time:
            return made
        pair = self.store.one_time[one_time_id] = X25519KeyPair(self.entropy.draw(32))
        return replace(made, one_time_prekey_id=one_time_id, one_time_prekey=b"\x05" + pair.public)

    def record(self, remote: Address) -> pairwise.SessionRecord | None:
        stored = self.records.get(remote)
        return None if stored is None else pairwise.SessionRecord.decode(stored)

    def begin(self, bundle: PreKeyBundle) -> None:
        record = pairwise.begin(self.record(bundle.address), self.local, bundle, self.now_ms, self.entropy)
        self.records[bundle.address] = record.encode()

    def send(self, remote: Address, plaintext: bytes) -> Ciphertext:
        record = self.record(remote)
        assert record is not None
        record, ciphertext = pairwise.encrypt(record, self.local, plaintext, self.now_ms, self.entropy)
        self.records[remote] = record.encode()
        return ciphertext

    def decrypt(self, remote: Address, ciphertext: Ciphertext) -> Decrypted:
        """One decrypt that is not stored."""
        return pairwise.decrypt(
            self.record(remote), self.local, remote, ciphertext, self.store, self.now_ms, self.entropy
        )

    def receive(self, remote: Address, ciphertext: Ciphertext) -> bytes:
        decrypted = self.decrypt(remote, ciphertext)
        self.records[remote] = decrypted.record.encode()
        self.spend(decrypted)
        return decrypted.plaintext

    def spend(self, decrypted: Decrypted) -> None:
        """Delete the one-time prekeys that a decrypt used."""
        used = decrypted.used
        if used.one_time_prekey_id is not None:
            del self.store.one_time[used.one_time_prekey_id]
        if used.kem_prekey_id in self.store.one_time_kem:
            del self.store.kem[used.kem_prekey_id]

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id


def pair(*, one_time: bool = True) -> tuple[Device, Device]:
    """Alice, who has begun a session with Bob's bundle, and Bob, who has heard nothing yet."""
    alice, bob = Device("alice"), Device("bob")
    alice.begin(bob.bundle(one_time=one_time))
    return alice, bob


def talking(*, messages: int = 2) -> tuple[Device, Device]:
    """Alice and Bob after ``messages`` in each direction: acknowledged, both ratchets moving."""
    alice, bob = pair()
    for number in range(messages):
        assert bob.receive(alice.address, alice.send(bob.address, b"ping %d" % number))
        assert alice.receive(bob.address, bob.send(alice.address, b"pong %d" % number))
    return alice, bob
