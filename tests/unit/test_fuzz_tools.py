"""The fuzzers' own tools: what counts derivations counts them all, what chooses inputs chooses well."""

from __future__ import annotations

import pytest

from fuzz import minimise, sessions, work
from lokket.codec.protobuf import read_varint
from lokket.protocol import pairwise
from lokket.protocol.pairwise import SessionRecord, Work, double_ratchet
from tests.support.pairwise import talking


def varint(data: bytes) -> object:
    return read_varint(data, 0)


def test_only_inputs_that_reach_something_new_are_chosen() -> None:
    candidates = [b"\x05", b"\x06", b"\x07" * 40, b"\x85\x01", b"\x85\x02", b"\x06\x01", b"\x80", b""]
    chosen = minimise.minimised(varint, [], candidates)
    assert chosen == minimise.minimised(varint, [], candidates[::-1])
    assert chosen == [b"", b"\x05", b"\x80", b"\x85\x01"]
    assert minimise.minimised(varint, chosen, candidates) == []
    assert minimise.minimised(varint, [b""], [b"\x05" * (minimise.INPUT_MAX_BYTES + 1)]) == []


def test_every_derivation_is_counted() -> None:
    alice, bob = talking()
    lost = [alice.send(bob.address, b"%d" % number) for number in range(30)]
    stated = Work()
    with work.counted() as found:
        record = bob.record(alice.address)
        pairwise.decrypt(record, bob.local, alice.address, lost[-1], bob.store, 0, bob.entropy, work=stated)
    found.check(stated)
    assert found.chain_steps == stated.chain_steps == 60
    assert found.derivations == 2  # one root, the message keys


@pytest.mark.parametrize("forgotten", [0, 5_000])
def test_a_decrypt_that_miscounts_or_works_too_much_is_caught(
    forgotten: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The target itself fails, not only its arithmetic."""
    alice, bob = talking()
    message = alice.send(bob.address, b"x")
    honest = double_ratchet._take_seed

    def costly(chain: bytes, counter: int, counting: Work) -> tuple[bytes, bytes, bool]:
        for _ in range(max(forgotten, 1)):
            double_ratchet._chain_step(chain[:32])
        counting.chain_steps += forgotten
        return honest(chain, counter, counting)

    monkeypatch.setattr(double_ratchet, "_take_seed", costly)
    with pytest.raises(AssertionError):
        sessions.watched(bob, bob.record(alice.address), alice.address, message)


def test_a_target_notices_a_changed_record(monkeypatch: pytest.MonkeyPatch) -> None:
    alice, bob = talking()
    message = alice.send(bob.address, b"x")
    honest = pairwise.decrypt

    def spoiling(record: SessionRecord, *values: object, **named: object) -> object:
        assert record.current is not None
        object.__setattr__(record.current.ratchet[0], "index", 99)
        return honest(record, *values, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(pairwise, "decrypt", spoiling)
    with pytest.raises(AssertionError, match="changed the record"):
        sessions.watched(bob, bob.record(alice.address), alice.address, message)
