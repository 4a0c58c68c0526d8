"""What a verified change of a signed chain means for us, and how a person's trust grows and falls.

Follows docs/identity.md, "What a contact stores": a fork stops sending, a rotation waits for consent, a
device that is gone takes its sessions and queued mail along.
"""

from __future__ import annotations

import msgspec

from lokket.engine import book, devices, handover, history, outbox, prekeys, reading, siblings, whole_chain
from lokket.engine.events import MarkVerified, TrustNotice
from lokket.engine.records import Contact, HeldEnvelope, PeerDevice, load, rows, save
from lokket.engine.step import Step, own_state, require_account, save_account
from lokket.engine.store import HEALING, INBOX, PEER, RECEIPT, SESSION
from lokket.errors import LocalError, RemoteError
from lokket.protocol import identity
from lokket.wire import content

LEVELS = ("unverified", "invited", "verified")
_HEADS_KEPT = 16
_OWN = ""  # the petname in notices about ourselves


def own_first(step: Step, state: identity.AccountState, heads: tuple[bytes, ...]) -> None:
    """A joining device sees its account's list for the first time, itself on it or not yet."""
    account = require_account(step.tx)
    if not any(device_hash == account.device_hash for device_hash, _ in state.listed):
        return
    account = msgspec.structs.replace(account, state=state.encode(), status="active", heads=heads)
    save_account(step.tx, account)
    learn_devices(step, state)
    prekeys.publish_anew(step)


def own_chain(step: Step, known: identity.AccountState, update: identity.AccountUpdate) -> None:
    """Our own list moved: the admin device, or another of ours, learns what the relay accepted."""
    account = require_account(step.tx)
    try:
        state, changes = identity.advance(known, update, step.now_s)
    except identity.ForkDetected:
        step.emit(TrustNotice("forked", _OWN, "the relay shows two versions of your own device list"))
        return
    heads = more_heads(account.heads, update)
    account = msgspec.structs.replace(account, state=state.encode(), heads=heads)
    save_account(step.tx, account)
    devices.chain_arrived(step, moved=state.head != known.head)
    if state.head != known.head:
        whole_chain.followed(step, update)
    learn_devices(step, state)
    gone = _gone(changes)
    for change in _arrivals_first(changes):
        _own_change(step, change, account.device_hash, gone)
    handover.list_changed(step)
    if changes and devices.is_admin(require_account(step.tx)):
        siblings.announce(step)


def _arrivals_first(changes: tuple[identity.Change, ...]) -> list[identity.Change]:
    """What was meant for a device that left goes to those that came."""
    return sorted(changes, key=lambda change: isinstance(change, identity.DeviceRemoved))


def _gone(changes: tuple[identity.Change, ...]) -> set[bytes]:
    return {change.device_hash for change in changes if isinstance(change, identity.DeviceRemoved)}


def _own_change(step: Step, change: identity.Change, own_device: bytes, gone: set[bytes]) -> None:
    account = require_account(step.tx)
    match change:
        case identity.DeviceAdded(device_hash=device_hash, number=number):
            if device_hash != own_device:
                outbox.device_added(step, account.genesis_hash, device_hash, gone)
                _share_contacts(step, device_hash)
                siblings.share_names(step, device_hash)
                siblings.spread_name(step, device_hash)
                reading.share(step, device_hash)
                history.offer(step, device_hash)
                siblings.spread_name(step, device_hash)
                history.offer(step, device_hash)
            step.emit(TrustNotice("device-added", _OWN, f"device {number} was added to your account"))
        case identity.DeviceRemoved(device_hash=device_hash, number=number):
            if device_hash == own_device:
                step.emit(TrustNotice("revoked", _OWN, "this device was removed from your account"))
                return
            forget_device(step, device_hash)
            siblings.forget_name(step, device_hash)
            history.forget(step, device_hash)
            step.emit(TrustNotice("device-removed", _OWN, f"device {number} was removed from your account"))
        case identity.Rotated():
            # The key that this device may hold is void.
            save_account(step.tx, msgspec.structs.replace(account, account_seed=b"", pending_list=b""))
            handover.void(step)
            step.emit(TrustNotice("rotated", _OWN, "your account was recovered: it has a new account key"))


def _share_contacts(step: Step, device_hash: bytes) -> None:
    """A new device of ours must not take our contacts for strangers."""
    for contact in list(book.everyone(step.tx)):
        if contact.status == "accepted":
            outbox.share(step, contact, device_hash)


def card_received(step: Step, contact: Contact, card: content.Card) -> None:
    """Another device of ours knows this account: take over what is more than we have."""
    later = card.named_ms > contact.named_ms
    if (contact.auto_named or later) and contact.petname != card.petname:
        petname = book.free_petname(step.tx, card.petname, contact.genesis_hash)
        contact = book.rename(step.tx, contact, petname, auto_named=not card.chosen)
    if later:
        contact = msgspec.structs.replace(contact, named_ms=card.named_ms)
        book.store(step.tx, contact)
    if card.barred_ms > contact.barred_ms:
        contact = msgspec.structs.replace(contact, barred=card.barred, barred_ms=card.barred_ms)
        book.store(step.tx, contact)
        if contact.barred:
            outbox.silence(step, contact)
    if not card.accepted and contact.added_ms == step.now_ms:
        # Known through this card alone: on the other device it is a stranger as well.
        contact = msgspec.structs.replace(contact, status="request")
        book.store(step.tx, contact)
    elif card.accepted and contact.status == "request":
        contact = msgspec.structs.replace(contact, status="accepted")
        book.store(step.tx, contact)
        book.announce(step, contact)
    if card.level in LEVELS:
        raise_level(step, contact, card.level)


def contact_chain(step: Step, known: identity.AccountState, update: identity.AccountUpdate) -> None:
    contact = book.of(step.tx, known.genesis_hash)
    if contact is None or contact.blocked == "forked":
        return
    try:
        state, changes = identity.advance(known, update, step.now_s)
    except identity.ForkDetected as fork:
        book.store(step.tx, msgspec.structs.replace(contact, blocked="forked", evidence=fork.evidence))
        step.emit(
            TrustNotice(
                "forked",
                contact.petname,
                f"there are two versions of {contact.petname}'s device list: nothing is sent to it any more",
            )
        )
        return
    contact = msgspec.structs.replace(contact, state=state.encode(), heads=more_heads(contact.heads, update))
    book.store(step.tx, contact)
    learn_devices(step, state)
    gone = _gone(changes)
    for change in _arrivals_first(changes):
        _contact_change(step, change, known.genesis_hash, gone)
    if contact.claimed_head and contact.claimed_head not in contact.heads:
        sentence = f"{contact.petname}'s own device knows a device list that the relay does not show"
        step.emit(TrustNotice("frozen", contact.petname, sentence))


def _contact_change(step: Step, change: identity.Change, genesis_hash: bytes, gone: set[bytes]) -> None:
    contact = book.of(step.tx, genesis_hash)
    assert contact is not None
    name = contact.petname
    match change:
        case identity.DeviceAdded(device_hash=device_hash, number=number):
            outbox.device_added(step, genesis_hash, device_hash, gone)
            step.emit(TrustNotice("device-added", name, f"{name} has a new device (number {number})"))
        case identity.DeviceRemoved(device_hash=device_hash, number=number):
            forget_device(step, device_hash)
            step.emit(TrustNotice("device-removed", name, f"{name}'s device {number} was revoked"))
        case identity.Rotated():
            former = max(contact.level, contact.was or LEVELS[0], key=LEVELS.index)
            fallen = msgspec.structs.replace(
                contact, blocked="rotated", level=LEVELS[0], was="" if former == LEVELS[0] else former
            )
            book.store(step.tx, fallen)
            was = f" (was {former})" if fallen.was else ""
            step.emit(
                TrustNotice(
                    "rotated",
                    name,
                    f"{name} has a new account key{was}: nothing is sent until you accept it "
                    f"with 'lokket contacts accept {name}'",
                )
            )


def learn_devices(step: Step, state: identity.AccountState) -> None:
    """Every listed device has a PeerDevice row: what incoming mail is matched against."""
    for device_hash, _ in state.listed:
        if load(step.tx, PEER, device_hash, PeerDevice) is None:
            save(step.tx, PEER, device_hash, PeerDevice(state.genesis_hash))


def forget_device(step: Step, device_hash: bytes) -> None:
    """Revoked: no session, no queued mail, no receipt, no healing. Its later mail is quarantined."""
    step.tx.delete(SESSION, device_hash)
    step.tx.delete(HEALING, device_hash)
    for key, _ in list(step.tx.scan(RECEIPT, device_hash)):
        step.tx.delete(RECEIPT, key)
    for key, row in rows(step.tx, INBOX, HeldEnvelope):
        if row.to_heal and row.sender_device == device_hash:
            save(step.tx, INBOX, key, msgspec.structs.replace(row, to_heal=False))
    outbox.drop_device(step, device_hash)


def heads_seen(step: Step, genesis_hash: bytes, sender_head: bytes, own_head: bytes) -> None:
    """A content names the heads its sender knows: an unknown one means that somebody is behind."""
    account = require_account(step.tx)
    if own_head not in account.heads or (
        genesis_hash == account.genesis_hash and sender_head not in account.heads
    ):
        book.fetch(step, account.genesis_hash)
    contact = book.of(step.tx, genesis_hash)
    if contact is not None and sender_head not in (*contact.heads, contact.claimed_head):
        book.store(step.tx, msgspec.structs.replace(contact, claimed_head=sender_head))
        book.fetch(step, genesis_hash)


def verify(step: Step, command: MarkVerified) -> None:
    """The highest level: numbers compared, or a code scanned in person."""
    contact = book.named(step.tx, command.petname)
    if contact.blocked:
        raise LocalError(f"{contact.petname} changed: accept the change first, then compare anew")
    own = own_state(require_account(step.tx))
    if command.code is not None:
        try:
            identity.check_verify_code(own, book.state_of(contact), command.code)
        except RemoteError as error:
            raise LocalError(f"the code does not match: {error}") from None
    raise_level(step, contact, "verified")
    contact = book.named(step.tx, command.petname)
    outbox.share(step, contact)


def raise_level(step: Step, contact: Contact, level: str) -> Contact:
    """unverified < invited < verified; never down, never for a stranger's sake."""
    if LEVELS.index(level) <= LEVELS.index(contact.level):
        return contact
    contact = msgspec.structs.replace(contact, level=level)
    book.store(step.tx, contact)
    step.emit(TrustNotice("level", contact.petname, f"{contact.petname} is now {level}"))
    return contact


def more_heads(heads: tuple[bytes, ...], update: identity.AccountUpdate) -> tuple[bytes, ...]:
    """The heads that a content may name without our asking: the last few of a chain."""
    return tuple(dict.fromkeys((*heads, *(link.head for link in update.links))))[-_HEADS_KEPT:]
