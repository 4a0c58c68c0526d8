"""Write the starting values of fuzz targets to ``corpus/NAME``: ``python fuzz/seeds.py [NAME ...]``.

Run it after a format of our own changes. It adds and replaces files, and removes none: fixed crashes stay.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
sys.path[:0] = [str(HERE), str(HERE.parent)]

import targets  # noqa: E402
from fuzz import archives, frames, identity  # noqa: E402
from lokket.codec import tls  # noqa: E402
from lokket.protocol import fingerprint  # noqa: E402
from lokket.protocol.pairwise import MessageKind, spqr  # noqa: E402
from tests.support import protobuf as lenient  # noqa: E402
from tests.support.entropy import SeededEntropy  # noqa: E402
from tests.support.pairwise import Device, talking  # noqa: E402


def tls_values() -> Iterator[bytes]:
    leaf, colour = targets.Leaf(7, b"seven"), targets.Colour
    everything = targets.Everything
    long = b"opaque" * 20
    yield tls.encode(everything(1, 2**40, True, bytes(16), long, (leaf, leaf), (leaf,), 9, colour.BLUE, leaf))
    yield tls.encode(everything(255, 0, False, bytes(range(16)), b"", (), (), None, colour.RED, leaf))


def protobuf_values() -> Iterator[bytes]:
    yield lenient.write([(1, b"bytes"), (2, 300), (3, 2**32 - 1), (200, b"")])
    yield lenient.write([(3, 0), (7, b"unknown"), (1, b"")]) + bytes((9 << 3 | 5, 1, 2, 3, 4))


def signal_messages() -> Iterator[bytes]:
    alice, bob = talking()
    yield alice.send(bob.address, b"a message").body
    alice.begin(bob.bundle())
    inner = lenient.value(alice.send(bob.address, b"with addresses").body[1:], 4)
    assert isinstance(inner, bytes)
    yield inner


def prekey_messages() -> Iterator[bytes]:
    for one_time in (True, False):
        alice, bob = Device("alice"), Device("bob")
        alice.begin(bob.bundle(one_time=one_time))
        yield alice.send(bob.address, b"first").body


def pq_messages() -> Iterator[bytes]:
    """To every state of the Braid: what the other states send, that is, mostly another epoch or payload."""
    entropy = SeededEntropy("fuzz")
    sent = [spqr.send(state, entropy)[1] for state in targets.pq_states()]
    for place in range(len(sent)):
        yield bytes((place,)) + sent[place - 1]
        yield bytes((place,)) + sent[place - 4]
    yield b"\x00\x01\x01\x05\x00"
    yield b"\x00\x01\x01\x02\x05\xff\xff\x03" + bytes(32)


def session_records() -> Iterator[bytes]:
    """One record in each state of the Braid, some with skipped keys, some with archived sessions."""
    alice, bob = talking()
    seen = set()
    for number in range(200):
        for sender, receiver in ((alice, bob), (bob, alice)):
            if number % 40 == 7:
                sender.send(receiver.address, b"skipped")
            receiver.receive(sender.address, sender.send(receiver.address, b"x"))
            record = receiver.record(sender.address)
            assert record is not None
            assert record.current is not None
            state = _braid_state(record.current.ratchet.spqr)
            if state not in seen:
                seen.add(state)
                yield receiver.records[sender.address]
    late = alice.send(bob.address, b"late")
    alice.begin(bob.bundle())
    bob.receive(alice.address, alice.send(bob.address, b"again"))
    yield bob.records[alice.address]
    yield alice.records[bob.address]
    bob.receive(alice.address, late)
    yield bob.records[alice.address]


def messages_to_bob() -> Iterator[bytes]:
    """Renews Bob's record too: its session was made with a KEM secret that no seed repeats."""
    alice, bob = Device("fuzz alice"), Device("fuzz bob")
    bundle, without_one_time = bob.bundle(), bob.bundle(one_time=False)
    alice.begin(bundle)
    first = alice.send(bob.address, b"first")
    yield bytes((first.kind,)) + first.body
    bob.receive(alice.address, first)
    alice.receive(bob.address, bob.send(alice.address, b"answer"))
    lost = alice.send(bob.address, b"lost")
    late = alice.send(bob.address, b"late")
    bob.receive(alice.address, late)
    targets.BOBS_RECORD.parent.mkdir(exist_ok=True)
    targets.BOBS_RECORD.write_bytes(bob.records[alice.address])
    for message in (lost, late, alice.send(bob.address, b"next")):
        yield bytes((MessageKind.WHISPER,)) + message.body
    alice.begin(without_one_time)
    anew = alice.send(bob.address, b"anew")
    yield bytes((anew.kind,)) + anew.body


def fingerprints() -> Iterator[bytes]:
    keys = b"\x05" + bytes(32)
    yield fingerprint.scannable(2, b"their", keys, b"own", keys, 1)
    yield fingerprint.scannable(2, b"another", keys, b"own", keys, 1)


def _braid_state(state: spqr.Spqr) -> object:
    return type(state.braid.value.state)


SEEDS = {
    "tls": tls_values,
    "protobuf": protobuf_values,
    "signal-message": signal_messages,
    "prekey-message": prekey_messages,
    "pq-ratchet": pq_messages,
    "session-record": session_records,
    "decrypt": messages_to_bob,
    "fingerprint": fingerprints,
    **identity.SEEDS,
    **frames.SEEDS,
    **archives.SEEDS,
}


def main() -> None:
    for name in sys.argv[1:] or SEEDS:
        folder = CORPUS / name
        folder.mkdir(parents=True, exist_ok=True)
        for data in SEEDS[name]():
            (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


if __name__ == "__main__":
    main()
