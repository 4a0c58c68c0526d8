"""A whisper message in the layout that everybody writes is read as the general decoder reads it."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lokket.errors import DecodeError
from lokket.protocol.pairwise.messages import SignalMessage, encode_signal_message
from tests.support.pairwise import talking

NUMBERS = st.integers(0, 200) | st.integers(0, (1 << 32) - 1)
BODIES = st.builds(
    encode_signal_message,
    st.binary(min_size=32, max_size=32),
    st.tuples(NUMBERS, NUMBERS),
    st.binary(max_size=300),
    st.binary(max_size=60),
    st.none() | st.binary(min_size=36, max_size=36),
)
MACS = st.binary(min_size=8, max_size=8)


class General(SignalMessage):
    """Without the short way."""

    __slots__ = ()

    def _read_usual(self, body: bytes, end: int) -> bool:
        return False


def read(kind: type[SignalMessage], body: bytes) -> object:
    try:
        message = kind(body)
    except DecodeError as error:
        return error.code
    return [getattr(message, name) for name in SignalMessage.__slots__]


@given(BODIES, MACS)
def test_both_ways_read_what_is_written(body: bytes, mac: bytes) -> None:
    assert read(SignalMessage, body + mac) == read(General, body + mac)


@given(BODIES, MACS, st.integers(0, 400), st.binary(max_size=3), st.integers(0, 3))
@example(bytes.fromhex("44"), bytes(8), 0, b"", 0)
def test_both_ways_agree_on_damaged_bytes(
    body: bytes, mac: bytes, place: int, inserted: bytes, removed: int
) -> None:
    whole = body + mac
    place %= len(whole)
    damaged = whole[:place] + inserted + whole[place + removed :]
    assert read(SignalMessage, damaged) == read(General, damaged)


@pytest.mark.parametrize("sizes", [(16, 40), (0, 1), (200, 200)])
@pytest.mark.parametrize("counters", [(0, 0), (127, 128), (128, 2**32 - 1)])
def test_both_ways_agree_on_every_other_byte_and_every_end(
    sizes: tuple[int, int], counters: tuple[int, int]
) -> None:
    """Tags of all fields and lengths that end around the end stand where each byte of the frame does."""
    body = encode_signal_message(b"k" * 32, counters, b"c" * sizes[0], b"p" * sizes[1], None) + bytes(8)
    for place in [place for place, byte in enumerate(body) if byte not in b"kcp"]:
        for other in (0, 1, 5, 10, 16, 18, 24, 34, 42, 50, 127, 128, 255):
            damaged = body[:place] + bytes((other,)) + body[place + 1 :]
            assert read(SignalMessage, damaged) == read(General, damaged)
    for end in range(len(body)):
        assert read(SignalMessage, body[:end]) == read(General, body[:end])


def test_a_number_above_32_bits_is_refused_in_both() -> None:
    for counters in (((1 << 32), 0), (0, 1 << 32)):
        body = encode_signal_message(bytes(32), counters, b"x" * 16, b"y" * 40, None) + bytes(8)
        for kind in (SignalMessage, General):
            with pytest.raises(DecodeError):
                kind(body)


@pytest.mark.parametrize("size", [1, 127, 128, 20_000])
@pytest.mark.parametrize(("turns", "step"), [(0, False), (130, False), (130, True)])
def test_our_own_messages_take_the_short_way(size: int, turns: int, step: bool) -> None:
    """With lengths, counters and previous counters of one byte and of more."""
    alice, bob = talking()
    for _ in range(turns):
        alice.send(bob.address, b"")
    if step:
        alice.receive(bob.address, bob.send(alice.address, b"a step"))
    body = alice.send(bob.address, bytes(size)).body
    message = object.__new__(SignalMessage)
    assert message._read_usual(body, len(body) - 8)
    for name in ("ratchet_key", "counter", "ciphertext", "pq_ratchet", "addresses"):
        assert getattr(message, name) == getattr(General(body), name)
