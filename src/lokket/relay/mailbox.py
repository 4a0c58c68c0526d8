"""Mailboxes: a queue for each device, first in, first out.

Out of a sender:  ``send`` checks each envelope, stores those that pass in one transaction, rings.
To a recipient:   ``drain`` pushes what waits, within a window of unacknowledged envelopes;
                  ``acknowledge`` deletes by id, and only the caller's own.

Nothing is answered before it is durable. A mailbox refuses the new and never drops the old.
"""

from __future__ import annotations

from lokket import limits
from lokket.relay.office import Caller, Moment, Office
from lokket.relay.storage.base import Mail, Quota
from lokket.wire import api

HOUR_MS = 3_600_000


async def send(office: Office, caller: Caller, request: api.Send, moment: Moment) -> api.Sent:
    """1. Budgets of the sender. 2. Each envelope's form. 3. Storage decides the rest. 4. Ring."""
    envelopes = request.envelopes
    office.spend("send", caller.genesis_hash, moment, len(envelopes))
    size = sum(len(envelope.body) for envelope in envelopes)
    office.spend("send-bytes", caller.genesis_hash, moment, max(size, 1))
    codes = [_refused(office, caller, envelope, moment) for envelope in envelopes]
    expires_h = -(-moment.now_ms // HOUR_MS) + office.config.mail_days * 24
    passed = [at for at, code in enumerate(codes) if code is None]
    quota = Quota(office.config.mailbox_count_max, office.config.mailbox_max_bytes)
    stored = await office.storage.append(tuple(_mail(envelopes[at], expires_h) for at in passed), quota)
    for at, code in zip(passed, stored, strict=True):
        codes[at] = code
    for device_hash in dict.fromkeys(envelopes[at].device_hash for at in passed if not codes[at]):
        office.bus.ring(device_hash)
    return api.Sent(
        tuple(
            api.Deposited(envelope.envelope_id, code or "")
            for envelope, code in zip(envelopes, codes, strict=True)
        )
    )


def _refused(office: Office, caller: Caller, envelope: api.Envelope, moment: Moment) -> str | None:
    """A code; "" for what was delivered before; None: storage decides."""
    if envelope.format != 1:
        return api.VERSION
    if envelope.deposit != api.DEPOSIT_LOGIN or envelope.deposit_data:
        return api.INVALID
    if envelope.sender not in (None, api.Sender(caller.genesis_hash, caller.device_hash)):
        return api.INVALID
    if office.recent.knows(envelope.device_hash, envelope.envelope_id, moment.now_ms):
        return ""
    pair = caller.genesis_hash + envelope.device_hash
    if office.budgets.take("send-target", pair, moment.now_ms):
        return api.RATE_LIMITED
    return None


def _mail(envelope: api.Envelope, expires_h: int) -> Mail:
    return Mail(
        envelope.recipient,
        envelope.device_hash,
        envelope.recipient_head,
        envelope.envelope_id,
        expires_h,
        api.encode(envelope),
    )


async def acknowledge(office: Office, caller: Caller, request: api.Acknowledge, moment: Moment) -> api.Ok:
    """Deletes what waits for the caller's device; other ids change nothing and get the same answer."""
    for envelope_id in await office.storage.acknowledge(caller.device_hash, request.envelope_ids):
        office.recent.add(caller.device_hash, envelope_id, moment.now_ms)
    for envelope_id in request.envelope_ids:
        caller.unacknowledged.pop(envelope_id, None)
    caller.wake()  # the window has room again
    return api.Ok()


async def drain(office: Office, caller: Caller) -> api.Deliver | None:
    """The next push for the caller, within the window; call it again until None, never twice at once."""
    if not caller.logged_in:
        return None
    count = limits.DELIVER_BATCH_MAX - len(caller.unacknowledged)
    space = limits.DELIVER_UNACKNOWLEDGED_MAX_BYTES - sum(caller.unacknowledged.values())
    if count <= 0 or space < limits.DELIVER_FRAME_MAX_BYTES:
        return None
    waiting = await office.storage.waiting(
        caller.device_hash, caller.drained_to, count, limits.DELIVER_FRAME_MAX_BYTES
    )
    if not waiting or not caller.logged_in:
        return None
    caller.drained_to = waiting[-1].order
    for item in waiting:
        caller.unacknowledged[item.envelope_id] = len(item.envelope)
    return api.Deliver(tuple(item.envelope for item in waiting))
