"""Rows 14 and 16: what the decoders of SignalMessage and PreKeySignalMessage refuse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lokket import limits
from lokket.errors import DecodeError
from lokket.protocol.pairwise import messages
from tests.support import protobuf as lenient

MAC = b"MAC bits"
KEY = b"\x05" + bytes(range(32))
WHISPER = [(1, KEY), (2, 3), (3, 2), (4, b"sixteen bytes ok"), (5, b"\x01\x01\x01\x00"), (6, bytes(36))]
KEM = b"\x08" + bytes(1568)
PREKEY = [(1, 0), (2, KEY), (3, KEY), (4, b"\x44..."), (5, 77), (6, 1), (7, 2), (8, KEM)]


def whisper(fields: list[lenient.Field], version: bytes = b"\x44", mac: bytes = MAC) -> bytes:
    return version + lenient.write(fields) + mac


def prekey(fields: list[lenient.Field], version: bytes = b"\x44") -> bytes:
    return version + lenient.write(fields)


def changed(fields: list[lenient.Field], number: int, *values: int | bytes) -> list[lenient.Field]:
    """``fields`` with ``number`` once for each of ``values``, none removing it."""
    return sorted(
        [*(f for f in fields if f[0] != number), *((number, v) for v in values)], key=lambda f: f[0]
    )


def test_honest_messages_are_read() -> None:
    message = messages.SignalMessage(whisper(WHISPER))
    assert (message.ratchet_key, message.counter, message.mac) == (KEY[1:], 3, MAC)
    assert message.authenticated == whisper(WHISPER)[: -len(MAC)]
    decoded = messages.decode_prekey_message(prekey(PREKEY))
    assert decoded.one_time_prekey_id == 0  # zero is an id, absence is none
    assert messages.decode_prekey_message(prekey(changed(PREKEY, 1))).one_time_prekey_id is None


@given(
    st.binary(min_size=32, max_size=32),
    st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
    st.binary(max_size=200),
    st.binary(min_size=1, max_size=50),
    st.none() | st.binary(max_size=40),
)
@pytest.mark.attack(16)
def test_signal_messages_round_trip(
    key: bytes, counters: tuple[int, int], ciphertext: bytes, pq: bytes, addresses: bytes | None
) -> None:
    encoded = messages.encode_signal_message(key, counters, ciphertext, pq, addresses)
    decoded = messages.SignalMessage(encoded + MAC)
    assert decoded.authenticated == encoded
    assert (decoded.ratchet_key, decoded.counter) == (key, counters[0])
    assert (decoded.ciphertext, decoded.pq_ratchet, decoded.addresses) == (ciphertext, pq, addresses)


@given(
    st.none() | st.integers(0, 2**32 - 1),
    st.tuples(st.integers(0, 2**14 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
    st.binary(max_size=200),
)
@pytest.mark.attack(16)
def test_prekey_messages_round_trip(one_time: int | None, ids: tuple[int, int, int], inner: bytes) -> None:
    message = messages.PreKeyMessage(ids[0], one_time, ids[1], ids[2], KEY, KEY, KEM, inner)
    assert messages.decode_prekey_message(message.encode()) == message


@pytest.mark.attack(16)
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x44", id="version alone"),
        pytest.param(b"\x44" + MAC[:7], id="shorter than a MAC"),
        pytest.param(b"\x44" + MAC, id="MAC alone"),
        *(pytest.param(whisper(changed(WHISPER, n)), id=f"without field {n}") for n in (1, 2, 3, 4)),
        *(pytest.param(whisper(sorted([*WHISPER, f])), id=f"field {f[0]} twice") for f in WHISPER),
        pytest.param(whisper(changed(WHISPER, 1, KEY[1:])), id="key without type"),
        pytest.param(whisper(changed(WHISPER, 1, KEY + b"\x00")), id="key with a trailing byte"),
        pytest.param(whisper(changed(WHISPER, 1, KEY[:-1])), id="key cut short"),
        pytest.param(whisper(changed(WHISPER, 1, b"\x06" + KEY[1:])), id="key of another type"),
        pytest.param(whisper(changed(WHISPER, 1, b"\x08" + KEY[1:])), id="key of the KEM's type"),
        pytest.param(whisper(changed(WHISPER, 2, b"\x03")), id="counter as bytes"),
        pytest.param(whisper(changed(WHISPER, 2, 2**32)), id="counter of 33 bits"),
        pytest.param(whisper(changed(WHISPER, 4, 16)), id="ciphertext as number"),
        pytest.param(
            whisper(changed(WHISPER, 4, bytes(limits.PAIRWISE_MESSAGE_MAX_BYTES))), id="over the size limit"
        ),
    ],
)
def test_signal_messages_refused(body: bytes) -> None:
    with pytest.raises(DecodeError):
        messages.SignalMessage(body)


@pytest.mark.attack(14)
def test_every_other_version_is_refused() -> None:
    for version in set(range(256)) - {0x44}:
        with pytest.raises(DecodeError):
            messages.SignalMessage(whisper(WHISPER, bytes((version,))))
        with pytest.raises(DecodeError):
            messages.decode_prekey_message(prekey(PREKEY, bytes((version,))))


@pytest.mark.attack(14)
@pytest.mark.parametrize("stripped", [changed(WHISPER, 5), changed(WHISPER, 5, b"")])
def test_a_message_without_post_quantum_ratchet_is_refused(stripped: list[lenient.Field]) -> None:
    with pytest.raises(DecodeError):
        messages.SignalMessage(whisper(stripped))


@pytest.mark.attack(16, 6)
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x44", id="version alone"),
        *(pytest.param(prekey(changed(PREKEY, n)), id=f"without field {n}") for n in (2, 3, 4, 5, 6, 7, 8)),
        *(pytest.param(prekey(sorted([*PREKEY, f])), id=f"field {f[0]} twice") for f in PREKEY),
        pytest.param(prekey(PREKEY) + b"\x00", id="trailing zero"),
        pytest.param(prekey(PREKEY)[:-1], id="cut short"),
        pytest.param(prekey(changed(PREKEY, 2, KEY[1:])), id="base key without type"),
        pytest.param(prekey(changed(PREKEY, 2, KEY + b"\x00")), id="base key with a trailing byte"),
        pytest.param(prekey(changed(PREKEY, 2, b"\x08" + KEY[1:])), id="base key of the KEM's type"),
        pytest.param(prekey(changed(PREKEY, 3, KEY[:-1])), id="identity cut short"),
        pytest.param(prekey(changed(PREKEY, 3, b"\x06" + KEY[1:])), id="identity of another type"),
        pytest.param(prekey(changed(PREKEY, 5, 2**14)), id="registration of 15 bits"),
        pytest.param(prekey(changed(PREKEY, 8, KEM[:-1])), id="KEM ciphertext cut short"),
        pytest.param(prekey(changed(PREKEY, 8, KEM + b"\x00")), id="KEM ciphertext with a trailing byte"),
        pytest.param(prekey(changed(PREKEY, 8, b"\x0a" + KEM[1:])), id="KEM ciphertext of type ML-KEM"),
        pytest.param(prekey(changed(PREKEY, 8, b"\x08" + bytes(1088))), id="KEM ciphertext of Kyber-768"),
        pytest.param(
            prekey(changed(PREKEY, 4, bytes(limits.PAIRWISE_MESSAGE_MAX_BYTES))), id="over the size limit"
        ),
    ],
)
def test_prekey_messages_refused(body: bytes) -> None:
    with pytest.raises(DecodeError):
        messages.decode_prekey_message(body)
    with pytest.raises(DecodeError):
        messages.inspect_prekey_message(body)
