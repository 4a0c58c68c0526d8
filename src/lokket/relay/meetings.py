"""Meetings under way, in memory only: after a restart both sides ask again."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from lokket import limits


@dataclass(slots=True)
class Meeting:
    genesis_hash: bytes
    device_hash: bytes  # who opened it
    opened_ms: int
    sealed: bytes = b""


class Meetings:
    """By token hash, oldest first; one for each device."""

    def __init__(self, entries_max: int = limits.MEETINGS_MAX) -> None:
        self._entries_max = entries_max
        self._open: OrderedDict[bytes, Meeting] = OrderedDict()

    def of(self, token_hash: bytes, now_ms: int) -> Meeting | None:
        meeting = self._open.get(token_hash)
        if meeting is None or not _lasts(meeting, now_ms):
            return None
        return meeting

    def open(self, token_hash: bytes, meeting: Meeting) -> bool:
        """False: there are too many."""
        for other, known in list(self._open.items()):
            if known.device_hash == meeting.device_hash or not _lasts(known, meeting.opened_ms):
                del self._open[other]
        if len(self._open) >= self._entries_max:
            return False
        self._open[token_hash] = meeting
        return True

    def __len__(self) -> int:
        return len(self._open)


def _lasts(meeting: Meeting, now_ms: int) -> bool:
    return abs(now_ms - meeting.opened_ms) <= limits.LINK_CODE_VALID_S * 1000
