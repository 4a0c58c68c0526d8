"""Prekeys: batches verified before they are kept; each one-time pair handed out once, to one asker.

Once the last pair is gone, or a target is asked for too often, bundles come without one: sessions still
begin, and nobody can drain a device faster than its budget (attack "Prekey Pogo").
"""

from __future__ import annotations

from typing import Final

from lokket import limits
from lokket.codec import tls
from lokket.protocol.prekeys import PublicBatch, check_batch, served_bundle
from lokket.relay import kept
from lokket.relay.accounts import stored_account
from lokket.relay.office import Caller, Moment, Office, Refusal
from lokket.wire import api

_PICK_BYTES: Final = 8
_NUMBER_MAX: Final = 2**63 - 1  # what a database column holds


async def publish(office: Office, caller: Caller, request: api.Publish, moment: Moment) -> api.Ok:
    office.spend("publish", caller.device_hash, moment)
    row = await stored_account(office, caller.genesis_hash)
    device = kept.state(row).device(caller.device_hash)
    held = await office.storage.device(caller.device_hash)
    if device is None or held is None:
        raise Refusal(api.UNKNOWN, "this device was removed from its account")
    batch = tls.decode(PublicBatch, request.batch)
    number = batch.signed.manifest.number
    if number > _NUMBER_MAX:
        raise Refusal(api.INVALID, "no device has published that many batches")
    check_batch(batch, device, caller.genesis_hash, number - 1, moment.now_s)
    slots = bytes(pair.leaf.slot for pair in batch.pairs)
    if not await office.storage.publish(caller.device_hash, number, request.batch, slots):
        raise Refusal(api.CONFLICT, "the relay has a batch with this number or a higher one")
    return api.Ok()


async def fetch_bundle(
    office: Office, caller: Caller, request: api.FetchBundle, moment: Moment
) -> api.Bundle:
    """A random remaining pair, so that its slot tells nobody how many are left."""
    office.spend("bundle", caller.genesis_hash, moment)
    pick: int | None = None
    if not office.budgets.take("bundle-target", request.device_hash, moment.now_ms):
        pick = int.from_bytes(moment.entropy.draw(_PICK_BYTES), "big")
    taken = await office.storage.take_pair(request.genesis_hash, request.device_hash, pick)
    if taken is None:
        raise Refusal(api.UNKNOWN, "the relay has no prekeys of such a device")
    owner = office.sessions.get(request.device_hash)
    if owner is not None and taken.left <= limits.PAIRS_LOW:
        owner.pairs_low = taken.left
        owner.wake()
    return api.Bundle(tls.encode(served_bundle(kept.batch(taken), taken.slot)))
