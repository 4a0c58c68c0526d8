"""Targets and starting values of the relay's frames and envelopes, for ``targets.py`` and ``seeds.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from lokket.wire import api

_HASHES: Final = tuple(bytes((number,)) * 32 for number in range(1, 6))
_ID: Final = bytes(range(16))
_TIME_S: Final = 1_800_000_000
_ENVELOPES: Final = tuple(
    api.Envelope(1, api.KIND_WHISPER, _ID, *_HASHES[2:5], api.DEPOSIT_LOGIN, b"", sender, b"body")
    for sender in (None, api.Sender(*_HASHES[:2]))
)
_REQUESTS: Final = (
    api.Login(*_HASHES[:3], _TIME_S, bytes(64)),
    api.Register(_HASHES[0], b"genesis", b"link", b"body", (b"device",), b"proof", None),
    api.Publish(b"batch"),
    api.FetchAccount(_HASHES[0], 0, 3),
    api.FetchBundle(*_HASHES[:2]),
    api.PutList(None, b"link", b"body", ()),
    api.ClaimName(b"claim"),
    api.LookupName("name"),
    api.PutInvite(_HASHES[0], _TIME_S),
    api.Send(_ENVELOPES),
    api.Acknowledge((_ID,)),
    api.DeleteAccount(b"signature"),
    api.BeginBlob(_ID, 70_000),
    api.PutBlobPart(_ID, 65_536, b"part"),
    api.CommitBlob(_ID),
    api.ListBlobs(),
    api.FetchBlobPart(_ID, 65_536),
    api.DeleteBlob(_ID),
    api.Ping(),
)
_ANSWERS: Final = (
    api.Ok(),
    api.LoggedIn(None, _HASHES[0], 0, 1, 2, 3, 4),
    api.Account(b"chain"),
    api.Bundle(b"bundle"),
    api.NameRecord(_HASHES[0], b"claim"),
    api.Sent((api.Deposited(_ID, ""),)),
    api.BlobHeld(_ID, 70_000, 65_536, committed=False, expires_s=_TIME_S),
    api.Blobs((api.BlobHeld(_ID, 70_000, 70_000, committed=True, expires_s=_TIME_S),)),
    api.BlobPart(b"part"),
    api.Refused(api.UNKNOWN, "no such account", 5),
    api.Hello((1,), "https://relay.example", *_HASHES[:2], bytes(64), _TIME_S * 1000, True),
    api.Deliver(tuple(map(api.encode, _ENVELOPES))),
    api.PairsLow(9),
    api.Closing("code", "sentence"),
)


def client_frame(data: bytes) -> object:
    """A frame to the relay. Its number is read also from a frame whose request is unknown."""
    number = api.frame_number(data)
    frame = api.decode_client_frame(data)
    assert number == frame.number
    assert api.decode_client_frame(api.encode(frame)) == frame
    return frame


def relay_frame(data: bytes) -> object:
    frame = api.decode_relay_frame(data)
    assert api.decode_relay_frame(api.encode(frame)) == frame
    return frame


def envelope(data: bytes) -> object:
    decoded = api.decode_envelope(data)
    assert api.decode_envelope(api.encode(decoded)) == decoded
    return decoded


TARGETS: Final[dict[str, Callable[[bytes], object]]] = {
    "client-frame": client_frame,
    "relay-frame": relay_frame,
    "envelope": envelope,
}


def client_frames() -> Iterator[bytes]:
    for number, request in enumerate(_REQUESTS, 1):
        yield api.encode(api.ClientFrame(number, request))


def relay_frames() -> Iterator[bytes]:
    for number, message in enumerate(_ANSWERS):
        yield api.encode(api.RelayFrame(number, message))


def envelopes() -> Iterator[bytes]:
    yield from map(api.encode, _ENVELOPES)


SEEDS: Final[dict[str, Callable[[], Iterator[bytes]]]] = {
    "client-frame": client_frames,
    "relay-frame": relay_frames,
    "envelope": envelopes,
}
