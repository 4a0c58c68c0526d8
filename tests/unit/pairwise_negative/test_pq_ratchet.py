"""Rows 14, 16 and 20 for the post-quantum ratchet: what SPQR refuses, and what it costs to refuse."""

from __future__ import annotations

import pytest

from lokket import limits
from lokket.crypto.primitives import sha256
from lokket.errors import DecodeError, DecryptionFailed, RemoteError
from lokket.protocol.pairwise import spqr
from lokket.protocol.pairwise.spqr import Spqr
from lokket.protocol.pairwise.work import Work
from tests.support.entropy import SeededEntropy
from tests.support.protobuf import varint

SECRET = sha256(b"post-quantum secret")
NONE, CT1, CHUNK = 0, 5, bytes(32)


def sides() -> tuple[Spqr, Spqr]:
    return spqr.start(SECRET, initiator=True), spqr.start(SECRET, initiator=False)


def message(epoch: int = 1, index: int = 1, kind: int = NONE, rest: bytes = b"") -> bytes:
    return b"\x01" + varint(epoch) + varint(index) + bytes((kind,)) + rest


def test_the_shape_of_an_honest_message_is_taken() -> None:
    _, bob = sides()
    spqr.receive(bob, message(), Work())
    spqr.receive(bob, message() + b"later versions append", Work())
    spqr.receive(bob, message(kind=CT1, rest=varint(65_535) + CHUNK), Work())


@pytest.mark.attack(14)
def test_index_zero_carries_no_key_and_is_refused() -> None:
    _, bob = sides()
    with pytest.raises(DecodeError) as refused:
        spqr.receive(bob, b"\x01\x01\x00\x00", Work())
    assert refused.value.code == "no-pq-key"


@pytest.mark.attack(14, 16)
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x00" + message()[1:], id="version 0"),
        pytest.param(b"\x02" + message()[1:], id="version 2"),
        pytest.param(message(epoch=0), id="epoch 0"),
        pytest.param(message(epoch=0, index=0), id="nothing at all"),
        pytest.param(message()[:-1], id="no type"),
        pytest.param(message(kind=7), id="type 7"),
        pytest.param(message(kind=255), id="type 255"),
        pytest.param(message(kind=CT1), id="no chunk"),
        pytest.param(message(kind=CT1, rest=b"\x00" + CHUNK[:-1]), id="chunk cut short"),
        pytest.param(message(kind=CT1, rest=varint(65_536) + CHUNK), id="chunk index of 17 bits"),
        pytest.param(b"\x01" + varint(1, padding=1) + b"\x01\x00", id="padded epoch"),
        pytest.param(b"\x01\x01" + varint(1, padding=1) + b"\x00", id="padded index"),
        pytest.param(b"\x01" + b"\xff" * 10 + b"\x01\x00", id="epoch above 64 bits"),
    ],
)
def test_malformed(data: bytes) -> None:
    for state in sides():
        with pytest.raises(DecodeError):
            spqr.receive(state, data, Work())


@pytest.mark.attack(20)
@pytest.mark.parametrize("index", [limits.SKIP_AHEAD_MAX + 2, 2**31, 2**32 - 1, 2**64 - 1])
def test_an_index_too_far_ahead_costs_no_step(index: int) -> None:
    _, bob = sides()
    work = Work()
    with pytest.raises(DecryptionFailed):
        spqr.receive(bob, message(index=index), work)
    assert work.chain_steps == 0


@pytest.mark.attack(20)
def test_the_end_of_a_chain_is_a_refusal_too() -> None:
    """An index that no chain can store, though it is not far ahead."""
    _, bob = sides()
    epoch, send_key, send_index, receive_key, _ = spqr.LINK.unpack(bob.links[0])
    near = spqr.LINK.pack(epoch, send_key, send_index, receive_key, 2**32 - 2)
    bob = spqr.Spqr(bob.braid, bob.next_chunk, bob.root, bob.initiator, (near,))
    spqr.receive(bob, message(index=2**32 - 1), Work())
    work = Work()
    with pytest.raises(DecryptionFailed):
        spqr.receive(bob, message(index=2**32), work)
    assert work.chain_steps == 0


@pytest.mark.attack(20)
def test_skipped_keys_are_bounded_and_the_oldest_go() -> None:
    alice, bob = sides()
    entropy = SeededEntropy("skips")
    keys = []
    sent = []
    for _ in range(2 * limits.SKIP_AHEAD_MAX + 2):
        alice, data, key = spqr.send(alice, entropy)
        sent.append(data)
        keys.append(key)
    for at in (limits.SKIP_AHEAD_MAX, 2 * limits.SKIP_AHEAD_MAX + 1):
        work = Work()
        bob, key = spqr.receive(bob, sent[at], work)
        assert key == keys[at]
        assert work.chain_steps == limits.SKIP_AHEAD_MAX + 1
        assert sum(len(link) - spqr.LINK.size for link in bob.links) <= limits.SKIPPED_KEYS_MAX * 36
    with pytest.raises(DecryptionFailed):
        spqr.receive(bob, sent[0], Work())
    assert spqr.receive(bob, sent[limits.SKIP_AHEAD_MAX + 1], Work())[1] == keys[limits.SKIP_AHEAD_MAX + 1]


@pytest.mark.attack(23)
def test_a_key_is_given_once() -> None:
    alice, bob = sides()
    entropy = SeededEntropy("once")
    alice, first, _ = spqr.send(alice, entropy)
    alice, second, _ = spqr.send(alice, entropy)
    bob, _ = spqr.receive(bob, second, Work())
    bob, _ = spqr.receive(bob, first, Work())
    for data in (first, second):
        with pytest.raises(DecryptionFailed):
            spqr.receive(bob, data, Work())


@pytest.mark.attack(14)
def test_an_epoch_from_the_future_is_refused() -> None:
    for state in sides():
        for epoch in (2, 3, 2**32, 2**64 - 1):
            with pytest.raises(DecryptionFailed):
                spqr.receive(state, message(epoch=epoch), Work())


@pytest.mark.attack(4, 14)
@pytest.mark.parametrize("kind", range(7))
def test_forged_chunks_never_complete_an_epoch(kind: int) -> None:
    """An insider without the authenticator's key: whole forged payloads end in a refusal, not in a secret."""
    for initiator in (True, False):
        state = spqr.start(SECRET, initiator)
        if initiator:
            state, _, _ = spqr.send(state, SeededEntropy("keys"))
        refused = 0
        for index in range(40):
            rest = varint(index) + sha256(bytes((index,))) if kind in (1, 2, 3, 5, 6) else b""
            try:
                state, _ = spqr.receive(state, message(index=index + 1, kind=kind, rest=rest), Work())
            except RemoteError:
                refused += 1
        assert len(state.links) == 1
        if kind == 1 and not initiator:
            assert refused > 0  # the header's MAC


CHANGED = {
    "header": ((1,), "pq-mac"),
    "key": ((2, 3), "bad-key"),
    "ct1": ((5,), "pq-mac"),
    "ct2": ((6,), "pq-mac"),
}


@pytest.mark.attack(4)
@pytest.mark.parametrize("answers", [1, 2, 4], ids=["all arrives", "half the answers", "a quarter"])
@pytest.mark.parametrize("field", CHANGED)
def test_one_changed_chunk_stops_an_epoch(field: str, answers: int) -> None:
    """Header and ciphertext have MACs, the key has its hash: a changed chunk yields no secret.

    With answers lost, the key is complete before the ciphertext's first part is acknowledged.
    """
    kinds, code = CHANGED[field]
    alice, bob = sides()
    entropy = SeededEntropy(field)
    changed = False
    refusals: list[tuple[str, str]] = []
    for turn in range(400):
        alice, data, _ = spqr.send(alice, entropy)
        data, changed = _spoil(data, kinds, changed)
        try:
            bob, _ = spqr.receive(bob, data, Work())
        except RemoteError as error:
            refusals.append(("bob", error.code))
            break
        bob, data, _ = spqr.send(bob, entropy)
        if turn % answers:
            continue
        data, changed = _spoil(data, kinds, changed)
        try:
            alice, _ = spqr.receive(alice, data, Work())
        except RemoteError as error:
            refusals.append(("alice", error.code))
            break
    assert changed
    assert refusals == [("bob" if field in ("header", "key") else "alice", code)]
    assert len(alice.links) == 1  # whoever decapsulates has no secret


def _spoil(data: bytes, kinds: tuple[int, ...], changed: bool) -> tuple[bytes, bool]:
    """Change the last byte of the first message whose type is in ``kinds``."""
    position = 2
    while data[position] & 0x80:
        position += 1
    if changed or data[position + 1] not in kinds:
        return data, changed
    return data[:-1] + bytes((data[-1] ^ 1,)), True
