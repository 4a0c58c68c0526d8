"""The whole fuzz corpus as mail: each item blocks nothing but itself.

Every file goes out twice through the relay, as the body of a message and of a first message of a contact's
device, and once as bytes that are no envelope at all; between them real messages flow, both ways.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from lokket import limits
from lokket.engine import events
from lokket.wire import api

from . import invariants
from .test_scenarios import awake, device_hash, genesis_hash, say, texts
from .world import World

CORPUS = sorted(
    path for path in (Path(__file__).parents[2] / "fuzz" / "corpus").glob("*/*") if path.is_file()
)
SLICES = 8
KINDS = (api.KIND_WHISPER, api.KIND_PREKEY)


def poison(world: World, body: bytes, kind: int, number: int) -> bytes:
    """As the relay hands it out: from a listed device, to this one, whatever is in it."""
    bob, ann = world.devices["bob1"], world.devices["ann1"]
    return api.encode(
        api.Envelope(
            format=1,
            kind=kind,
            envelope_id=b"poison" + number.to_bytes(10, "big"),
            recipient=genesis_hash(bob),
            device_hash=device_hash(bob),
            recipient_head=bytes(32),
            deposit=api.DEPOSIT_LOGIN,
            deposit_data=b"",
            sender=api.Sender(genesis_hash(ann), device_hash(ann)),
            body=body[: limits.ENVELOPE_BODY_MAX_BYTES],
        )
    )


def test_the_corpus_is_there() -> None:
    assert len(CORPUS) > 400


@pytest.mark.attack(62)
@pytest.mark.parametrize("part", range(SLICES))
def test_the_fuzz_corpus_as_mail_blocks_only_itself(part: int) -> None:
    world = awake(40 + part)
    world.restores += 1  # what heals is shown as a new session: that is no fault here
    bob = world.devices["bob1"]
    files = CORPUS[part::SLICES]
    for number, path in enumerate(files):
        data = path.read_bytes()
        mail = [
            poison(world, data, kind, 2 * number + kind % 2) for kind in (api.KIND_WHISPER, api.KIND_PREKEY)
        ]
        assert bob.step(events.Arrived((mail[0], data, mail[1])))
        acknowledged = {bytes(api.decode_envelope(one).envelope_id) for one in mail}
        assert acknowledged <= set(bob.vault.rows["seen"]), path.name
        if number % 10 == 0:
            say(world, "ann1", "bob", f"ann1 says behind {path.parent.name} {number}")
            say(world, "bob1", "ann", f"bob1 says behind {path.parent.name} {number}")
    world.settle()
    invariants.check_end(world)
    expected = len(range(0, len(files), 10))
    assert len([text for text in texts(world, "bob1", "ann") if " behind " in text]) == 2 * expected
