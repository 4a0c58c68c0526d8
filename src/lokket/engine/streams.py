"""Numbered contents: what is missing, and is a device there twice?

Each device numbers its contents in a conversation and names the hash of the one before. A hole is told
to the person; the same number with another message, or another history, means a cloned device.
"""

from __future__ import annotations

import msgspec

from lokket.engine.events import TrustNotice
from lokket.engine.records import Contact, Stream, load, save
from lokket.engine.step import Step
from lokket.engine.store import STREAM
from lokket.wire import content

_RECENT_KEPT = 32
_MISSING_KEPT = 256


def heard(step: Step, contact: Contact, header: content.Header, kind: int, body: bytes) -> None:
    """Enter one new content into its sender's stream, and raise what it reveals."""
    key = header.conversation + header.sender_device
    said = content.content_hash(header.mid, header.seq, kind, body)
    stream = load(step.tx, STREAM, key, Stream)
    if stream is None or header.incarnation > stream.incarnation:
        # A device starts at the first seen; a restored one starts anew under a higher incarnation.
        only = ((header.seq, header.mid),)
        begun = Stream(header.incarnation, header.seq, said, header.time_ms, only, began_ms=header.time_ms)
        save(step.tx, STREAM, key, begun)
        return
    if header.incarnation < stream.incarnation:
        if header.time_ms > stream.began_ms:  # else it is late mail from before the restore
            _alarm(step, contact)
        return
    if dict(stream.recent).get(header.seq, header.mid) != header.mid:
        _alarm(step, contact)
        return
    recent = (*stream.recent, (header.seq, header.mid))[-_RECENT_KEPT:]
    if header.seq < stream.highest:
        missing = tuple(seq for seq in stream.missing if seq != header.seq)
        save(step.tx, STREAM, key, msgspec.structs.replace(stream, recent=recent, missing=missing))
        return
    if header.seq == stream.highest + 1 and header.previous != stream.last_hash:
        _alarm(step, contact)
    gap = tuple(range(stream.highest + 1, header.seq)[-_MISSING_KEPT:])
    if gap:
        step.emit(
            TrustNotice(
                "missing",
                contact.petname,
                f"{header.seq - stream.highest - 1} message(s) of this conversation have not arrived",
            )
        )
    missing = (*stream.missing, *gap)[-_MISSING_KEPT:]
    moved = Stream(stream.incarnation, header.seq, said, header.time_ms, recent, missing, stream.began_ms)
    save(step.tx, STREAM, key, moved)


def _alarm(step: Step, contact: Contact) -> None:
    step.emit(
        TrustNotice(
            "clone-alarm",
            contact.petname,
            f"a device in the conversation with {contact.petname} seems to be in use twice: "
            "a copy of its keys may be in other hands",
        )
    )
