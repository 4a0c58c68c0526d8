"""Cursors: how far each reader of messages has come. Every reader gets every message at least once.

A notice is kept until all cursors are beyond it. The person's own cursor is the one without a name: what
``listen`` and ``chat`` have shown. Each named one is some program's, and nobody else moves it.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Final

import msgspec

from lokket import limits
from lokket.engine import book, reading
from lokket.engine.events import (
    CloseCursor,
    ForgetDeadLetter,
    GiveUpNotice,
    HandledNotices,
    MessageShown,
    OpenCursor,
)
from lokket.engine.records import Cursor, DeadLetter, Message, NoticeRow, load, rows, save, unpack
from lokket.engine.step import Step
from lokket.engine.store import CURSOR, DEAD_LETTER, MESSAGE, NOTICE, Transaction
from lokket.errors import LocalError

OWN: Final = ""
_NAME: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{limits.CURSOR_NAME_MAX_CHARS - 1}}}")
_EXPIRE_MS: Final = limits.CURSOR_DAYS * limits.DAY_S * 1000
_TOUCH_MS: Final = limits.DAY_S * 1000


@dataclass(frozen=True, slots=True)
class CursorView:
    """``behind``: messages that came and were not handled there."""

    name: str
    handled: int
    behind: int
    used_ms: int
    expired: bool


@dataclass(frozen=True, slots=True)
class DeadLetterView:
    cursor: str
    message: MessageShown
    tries: int
    sentence: str
    time_ms: int  # when it was given up


# --- questions ---


def unhandled(tx: Transaction, cursor: str = OWN, after: int = 0, limit: int = 0) -> tuple[MessageShown, ...]:
    """Messages not handled at ``cursor`` and beyond order ``after``, oldest first; ``limit`` 0: all.

    LocalError: there is no such cursor, or it has expired.
    """
    shown: list[MessageShown] = []
    start = max(after, _usable(tx, cursor).handled)
    for key, data in tx.scan(NOTICE, after=_order_key(start)):
        if limit and len(shown) == limit:
            break
        note = unpack(NoticeRow, data)
        message = _shown(tx, int.from_bytes(key, "big"), note.message_key, note.outgoing, note.request)
        if message is not None:
            shown.append(message)
    return tuple(shown)


def cursors(tx: Transaction) -> tuple[CursorView, ...]:
    """The named ones."""
    return tuple(
        CursorView(key.decode(), row.handled, _behind(tx, row.handled), row.used_ms, row.expired)
        for key, row in rows(tx, CURSOR, Cursor)
        if key
    )


def dead_letters(tx: Transaction) -> tuple[DeadLetterView, ...]:
    """Of all cursors, each cursor's oldest first."""
    found = []
    for key, row in rows(tx, DEAD_LETTER, DeadLetter):
        order = int.from_bytes(key[-8:], "big")
        message = _shown(tx, order, row.message_key, row.outgoing, row.request)
        if message is not None:
            found.append(DeadLetterView(key[:-9].decode(), message, row.tries, row.sentence, row.time_ms))
    return tuple(found)


def warnings(tx: Transaction) -> list[str]:
    """What a person should know of them, in sentences."""
    found = [_gone(view.name) for view in cursors(tx) if view.expired]
    for name, count in sorted(Counter(letter.cursor for letter in dead_letters(tx)).items()):
        found.append(f"messages given up by {name!r}: {count}; 'lokket on dead {name}' shows why")
    return found


def _shown(tx: Transaction, order: int, key: bytes, outgoing: bool, request: bool) -> MessageShown | None:
    message = load(tx, MESSAGE, key, Message)
    found = None if message is None else book.of(tx, message.genesis_hash)
    if message is None or found is None:
        return None
    return MessageShown(
        order=order,
        petname=found.petname,
        text=message.text,
        mid=message.mid,
        sender_device=message.sender_device,
        seq=message.seq,
        time_ms=message.time_ms,
        outgoing=outgoing,
        request=request,
    )


def _behind(tx: Transaction, handled: int) -> int:
    return sum(1 for _ in tx.scan(NOTICE, after=_order_key(handled)))


def _usable(tx: Transaction, name: str) -> Cursor:
    row = load(tx, CURSOR, name.encode(), Cursor)
    if row is None:
        if name != OWN:
            raise LocalError(f"there is no cursor called {name!r}: open it first")
        return Cursor(0, 0)
    if row.expired:
        raise LocalError(_gone(name))
    return row


def _gone(name: str) -> str:
    return (
        f"the cursor {name!r} was not used for {limits.CURSOR_DAYS} days, and what came since was not kept "
        "for it: begin anew, and look into 'lokket history' for the rest"
    )


# --- steps ---


def open_cursor(step: Step, command: OpenCursor) -> None:
    """LocalError: no name for a cursor, too many of them, or it expired and is not to begin anew."""
    if not _NAME.fullmatch(command.name):
        raise LocalError("a cursor's name has letters, digits, dots, dashes and underscores")
    key = command.name.encode()
    row = load(step.tx, CURSOR, key, Cursor)
    if row is not None and row.expired and not command.anew:
        raise LocalError(_gone(command.name))
    if row is None and sum(bool(name) for name, _ in step.tx.scan(CURSOR)) >= limits.CURSORS_MAX:
        raise LocalError(f"this vault has {limits.CURSORS_MAX} cursors: close one first")
    if row is None or row.expired:
        row = Cursor(0 if command.oldest else step.last_order(), step.now_ms)
    save(step.tx, CURSOR, key, msgspec.structs.replace(row, used_ms=step.now_ms))


def is_stale(view: CursorView, now_ms: int) -> bool:
    """Whether who reads there should say again that they are there: so that it does not expire."""
    return not 0 <= now_ms - view.used_ms < _TOUCH_MS


def close_cursor(step: Step, command: CloseCursor) -> None:
    key = command.name.encode()
    if not key or step.tx.get(CURSOR, key) is None:
        raise LocalError(f"there is no cursor called {command.name!r}")
    step.tx.delete(CURSOR, key)
    for letter, _ in list(step.tx.scan(DEAD_LETTER, key + b"\0")):
        step.tx.delete(DEAD_LETTER, letter)
    _drop_handled(step)


def handled(step: Step, command: HandledNotices) -> None:
    """Only forward, and never beyond what has come. What the person was shown counts as read."""
    row = _usable(step.tx, command.cursor)
    order = min(command.order, step.last_order())
    if order <= row.handled:
        return
    if command.cursor == OWN:
        reading.shown(step, row.handled, order)
    save(step.tx, CURSOR, command.cursor.encode(), Cursor(order, step.now_ms))
    _drop_handled(step)


def give_up(step: Step, command: GiveUpNotice) -> None:
    """LocalError: no such message waits there."""
    _usable(step.tx, command.cursor)
    note = load(step.tx, NOTICE, _order_key(command.order), NoticeRow)
    if note is None:
        raise LocalError("there is no such message to give up")
    prefix = command.cursor.encode() + b"\0"
    letter = DeadLetter(
        note.message_key, note.outgoing, note.request, command.tries, command.sentence, step.now_ms
    )
    save(step.tx, DEAD_LETTER, prefix + _order_key(command.order), letter)
    kept = [key for key, _ in step.tx.scan(DEAD_LETTER, prefix)]
    for key in kept[: -limits.DEAD_LETTERS_MAX]:
        step.tx.delete(DEAD_LETTER, key)
    handled(step, HandledNotices(command.order, command.cursor))


def forget(step: Step, command: ForgetDeadLetter) -> None:
    step.tx.delete(DEAD_LETTER, command.cursor.encode() + b"\0" + _order_key(command.order))


def expire(step: Step) -> None:
    """Nobody has read there for long, and something waits: it is kept no longer."""
    for key, row in rows(step.tx, CURSOR, Cursor):
        if (
            key
            and not row.expired
            and step.now_ms - row.used_ms > _EXPIRE_MS
            and _behind(step.tx, row.handled)
        ):
            save(step.tx, CURSOR, key, msgspec.structs.replace(row, expired=True))
    _drop_handled(step)


def _drop_handled(step: Step) -> None:
    """What every reader is beyond."""
    readers = {key: row.handled for key, row in rows(step.tx, CURSOR, Cursor) if not row.expired}
    floor = min([readers.pop(b"", 0), *readers.values()])
    done = []
    for key, _ in step.tx.scan(NOTICE):
        if int.from_bytes(key, "big") > floor:
            break
        done.append(key)
    for key in done:
        step.tx.delete(NOTICE, key)


def _order_key(order: int) -> bytes:
    if not 0 <= order < 1 << 63:
        raise LocalError("there is no such place in the order of messages")
    return order.to_bytes(8, "big")
