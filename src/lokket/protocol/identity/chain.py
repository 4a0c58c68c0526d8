"""How a contact judges an account: first contact, catching up, forks.

Source: docs/identity.md, "What a contact checks". In order:

1. The chain hangs on the genesis hash that is pinned.
2. Every link names its predecessor; rotations prove themselves; the last link is signed.
3. It reaches back to the stored head and goes forward: else a fork, a gap or a rollback.
4. The body belongs to the last link and follows from the one before: nobody silently disappears, no
   revoked device or number returns early, the floor never falls.
5. New devices prove their keys.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

from lokket import limits
from lokket.codec import tls
from lokket.codec.tls import U16
from lokket.crypto.keys import montgomery_from_ed25519
from lokket.errors import KeyRefused, RemoteError
from lokket.protocol.identity.account import (
    AccountState,
    AccountUpdate,
    DeviceStatus,
    KnownDevice,
    new_state,
)
from lokket.protocol.identity.device import Device, check_device, curve_points
from lokket.protocol.identity.devicelist import (
    NO_PREVIOUS,
    ListBody,
    ListLink,
    Revoked,
    SignedRotation,
    body_hash,
    check_link,
    check_rotation,
)
from lokket.protocol.identity.encoding import check_extensions
from lokket.protocol.identity.genesis import require_genesis
from lokket.protocol.identity.keys import HybridKey

ALL_NUMBERS = frozenset(range(1, limits.DEVICE_NUMBER_MAX + 1))


@dataclass(frozen=True, slots=True)
class DeviceAdded:
    """The list names a device that it did not name before."""

    device_hash: bytes  # 32
    number: int


@dataclass(frozen=True, slots=True)
class DeviceRemoved:
    """A device is gone: its sessions and queued mail go, later mail is kept aside."""

    device_hash: bytes
    number: int


@dataclass(frozen=True, slots=True)
class Rotated:
    """The account key changed: sending waits for the person, verification is gone."""

    epoch: int


Change: TypeAlias = DeviceAdded | DeviceRemoved | Rotated


@dataclass(frozen=True, slots=True)
class ForkEvidence:
    """Both branches, so that anyone who knows the genesis hash can check them."""

    format: U16
    stored: AccountState
    other: AccountUpdate


class ForkDetected(RemoteError):
    """Two signed lists that cannot both be: stop sending, keep ``evidence`` (an encoded ForkEvidence)."""

    code = "fork"

    def __init__(self, evidence: bytes) -> None:
        super().__init__("the account has signed two lists of the same version")
        self.evidence = evidence


@dataclass(frozen=True, slots=True)
class _Position:
    """A place in a chain, and the keys that rule there."""

    epoch: int
    account_key: HybridKey
    commitment: bytes
    version: int
    head: bytes


def first_contact(
    update: AccountUpdate | bytes, account: bytes, now_s: int, *, owner: bool = False
) -> AccountState:
    """The account behind genesis hash ``account``, from its whole chain. RemoteError; expired is refused.

    ``owner``: who holds the recovery code, and may come late.
    """
    update = _decoded(update)
    if update.genesis is None:
        raise RemoteError("the genesis is missing", code="gap")
    genesis = update.genesis
    require_genesis(genesis, account)
    start = _Position(0, genesis.account_key, genesis.recovery_commitment, 0, NO_PREVIOUS)
    end = _walk(account, start, update)
    _check_time(update.links[-1], now_s)
    if not owner and now_s > update.links[-1].not_after_s + limits.CLOCK_SKEW_S:
        raise RemoteError("the device list has expired: its owner has not renewed it", code="expired")
    devices = _follow(_Before({}, {}, frozenset(), 0, 0, 0), account, end.account_key, update)
    return new_state(genesis, update.rotations, update.last, update.body, devices)


def advance(
    state: AccountState, update: AccountUpdate | bytes, now_s: int
) -> tuple[AccountState, tuple[Change, ...]]:
    """The state after ``update`` and what it changes; nothing new changes nothing.

    ForkDetected: validly signed and irreconcilable with ``state``. RemoteError: anything else that is
    wrong, with the code ``rollback`` for an older list and ``gap`` for missing links.
    """
    update = _decoded(update)
    account = state.genesis_hash
    claimed = _claimed_start(state, update)
    end = _walk(account, claimed, update)
    if _forks(state, claimed, update):
        raise ForkDetected(tls.encode(ForkEvidence(1, state, replace(update, devices=()))))
    last = update.links[-1]
    if (last.key_epoch, last.version) == (state.key_epoch, state.version):
        return state, ()
    _check_time(last, now_s)
    rotated_first = update.links[0].key_epoch != state.key_epoch
    before = _before(state, claimed.version if rotated_first else state.version)
    devices = _follow(before, account, end.account_key, update)
    kept = {entry.hash: entry for entry in devices}
    for entry in state.devices:
        if entry.hash not in kept:
            gone_s = entry.gone_s or last.issued_s
            kept[entry.hash] = replace(entry, status=DeviceStatus.GONE, gone_s=gone_s)
        elif kept[entry.hash].device is None:
            kept[entry.hash] = replace(kept[entry.hash], device=entry.device)
    rotations = state.rotations + update.rotations
    after = new_state(state.genesis, rotations, update.last, update.body, tuple(kept.values()))
    return after, _changes(state, after)


def recheck(state: AccountState, account: bytes, now_s: int) -> AccountState:
    """A state that lay outside the vault: everything that its signatures can prove, and no more.

    Devices that are neither listed nor named as revoked are left out; an expired list is no reason to
    refuse. RemoteError: the state is not the account's, or does not hold together.
    """
    require_genesis(state.genesis, account)
    genesis = state.genesis
    position = _Position(0, genesis.account_key, genesis.recovery_commitment, 0, NO_PREVIOUS)
    for signed in state.rotations:
        cut = replace(position, version=signed.rotation.last_version, head=signed.rotation.last_head)
        if cut.version < position.version:
            raise RemoteError("a rotation does not follow the one before it", code="broken-chain")
        position = _rotate(account, cut, signed)
    link = state.link
    if (link.genesis, link.key_epoch) != (account, position.epoch) or link.version <= position.version:
        raise RemoteError("the list does not follow its account's keys", code="broken-chain")
    check_link(state.signed_link, position.account_key)
    _check_time(link, now_s)
    gone = {entry.hash: entry.gone_s for entry in state.devices}
    revoked = {entry.hash: (entry, gone.get(entry.hash, link.issued_s)) for entry in state.body.revoked}
    if any(entry.version > link.version for entry, _ in revoked.values()):
        raise RemoteError("a device was revoked at another version", code="bad-list")
    listed = tuple(
        entry.device
        for entry in state.devices
        if entry.device is not None and entry.hash in state.body.device_hashes
    )
    update = AccountUpdate(None, (), (link,), state.signature, state.body, listed)
    before = _Before({}, revoked, frozenset(), 0, 0, 0)
    devices = _follow(before, account, position.account_key, update)
    return new_state(genesis, state.rotations, state.signed_link, state.body, devices)


def _decoded(update: AccountUpdate | bytes) -> AccountUpdate:
    return tls.decode(AccountUpdate, update) if isinstance(update, bytes) else update


def _walk(account: bytes, start: _Position, update: AccountUpdate) -> _Position:
    """Every link by hash, every rotation by its proof, the last link by its signature."""
    position = start
    pending = list(update.rotations)
    for link in update.links:
        if link.genesis != account:
            raise RemoteError("a list belongs to another account", code="other-genesis")
        if pending and link.key_epoch == position.epoch + 1:
            position = _rotate(account, position, pending.pop(0))
        expected = (position.epoch, position.version + 1, position.head)
        if (link.key_epoch, link.version, link.previous) != expected:
            raise RemoteError("the links do not follow each other", code="broken-chain")
        position = replace(position, version=link.version, head=link.head)
    if pending:
        raise RemoteError("a rotation without a list", code="broken-chain")
    check_link(update.last, position.account_key)
    return position


def _rotate(account: bytes, position: _Position, signed: SignedRotation) -> _Position:
    rotation = signed.rotation
    expected = (position.epoch + 1, position.version, position.head)
    if (rotation.key_epoch, rotation.last_version, rotation.last_head) != expected:
        raise RemoteError("a rotation does not follow the list it names", code="broken-chain")
    check_rotation(signed, account, position.account_key, position.commitment)
    return replace(
        position,
        epoch=rotation.key_epoch,
        account_key=rotation.account_key,
        commitment=rotation.recovery_commitment,
    )


def _claimed_start(state: AccountState, update: AccountUpdate) -> _Position:
    """Where the update says it begins: at the stored head, or where a rotation voids what came later."""
    first = update.links[0]
    start = _Position(
        state.key_epoch, state.account_key, state.recovery_commitment, first.version - 1, first.previous
    )
    if first.key_epoch == state.key_epoch + 1 and first.version <= state.version + 1:
        return start
    if first.key_epoch != state.key_epoch:
        code = "rollback" if first.key_epoch < state.key_epoch else "gap"
        raise RemoteError("the list does not follow the one that is stored", code=code)
    if first.version not in (state.version, state.version + 1):
        code = "rollback" if first.version < state.version else "gap"
        raise RemoteError("the list does not follow the one that is stored", code=code)
    return start


def _forks(state: AccountState, claimed: _Position, update: AccountUpdate) -> bool:
    """Whether a verified update leaves out the stored head without a rotation that voids it."""
    first = update.links[0]
    if claimed.version == state.version:
        return claimed.head != state.head
    return first.key_epoch == state.key_epoch and first.head != state.head


def _check_time(link: ListLink, now_s: int) -> None:
    if link.issued_s > now_s + limits.CLOCK_SKEW_S:
        raise RemoteError(
            "the device list is dated in the future: one of the two clocks is wrong", code="future"
        )


@dataclass(frozen=True, slots=True)
class _Before:
    """What held at ``version``: devices by hash, revocations with the second they were issued."""

    listed: dict[bytes, Device]
    revoked: dict[bytes, tuple[Revoked, int]]
    restored: frozenset[bytes]  # their revocation is void: they may be listed again
    version: int
    issued_s: int
    floor: int


def _before(state: AccountState, version: int) -> _Before:
    """The stored state, less what links after ``version`` did to it (a rotation voids those)."""
    entries = {entry.hash: entry for entry in state.devices}
    revoked = {entry.hash: entry for entry in state.body.revoked}
    listed: dict[bytes, Device] = {}
    for known in state.devices:
        if known.device is None:
            continue
        void = known.hash in revoked and revoked[known.hash].version > version
        if known.status == DeviceStatus.LISTED or void:
            device = tls.decode(Device, known.device)
            if device.added_version <= version:
                listed[known.hash] = device
    return _Before(
        listed,
        {key: (entry, entries[key].gone_s) for key, entry in revoked.items() if entry.version <= version},
        frozenset(key for key, entry in revoked.items() if entry.version > version),
        version,
        state.link.issued_s,
        state.body.floor if version == state.version else 0,
    )


def _follow(
    before: _Before, account: bytes, account_key: HybridKey, update: AccountUpdate
) -> tuple[KnownDevice, ...]:
    """The devices after ``update``: its body judged against what held before."""
    body, last = update.body, update.links[-1]
    if body_hash(body) != last.body_hash:
        raise RemoteError("the list's body is not the one its link names", code="broken-chain")
    check_extensions(body.extensions)
    if body.floor < before.floor:
        raise RemoteError("the list lowers its floor", code="bad-list")
    listed = _listed(before, account, update)
    _check_numbers(body, listed)
    _check_distinct(listed, account_key)
    revoked = {entry.hash: entry for entry in body.revoked}
    _check_revoked(before, update, listed, revoked)
    issued_s = {link.version: link.issued_s for link in update.links}
    known = [KnownDevice(key, DeviceStatus.LISTED, 0, tls.encode(device)) for key, device in listed.items()]
    for key, entry in revoked.items():
        gone_s = before.revoked[key][1] if key in before.revoked else issued_s[entry.version]
        device = before.listed.get(key)
        known.append(KnownDevice(key, DeviceStatus.GONE, gone_s, tls.encode(device) if device else None))
    return tuple(known)


def _listed(before: _Before, account: bytes, update: AccountUpdate) -> dict[bytes, Device]:
    """Every listed device, known or newly proven."""
    listed: dict[bytes, Device] = {}
    for key in update.body.device_hashes:
        device = before.listed.get(key)
        if device is None:
            device = update.decoded.get(key)
            if device is None:
                raise RemoteError("the record of a listed device is missing", code="gap")
            earliest = 0 if key in before.restored else before.version
            if not earliest < device.added_version <= update.links[-1].version:
                raise RemoteError("a device claims to be listed since another version", code="bad-list")
            check_device(device, account)
        listed[key] = device
    return listed


def _check_numbers(body: ListBody, listed: dict[bytes, Device]) -> None:
    numbers = [device.device for device in listed.values()]
    gone = {entry.device for entry in body.revoked}
    if len(set(numbers)) != len(numbers) or gone & set(numbers):
        raise RemoteError("a device number is used twice", code="bad-list")
    if body.admin_device not in numbers:
        raise RemoteError("the admin device is not listed", code="bad-list")
    if any(device.profiles[-1] < body.floor for device in listed.values()):
        raise RemoteError("a device is below the list's floor", code="bad-list")


def _check_distinct(listed: dict[bytes, Device], account_key: HybridKey) -> None:
    """No two devices share a key, and none uses the account's."""
    points = [montgomery_from_ed25519(account_key.ed25519)]
    for device in listed.values():
        points += curve_points(device)
    bundles = {device.bundle_key for device in listed.values()}
    if len(set(points)) != len(points) or len(bundles) != len(listed):
        raise KeyRefused("two devices of an account share a key")


def _check_revoked(
    before: _Before, update: AccountUpdate, listed: dict[bytes, Device], revoked: dict[bytes, Revoked]
) -> None:
    """Who left is named with the version that dropped it; who was named stays named."""
    last = update.links[-1]
    numbers = {device.device for device in listed.values()} | {entry.device for entry in revoked.values()}

    def may_be_forgotten(gone_s: int) -> bool:
        rested = last.issued_s >= gone_s + limits.DEVICE_NUMBER_REST_DAYS * limits.DAY_S
        return numbers == ALL_NUMBERS and rested

    for key, (entry, gone_s) in before.revoked.items():
        if revoked.get(key) != entry and not (key not in revoked and may_be_forgotten(gone_s)):
            raise RemoteError("a revoked device is no longer named as revoked", code="bad-list")
    for key, device in before.listed.items():
        if key in listed:
            continue
        if key not in revoked:
            if not may_be_forgotten(before.issued_s):
                raise RemoteError("a device left the list without being revoked", code="bad-list")
        elif revoked[key].device != device.device:
            raise RemoteError("a revoked device has another number", code="bad-list")
    for key, entry in revoked.items():
        if key not in before.revoked and not before.version < entry.version <= last.version:
            raise RemoteError("a device was revoked at another version", code="bad-list")


def _changes(old: AccountState, new: AccountState) -> tuple[Change, ...]:
    was, now = dict(old.listed), dict(new.listed)
    changes: list[Change] = [Rotated(new.key_epoch)] if new.key_epoch != old.key_epoch else []
    changes += [DeviceRemoved(key, device.device) for key, device in was.items() if key not in now]
    changes += [DeviceAdded(key, device.device) for key, device in now.items() if key not in was]
    return tuple(changes)
