"""Rows 20 and 21 for the Double Ratchet: skipping is bounded, in key derivations, not in time."""

from __future__ import annotations

import pytest

from lokket import limits
from lokket.crypto.keys import X25519KeyPair
from lokket.errors import DecryptionFailed, DuplicateMessage
from lokket.protocol.pairwise import double_ratchet
from lokket.protocol.pairwise.double_ratchet import DoubleRatchet, Sent
from lokket.protocol.pairwise.work import Work
from tests.support.entropy import SeededEntropy

ROOT, CHAIN = b"r" * 32, b"c" * 32
ENTROPY = SeededEntropy("double ratchet")
STRANGER = X25519KeyPair(b"\x11" * 32).public


def sides() -> tuple[DoubleRatchet, DoubleRatchet]:
    prekey = X25519KeyPair(ENTROPY.draw(32))
    return (
        double_ratchet.initiator(ROOT, CHAIN, prekey.public, ENTROPY),
        double_ratchet.responder(ROOT, CHAIN, prekey),
    )


def sends(state: DoubleRatchet, count: int) -> tuple[DoubleRatchet, list[Sent]]:
    out = []
    for _ in range(count):
        sent = double_ratchet.send(state)
        state = sent.state
        out.append(sent)
    return state, out


def receive(state: DoubleRatchet, sent: Sent, work: Work | None = None) -> DoubleRatchet:
    after, seed = double_ratchet.receive(state, sent.ratchet_key, sent.counter, ENTROPY, work or Work())
    assert seed == sent.seed
    return after


def kept(state: DoubleRatchet) -> int:
    return sum(len(chain) - double_ratchet.CHAIN.size for chain in state.receiving) // 36


@pytest.mark.attack(20)
def test_the_end_of_a_chain_is_a_refusal_too() -> None:
    """A chain driven close to its end takes the last counter whose successor can be stored, and no other."""
    alice, bob = sides()
    alice, sent = sends(alice, 1)
    bob = receive(bob, sent[0])
    near = double_ratchet.CHAIN.pack(sent[0].ratchet_key, bytes(32), 2**32 - 2)
    bob = DoubleRatchet(bob.root, bob.own, b"", 0, 0, (near,))
    double_ratchet.receive(bob, sent[0].ratchet_key, 2**32 - 2, ENTROPY, Work())
    work = Work()
    with pytest.raises(DecryptionFailed):
        double_ratchet.receive(bob, sent[0].ratchet_key, 2**32 - 1, ENTROPY, work)
    assert work.chain_steps == 0


@pytest.mark.attack(20, 21)
@pytest.mark.parametrize("counter", [limits.SKIP_AHEAD_MAX + 1, 2**31, 2**32 - 1])
def test_a_counter_too_far_ahead_costs_nothing(counter: int) -> None:
    """Under an unknown ratchet key not even the exchange is made; under a known one no chain step."""
    _, bob = sides()
    work = Work()
    with pytest.raises(DecryptionFailed):
        double_ratchet.receive(bob, STRANGER, counter, ENTROPY, work)
    assert (work.chain_steps, work.exchanges) == (0, 0)

    alice, bob = sides()
    alice, sent = sends(alice, 1)
    bob = receive(bob, sent[0])
    with pytest.raises(DecryptionFailed):
        double_ratchet.receive(bob, sent[0].ratchet_key, counter + 1, ENTROPY, work)
    assert (work.chain_steps, work.exchanges) == (0, 0)


@pytest.mark.attack(20)
def test_the_furthest_jump_is_bounded_in_steps_and_keys() -> None:
    alice, bob = sides()
    alice, sent = sends(alice, limits.SKIP_AHEAD_MAX + 1)
    work = Work()
    bob = receive(bob, sent[-1], work)
    assert work.chain_steps == limits.SKIP_AHEAD_MAX + 1
    assert work.exchanges == 1
    assert kept(bob) == limits.SKIP_AHEAD_MAX <= limits.SKIPPED_KEYS_MAX
    for late in (sent[0], sent[1000], sent[-2]):
        work = Work()
        bob = receive(bob, late, work)
        assert (work.chain_steps, work.exchanges) == (0, 0)


@pytest.mark.attack(20)
def test_all_chains_together_keep_a_bounded_number_of_keys() -> None:
    """Jumps on several chains: the newest keys stay, the oldest go, the total never exceeds the bound."""
    alice, bob = sides()
    jumps = []
    for _ in range(4):
        alice, sent = sends(alice, 900)
        bob = receive(bob, sent[-1])
        jumps.append(sent)
        assert kept(bob) <= limits.SKIPPED_KEYS_MAX
        bob, answer = sends(bob, 1)
        alice = receive(alice, answer[0])
    assert kept(bob) == limits.SKIPPED_KEYS_MAX
    with pytest.raises(DuplicateMessage):
        receive(bob, jumps[0][0])
    bob = receive(bob, jumps[3][0])
    bob = receive(bob, jumps[2][5])


@pytest.mark.attack(20)
def test_receiving_chains_are_bounded() -> None:
    """A message is late by as many DH steps as libsignal allows, and by one more it is refused."""
    alice, bob = sides()
    alice, late = sends(alice, 1)
    for step in range(limits.RECEIVER_CHAINS_MAX + 1):
        alice, sent = sends(alice, 1)
        bob = receive(bob, sent[0])
        assert len(bob.receiving) <= limits.RECEIVER_CHAINS_MAX
        if step < limits.RECEIVER_CHAINS_MAX:
            receive(bob, late[0])
        bob, answer = sends(bob, 1)
        alice = receive(alice, answer[0])
    _, seed = double_ratchet.receive(bob, late[0].ratchet_key, 0, ENTROPY, Work())
    assert seed != late[0].seed  # taken for a new key: the MAC above refuses it


@pytest.mark.attack(23)
def test_a_seed_is_given_once() -> None:
    alice, bob = sides()
    alice, sent = sends(alice, 5)
    for message in (sent[3], sent[0], sent[4], sent[1]):
        bob = receive(bob, message)
        with pytest.raises(DuplicateMessage):
            receive(bob, message)
    receive(bob, sent[2])
