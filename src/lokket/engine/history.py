"""History for a new device of ours: counted pages, asked for one by one, inside the devices' own session.

1. The person allows it where the messages are (``grant``); once the device is listed it is told so.
2. A device that was made to join asks for a page, stores it, and asks for the next: wherever either side
   stops, the place reached is in the vault. A page that does not come is asked for again.

Pages add what is missing and change nothing that is there.
"""

from __future__ import annotations

import msgspec

from lokket import limits
from lokket.engine import devices, outbox, siblings
from lokket.engine.events import GiveHistory, HistoryGiven, HistoryProgress
from lokket.engine.records import Account, Message, Transfer, load, save, unpack
from lokket.engine.step import Step, require_account
from lokket.engine.store import ACCOUNT, MESSAGE, MESSAGE_ID, Transaction
from lokket.errors import LocalError
from lokket.protocol import identity
from lokket.wire import content

_GRANT = b"history grant"  # and a device hash -> when it was given, ms
_WANTED = b"history wanted"  # on a device that was made to join
_TRANSFER = b"history transfer"
_MESSAGE_OVERHEAD_BYTES = 180
_STATES = frozenset({"sent", "delivered", "failed", "received"})
_REPEAT_MS = limits.HISTORY_REPEAT_S * 1000
_GRANT_MS = limits.OUTBOX_DAYS * limits.DAY_S * 1000


# --- where the messages are ---


def give(step: Step, command: GiveHistory) -> None:
    """The person allows another of their devices to have the messages of this one."""
    account = require_account(step.tx)
    device_hash = devices.of_number(account, command.number)
    if device_hash == account.device_hash:
        raise LocalError("this device has its own messages")
    grant(step, device_hash)
    offer(step, device_hash)


def grant(step: Step, device_hash: bytes) -> None:
    step.tx.put(ACCOUNT, _GRANT + device_hash, step.now_ms.to_bytes(8, "big"))


def offer(step: Step, device_hash: bytes) -> None:
    """Tell a listed device that it may ask, if it may."""
    if _granted(step, device_hash):
        total = sum(1 for _ in step.tx.scan(MESSAGE))
        siblings.tell(step, content.History(total), device_hash)


def asked(step: Step, device_hash: bytes, ask: content.HistoryAsk) -> None:
    """One page, if the person allowed it and not long ago."""
    if not _granted(step, device_hash):
        return
    messages: list[content.Remembered] = []
    place, size = b"", 0
    for key, data in step.tx.scan(MESSAGE, after=ask.after or None):
        message = unpack(Message, data)
        size += len(message.text.encode()) + _MESSAGE_OVERHEAD_BYTES
        full = len(messages) == limits.HISTORY_PAGE_MAX or size > limits.HISTORY_PAGE_BYTES
        if messages and full:
            break
        messages.append(_remembered(message))
        place = key
    else:
        place = b""
    siblings.tell(step, content.HistoryPage(ask.after, place, tuple(messages)), device_hash)
    step.emit(HistoryGiven(len(messages), done=not place))


def _granted(step: Step, device_hash: bytes) -> bool:
    given = step.tx.get(ACCOUNT, _GRANT + device_hash)
    return given is not None and step.now_ms - int.from_bytes(given, "big") <= _GRANT_MS


def _remembered(message: Message) -> content.Remembered:
    return content.Remembered(
        mid=message.mid,
        peer_genesis=message.genesis_hash,
        sender_genesis=message.sender_genesis,
        sender_device=message.sender_device,
        seq=message.seq,
        time_ms=message.time_ms,
        text=message.text,
        state="sent" if message.state == "queued" else message.state,
    )


# --- on the new device ---


def want(step: Step) -> None:
    """This vault joins an account: the first offer of history is taken."""
    step.tx.put(ACCOUNT, _WANTED, b"")


def offered(step: Step, device_hash: bytes, told: content.History) -> None:
    if step.tx.get(ACCOUNT, _WANTED) is None or transfer_of(step.tx) is not None:
        return
    _ask(step, Transfer(device_hash, b"", 0, told.total))


def page_arrived(step: Step, device_hash: bytes, page: content.HistoryPage) -> None:
    """Store what is missing, then ask for the next. Another page than the one asked for changes nothing."""
    transfer = transfer_of(step.tx)
    if transfer is None or transfer.done or (transfer.giver, transfer.place) != (device_hash, page.after):
        return
    account = require_account(step.tx)
    for message in page.messages:
        _enter(step, account, message)
    received = transfer.received + len(page.messages)
    transfer = msgspec.structs.replace(
        transfer,
        place=page.next,
        received=received,
        total=max(transfer.total, received),
        done=not page.next,
    )
    if transfer.done:
        save(step.tx, ACCOUNT, _TRANSFER, transfer)
        step.tx.delete(ACCOUNT, _WANTED)
    else:
        _ask(step, transfer)
    step.emit(HistoryProgress(transfer.received, transfer.total, transfer.done))


def _enter(step: Step, account: Account, message: content.Remembered) -> None:
    parties = (account.genesis_hash, message.peer_genesis)
    if message.peer_genesis == account.genesis_hash or message.sender_genesis not in parties:
        return
    if message.state not in _STATES or step.tx.get(MESSAGE_ID, message.mid + message.sender_device):
        return
    conversation = identity.direct_conversation(*parties)
    outbox.remember(
        step,
        conversation,
        Message(
            mid=message.mid,
            genesis_hash=message.peer_genesis,
            sender_genesis=message.sender_genesis,
            sender_device=message.sender_device,
            seq=message.seq,
            time_ms=message.time_ms,
            text=message.text,
            state=message.state,
        ),
    )


def _ask(step: Step, transfer: Transfer) -> None:
    save(step.tx, ACCOUNT, _TRANSFER, msgspec.structs.replace(transfer, asked_ms=step.now_ms))
    siblings.tell(step, content.HistoryAsk(transfer.place), transfer.giver)
    step.wake(step.now_ms + _REPEAT_MS)


def run(step: Step) -> None:
    """A page that is long in coming is asked for again."""
    transfer = transfer_of(step.tx)
    if transfer is None or transfer.done:
        return
    if step.due(transfer.asked_ms + _REPEAT_MS, _REPEAT_MS):
        _ask(step, transfer)


def forget(step: Step, device_hash: bytes) -> None:
    """A device of ours is gone: it is given nothing, and what it gave is all there is of it."""
    step.tx.delete(ACCOUNT, _GRANT + device_hash)
    transfer = transfer_of(step.tx)
    if transfer is not None and transfer.giver == device_hash and not transfer.done:
        step.tx.delete(ACCOUNT, _TRANSFER)


def transfer_of(tx: Transaction) -> Transfer | None:
    return load(tx, ACCOUNT, _TRANSFER, Transfer)
