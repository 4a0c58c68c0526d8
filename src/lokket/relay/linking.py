"""Linking: where a device that is not yet on any list leaves one sealed word for the admin device.

The code that the admin device shows holds a token; the relay knows its hash from the admin device, so
nobody else can knock, and the first word stays.
"""

from __future__ import annotations

from lokket.crypto.primitives import sha256
from lokket.relay.accounts import attempt
from lokket.relay.meetings import Meeting
from lokket.relay.office import Caller, Moment, Office, Refusal
from lokket.wire import api


async def meet(office: Office, caller: Caller, request: api.Meet, moment: Moment) -> api.Met:
    office.spend("meet", caller.genesis_hash, moment)
    meeting = office.meetings.of(request.token_hash, moment.now_ms)
    if meeting is None:
        meeting = Meeting(caller.genesis_hash, caller.device_hash, moment.now_ms)
        if not office.meetings.open(request.token_hash, meeting):
            raise Refusal(api.UNAVAILABLE, "too many devices are being linked; try again later")
    elif meeting.device_hash != caller.device_hash:
        raise Refusal(api.UNKNOWN, "the relay does not know this code")
    return api.Met(meeting.sealed)


async def knock(office: Office, caller: Caller, request: api.Knock, moment: Moment) -> api.Ok:
    """Three words on one connection at most, as with logins; the first that comes stays."""
    attempt(caller, moment)
    meeting = office.meetings.of(sha256(request.token), moment.now_ms)
    if meeting is None:
        raise Refusal(api.UNKNOWN, "the relay does not know this code, or its time is over")
    office.spend("knock", meeting.genesis_hash, moment)
    if meeting.sealed not in (b"", request.sealed):
        raise Refusal(api.CONFLICT, "another device has used this code; ask for a new one")
    meeting.sealed = request.sealed
    return api.Ok()
