"""Linking a device: the admin device shows a code, the new one answers it, the person types its number.

The admin device never acts on a code from outside, so none can make it add a device; the number that is
typed covers the record of the device that the person has before them (docs/identity.md, "Linking a device").

1. ``open_link``: the code. The relay learns the hash of its token and is asked now and then who came.
2. ``join``, on the new device: keys, and one sealed word left at the relay. It shows a number.
3. ``confirm``: the typed number is that of the word's device; only then the list is signed.
"""

from __future__ import annotations

import msgspec

from lokket import limits
from lokket.crypto.primitives import equal
from lokket.engine import book, devices, history, siblings
from lokket.engine.events import (
    AddDevice,
    CancelLink,
    ConfirmLink,
    HangUp,
    LinkAsked,
    LinkCodeMade,
    LinkDevice,
    LinkNumber,
    Listed,
    OpenLink,
)
from lokket.engine.records import DeviceName, Knock, Meeting, load, save
from lokket.engine.step import Step, account_of, own_state, require_account
from lokket.engine.store import ACCOUNT, Transaction
from lokket.errors import LocalError, RemoteError
from lokket.protocol import identity
from lokket.protocol.linking import LinkCode, derive_link, link_number, open_word, seal_word
from lokket.wire import api

_MEETING = b"meeting"
_KNOCK = b"knock"
_ERRAND = "link"
_POLL_MS = 1_000
_TRIES = 3


# --- the admin device ---


def open_link(step: Step, command: OpenLink) -> None:
    """A code for one new device, good for ten minutes; it replaces the one before."""
    account, _ = devices.signer(step)
    state = own_state(account)
    if len(state.listed) >= limits.DEVICES_MAX:
        raise LocalError(f"an account has at most {limits.DEVICES_MAX} devices: revoke one first")
    number = identity.free_number(state, step.now_s)
    meeting = Meeting(step.entropy.draw(32), number, state.version + 1, step.now_s + limits.LINK_CODE_VALID_S)
    save(step.tx, ACCOUNT, _MEETING, meeting)
    code = LinkCode(
        origin=account.origin,
        relay_key=account.relay_key,
        genesis_hash=account.genesis_hash,
        number=number,
        added_version=meeting.added_version,
        secret=meeting.secret,
        expires_s=meeting.expires_s,
    )
    step.emit(LinkCodeMade(code.encode(), meeting.expires_s))
    resume(step)


def resume(step: Step) -> None:
    """Ask the relay who came, while nobody did."""
    meeting = meeting_of(step.tx)
    if meeting is not None and not meeting.device:
        token_hash = derive_link(meeting.secret).token_hash
        step.call(f"meet:{token_hash.hex()}", api.Meet(token_hash))


def met(step: Step, token_hash: bytes, reply: api.Reply) -> None:
    meeting = meeting_of(step.tx)
    if meeting is None or meeting.device or derive_link(meeting.secret).token_hash != token_hash:
        return
    match reply:
        case api.Met(sealed=b""):
            step.ask_later(f"meet:{token_hash.hex()}", api.Meet(token_hash), _POLL_MS)
        case api.Met(sealed=sealed):
            _came(step, meeting, sealed)
        case api.Refused(sentence=sentence):
            _end(step, sentence)


def _came(step: Step, meeting: Meeting, sealed: bytes) -> None:
    account = require_account(step.tx)
    try:
        word = open_word(derive_link(meeting.secret), sealed)
        identity.check_device(word.device, account.genesis_hash)
    except RemoteError:
        _end(step, "something answered the code that is no device: make a new code")
        return
    if (word.device.device, word.device.added_version) != (meeting.number, meeting.added_version):
        _end(step, "a device answered another code than this one: make a new code")
        return
    name = word.name if siblings.is_device_name(word.name) else f"device {meeting.number}"
    save(
        step.tx,
        ACCOUNT,
        _MEETING,
        msgspec.structs.replace(meeting, device=word.encoded, device_hash=word.device_hash, name=name),
    )
    step.emit(LinkAsked(name, step.now_ms))


def confirm(step: Step, command: ConfirmLink) -> None:
    """The person typed what the new device shows. LocalError: it is another number, or nobody came."""
    meeting = meeting_of(step.tx)
    if meeting is None or not meeting.device:
        raise LocalError("no new device has answered yet: 'lokket device link' shows a code for it")
    account = require_account(step.tx)
    typed = "".join(char for char in command.number if char.isdigit())
    expected = link_number(derive_link(meeting.secret), account.genesis_hash, meeting.device_hash)
    if not equal(typed.encode(), expected.encode()):
        raise LocalError(
            "this is not the number of the device that answered: if the new device shows it, "
            "somebody else used the code; make a new one"
        )
    if own_state(account).version + 1 != meeting.added_version:
        raise LocalError("the device list changed meanwhile: make a new code")
    siblings.call(step, DeviceName(meeting.device_hash, meeting.name, step.now_ms))
    if command.history:
        history.grant(step, meeting.device_hash)
    devices.add(step, AddDevice(meeting.device))
    step.tx.delete(ACCOUNT, _MEETING)


def cancel(step: Step, command: CancelLink) -> None:
    step.tx.delete(ACCOUNT, _MEETING)


def run(step: Step) -> None:
    """A code whose time is over is forgotten."""
    meeting = meeting_of(step.tx)
    if meeting is not None and not 0 <= meeting.expires_s - step.now_s <= limits.LINK_CODE_VALID_S:
        _end(step, "the code's time is over: make a new one")


def meeting_of(tx: Transaction) -> Meeting | None:
    return load(tx, ACCOUNT, _MEETING, Meeting)


def _end(step: Step, sentence: str) -> None:
    step.tx.delete(ACCOUNT, _MEETING)
    book.fail(step, _ERRAND, sentence)


# --- the new device ---


def join(step: Step, command: LinkDevice) -> None:
    """Make this vault a device of the code's account; it is one once the number was typed there."""
    if account_of(step.tx) is not None:
        raise LocalError("this vault has an account already: choose another profile")
    code = LinkCode.decode(command.code)
    if code.expires_s < step.now_s - limits.CLOCK_SKEW_S:
        raise LocalError("the code's time is over: let the other device make a new one")
    if not siblings.is_device_name(command.name):
        raise LocalError(f"a device's name has 1 to {limits.DEVICE_NAME_MAX_CHARS} printable characters")
    made = devices.make(step, code.genesis_hash, number=code.number, added_version=code.added_version)
    encoded = devices.join_with(step, made, code.genesis_hash, code)
    keys = derive_link(code.secret)
    number = link_number(keys, code.genesis_hash, made.device_hash)
    word = seal_word(keys, encoded, command.name, step.entropy)
    save(step.tx, ACCOUNT, _KNOCK, Knock(keys.token, word, step.now_s + limits.LINK_CODE_VALID_S))
    history.want(step)
    step.emit(LinkNumber(number))


def knock_again(step: Step) -> None:
    """Before every attempt to log in: leave the word at the relay."""
    knock = load(step.tx, ACCOUNT, _KNOCK, Knock)
    if knock is None:
        return
    if not 0 <= knock.until_s - step.now_s <= limits.LINK_CODE_VALID_S:
        sentence = "nobody typed this device's number in time: begin again with a new code"
        book.fail(step, _ERRAND, sentence)
        step.emit(HangUp(sentence))
        return
    step.ask("knock", api.Knock(knock.token, knock.sealed))


def knocked(step: Step, reply: api.Reply) -> None:
    match reply:
        case api.Refused(code=api.CONFLICT, sentence=sentence):
            book.fail(step, _ERRAND, sentence)
            step.emit(HangUp(sentence))
        case api.Refused(sentence=sentence):
            book.fail(step, "knock", sentence)


def listed(step: Step) -> None:
    """The account's list names this device."""
    account = require_account(step.tx)
    if account.status == "active" and step.tx.get(ACCOUNT, _KNOCK) is not None:
        step.tx.delete(ACCOUNT, _KNOCK)
        step.emit(Listed(account.genesis_hash, account.number))
