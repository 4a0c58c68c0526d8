"""Messaging Layer Security (RFC 9420): groups whose members agree on every epoch's keys."""

from __future__ import annotations

__all__: list[str] = []
