"""Our account's devices: making one, and putting one on the signed list by compare-and-set."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from lokket.codec import tls
from lokket.engine import book
from lokket.engine.events import AddDevice, DeviceMade, JoinAsDevice, RevokeDevice
from lokket.engine.records import Account, PendingList, Role, load, pack, unpack
from lokket.engine.step import Step, account_of, own_state, require_account, save_account
from lokket.engine.store import ACCOUNT, Transaction
from lokket.errors import LocalError
from lokket.protocol import identity
from lokket.protocol.linking import LinkCode
from lokket.wire import api

ROLE = b"handover"  # its key among the account's rows
_OFFER_AGAIN_MS = 1_000
_REGISTRATION_IDS = 1 << 14  # libsignal's 14 bits, 0 left out


@dataclass(frozen=True, slots=True)
class Made:
    keys: identity.DeviceKeys
    device: identity.Device
    device_hash: bytes
    registration_id: int


def make(step: Step, genesis_hash: bytes, *, number: int, added_version: int) -> Made:
    """A device's keys and its signed Device. The bundle key's signature is the only drawn one."""
    keys = identity.DeviceKeys.generate(step.entropy)
    registration_id = 1 + int.from_bytes(step.entropy.draw(2), "big") % (_REGISTRATION_IDS - 1)
    device = identity.make_device(
        keys,
        genesis_hash,
        number=number,
        registration=registration_id,
        added_version=added_version,
        entropy=step.entropy,
    )
    return Made(keys, device, identity.device_hash(device), registration_id)


def join(step: Step, command: JoinAsDevice) -> None:
    """Make this vault a further device of an account; it can log in once the admin has listed it."""
    if account_of(step.tx) is not None:
        raise LocalError("this vault has an account already: choose another profile")
    genesis_hash = identity.genesis_hash(tls.decode(identity.Genesis, command.genesis))
    made = make(step, genesis_hash, number=command.number, added_version=command.added_version)
    step.emit(DeviceMade(join_with(step, made, genesis_hash, command, genesis=command.genesis)))


def join_with(
    step: Step, made: Made, genesis_hash: bytes, told: JoinAsDevice | LinkCode, *, genesis: bytes = b""
) -> bytes:
    """The account as a device has it that is not listed yet. Returns the encoded ``Device``.

    ``told``: its number, and where the account is. ``genesis`` empty: it comes with the list.
    """
    encoded = tls.encode(made.device)
    save_account(
        step.tx,
        Account(
            status="joining",
            genesis=genesis,
            genesis_hash=genesis_hash,
            state=b"",
            device=encoded,
            device_hash=made.device_hash,
            number=told.number,
            registration_id=made.registration_id,
            device_keys=made.keys.encode(),
            account_seed=b"",
            name=None,
            origin=told.origin,
            relay_key=told.relay_key,
            token=b"",
        ),
    )
    return encoded


def add(step: Step, command: AddDevice) -> None:
    """Sign the list with one device more, and offer it to the relay. It counts once the relay accepted."""
    account, account_key = signer(step)
    device = tls.decode(identity.Device, command.device)
    signed, body = identity.extend_list(
        own_state(account), account_key, add=(device,), now_s=step.now_s, entropy=step.entropy
    )
    offer(step, account, signed, body, (command.device,))


def revoke(step: Step, command: RevokeDevice) -> None:
    """Sign the list without a device, and offer it to the relay. It counts once the relay accepted."""
    account, account_key = signer(step)
    device_hash = of_number(account, command.number)
    if device_hash == account.device_hash:
        raise LocalError(
            "this is the admin device: move the role to another device first, "
            "or replace a lost one by 'lokket recover'"
        )
    if _may_hold_key(step.tx, device_hash):
        raise LocalError(
            "this device may hold the account key already: no list makes it forget; use 'lokket recover'"
        )
    signed, body = identity.extend_list(
        own_state(account), account_key, remove=(device_hash,), now_s=step.now_s, entropy=step.entropy
    )
    offer(step, account, signed, body, ())


def signer(step: Step) -> tuple[Account, identity.HybridKeyPair]:
    """The account and its key, on the one device that may sign the next list now. LocalError: not here."""
    account = require_account(step.tx)
    if not is_admin(account):
        raise LocalError("only the admin device can change the device list")
    if account.pending_list:
        raise LocalError("another change of the device list is under way: wait until the relay has it")
    return account, identity.HybridKeyPair.from_seed(account.account_seed)


def is_admin(account: Account) -> bool:
    """Whether this device holds the account key and the list names it as the one that does."""
    return bool(account.account_seed) and own_state(account).body.admin_device == account.number


def role_of(tx: Transaction) -> Role | None:
    """The admin role on its way to or from this device."""
    return load(tx, ACCOUNT, ROLE, Role)


def _may_hold_key(tx: Transaction, device_hash: bytes) -> bool:
    """Whether the account key has left for this device: no list without it makes it forget."""
    known = role_of(tx)
    on_its_way = known is not None and known.giving and known.stage != "offered"
    return on_its_way and known is not None and known.device_hash == device_hash


def of_number(account: Account, number: int) -> bytes:
    """The hash of our own device with this number. LocalError: none is listed."""
    for device_hash, device in own_state(account).listed:
        if device.device == number:
            return device_hash
    raise LocalError(f"your account has no device {number}: see 'lokket device list'")


def offer(
    step: Step,
    account: Account,
    signed: identity.SignedLink,
    body: identity.ListBody,
    devices: tuple[bytes, ...],
) -> None:
    """Keep the signed list until the relay has it: after a crash the same bytes go out again."""
    pending = PendingList(tls.encode(signed), tls.encode(body), devices)
    save_account(step.tx, msgspec.structs.replace(account, pending_list=pack(pending)))
    resume(step)


def resume(step: Step) -> None:
    account = require_account(step.tx)
    if account.pending_list:
        step.call("list", _request(account))


def _request(account: Account) -> api.PutList:
    pending = unpack(PendingList, account.pending_list)
    return api.PutList(None, pending.link, pending.body, pending.devices)


def answered(step: Step, reply: api.Reply) -> None:
    """The relay's word on our list. Either way our own chain is fetched: it shows what now holds.

    A list that was accepted is kept until the chain shows it: no other one is signed in its place meanwhile.
    """
    account = require_account(step.tx)
    if isinstance(reply, api.Refused):
        book.fail(step, "list", f"the relay refused the device list: {reply.sentence}")
        save_account(step.tx, msgspec.structs.replace(account, pending_list=b""))
    book.fetch(step, account.genesis_hash)


def chain_arrived(step: Step, *, moved: bool) -> None:
    """Our own chain. What moved it was the list that we keep, or voids it; else that is offered again."""
    account = require_account(step.tx)
    if not account.pending_list:
        return
    if moved:
        step.link.later.pop("list", None)
        save_account(step.tx, msgspec.structs.replace(account, pending_list=b""))
    elif "list" not in step.link.calls and "list" not in step.link.later:
        step.ask_later("list", _request(account), _OFFER_AGAIN_MS)
