"""A proposal with what a commit must know of it: who made it, and how it came (RFC 9420 section 12.4)."""

from __future__ import annotations

from dataclasses import dataclass

from lokket.protocol.mls.messages import Sender
from lokket.protocol.mls.proposals import AnyProposal


@dataclass(frozen=True, slots=True)
class Proposed:
    """``sender`` is the committer where the proposal came by value; ``reference`` is None then."""

    proposal: AnyProposal
    sender: Sender
    reference: bytes | None = None
    authenticated_data: bytes = b""  # of the message that proposed it
