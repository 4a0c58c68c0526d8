"""The Double Ratchet against a model that is the specification's pseudo-code, in any order of delivery."""

from __future__ import annotations

import hmac
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from lokket.crypto.keys import X25519KeyPair
from lokket.crypto.primitives import hkdf_sha256
from lokket.errors import DuplicateMessage, KeyRefused, LocalError
from lokket.protocol.pairwise import double_ratchet
from lokket.protocol.pairwise.double_ratchet import DoubleRatchet, Sent
from lokket.protocol.pairwise.work import Work
from tests.support.entropy import SeededEntropy
from tests.support.refusals import refusal

ROOT, CHAIN = b"r" * 32, b"c" * 32


def both(seed: object) -> tuple[DoubleRatchet, DoubleRatchet, SeededEntropy]:
    entropy = SeededEntropy(seed)
    prekey = X25519KeyPair(entropy.draw(32))
    alice = double_ratchet.initiator(ROOT, CHAIN, prekey.public, entropy)
    return alice, double_ratchet.responder(ROOT, CHAIN, prekey), entropy


def test_the_first_seeds_are_those_of_the_specification() -> None:
    entropy = SeededEntropy("first")
    prekey = X25519KeyPair(b"\x42" * 32)
    own = X25519KeyPair(SeededEntropy("first").draw(32))
    output = hkdf_sha256(own.exchange(prekey.public), salt=ROOT, info=b"WhisperRatchet", length=64)
    chain = output[32:]
    state = double_ratchet.initiator(ROOT, CHAIN, prekey.public, entropy)
    for counter in range(3):
        sent = double_ratchet.send(state)
        assert sent.seed == hmac.digest(chain, b"\x01", "sha256")
        assert (sent.counter, sent.previous, sent.ratchet_key) == (counter, 0, own.public)
        chain = hmac.digest(chain, b"\x02", "sha256")
        state = sent.state


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.sampled_from([1, 5, 20]), st.sampled_from([0.0, 0.3]))
def test_seeds_agree_in_any_order(seed: int, window: int, loss: float) -> None:
    """As long as a message is late by fewer than five DH steps of its sender."""
    chance = random.Random(seed)
    alice, bob, entropy = both(seed)
    sides = [alice, bob]
    queues: list[list[tuple[int, Sent]]] = [[], []]
    steps = [0, 0]
    heard = False
    keys: list[list[bytes]] = [[], []]
    for _ in range(150):
        side = chance.randrange(2) if heard else 0
        sent = double_ratchet.send(sides[side])
        sides[side] = sent.state
        if sent.ratchet_key not in keys[side]:
            keys[side].append(sent.ratchet_key)
            steps[side] += 1
        if chance.random() >= loss:
            queues[1 - side].append((steps[side], sent))
        queue = queues[1 - side]
        while len(queue) >= window:
            step, sent = queue.pop(chance.randrange(len(queue)))
            if step <= steps[side] - 4:
                continue
            sides[1 - side], taken = double_ratchet.receive(
                sides[1 - side], sent.ratchet_key, sent.counter, entropy, Work()
            )
            heard = True
            assert taken == sent.seed
            with refusal(DuplicateMessage):
                double_ratchet.receive(sides[1 - side], sent.ratchet_key, sent.counter, entropy, Work())


def test_previous_is_the_last_chain_less_one() -> None:
    alice, bob, entropy = both("previous")
    for length in (1, 4, 2):
        for _ in range(length):
            sent = double_ratchet.send(alice)
            alice = sent.state
            bob, _ = double_ratchet.receive(bob, sent.ratchet_key, sent.counter, entropy, Work())
        answer = double_ratchet.send(bob)
        bob = answer.state
        alice, _ = double_ratchet.receive(alice, answer.ratchet_key, answer.counter, entropy, Work())
        assert double_ratchet.send(alice).previous == length - 1


def test_keys_at_the_end_of_a_chain_are_derived_when_asked_for() -> None:
    """libsignal's variant: no keys are skipped ahead at a DH step, the old chain is kept instead."""
    alice, bob, entropy = both("end")
    old = []
    for _ in range(5):
        sent = double_ratchet.send(alice)
        alice = sent.state
        old.append(sent)
    bob, _ = double_ratchet.receive(bob, old[0].ratchet_key, 0, entropy, Work())
    answer = double_ratchet.send(bob)
    alice, _ = double_ratchet.receive(alice, answer.ratchet_key, 0, entropy, Work())
    new = double_ratchet.send(alice)
    work = Work()
    bob, _ = double_ratchet.receive(answer.state, new.ratchet_key, 0, entropy, work)
    assert (work.chain_steps, work.exchanges) == (1, 1)
    work = Work()
    bob, seed = double_ratchet.receive(bob, old[3].ratchet_key, 3, entropy, work)
    assert (seed, work.chain_steps, work.exchanges) == (old[3].seed, 3, 0)


def test_a_step_draws_one_key_and_a_message_none() -> None:
    alice, bob, entropy = both("draws")
    first = double_ratchet.send(alice)
    drawn = entropy.drawn
    bob, _ = double_ratchet.receive(bob, first.ratchet_key, 0, entropy, Work())
    assert entropy.drawn == drawn + 1
    second = double_ratchet.send(first.state)
    bob, _ = double_ratchet.receive(bob, second.ratchet_key, 1, entropy, Work())
    double_ratchet.send(bob)
    assert entropy.drawn == drawn + 1


def test_two_steps_without_sending_between() -> None:
    """No honest peer makes them, as a new key answers ours; the state must bear it."""
    alice, bob, entropy = both("twice")
    for _ in range(3):
        stranger = X25519KeyPair(entropy.draw(32))
        bob, _ = double_ratchet.receive(bob, stranger.public, 0, entropy, Work())
        assert len(bob.receiving) <= 5
    assert double_ratchet.send(bob).counter == 0
    with refusal(KeyRefused):
        double_ratchet.receive(bob, bytes(32), 0, entropy, Work())
    assert alice.receiving


def test_a_spent_sending_chain_is_an_error_of_ours() -> None:
    alice, _, _ = both("spent")
    sent = double_ratchet.send(alice).state
    last, spent = (
        DoubleRatchet(sent.root, sent.own, sent.chain_key, index, sent.previous, sent.receiving)
        for index in ((1 << 32) - 2, (1 << 32) - 1)
    )
    assert double_ratchet.send(last).state.index == (1 << 32) - 1  # what a record can hold
    with refusal(LocalError):
        double_ratchet.send(spent)
