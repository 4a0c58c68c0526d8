"""The stored record: any bytes give a record or a DecodeError, and what it gives encodes to those bytes."""

from __future__ import annotations

import random

import pytest

from lokket.errors import DecodeError, LocalError, RemoteError
from lokket.protocol import pairwise
from lokket.protocol.pairwise import SessionRecord
from lokket.protocol.pairwise.double_ratchet import CHAIN, DoubleRatchet
from lokket.protocol.pairwise.messages import KEM_BYTES
from lokket.protocol.pairwise.pqxdh import Secrets
from lokket.protocol.pairwise.record import Session
from lokket.protocol.pairwise.spqr import LINK, Spqr
from tests.support.pairwise import START_MS, Device, pair, talking
from tests.support.refusals import refusal


def records() -> list[bytes]:
    """In different stages: unanswered, half a DH step open, with skipped keys, with an archive."""
    alice, bob = pair()
    out = [alice.records[bob.address]]
    bob.receive(alice.address, alice.send(bob.address, b"x"))
    out.append(bob.records[alice.address])
    alice, bob = talking(messages=30)
    messages = [alice.send(bob.address, b"x") for _ in range(9)]
    bob.receive(alice.address, messages[8])
    bob.receive(alice.address, messages[3])
    out += [alice.records[bob.address], bob.records[alice.address]]
    for _ in range(3):
        alice.begin(bob.bundle())
    out.append(alice.records[bob.address])
    return out


RECORDS = records()
each_record = pytest.mark.parametrize("number", range(len(RECORDS)))


@each_record
def test_encoding_is_canonical(number: int) -> None:
    data = RECORDS[number]
    record = SessionRecord.decode(data)
    assert record.encode() == data
    for one in record.archived:
        assert one.session.facts.value.established_ms == START_MS
    record.knows_base_key(bytes(33), START_MS)
    assert record.encode() == data


@each_record
def test_damage_is_noticed_or_harmless(number: int) -> None:
    """A changed byte gives a DecodeError at once, a LocalError where a part is decoded late, or a record."""
    data = RECORDS[number]
    chance = random.Random(number)
    device = Device("reader")
    for _ in range(300):
        damaged = bytearray(data)
        damaged[chance.randrange(min(len(data), 900))] ^= 1 << chance.randrange(8)
        try:
            record = SessionRecord.decode(bytes(damaged))
        except DecodeError:
            continue
        assert record.encode() == bytes(damaged)
        try:
            record.knows_base_key(bytes(33), START_MS)
            pairwise.encrypt(record, device.local, b"x", START_MS, device.entropy)
        except (LocalError, RemoteError):
            pass


@each_record
def test_cut_or_longer_bytes_are_refused(number: int) -> None:
    data = RECORDS[number]
    for size in [*range(0, 300, 7), len(data) - 1]:
        with refusal(DecodeError):
            SessionRecord.decode(data[:size])
    with refusal(DecodeError):
        SessionRecord.decode(data + b"\x00")


def stored(chains: tuple[bytes, ...], links: tuple[bytes, ...], kem_ciphertext: bytes = b"") -> bytes:
    """The fourth record with other chains, links and KEM ciphertext in its session."""
    record = SessionRecord.decode(RECORDS[3])
    assert record.current is not None
    double, pq = record.current.ratchet
    ratchet = (
        DoubleRatchet(double.root, double.own, double.chain_key, double.index, double.previous, chains),
        Spqr(pq.braid, pq.next_chunk, pq.root, pq.initiator, links),
    )
    return record.with_current(Session(record.current.facts, kem_ciphertext, ratchet)).encode()


def test_the_parts_of_a_session_are_bounded_and_whole() -> None:
    chain, link, key = bytes(CHAIN.size), bytes(LINK.size), bytes(36)
    for chains, links, kem_ciphertext in (
        ((chain,), (link,), b""),
        ((chain + key,) * 5, (link + 2 * key,) * 4, bytes(KEM_BYTES)),
    ):
        data = stored(chains, links, kem_ciphertext)
        assert SessionRecord.decode(data).encode() == data
    for chains, links, kem_ciphertext in (
        ((chain,) * 6, (link,), b""),
        ((chain,), (), b""),
        ((chain,), (link,) * 5, b""),
        ((chain[1:],), (link,), b""),
        ((chain + key[1:],), (link,), b""),
        ((chain,), (link[1:],), b""),
        ((chain,), (link, link + key[1:]), b""),
        ((chain,), (link,), bytes(KEM_BYTES - 1)),
    ):
        with refusal(DecodeError):
            SessionRecord.decode(stored(chains, links, kem_ciphertext))


def test_the_flags_of_a_session_are_three() -> None:
    data = stored((bytes(CHAIN.size),), (bytes(LINK.size),))
    place = 53 + 4 * 32 + 2 * 4 + 32 + 2  # after the record's head and the session's keys and counters
    assert data[place] <= 7
    for flags in (8, 128, 255):
        with refusal(DecodeError):
            SessionRecord.decode(data[:place] + bytes((flags,)) + data[place + 1 :])


def test_another_version_is_refused() -> None:
    for version in (0, 2, 255):
        with refusal(DecodeError):
            SessionRecord.decode(bytes((version,)) + RECORDS[0][1:])


def test_nothing_shows_a_secret() -> None:
    record = SessionRecord.decode(RECORDS[3])
    assert record.current is not None
    shown = "".join(
        repr(value)
        for value in (
            record,
            record.current,
            record.current.facts,
            record.current.ratchet,
            record.current.ratchet[0],
            record.current.ratchet[1],
            record.current.ratchet[1].braid,
        )
    )
    stored = record.current
    assert [repr(one) for one in (record, stored.facts, stored.ratchet[1].braid, stored.facts.value)] == [
        "SessionRecord(…)",
        "Stored(Facts)",
        "StoredBraid(…)",
        "Facts(…)",
    ]
    assert repr(Secrets(bytes(32), bytes(32), bytes(32))) == "Secrets(…)"
    secrets = (record.current.ratchet[0].root, record.current.ratchet[0].own.private)
    assert not any(secret.hex() in shown or repr(secret) in shown for secret in secrets)
