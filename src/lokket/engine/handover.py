"""The admin role moves to another device: never none that holds the account key, never two that may sign.

1. ``offer`` on the admin device, ``accept`` on the other: a person confirms on both.
2. The admin device sends the key inside their session; the other stores it and says so (``held``).
3. Only then the admin device signs its last list, which names the other as admin, by compare-and-set.
4. Who sees on the verified list that another is admin deletes the key; who sees itself named may sign.

Until 3 is accepted the old device alone is named, from then on the new one alone. Every message is a row
in the outbox and every stage a row in the vault: either side may stop anywhere.
"""

from __future__ import annotations

import msgspec

from lokket.crypto.primitives import equal
from lokket.engine import devices, siblings
from lokket.engine.events import AcceptAdmin, AdminOffered, CancelAdmin, OfferAdmin, TrustNotice
from lokket.engine.records import Account, OutboxRow, Role, rows, save
from lokket.engine.step import Step, account_of, own_state, require_account, save_account
from lokket.engine.store import ACCOUNT, AWAITING, AWAITING_ID, OUTBOX
from lokket.errors import LocalError
from lokket.protocol import identity
from lokket.wire import content

_OWN = ""  # the petname in notices about ourselves


# --- the admin device ---


def offer(step: Step, command: OfferAdmin) -> None:
    """Offer the role to another device; once more, if it was offered before."""
    account, _ = devices.signer(step)
    device_hash = devices.of_number(account, command.number)
    if device_hash == account.device_hash:
        raise LocalError("this is the admin device already")
    known = devices.role_of(step.tx)
    if known is not None and known.stage != "offered" and known.device_hash != device_hash:
        raise LocalError("another device may hold the account key already: let it finish")
    if known is None or known.stage == "offered":
        save(step.tx, ACCOUNT, devices.ROLE, Role(device_hash, "offered", giving=True))
    siblings.tell(step, content.Handover("offer", own_state(account).head), device_hash)


def cancel(step: Step, command: CancelAdmin) -> None:
    """On either device, as long as the key has not left."""
    known = devices.role_of(step.tx)
    if known is None or known.stage not in ("offered", "accepted"):
        raise LocalError("there is no offer of the admin role that could be taken back")
    step.tx.delete(ACCOUNT, devices.ROLE)
    if not known.giving:
        head = own_state(require_account(step.tx)).head
        siblings.tell(step, content.Handover("decline", head), known.device_hash)


def _accepted(step: Step, account: Account, known: Role) -> None:
    if devices.is_admin(account):
        save(step.tx, ACCOUNT, devices.ROLE, msgspec.structs.replace(known, stage="sent"))
        key = content.Handover("key", own_state(account).head, account.account_seed)
        siblings.tell(step, key, known.device_hash)


def _held(step: Step, known: Role) -> None:
    save(step.tx, ACCOUNT, devices.ROLE, msgspec.structs.replace(known, stage="held"))
    _forget_rows(step, known.device_hash)
    run(step)


def run(step: Step) -> None:
    """The other device holds the key: sign the list that names it, as often as it takes."""
    known, account = devices.role_of(step.tx), account_of(step.tx)
    if known is None or account is None or not known.giving or known.stage != "held":
        return
    state = own_state(account)
    device = state.device(known.device_hash)
    if account.pending_list or not devices.is_admin(account) or device is None:
        return
    account_key = identity.HybridKeyPair.from_seed(account.account_seed)
    signed, body = identity.extend_list(
        state, account_key, admin=device.device, now_s=step.now_s, entropy=step.entropy
    )
    devices.offer(step, account, signed, body, ())


# --- the other device ---


def accept(step: Step, command: AcceptAdmin) -> None:
    known = devices.role_of(step.tx)
    if known is None or known.giving:
        raise LocalError("no device of yours has offered the admin role: 'lokket device admin NUMBER' there")
    save(step.tx, ACCOUNT, devices.ROLE, msgspec.structs.replace(known, stage="accepted"))
    head = own_state(require_account(step.tx)).head
    siblings.tell(step, content.Handover("accept", head), known.device_hash)


def _offered(step: Step, account: Account, device_hash: bytes) -> None:
    sender = own_state(account).device(device_hash)
    if sender is None or sender.device != own_state(account).body.admin_device:
        return
    save(step.tx, ACCOUNT, devices.ROLE, Role(device_hash, "offered", giving=False))
    step.emit(AdminOffered(sender.device))


def _key_came(step: Step, account: Account, known: Role, seed: bytes) -> None:
    """Keep it if it is the account's; it signs nothing before the list names this device."""
    if len(seed) != 64 or identity.HybridKeyPair.from_seed(seed).public != own_state(account).account_key:
        return
    save_account(step.tx, msgspec.structs.replace(account, account_seed=seed))
    save(step.tx, ACCOUNT, devices.ROLE, msgspec.structs.replace(known, stage="held"))
    siblings.tell(step, content.Handover("held", own_state(account).head), known.device_hash)


# --- both ---


def received(step: Step, device_hash: bytes, told: content.Handover) -> None:
    """A word from another device of ours. One that does not fit the stage changes nothing.

    An admin device whose vault went back to its offer gives the key again to the one that says it holds it.
    """
    account, known = require_account(step.tx), devices.role_of(step.tx)
    if told.stage == "offer" and not account.account_seed:
        _offered(step, account, device_hash)
    if known is None or not equal(known.device_hash, device_hash):
        return
    match (known.giving, known.stage, told.stage):
        case (True, "offered" | "sent", "accept") | (True, "offered", "held"):
            _accepted(step, account, known)
        case (True, "offered", "decline"):
            step.tx.delete(ACCOUNT, devices.ROLE)
            step.emit(TrustNotice("admin", _OWN, "the other device declined the admin role"))
        case (True, "sent", "held"):
            _held(step, known)
        case (False, "accepted" | "held", "key"):
            _key_came(step, account, known, told.seed)
        case (False, "held", "offer"):
            siblings.tell(step, content.Handover("held", own_state(account).head), device_hash)


def list_changed(step: Step) -> None:
    """Our verified list, as it is now, says who is admin. A key whose place is elsewhere goes."""
    account, known = require_account(step.tx), devices.role_of(step.tx)
    state = own_state(account)
    admin = state.body.admin_device
    if not account.account_seed:
        return
    if admin == account.number:
        if known is not None and not known.giving:
            step.tx.delete(ACCOUNT, devices.ROLE)
            step.emit(TrustNotice("admin", _OWN, "this device is the admin device now"))
            siblings.announce(step)
    elif known is None or known.giving:
        save_account(step.tx, msgspec.structs.replace(account, account_seed=b""))
        step.tx.delete(ACCOUNT, devices.ROLE)
        step.emit(TrustNotice("admin", _OWN, f"device {admin} is the admin device now"))
        siblings.announce(step)


def void(step: Step) -> None:
    """A rotation: whatever key was on its way is the account's no more."""
    step.tx.delete(ACCOUNT, devices.ROLE)


def _forget_rows(step: Step, device_hash: bytes) -> None:
    """The rows that held the key on its way."""
    for key, row in rows(step.tx, OUTBOX, OutboxRow):
        if row.kind == content.HANDOVER and row.device_hash == device_hash:
            step.tx.delete(OUTBOX, key)
    for envelope_id, row in rows(step.tx, AWAITING, OutboxRow):
        if row.kind == content.HANDOVER and row.device_hash == device_hash:
            step.tx.delete(AWAITING, envelope_id)
            step.tx.delete(AWAITING_ID, row.mid + row.device_hash)
