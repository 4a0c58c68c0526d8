"""Names: exact, first come, bound to an account, at rest for a year once freed. A name is a hint.

Who asks for a name that nobody has gets the work and the answer of any other unknown.
"""

from __future__ import annotations

from lokket.relay import kept
from lokket.relay.accounts import checked_claim, stored_account
from lokket.relay.office import Caller, Moment, Office, Refusal
from lokket.wire import api


async def claim(office: Office, caller: Caller, request: api.ClaimName, moment: Moment) -> api.Ok:
    """One name per account: a new claim lays the old name to rest."""
    office.spend("claim", caller.genesis_hash, moment)
    row = await stored_account(office, caller.genesis_hash)
    name = checked_claim(kept.state(row), request.claim)
    if not await office.storage.claim_name(name, moment.now_s):
        raise Refusal(api.CONFLICT, "the name is taken, or rests for a year after another account")
    return api.Ok()


async def lookup(office: Office, caller: Caller, request: api.LookupName, moment: Moment) -> api.NameRecord:
    office.spend("name", caller.genesis_hash, moment)
    row = await office.storage.name(request.name)
    if row is None:
        raise Refusal(api.UNKNOWN, "nobody has this name")
    return api.NameRecord(row.genesis_hash, row.claim)
