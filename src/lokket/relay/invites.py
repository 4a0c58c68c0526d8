"""Invites: the relay keeps a token's hash, who made it, and until when. ``accounts`` spends it."""

from __future__ import annotations

from lokket import limits
from lokket.protocol.identity import Invite, derive_invite
from lokket.relay.office import Caller, Moment, Office, Refusal
from lokket.relay.storage.base import InviteRow
from lokket.wire import api


async def put(office: Office, caller: Caller, request: api.PutInvite, moment: Moment) -> api.Ok:
    office.spend("invite", caller.genesis_hash, moment)
    latest_s = moment.now_s + limits.INVITE_VALID_S + limits.CLOCK_SKEW_S
    if not moment.now_s < request.expires_s <= latest_s:
        raise Refusal(api.INVALID, "an invite is valid for at most 24 hours; check this machine's clock")
    row = InviteRow(request.token_hash, caller.genesis_hash, request.expires_s)
    code = await office.storage.put_invite(row, limits.INVITES_OPEN_MAX, moment.now_s)
    if code == api.RATE_LIMITED:
        raise Refusal(code, "too many invites are open; wait until some are used or a day old")
    if code:
        raise Refusal(code, "this token is another account's")
    return api.Ok()


async def first_member(office: Office, moment: Moment) -> Invite | None:
    """A registration-only invite that replaces the one before it; None once the relay has a member."""
    if (await office.storage.counts()).accounts:
        return None
    invite = Invite(
        origin=office.config.origin,
        relay_key=office.key.public,
        genesis_hash=None,
        creator_device=None,
        secret=moment.entropy.draw(32),
        expires_s=moment.now_s + limits.INVITE_VALID_S,
    )
    row = InviteRow(derive_invite(invite.secret).token_hash, None, invite.expires_s)
    await office.storage.put_invite(row, 1, moment.now_s)
    return invite
