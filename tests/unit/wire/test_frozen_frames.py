"""Frames as the first version of the interface wrote them: today's relay understands and answers the same.

``frames-1.json`` is a recorded conversation. It is never edited; a later version adds a file of its own.
``python -m tests.unit.wire.test_frozen_frames`` records one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lokket.codec import tls
from lokket.crypto.keys import Ed25519KeyPair
from lokket.crypto.primitives import sha256
from lokket.engine import events
from lokket.protocol import identity
from lokket.relay.bus import LocalBus
from lokket.relay.config import RelayConfig
from lokket.relay.office import Caller
from lokket.relay.relay import Relay
from lokket.relay.storage.memory import MemoryStorage
from lokket.wire import api
from tests.support.entropy import SeededEntropy
from tests.support.relay import ORIGIN, START_MS, Desk, Member
from tests.unit.engine.town import Town

pytestmark = pytest.mark.attack(117)
RECORDING = Path(__file__).parent / "frames-1.json"


@dataclass(frozen=True)
class Line:
    """``kind``: connect (a greeting came), ask (a frame went, its answer came) or push."""

    kind: str
    who: str
    sent: str
    came: str


class Recorder:
    """A relay whose randomness and clock are fixed, and whoever talks to it."""

    def __init__(self) -> None:
        self.entropy = SeededEntropy("frozen frames: the relay")
        key = Ed25519KeyPair(sha256(b"frozen frames: its key"))
        config = RelayConfig(origin=ORIGIN, open=True)
        self.relay = Relay(MemoryStorage(), config, key, LocalBus())
        self.callers: dict[str, Caller] = {}
        self.lines: list[Line] = []

    def connect(self, who: str) -> api.Hello:
        caller = self.relay.connect(START_MS, self.entropy)
        self.callers[who] = caller
        frame = api.encode(api.RelayFrame(0, caller.hello))
        self.lines.append(Line("connect", who, "", frame.hex()))
        return caller.hello

    async def ask(self, who: str, frame: bytes) -> bytes:
        """As ``relay.web`` does with a frame."""
        asked = api.decode_client_frame(frame)
        reply = await self.relay.handle(self.callers[who], asked.request, START_MS, self.entropy)
        answer = api.encode(api.RelayFrame(asked.number, reply))
        self.lines.append(Line("ask", who, frame.hex(), answer.hex()))
        return answer

    async def pushes(self, who: str) -> None:
        caller = self.callers[who]
        for notice in self.relay.notices(caller):
            self.lines.append(Line("push", who, "", api.encode(api.RelayFrame(0, notice)).hex()))
        while (deliver := await self.relay.drain(caller, START_MS)) is not None:
            self.lines.append(Line("push", who, "", api.encode(api.RelayFrame(0, deliver)).hex()))


async def conversation(recorder: Recorder) -> None:
    """Every request of the first version, and its answers, good and bad."""
    desk = Desk(seed="frozen frames")
    alice, bob = Member.new(desk, "alice"), Member.new(desk, "bob")
    number = 0

    async def ask(who: str, request: api.Request) -> None:
        nonlocal number
        number += 1
        await recorder.ask(who, api.encode(api.ClientFrame(number, request)))

    for who, member in (("alice", alice), ("bob", bob)):
        hello = recorder.connect(who)
        await ask(who, member.registration(hello, name=who))
        await ask(who, api.Publish(member.encoded_batch(1)))
    await ask("alice", api.FetchAccount(bob.genesis_hash, 0, 0))
    await ask("alice", api.FetchAccount(bob.genesis_hash, 0, 1))
    await ask("alice", api.FetchBundle(bob.genesis_hash, bob.device_hash))
    await ask("alice", api.LookupName("bob"))
    await ask("alice", api.LookupName("nobody"))
    await ask("alice", api.ClaimName(alice.claim("alicia")))
    await ask("alice", api.PutInvite(sha256(b"token"), START_MS // 1000 + 3_600))
    letters = (alice.envelope(bob, b"one"), alice.envelope(bob, b"two"), alice.envelope(alice, b"three"))
    await ask("alice", api.Send(letters))
    await recorder.pushes("bob")
    await ask("bob", api.Acknowledge(tuple(letter.envelope_id for letter in letters[:2])))
    tablet = alice.second_device(2)
    await ask("alice", alice.next_list(add=(tablet.device,))[0])
    await ask("bob", api.FetchAccount(alice.genesis_hash, 0, 1))
    await ask("alice", api.Meet(sha256(bytes(32))))
    recorder.connect("stranger")
    await ask("stranger", api.FetchChain(bob.genesis_hash))
    await ask("stranger", api.Knock(bytes(32), b"sealed"))
    await ask("stranger", api.Ping())
    await ask("alice", api.Meet(sha256(bytes(32))))
    await ask("alice", api.Ping())
    hello = recorder.connect("bob")
    await ask("bob", bob.login(hello, sha256(b"client nonce")))
    statement = identity.DeleteStatement(
        hello.origin.encode(), hello.relay_key, bob.genesis_hash, hello.nonce
    )
    signature = identity.sign_delete(bob.account, statement, bob.entropy)
    await ask("bob", api.DeleteAccount(tls.encode(signature)))
    await recorder.pushes("bob")


def recorded() -> list[Line]:
    return [Line(**line) for line in json.loads(RECORDING.read_text(encoding="ascii"))]


async def replayed() -> AsyncIterator[tuple[Line, bytes]]:
    """The recorded frames given to a relay of today, with what it says."""
    recorder = Recorder()
    pushes: list[Line] = []
    for line in recorded():
        match line.kind:
            case "connect":
                yield line, api.encode(api.RelayFrame(0, recorder.connect(line.who)))
            case "ask":
                yield line, await recorder.ask(line.who, bytes.fromhex(line.sent))
            case _:
                if not pushes:
                    before = len(recorder.lines)
                    await recorder.pushes(line.who)
                    pushes = recorder.lines[before:]
                yield line, bytes.fromhex(pushes.pop(0).came)


def same(came: bytes, then: bytes) -> bool:
    """Sentences may be written better; everything else stays."""
    now, before = api.decode_relay_frame(came), api.decode_relay_frame(then)
    if isinstance(now.message, api.Refused) and isinstance(before.message, api.Refused):
        return (now.number, now.message.code) == (before.number, before.message.code)
    return came == then


def test_todays_relay_answers_frames_of_the_first_version_as_it_did_then() -> None:
    """Byte for byte: a client of that version refuses what it does not know."""

    async def run() -> int:
        seen = 0
        async for line, came in replayed():
            assert same(came, bytes.fromhex(line.came)), api.decode_relay_frame(came)
            seen += 1
        return seen

    assert asyncio.run(run()) == len(recorded()) > 25


def test_todays_client_reads_and_writes_the_frames_of_the_first_version() -> None:
    for line in recorded():
        frame = api.decode_relay_frame(bytes.fromhex(line.came))
        assert api.encode(frame).hex() == line.came
        if line.sent:
            asked = api.decode_client_frame(bytes.fromhex(line.sent))
            assert api.encode(asked).hex() == line.sent


def test_every_request_of_the_first_version_is_in_the_recording() -> None:
    sent = {
        type(api.decode_client_frame(bytes.fromhex(line.sent)).request) for line in recorded() if line.sent
    }
    blobs = {api.BeginBlob, api.PutBlobPart, api.CommitBlob, api.ListBlobs, api.FetchBlobPart, api.DeleteBlob}
    since = {api.PutChain, api.Readmit, *blobs}  # a relay of the first version refuses them: clients bear it
    without = {api.Recover}  # its parts are those of others: PutList and Login
    assert sent == set(api.Request.__args__) - since - without  # type: ignore[attr-defined]


def test_a_request_of_a_later_version_is_refused_by_its_number() -> None:
    frame = b"\x92\x07\x92\xa6future\x01"
    assert api.frame_number(frame) == 7


def greeted(versions: tuple[int, ...]) -> tuple[list[Any], list[Any]]:
    """What today's client does on a greeting that offers these versions: calls and hang-ups."""
    town = Town()
    device = town.account("alice")
    device.disconnect()
    device.may_hang_up = True
    caller = town.relay.connect(town.now_ms, town.entropy)
    hello = api.Hello(
        versions,
        caller.hello.origin,
        caller.hello.relay_key,
        caller.hello.nonce,
        caller.hello.signature,
        caller.hello.time_ms,
        caller.hello.open,
    )
    device.outgoing.clear()
    device.handle(events.Connected(hello))
    calls = [effect for effect in device.outgoing if isinstance(effect, events.Call)]
    return calls, [effect for effect in device.outgoing if isinstance(effect, events.HangUp)]


@pytest.mark.parametrize("versions", [(1,), (1, 2), (0, 1, 2, 99)])
def test_a_relay_that_still_speaks_our_version_is_logged_in_to(versions: tuple[int, ...]) -> None:
    calls, hung_up = greeted(versions)
    assert [call.call for call in calls] == ["login"]
    assert not hung_up


@pytest.mark.parametrize("versions", [(), (2,), (2, 3), (0,)])
def test_a_relay_without_our_version_is_left_with_a_sentence(versions: tuple[int, ...]) -> None:
    calls, hung_up = greeted(versions)
    assert not calls
    assert "another version of the protocol: update the older side" in hung_up[0].sentence


def test_our_own_version_is_among_those_that_we_offer() -> None:
    assert api.PROTOCOL_VERSION in api.PROTOCOL_VERSIONS
    assert api.PROTOCOL_VERSIONS[-1] == max(api.PROTOCOL_VERSIONS)


if __name__ == "__main__":
    recording = Recorder()
    asyncio.run(conversation(recording))
    RECORDING.write_text(json.dumps([vars(line) for line in recording.lines], indent=0) + "\n")
