"""What our own devices tell each other beside mail: how they are called, and how far the person has read.

All of it travels inside the sessions between devices of one account, and is believed from those alone.
"""

from __future__ import annotations

import msgspec

from lokket import limits
from lokket.engine import devices, outbox
from lokket.engine.events import RenameDevice
from lokket.engine.records import Account, DeviceName
from lokket.engine.step import Step, own_state, require_account, save_account
from lokket.errors import LocalError
from lokket.wire import content

_NAMES_MAX = 4 * limits.DEVICES_MAX


def tell(step: Step, body: content.Body, only_device: bytes = b"") -> None:
    """Queue a content for our other devices, or for one of them."""
    account = require_account(step.tx)
    for device_hash, _ in own_state(account).listed:
        if device_hash != account.device_hash and only_device in (b"", device_hash):
            outbox.queue_control(step, account.genesis_hash, device_hash, body)


def announce(step: Step) -> None:
    """A word to every other device: it names our newest list, which who does not know it then fetches."""
    account = require_account(step.tx)
    tell(step, content.DeviceName(account.device_hash, name_of(account, account.device_hash), step.now_ms))


# --- names ---


def rename(step: Step, command: RenameDevice) -> None:
    account = require_account(step.tx)
    if not is_device_name(command.name):
        raise LocalError(f"a device's name has 1 to {limits.DEVICE_NAME_MAX_CHARS} printable characters")
    device_hash = devices.of_number(account, command.number)
    before = next((known for known in account.device_names if known.device_hash == device_hash), None)
    time_ms = step.now_ms if before is None else max(step.now_ms, before.time_ms + 1)
    call(step, DeviceName(device_hash, command.name, time_ms))
    tell(step, content.DeviceName(device_hash, command.name, time_ms))


def call(step: Step, named: DeviceName) -> None:
    """Remember a name, unless a later one is known."""
    account = require_account(step.tx)
    others = tuple(known for known in account.device_names if known.device_hash != named.device_hash)
    for known in account.device_names:
        if known.device_hash == named.device_hash and (known.time_ms, known.name) >= (
            named.time_ms,
            named.name,
        ):
            return
    save_account(step.tx, msgspec.structs.replace(account, device_names=(*others, named)))


def name_received(step: Step, told: content.DeviceName) -> None:
    """Another device of ours says how one of ours is called, perhaps before we see it on the list."""
    account = require_account(step.tx)
    known = any(named.device_hash == told.device_hash for named in account.device_names)
    if is_device_name(told.name) and (known or len(account.device_names) < _NAMES_MAX):
        call(step, DeviceName(told.device_hash, told.name, told.time_ms))


def share_names(step: Step, device_hash: bytes) -> None:
    """A device is new: it learns how the others are called."""
    for known in require_account(step.tx).device_names:
        tell(step, content.DeviceName(known.device_hash, known.name, known.time_ms), device_hash)


def spread_name(step: Step, device_hash: bytes) -> None:
    """Whoever knows how the new device is called tells the others."""
    for known in require_account(step.tx).device_names:
        if known.device_hash == device_hash:
            tell(step, content.DeviceName(device_hash, known.name, known.time_ms))


def forget_name(step: Step, device_hash: bytes) -> None:
    account = require_account(step.tx)
    kept = tuple(known for known in account.device_names if known.device_hash != device_hash)
    save_account(step.tx, msgspec.structs.replace(account, device_names=kept))


def name_of(account: Account, device_hash: bytes) -> str:
    """Empty: it has none."""
    return next((known.name for known in account.device_names if known.device_hash == device_hash), "")


def is_device_name(name: str) -> bool:
    return 1 <= len(name) <= limits.DEVICE_NAME_MAX_CHARS and name.isprintable() and name == name.strip()
