"""Contents: sizes, headers that contradict themselves, kinds and fields of later versions."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from lokket import limits
from lokket.errors import DecodeError, LocalError
from lokket.wire import content
from lokket.wire.content import Content, Header

ID = b"i" * 16
HASH = b"h" * 32
HEADER = Header(
    format=1,
    kind=content.TEXT,
    conversation=b"c" * 32,
    sender_genesis=b"s" * 32,
    sender_device=b"S" * 32,
    recipient_genesis=b"r" * 32,
    recipient_device=b"R" * 32,
    mid=b"m" * 16,
    incarnation=2**16 - 1,
    seq=2**32 - 1,
    previous=HASH,
    acknowledged=tuple(range(2**32 - 10, 2**32)),
    sender_head=b"1" * 32,
    recipient_head=b"2" * 32,
    time_ms=2**42,
    session_id=b"b" * 32,
)
CONTROL = replace(HEADER, seq=0, previous=content.NO_HASH)
BODIES = (
    content.Text("hello \u00fc"),
    content.Sync(HASH, content.TEXT, b"body"),
    content.Receipt((ID,) * content.RECEIPT_MIDS_MAX),
    content.Introduction("n" * limits.NAME_MAX_CHARS, ID, HASH),
    content.Introduction(None),
    content.InviteAnswer(ID, HASH),
    content.Heal((ID,) * content.RECEIPT_MIDS_MAX),
    content.Card(HASH, "n" * 40, True, "unverified"),
    content.ChallengeResponse(HASH),
)
CHALLENGE = content.Challenge(bytes(1168))


def of(body: content.Body) -> Content:
    kind = content.kind_of(body)
    header = HEADER if content.is_counted(kind) else CONTROL
    return Content(replace(header, kind=kind), content.encode_body(body))


@pytest.mark.parametrize("body", [*BODIES, CHALLENGE], ids=lambda body: type(body).__name__)
def test_round_trip(body: content.Body) -> None:
    made = of(body)
    decoded = content.decode_content(content.encode_content(made))
    assert decoded == made
    assert content.decode_body(decoded.header.kind, decoded.body) == body


@pytest.mark.attack(59)
@pytest.mark.parametrize("body", BODIES, ids=lambda body: type(body).__name__)
def test_control_kinds_are_as_long_as_a_short_text(body: content.Body) -> None:
    """With the longest header of 2^32 messages. The cipher adds a byte at least: 512."""
    assert len(content.encode_content(of(body))) == 511
    assert len(content.encode_content(of(content.Text("")))) == 511


@pytest.mark.attack(59)
def test_a_challenge_has_one_length() -> None:
    """Two kilobytes: it tells that somebody's first message came, which the relay saw."""
    assert len(content.encode_content(of(CHALLENGE))) == 2047
    assert (
        len(
            content.encode_content(
                Content(replace(of(CHALLENGE).header, session_id=None), of(CHALLENGE).body)
            )
        )
        == 2047
    )
    for size in (0, 1167, 1169):
        with pytest.raises(DecodeError):
            content.decode_body(content.CHALLENGE, content.encode_body(content.Challenge(bytes(size))))


@pytest.mark.attack(59)
@pytest.mark.attack(34)
def test_only_the_bucket_shows() -> None:
    sizes = {len(content.pad(bytes(size))) for size in range(0, 65_534, 61)}
    assert sizes == {512 * 2**k - 1 for k in range(8)}
    for bucket in sizes:
        assert len(content.pad(bytes(bucket - 1))) == bucket
    assert len(content.pad(bytes(511))) == 1023
    with pytest.raises(LocalError):
        content.pad(bytes(65_535))


@given(st.binary(max_size=3000))
def test_padding_comes_off_again(data: bytes) -> None:
    assert content.unpad(content.pad(data)) == data
    assert content.unpad(content.pad(data + b"\x00")) == data + b"\x00"
    assert content.unpad(content.pad(data + b"\x80")) == data + b"\x80"


@pytest.mark.attack(16)
@pytest.mark.parametrize(
    "padded",
    [
        b"",
        bytes(511),
        b"\x80" + bytes(254),
        b"\x80" + bytes(509),
        b"\x80" + bytes(511),
        b"\x80" + bytes(509) + b"\x01",
        b"\x80" + bytes(767 - 1),
        b"\x80" + bytes(131_070),
    ],
)
def test_wrong_padding_is_refused(padded: bytes) -> None:
    with pytest.raises(DecodeError):
        content.unpad(padded)


def test_a_larger_bucket_than_needed_is_no_error() -> None:
    """A later version may hide more."""
    padded = content.encode_content(of(content.Text("short")))
    assert content.decode_content(padded + bytes(512)).header.kind == content.TEXT


@pytest.mark.attack(30)
@pytest.mark.attack(31)
@pytest.mark.parametrize(
    ("header", "says"),
    [
        (replace(HEADER, seq=0), "no number"),
        (replace(HEADER, seq=0, previous=content.NO_HASH), "no number"),
        (replace(HEADER, seq=1), "predecessor"),
        (replace(HEADER, previous=content.NO_HASH), "predecessor"),
        (replace(HEADER, kind=content.RECEIPT), "control"),
        (replace(CONTROL, kind=content.RECEIPT, seq=1), "control"),
        (replace(CONTROL, kind=content.RECEIPT, previous=HASH), "control"),
        (replace(HEADER, kind=15, seq=0), "no number"),
        (replace(HEADER, kind=128, seq=0), "no number"),
        (replace(HEADER, kind=127), "control"),
        (replace(HEADER, sender_device=HEADER.recipient_device), "recipient"),
        (replace(HEADER, acknowledged=(2, 1)), "order"),
        (replace(HEADER, acknowledged=(1, 1)), "order"),
        (replace(HEADER, acknowledged=(0, 1)), "order"),
    ],
)
def test_headers_that_contradict_themselves(header: Header, says: str) -> None:
    made = Content(header, b"")
    with pytest.raises(LocalError, match=says):
        content.encode_content(made)
    with pytest.raises(DecodeError, match=says):
        content.decode_content(content.pad(msgspec.msgpack.encode(made)))


@pytest.mark.attack(16)
@pytest.mark.parametrize(
    "changed",
    [
        {"format": 2},
        {"format": 0},
        {"kind": 0},
        {"kind": 256},
        {"conversation": b"c" * 31},
        {"mid": b"m" * 17},
        {"incarnation": 2**32},
        {"seq": -1},
        {"seq": 2**63},
        {"acknowledged": tuple(range(1, 12))},
        {"session_id": b""},
        {"time_ms": -1},
    ],
)
def test_header_fields_out_of_range_are_refused(changed: dict[str, object]) -> None:
    made = Content(replace(HEADER, **changed), b"")
    with pytest.raises(DecodeError):
        content.decode_content(content.pad(msgspec.msgpack.encode(made)))


@pytest.mark.parametrize("kind", [3, 15, 99, 127, 128, 255])
def test_unknown_kinds_stay_bytes(kind: int) -> None:
    header = HEADER if content.is_counted(kind) else CONTROL
    made = Content(replace(header, kind=kind), b"of a later version")
    decoded = content.decode_content(content.encode_content(made))
    assert decoded == made
    assert content.decode_body(kind, decoded.body) is None


def test_fields_that_a_later_version_appends_are_dropped() -> None:
    wire = msgspec.msgpack.decode(msgspec.msgpack.encode(of(content.Text("x"))))
    wire[0].append("later")
    wire.append({"also": "later"})
    decoded = content.decode_content(content.pad(msgspec.msgpack.encode(wire)))
    assert decoded == of(content.Text("x"))
    assert content.decode_body(content.TEXT, msgspec.msgpack.encode(["x", "later"])) == content.Text("x")


@pytest.mark.attack(16)
@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (content.TEXT, [b"bytes"]),
        (content.TEXT, []),
        (content.TEXT, {"text": "x"}),
        (content.RECEIPT, [[]]),
        (content.RECEIPT, [[b"short"]]),
        (content.RECEIPT, [[ID] * 65]),
        (content.HEAL, [[ID] * 65]),
        (content.INTRODUCTION, ["n" * 33, None, None]),
        (content.INVITE_ANSWER, [ID, b""]),
        (content.SYNC, [HASH, 0, b""]),
    ],
)
def test_bodies_that_are_not_what_their_kind_says(kind: int, value: object) -> None:
    with pytest.raises(DecodeError):
        content.decode_body(kind, msgspec.msgpack.encode(value))


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x91" * 5000, b"\xa2\xff\xff", b"\x92\x90\xc4\x00"])
def test_garbage_is_a_decode_error(data: bytes) -> None:
    with pytest.raises(DecodeError):
        content.decode_content(content.pad(data))
    with pytest.raises(DecodeError):
        content.decode_body(content.TEXT, data)


def test_text_that_is_not_unicode_is_our_misuse() -> None:
    with pytest.raises(LocalError, match="Unicode"):
        content.encode_body(content.Text("\ud800"))
    with pytest.raises(DecodeError):
        content.decode_body(content.TEXT, b"\x91\xa3\xed\xa0\x80")


@pytest.mark.attack(30)
def test_a_content_hash_names_the_message_and_not_its_recipient() -> None:
    body = content.encode_body(content.Text("x"))
    said = content.content_hash(ID, 1, content.TEXT, body)
    assert len(said) == 32
    others = {
        content.content_hash(b"j" * 16, 1, content.TEXT, body),
        content.content_hash(ID, 2, content.TEXT, body),
        content.content_hash(ID, 1, content.SYNC, body),
        content.content_hash(ID, 1, content.TEXT, body + b"\x00"),
    }
    assert said not in others
    assert len(others) == 4


@pytest.mark.attack(32)
def test_conversation_sender_and_recipient_are_in_the_encrypted_header() -> None:
    """Nothing of where a content belongs is left to the envelope."""
    plain = content.encode_content(of(content.Text("x")))
    for name in ("conversation", "sender_genesis", "sender_device", "recipient_genesis", "recipient_device"):
        assert getattr(HEADER, name) in plain
        other = content.encode_content(of(content.Text("x")))
        changed = content.decode_content(other.replace(getattr(HEADER, name), b"z" * 32))
        assert getattr(changed.header, name) == b"z" * 32
