"""What an operator may ask of a relay. ``admin`` carries it out."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from lokket import limits


class ListUsers(Struct, frozen=True, tag="users", forbid_unknown_fields=True):
    after: bytes = b""


class MakeInvite(Struct, frozen=True, tag="invite", forbid_unknown_fields=True):
    valid_s: Annotated[int, Meta(ge=60, le=30 * limits.DAY_S)] = limits.INVITE_VALID_S


class SetQuota(Struct, frozen=True, tag="quota", forbid_unknown_fields=True):
    """None: as for everyone."""

    who: str
    count_max: Annotated[int, Meta(ge=0, le=2**31)] | None = None
    max_bytes: Annotated[int, Meta(ge=0, le=2**50)] | None = None
    blobs_max_bytes: Annotated[int, Meta(ge=0, le=2**50)] | None = None


class SetBan(Struct, frozen=True, tag="ban", forbid_unknown_fields=True):
    who: str
    banned: bool


class Purge(Struct, frozen=True, tag="purge", forbid_unknown_fields=True):
    who: str


class Stats(Struct, frozen=True, tag="stats", forbid_unknown_fields=True):
    pass


Order = ListUsers | MakeInvite | SetQuota | SetBan | Purge | Stats
Answer = dict[str, Any]
