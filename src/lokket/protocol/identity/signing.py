"""How the owner of an account signs its lists: founding, changing, renewing, rotating.

Source: docs/identity.md, "Device lists". Nothing is signed that ``chain`` would refuse. A signed list
counts once the relay has taken it by compare-and-set; until then its bytes are kept and sent again.
"""

from __future__ import annotations

from lokket import limits
from lokket.codec import tls
from lokket.crypto.entropy import Entropy
from lokket.errors import LocalError, RemoteError
from lokket.protocol.identity.account import AccountState, step_update
from lokket.protocol.identity.chain import ALL_NUMBERS, advance, first_contact
from lokket.protocol.identity.device import Device, device_hash
from lokket.protocol.identity.devicelist import (
    LINK_FORMAT,
    NO_PREVIOUS,
    ListBody,
    ListLink,
    Revoked,
    Rotation,
    SignedLink,
    SignedRotation,
    body_hash,
    list_body,
    sign_link,
    sign_rotation,
)
from lokket.protocol.identity.genesis import Genesis, genesis_hash
from lokket.protocol.identity.keys import HybridKeyPair


def sign_list(
    account: HybridKeyPair,
    state: AccountState | None,
    body: ListBody,
    devices: tuple[Device, ...],
    *,
    now_s: int,
    entropy: Entropy,
    genesis: Genesis | None = None,
    rotation: SignedRotation | None = None,
) -> tuple[SignedLink, ListBody]:
    """The next link over ``body``; ``devices`` are those that ``state`` does not list.

    The first list of an account takes ``state=None`` and its ``genesis``; the first of a new key epoch
    takes its ``rotation``. The result passed what contacts check. LocalError: they would refuse it.
    """
    if state is not None:
        known, epoch, version, previous = state.genesis, state.key_epoch, state.version, state.head
    elif genesis is not None:
        known, epoch, version, previous = genesis, 0, 0, NO_PREVIOUS
    else:
        raise LocalError("the first list of an account needs its genesis")
    if rotation is not None:
        step = rotation.rotation
        epoch, version, previous = step.key_epoch, step.last_version, step.last_head
    link = ListLink(
        LINK_FORMAT,
        genesis_hash(known),
        epoch,
        version + 1,
        previous,
        body_hash(body),
        now_s,
        now_s + limits.LIST_VALID_DAYS * limits.DAY_S,
    )
    signed = sign_link(account, link, entropy)
    encoded = tuple(tls.encode(device) for device in devices)
    try:
        if state is None:
            first_contact(step_update(signed, body, encoded, genesis=known), link.genesis, now_s)
        else:
            advance(state, step_update(signed, body, encoded, rotation=rotation), now_s)
    except RemoteError as error:
        raise LocalError(f"contacts would refuse this list: {error}") from error
    return signed, body


def renew(account: HybridKeyPair, state: AccountState, now_s: int, entropy: Entropy) -> SignedLink:
    """A new link over the same body. LocalError: not the account's key."""
    signed, _ = sign_list(account, state, state.body, (), now_s=now_s, entropy=entropy)
    return signed


def found_account(
    genesis: Genesis, account: HybridKeyPair, device: Device, now_s: int, entropy: Entropy
) -> AccountState:
    """A new account: version 1 lists its first device, which is the admin device."""
    body = list_body(device.device, (device_hash(device),))
    signed, body = sign_list(account, None, body, (device,), now_s=now_s, entropy=entropy, genesis=genesis)
    update = step_update(signed, body, (tls.encode(device),), genesis=genesis)
    return first_contact(update, signed.link.genesis, now_s)


def extend_list(
    state: AccountState,
    account: HybridKeyPair,
    *,
    now_s: int,
    entropy: Entropy,
    add: tuple[Device, ...] = (),
    remove: tuple[bytes, ...] = (),
    admin: int | None = None,
) -> tuple[SignedLink, ListBody]:
    """The next list: ``add`` joins, the device hashes in ``remove`` are revoked; ``admin``: another number.

    LocalError: contacts would refuse it.
    """
    listed = dict(state.listed)
    if not set(remove) <= set(listed):
        raise LocalError("only a listed device can be removed")
    returning = {device.device for device in add}
    gone = tuple(Revoked(listed[key].device, key, state.version + 1) for key in remove)
    kept = tuple(key for key in listed if key not in remove)
    body = list_body(
        state.body.admin_device if admin is None else admin,
        (*kept, *(device_hash(device) for device in add)),
        tuple(entry for entry in (*state.body.revoked, *gone) if entry.device not in returning),
        floor=state.body.floor,
        extensions=state.body.extensions,
    )
    return sign_list(account, state, body, add, now_s=now_s, entropy=entropy)


def free_number(state: AccountState, now_s: int) -> int:
    """A number for the next device: a fresh one, else the longest-rested. LocalError: none has rested.

    A number that returns leaves ``revoked``; ``chain`` checks that.
    """
    used = {device.device for _, device in state.listed} | {entry.device for entry in state.body.revoked}
    fresh = ALL_NUMBERS - used
    if fresh:
        return min(fresh)
    gone = {entry.hash: entry.gone_s for entry in state.devices}
    oldest = min(state.body.revoked, key=lambda entry: gone[entry.hash])
    if now_s < gone[oldest.hash] + limits.DEVICE_NUMBER_REST_DAYS * limits.DAY_S:
        raise LocalError("all 127 device numbers are spent and none has rested for 90 days")
    return oldest.device


def rotate(
    state: AccountState,
    recovery: HybridKeyPair,
    account: HybridKeyPair,
    next_commitment: bytes,
    *,
    now_s: int,
    entropy: Entropy,
) -> SignedRotation:
    """``account`` becomes the account key, by the power of the committed ``recovery`` key.

    Its list follows by ``sign_list`` with ``rotation``. LocalError: the account has rotated 64 times.
    """
    if state.key_epoch >= limits.ROTATIONS_MAX:
        raise LocalError("an account rotates at most 64 times")
    rotation = Rotation(
        genesis=state.genesis_hash,
        key_epoch=state.key_epoch + 1,
        account_key=account.public,
        recovery_key=recovery.public,
        recovery_commitment=next_commitment,
        last_version=state.version,
        last_head=state.head,
        issued_s=now_s,
    )
    return sign_rotation(recovery, account, rotation, entropy)
