"""SPQR: both sides derive the same key for every message, over many epochs, in any order."""

from __future__ import annotations

import hashlib
import hmac
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from lokket.protocol.pairwise import spqr
from lokket.protocol.pairwise.spqr import LINK, Spqr
from lokket.protocol.pairwise.work import Work
from tests.support.entropy import SeededEntropy

SECRET = b"q" * 32


def hkdf(salt: bytes, key_material: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869, written out."""
    key = hmac.digest(salt, key_material, "sha256")
    out = block = b""
    for number in range(1, length // 32 + 1):
        block = hmac.digest(key, block + info + bytes((number,)), "sha256")
        out += block
    return out


def test_the_first_keys_are_those_of_the_specification() -> None:
    alice = spqr.start(SECRET, initiator=True)
    start = hkdf(bytes(32), SECRET, b"Signal PQ Ratchet V1 Chain  Start", 96)
    chain = start[32:64]
    for index in range(1, 4):
        step = hkdf(bytes(32), chain, index.to_bytes(4, "big") + b"Signal PQ Ratchet V1 Chain Next", 64)
        chain = step[:32]
        alice, message, key = spqr.send(alice, SeededEntropy("keys"))
        assert key == step[32:]
        assert message[:3] == bytes((1, 1, index))


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.sampled_from([1, 4, 30]), st.sampled_from([0.0, 0.2]))
def test_keys_agree(seed: int, window: int, loss: float) -> None:
    chance = random.Random(seed)
    states: list[Spqr] = [spqr.start(SECRET, initiator) for initiator in (True, False)]
    entropy = SeededEntropy(seed)
    queues: list[list[tuple[bytes, bytes]]] = [[], []]
    keys = set()
    for _ in range(300):
        side = chance.randrange(2)
        states[side], message, key = spqr.send(states[side], entropy)
        assert key not in keys
        keys.add(key)
        if chance.random() >= loss:
            queues[1 - side].append((message, key))
        queue = queues[1 - side]
        while len(queue) >= window:
            message, key = queue.pop(chance.randrange(len(queue)))
            states[1 - side], taken = spqr.receive(states[1 - side], message, Work())
            assert taken == key
        for state in states:
            assert len(state.links) <= 3


def test_sending_keys_of_left_epochs_are_forgotten() -> None:
    states = [spqr.start(SECRET, initiator) for initiator in (True, False)]
    entropy = SeededEntropy("forget")
    newest = 0
    for number in range(400):
        side = number % 2
        states[side], message, _ = spqr.send(states[side], entropy)
        states[1 - side], _ = spqr.receive(states[1 - side], message, Work())
        sending = message[1] - 1
        for link in states[side].links:
            epoch, send_key, *_ = LINK.unpack_from(link)
            assert epoch >= sending - 1
            assert (send_key == bytes(32)) == (epoch < sending)
            newest = max(newest, epoch)
    assert newest >= 4


def test_each_direction_has_its_own_keys() -> None:
    alice, bob = (spqr.start(SECRET, initiator) for initiator in (True, False))
    entropy = SeededEntropy("directions")
    _, _, one = spqr.send(alice, entropy)
    _, _, other = spqr.send(bob, entropy)
    assert one != other


def test_steps_are_counted() -> None:
    alice, bob = (spqr.start(SECRET, initiator) for initiator in (True, False))
    entropy = SeededEntropy("count")
    messages = []
    for _ in range(10):
        alice, message, _ = spqr.send(alice, entropy)
        messages.append(message)
    work = Work()
    bob, _ = spqr.receive(bob, messages[9], work)
    assert work.chain_steps == 10
    bob, _ = spqr.receive(bob, messages[4], work)
    assert work.chain_steps == 10  # kept, not derived again


def test_the_state_shows_no_secret() -> None:
    assert repr(spqr.start(SECRET, initiator=True)) == "Spqr(…)"
    assert hashlib.sha256(SECRET).hexdigest() not in repr(spqr.start(SECRET, initiator=True))
