"""The ML-KEM Braid: whole epochs under loss, reorder and one-sided traffic; its tables have no holes."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

import pytest

from lokket.codec import tls
from lokket.codec.tls import opaque
from lokket.crypto import erasure, mlkem
from lokket.crypto.keys import MLKEMKeyPair
from lokket.errors import DecodeError, DecryptionFailed, KeyRefused, LocalError, RemoteError
from lokket.protocol.pairwise import braid, braid_states
from lokket.protocol.pairwise.braid import (
    ON_SEND,
    SENDS,
    TAKES,
    TRANSITIONS,
    Event,
    Message,
    Payload,
    Secret,
)
from lokket.protocol.pairwise.braid_states import (
    CHUNK_ENTRY_BYTES,
    STATES,
    Authenticator,
    Braid,
    Ct1Acknowledged,
    Ct1Received,
    EkReceivedCt1Sampled,
    EkSentCt1Received,
    HeaderReceived,
    KeysDrawn,
    KeysSampled,
    KeysUnsampled,
    NoHeaderReceived,
    State,
    StoredBraid,
)
from tests.support.entropy import SeededEntropy
from tests.support.refusals import refusal

SECRET = b"s" * 32


@dataclass
class Party:
    """One end, stored and restored at every step."""

    state: State
    entropy: SeededEntropy
    index: int = 0
    secrets: list[Secret] = field(default_factory=list)
    seen: Counter[type] = field(default_factory=Counter)

    def send(self) -> Message:
        self.state, self.index, message, secret = braid.send(self.state, self.index, self.entropy)
        self._note(secret)
        return message

    def receive(self, message: Message) -> None:
        self.state, self.index, secret = braid.receive(self.state, self.index, message)
        self._note(secret)

    def _note(self, secret: Secret | None) -> None:
        self.seen[type(self.state)] += 1
        if secret is not None:
            self.secrets.append(secret)
        stored = tls.encode(Braid(self.state))
        assert braid_states.encode(self.state) == stored
        self.state = tls.decode(Braid, stored).state
        assert braid_states.encode(braid_states.decode(stored)) == stored
        assert StoredBraid(None, stored).peek() == (type(self.state), self.state.epoch)


def parties(seed: object = 0) -> tuple[Party, Party]:
    return (
        Party(braid.start(SECRET, initiator=True), SeededEntropy(f"{seed} a")),
        Party(braid.start(SECRET, initiator=False), SeededEntropy(f"{seed} b")),
    )


def agree(first: Party, second: Party) -> int:
    """How many epochs both have, all equal and in order."""
    common = min(len(first.secrets), len(second.secrets))
    assert abs(len(first.secrets) - len(second.secrets)) <= 1
    assert first.secrets[:common] == second.secrets[:common]
    for party in (first, second):
        assert [secret.epoch for secret in party.secrets] == list(range(1, len(party.secrets) + 1))
    return common


def test_ping_pong_takes_about_88_messages_an_epoch() -> None:
    alice, bob = parties()
    sent = 0
    while agree(alice, bob) < 4:
        for sender, receiver in ((alice, bob), (bob, alice)):
            receiver.receive(sender.send())
            sent += 1
    assert 4 * 84 <= sent <= 4 * 92


@pytest.mark.parametrize(
    ("loss", "window", "share"),
    [
        (0.0, 1, 0.5),
        (0.1, 8, 0.5),
        (0.3, 40, 0.5),
        (0.6, 8, 0.5),
        (0.1, 8, 0.9),
        (0.3, 1, 0.1),
        (0.3, 8, 0.9),
    ],
)
def test_epochs_come_whatever_is_lost_or_late(loss: float, window: int, share: float) -> None:
    """``share``: how much of the talking the initiator does. Late messages of past epochs change nothing."""
    chance = random.Random(f"{loss} {window} {share}")
    alice, bob = parties(chance.random())
    queues: dict[int, list[Message]] = {0: [], 1: []}
    for _ in range(12_000):
        side = 0 if chance.random() < share else 1
        sender, receiver = (alice, bob) if side == 0 else (bob, alice)
        message = sender.send()
        queue = queues[side]
        if chance.random() >= loss:
            queue.append(message)
        while len(queue) >= window:
            receiver.receive(queue.pop(chance.randrange(len(queue))))
        if agree(alice, bob) >= 3:
            return
    pytest.fail(f"{agree(alice, bob)} epochs in 12000 messages")


def test_every_state_and_every_transition_is_walked() -> None:
    """Over many schedules all states and all moves of the table occur, and no others."""
    walked: set[tuple[type, type]] = set()
    for seed in range(12):
        chance = random.Random(seed)
        alice, bob = parties(seed)
        share = chance.choice([0.5, 0.85, 0.15])
        loss = chance.choice([0.0, 0.5])
        queue: list[tuple[Party, Message]] = []
        for _ in range(500):
            sender, receiver = (alice, bob) if chance.random() < share else (bob, alice)
            before = type(sender.state)
            queue.append((receiver, sender.send()))
            if before in ON_SEND:
                target = TRANSITIONS[before, ON_SEND[before]].target
                walked.add((before, target))
                before = target
            assert type(sender.state) is before
            while len(queue) > 3:
                to, message = queue.pop(chance.randrange(len(queue)))
                if chance.random() >= loss:
                    before = type(to.state)
                    to.receive(message)
                    if type(to.state) is not before:
                        walked.add((before, type(to.state)))
    assert walked == {(state, row.target) for (state, _), row in TRANSITIONS.items()}


def test_the_tables_are_closed() -> None:
    """Every state sends; every event of a state has its row; every row has an event that leads to it."""
    states = set(STATES.values())
    assert len(states - {KeysDrawn}) == 11
    assert set(SENDS) | set(ON_SEND) == states
    assert set(SENDS) & set(ON_SEND) == {KeysDrawn}
    reachable = {(state, event) for state, event in ON_SEND.items()}
    for (state, _), taking in TAKES.items():
        assert taking.complete or taking.more
        reachable |= {(state, event) for event in (taking.complete, taking.more) if event}
    leaves = {state for state, event in TRANSITIONS if event is Event.NEXT_EPOCH}
    reachable |= {(state, Event.NEXT_EPOCH) for state in leaves}
    assert reachable == set(TRANSITIONS)
    assert {row.target for row in TRANSITIONS.values()} == states


@pytest.mark.parametrize("initiator", [True, False])
def test_a_future_epoch_is_refused(initiator: bool) -> None:
    state = braid.start(SECRET, initiator)
    for epoch in (2, 3, 2**40):
        with refusal(DecryptionFailed, "pq-epoch"):
            braid.receive(state, 0, Message(epoch, Payload.NONE, 0, b""))


def to_epoch_two() -> tuple[Party, Party, list[Message]]:
    alice, bob = parties()
    past = []
    while min(alice.state.epoch, bob.state.epoch) < 2:
        for sender, receiver in ((alice, bob), (bob, alice)):
            message = sender.send()
            past.append(message)
            receiver.receive(message)
    return alice, bob, past


def test_a_past_epoch_is_ignored() -> None:
    alice, bob, past = to_epoch_two()
    for party in (alice, bob):
        before = tls.encode(Braid(party.state))
        for message in past:
            if message.epoch == 1:
                party.receive(message)
        assert tls.encode(Braid(party.state)) == before


def until(kind: type, *, seed: object = 0) -> tuple[Party, Party]:
    """Ping-pong until one party is in the state; that one first."""
    alice, bob = parties(seed)
    for _ in range(400):
        for sender, receiver in ((alice, bob), (bob, alice)):
            receiver.receive(sender.send())
            for one, other in ((alice, bob), (bob, alice)):
                if isinstance(one.state, kind):
                    return one, other
    pytest.fail(f"{kind.__name__} was not reached")


def forge(party: Party, payload: Payload, count: int) -> None:
    """All chunks of a message of our own making, of that payload, to one party."""
    for index in range(count):
        party.receive(Message(party.state.epoch, payload, index, b"\x5a" * 32))


@pytest.mark.parametrize(
    ("kind", "payload", "count"),
    [(NoHeaderReceived, Payload.HDR, 3), (EkSentCt1Received, Payload.CT2, 5)],
)
def test_forged_headers_and_ciphertexts_are_refused(kind: type, payload: Payload, count: int) -> None:
    """Their MACs are keyed from the session, so even who breaks one message key cannot swap the key."""
    party, _ = until(kind)
    before = tls.encode(Braid(party.state))
    with pytest.raises(DecryptionFailed) as refused:
        forge(party, payload, count)
    assert refused.value.code == "pq-mac"
    assert len(tls.encode(Braid(party.state))) >= len(before)  # chunks may stay, the state may not move
    assert isinstance(party.state, kind)


def test_a_forged_key_is_refused() -> None:
    party, _ = until(Ct1Acknowledged)
    with refusal(KeyRefused):
        forge(party, Payload.EK, 36)
    assert isinstance(party.state, Ct1Acknowledged)


def test_a_duplicate_chunk_is_counted_once() -> None:
    alice, bob = parties()
    message = alice.send()
    for _ in range(5):
        bob.receive(message)
    assert isinstance(bob.state, NoHeaderReceived)
    assert len(bob.state.chunks) == 34


def test_chunks_go_round_after_65536() -> None:
    """Nobody answers for that long, but if: the index starts again at the message itself."""
    alice, _ = parties()
    first = alice.send()
    alice.index = erasure.CHUNK_INDEX_MAX
    last = alice.send()
    assert (last.place, alice.index) == (erasure.CHUNK_INDEX_MAX, 0)
    again = alice.send()
    assert (again.payload, again.place, again.chunk) == (first.payload, 0, first.chunk)


def test_a_state_continues_its_chunks_where_the_one_before_stopped() -> None:
    """The key goes on from HeaderSent to Ct1Received, ct1 from Ct1Sampled to EkReceivedCt1Sampled."""
    alice, bob = parties()
    while not isinstance(bob.state, HeaderReceived):
        bob.receive(alice.send())
    alice.receive(bob.send())
    while not isinstance(bob.state, EkReceivedCt1Sampled):
        bob.receive(alice.send())
    message = bob.send()
    assert (message.payload, message.place) == (Payload.CT1, 1)
    place = alice.index
    assert place == 36
    while not isinstance(alice.state, Ct1Received):
        alice.receive(bob.send())
    message = alice.send()
    assert (message.payload, message.place) == (Payload.EK_CT1_ACK, place)


def test_a_key_is_made_by_the_second_message() -> None:
    """The header's first chunk is rho, which the seed gives at once; with the others it is the header."""
    alice, bob = parties()
    first = alice.send()
    assert isinstance(alice.state, KeysDrawn)
    drawn = alice.entropy.drawn
    second = alice.send()
    assert isinstance(alice.state, KeysSampled)
    assert alice.entropy.drawn == drawn
    assert (first.place, second.place) == (0, 1)
    public = MLKEMKeyPair(768, alice.state.seed).public
    assert first.chunk + second.chunk == mlkem.header(public) == alice.state.header_and_mac[:64]
    bob.receive(first)
    bob.receive(second)
    bob.receive(alice.send())
    assert isinstance(bob.state, HeaderReceived)


def test_a_drawn_key_takes_no_ciphertext() -> None:
    """Nobody can encapsulate to a third of a header."""
    alice, _ = parties()
    alice.send()
    before = alice.state
    for payload in Payload:
        alice.receive(Message(1, payload, 0, b"\x5a" * 32))
    assert braid_states.encode(alice.state) == braid_states.encode(before)


def test_a_new_message_starts_at_its_first_chunk() -> None:
    party, other = until(KeysUnsampled, seed="start")
    if party.state.epoch == 1:
        while party.state.epoch == 1 or not isinstance(party.state, KeysUnsampled):
            other.receive(party.send())
            party.receive(other.send())
    assert party.send().place == 0


@pytest.mark.parametrize("size", [0, 1, 72, 100])
def test_stored_states_of_the_wrong_size_are_refused(size: int) -> None:
    stored = tls.encode(Braid(braid.start(SECRET, initiator=True)))
    damaged = stored[:size] if size < len(stored) else stored + b"\x00"
    for wrong in (damaged, b"\x0d" + stored[1:], b"\x00" + stored[1:]):
        with pytest.raises(RemoteError):
            tls.decode(Braid, wrong)
        with refusal(DecodeError):
            braid_states.decode(wrong)
        with refusal(LocalError):
            _ = StoredBraid(None, wrong).state


@pytest.mark.parametrize("damaged", [b"", b"\x00" + bytes(72), b"\x0d" + bytes(72), b"\x01" + bytes(7)])
def test_a_look_at_a_damaged_state_is_refused(damaged: bytes) -> None:
    with refusal(LocalError):
        StoredBraid(None, damaged).peek()


def test_stored_chunks_are_bounded_and_in_the_shortest_form() -> None:
    """As ``tls`` has it: what decodes has one encoding."""
    state = NoHeaderReceived(1, Authenticator(bytes(32), bytes(32)), b"")
    empty = braid_states.encode(state)
    most = 36 * CHUNK_ENTRY_BYTES
    whole = (b"\x00", opaque(bytes(34)), opaque(bytes(most)))
    for chunks in (*whole, opaque(bytes(most + 1)), b"\x40\x00", b"\x02\x00", b"\x01\x00\x00", b""):
        stored = empty[:-1] + chunks
        try:
            expected = tls.decode(Braid, stored).state.chunks
        except DecodeError:
            with refusal(DecodeError):
                braid_states.decode(stored)
            with refusal(LocalError):
                _ = StoredBraid(None, stored).state
        else:
            assert braid_states.decode(stored).chunks == expected


def test_states_show_no_secret() -> None:
    alice, _ = parties()
    alice.send()
    assert repr(alice.state) == "KeysDrawn(…)"
    alice.send()
    assert repr(alice.state) == "KeysSampled(…)"
    assert repr(Secret(1, b"secret")) == "Secret(1, …)"
