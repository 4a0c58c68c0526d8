"""lokket's pairwise sessions on the workloads of bench/README.md. Every check is on.

A party keeps the record of its peer as a value and its prekeys as loaded keys, as the other drivers do; in
the ``_persist`` workloads as the bytes that the engine keeps in the vault.
"""

from __future__ import annotations

import os
from time import perf_counter_ns
from typing import Any

from bench.harness import CHAIN, MEMBERS, SETUPS, Workloads, emit
from bench.pairwise.braid import braid_of
from lokket.crypto.keys import MLKEMKeyPair, X25519KeyPair
from lokket.protocol import pairwise
from lokket.protocol.pairwise import (
    Address,
    Ciphertext,
    IdentityKeyPair,
    LocalDevice,
    PreKeyBundle,
    SessionRecord,
)
from lokket.system import SystemEntropy, now_ms

TEXT = os.urandom(100)
ENTROPY = SystemEntropy()


class Party:
    """One device and its one peer."""

    def __init__(self) -> None:
        self.local = LocalDevice(IdentityKeyPair(os.urandom(32)), 7, Address(os.urandom(16), 1))
        self.x25519: dict[int, bytes] = {}
        self.kem: dict[int, bytes] = {}
        self.live: dict[int, X25519KeyPair | MLKEMKeyPair] = {}
        self.record: SessionRecord | None = None

    def signed_prekey(self, prekey_id: int) -> X25519KeyPair:
        return self.live.get(prekey_id) or X25519KeyPair(self.x25519[prekey_id])

    one_time_prekey = signed_prekey

    def kem_prekey(self, prekey_id: int) -> MLKEMKeyPair:
        return self.live.get(prekey_id) or MLKEMKeyPair(1024, self.kem[prekey_id])

    def bundle(self) -> dict[str, Any]:
        """All keys fresh, as the bytes that a relay hands out: signed prekey 1, one-time 2, KEM 3."""
        identity = self.local.identity
        signed, one_time = X25519KeyPair(os.urandom(32)), X25519KeyPair(os.urandom(32))
        kem = MLKEMKeyPair(1024, os.urandom(64))
        self.x25519 |= {1: signed.private, 2: one_time.private}
        self.kem[3] = kem.seed
        signed_public, kem_public = b"\x05" + signed.public, b"\x08" + kem.public
        return {
            "registration_id": self.local.registration_id,
            "address": self.local.address,
            "identity_key": identity.public,
            "signed_prekey_id": 1,
            "signed_prekey": signed_public,
            "signed_prekey_signature": identity.sign(signed_public),
            "kem_prekey_id": 3,
            "kem_prekey": kem_public,
            "kem_prekey_signature": identity.sign(kem_public),
            "one_time_prekey_id": 2,
            "one_time_prekey": b"\x05" + one_time.public,
        }

    def load_prekeys(self) -> None:
        """Private halves as loaded keys, which is how the other drivers hold theirs."""
        signed, one_time = X25519KeyPair(self.x25519[1]), X25519KeyPair(self.x25519[2])
        kem = MLKEMKeyPair(1024, self.kem[3])
        assert all(key.public for key in (signed, one_time, kem))
        self.live = {1: signed, 2: one_time, 3: kem}

    def begin(self, fetched: dict[str, Any]) -> None:
        bundle = PreKeyBundle(**fetched)
        self.record = pairwise.begin(self.record, self.local, bundle, now_ms(), ENTROPY)

    def encrypt(self) -> Ciphertext:
        self.record, ciphertext = pairwise.encrypt(self.record, self.local, TEXT, now_ms(), ENTROPY)
        return ciphertext

    def decrypt(self, remote: Address, ciphertext: Ciphertext) -> bytes:
        made = pairwise.decrypt(self.record, self.local, remote, ciphertext, self, now_ms(), ENTROPY)
        self.record = made.record
        return made.plaintext


def pair() -> tuple[Party, Party]:
    """Two parties after one message each way: the Braid is at the header of the first key."""
    first, second = Party(), Party()
    first.begin(second.bundle())
    for _ in range(2):
        assert second.decrypt(first.local.address, first.encrypt()) == TEXT
        first, second = second, first
    return first, second


def oneway(timed: Workloads, count: int) -> None:
    sender, receiver = pair()
    address = sender.local.address
    with timed("oneway_encrypt", count):
        sent = [sender.encrypt() for _ in range(count)]
    with timed("oneway_decrypt", count):
        for ciphertext in sent:
            receiver.decrypt(address, ciphertext)
    timed.facts["wire_bytes_oneway"] = len(sent[-1].body)
    timed.facts["braid_oneway"] = braid_of(sent[-1].body)
    with timed("oneway_encrypt_saveonly", count):
        for _ in range(count):
            sender.encrypt()
            sender.record.encode()


def oneway_persist(timed: Workloads, count: int) -> None:
    sender, receiver = pair()
    address = sender.local.address
    stored, sent = sender.record.encode(), []
    with timed("oneway_encrypt_persist", count):
        for _ in range(count):
            record = SessionRecord.decode(stored)
            record, ciphertext = pairwise.encrypt(record, sender.local, TEXT, now_ms(), ENTROPY)
            sent.append(ciphertext)
            stored = record.encode()
    stored, local = receiver.record.encode(), receiver.local
    with timed("oneway_decrypt_persist", count):
        for ciphertext in sent:
            record = SessionRecord.decode(stored)
            made = pairwise.decrypt(record, local, address, ciphertext, receiver, now_ms(), ENTROPY)
            stored = made.record.encode()


def pingpong(timed: Workloads, count: int) -> None:
    sender, receiver = pair()
    for _ in range(100):
        receiver.decrypt(sender.local.address, sender.encrypt())
        sender, receiver = receiver, sender
    encrypting = decrypting = 0
    begun = perf_counter_ns()
    for _ in range(count):
        start = perf_counter_ns()
        ciphertext = sender.encrypt()
        middle = perf_counter_ns()
        receiver.decrypt(sender.local.address, ciphertext)
        decrypting += perf_counter_ns() - middle
        encrypting += middle - start
        sender, receiver = receiver, sender
    timed.add("pingpong_message", perf_counter_ns() - begun, count)
    timed.add("pingpong_encrypt", encrypting, count)
    timed.add("pingpong_decrypt", decrypting, count)
    timed.facts["braid_pingpong"] = braid_of(ciphertext.body)


def pingpong_persist(timed: Workloads, count: int) -> None:
    sender, receiver = pair()
    for _ in range(100):
        receiver.decrypt(sender.local.address, sender.encrypt())
        sender, receiver = receiver, sender
    stored = {sender: sender.record.encode(), receiver: receiver.record.encode()}
    with timed("pingpong_message_persist", count):
        for _ in range(count):
            record = SessionRecord.decode(stored[sender])
            record, ciphertext = pairwise.encrypt(record, sender.local, TEXT, now_ms(), ENTROPY)
            stored[sender] = record.encode()
            record = SessionRecord.decode(stored[receiver])
            address = sender.local.address
            made = pairwise.decrypt(record, receiver.local, address, ciphertext, receiver, now_ms(), ENTROPY)
            stored[receiver] = made.record.encode()
            sender, receiver = receiver, sender


def reversed_blocks(timed: Workloads, count: int, block: int) -> None:
    sender, receiver = pair()
    address, total = sender.local.address, 0
    blocks = max(1, count // block)
    for _ in range(blocks):
        sent = [sender.encrypt() for _ in range(block)][::-1]
        start = perf_counter_ns()
        for ciphertext in sent:
            receiver.decrypt(address, ciphertext)
        total += perf_counter_ns() - start
    timed.add(f"ooo{block}_decrypt", total, blocks * block)
    timed.facts[f"braid_ooo{block}"] = braid_of(sent[0].body)


def setup(timed: Workloads, count: int) -> None:
    initiators, responders = [Party() for _ in range(count)], [Party() for _ in range(count)]
    with timed("setup_bundle", count):
        bundles = [party.bundle() for party in responders]
    for party in responders:
        party.load_prekeys()
    sent = []
    with timed("setup_initiate", count):
        for party, bundle in zip(initiators, bundles, strict=True):
            party.begin(bundle)
            sent.append(party.encrypt())
    with timed("setup_accept", count):
        for initiator, party, ciphertext in zip(initiators, responders, sent, strict=True):
            party.decrypt(initiator.local.address, ciphertext)


def setup_persist(timed: Workloads, count: int) -> None:
    """As the product does it: the record is stored after each step, private prekeys come from the vault."""
    initiators, responders = [Party() for _ in range(count)], [Party() for _ in range(count)]
    bundles, sent = [party.bundle() for party in responders], []
    with timed("setup_initiate_persist", count):
        for party, bundle in zip(initiators, bundles, strict=True):
            party.begin(bundle)
            party.record = SessionRecord.decode(party.record.encode())
            sent.append(party.encrypt())
            party.record.encode()
    with timed("setup_accept_persist", count):
        for initiator, party, ciphertext in zip(initiators, responders, sent, strict=True):
            party.decrypt(initiator.local.address, ciphertext)
            party.record.encode()


def fanout(timed: Workloads, count: int) -> None:
    senders = [pair()[0] for _ in range(count)]
    for sender in senders:
        sender.encrypt()  # the DH step of the first message is not the fan-out's
    with timed("fanout_pairwise_per_member", count):
        for sender in senders:
            sender.encrypt()
    with timed("fanout_pairwise_per_member_persist", count):
        for sender in senders:
            sender.encrypt()
            sender.record.encode()


def everything(timed: Workloads, count: int, setups: int) -> None:
    oneway(timed, count)
    oneway_persist(timed, count)
    pingpong(timed, count)
    pingpong_persist(timed, count)
    reversed_blocks(timed, count, 100)
    reversed_blocks(timed, count, 40)
    setup(timed, setups)
    setup_persist(timed, setups)


if __name__ == "__main__":
    everything(Workloads(), max(2, CHAIN // 10), max(2, SETUPS // 2))
    workloads = Workloads()
    everything(workloads, CHAIN, SETUPS)
    if MEMBERS:
        fanout(workloads, MEMBERS)
    emit("lokket", ("lokket", "cryptography"), workloads)
