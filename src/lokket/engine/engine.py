"""The engine: one event, one step.

``handle`` gives each event to the room that decides on it, then lets the outbox advance and whatever
time has made due happen. Nothing here waits, and nothing but the connection's own state is remembered
outside the transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from lokket import limits
from lokket.crypto.entropy import Entropy
from lokket.engine import (
    account,
    alarms,
    archive,
    backups,
    contacts,
    cursors,
    devices,
    events,
    farewell,
    handover,
    healing,
    history,
    incoming,
    invites,
    linking,
    names,
    outbox,
    outgoing,
    prekeys,
    reading,
    receipts,
    recovery,
    siblings,
    trust,
    upkeep,
    whole_chain,
)
from lokket.engine.events import Effect, Event, Redial
from lokket.engine.step import Link, Step, account_of, require_account
from lokket.engine.store import Transaction
from lokket.errors import LocalError
from lokket.wire import api

_SKEW_MS: Final = limits.CLOCK_SKEW_S * 1000
_STEP_MAX_MS: Final = limits.CLOCK_LOOK_MAX_S * 1000


class Engine:
    """``prekey_pairs``: one-time pairs per published batch, 1 to 128."""

    def __init__(self, *, prekey_pairs: int = limits.PREKEY_PAIRS_PER_MANIFEST) -> None:
        self._link = Link()
        self._prekey_pairs = prekey_pairs

    def handle(self, tx: Transaction, event: Event, now_ms: int, entropy: Entropy) -> list[Effect]:
        """Decide on one event. The effects may be carried out once ``tx`` is committed, in order.

        LocalError: a person's command cannot be done; the caller rolls back.
        """
        step = Step(tx, now_ms, entropy, self._link, self._prekey_pairs)
        self._look_at_clock(step)
        self._decide(step, event)
        self._settle(step)
        alarms.keep(step)
        return step.effects

    def _look_at_clock(self, step: Step) -> None:
        """It jumped while we were online: nothing expires by it before the next greeting was compared."""
        link = self._link
        since_ms, link.last_ms = step.now_ms - link.last_ms, step.now_ms
        if link.online and not -_SKEW_MS <= since_ms <= _STEP_MAX_MS:
            link.clock_agrees = False
            step.emit(Redial(step.now_ms))

    def _decide(self, step: Step, event: Event) -> None:
        match event:
            case events.Connected(hello=hello):
                self._reset()
                account.connected(step, hello)
                recovery.connected(step)
            case events.Disconnected():
                self._reset()
            case events.Answered(call=call, reply=reply):
                request = self._link.calls.pop(call, None)
                if isinstance(reply, api.Refused) and reply.code in api.BUSY and _may_wait(call) and request:
                    step.ask_later(call, request, reply.retry_after_ms)
                else:
                    _answered(step, call, reply)
            case events.Arrived(envelopes=envelopes):
                incoming.arrived(step, envelopes)
            case events.PairsLow(left=left):
                prekeys.pairs_low(step, left)
            case events.Tick():
                pass
            case _:
                _command(step, event)

    def _settle(self, step: Step) -> None:
        """After every event: what is due, then the outbox."""
        known = account_of(step.tx)
        if known is None or not known.state:
            return
        receipts.send(step)
        healing.run(step)
        linking.run(step)
        history.run(step)
        handover.run(step)
        if step.link.online:
            step.ask_due()
            upkeep.run(step)
        outgoing.advance(step)

    def _reset(self) -> None:
        link = self._link
        link.hello, link.online, link.heard, link.clock_agrees = None, False, False, False
        link.calls.clear()
        link.later.clear()
        link.sending.clear()


_RULES_OF_THEIR_OWN: Final = frozenset(
    {"register", "login", "readmit", "recovery-chain", "recover", "knock", "send"}
)


def _may_wait(call: str) -> bool:
    """Questions that are simply asked again; the others have rules of their own."""
    return call.partition(":")[0] not in _RULES_OF_THEIR_OWN


# The room that asked, by the first word of a call's name; what it asked for is the rest.
_ANSWERS: Final[dict[str, Callable[[Step, str, api.Reply], None]]] = {
    "register": lambda step, _, reply: account.registered(step, reply),
    "login": lambda step, _, reply: account.logged_in(step, reply),
    "here": lambda step, _, reply: account.here(step, reply),
    "readmit": lambda step, _, reply: account.readmitted(step, reply),
    "chain": lambda step, _, reply: whole_chain.arrived(step, reply),
    "chain-put": lambda step, _, reply: whole_chain.put(step, reply),
    "recovery-chain": lambda step, _, reply: recovery.chain_arrived(step, reply),
    "recover": lambda step, _, reply: recovery.answered(step, reply),
    "claim": lambda step, _, reply: names.answered(step, reply),
    "meet": lambda step, detail, reply: linking.met(step, bytes.fromhex(detail), reply),
    "knock": lambda step, _, reply: linking.knocked(step, reply),
    "list": lambda step, _, reply: devices.answered(step, reply),
    "delete": lambda step, _, reply: farewell.answered(step, reply),
    "publish": lambda step, detail, reply: prekeys.published(step, int(detail), reply),
    "account": lambda step, detail, reply: contacts.chain_arrived(step, bytes.fromhex(detail), reply),
    "name": contacts.name_answered,
    "bundle": lambda step, detail, reply: outgoing.bundle_arrived(step, bytes.fromhex(detail), reply),
    "send": lambda step, detail, reply: outgoing.sent(step, f"send:{detail}", reply),
    "invite": lambda step, detail, reply: invites.offered(step, bytes.fromhex(detail), reply),
}


def _answered(step: Step, call: str, reply: api.Reply) -> None:
    name, _, detail = call.partition(":")
    if name not in _ANSWERS:
        raise LocalError(f"no room of the engine asked for {name!r}")
    _ANSWERS[name](step, detail, reply)


_COMMANDS: Final[dict[type, Callable[[Step, Any], None]]] = {
    events.OpenLink: linking.open_link,
    events.ConfirmLink: linking.confirm,
    events.CancelLink: linking.cancel,
    events.GiveHistory: history.give,
    events.AddDevice: devices.add,
    events.RevokeDevice: devices.revoke,
    events.RenameDevice: siblings.rename,
    events.AddContact: contacts.add,
    events.AcceptContact: contacts.accept,
    events.RenameContact: contacts.rename,
    events.BlockContact: contacts.block,
    events.UnblockContact: contacts.unblock,
    events.MarkVerified: trust.verify,
    events.CreateInvite: invites.create,
    events.SendText: outbox.send_text,
    events.RefillPrekeys: prekeys.refill,
    events.DeleteAccount: farewell.begin,
    events.UseBackupKey: backups.use_key,
    events.BeginBackup: backups.begin,
    events.BackupWritten: backups.written,
    events.BackupDaily: backups.daily,
    events.BackupBlobs: backups.at_relay,
    events.OpenedBackup: backups.opened,
    events.ImportRecords: archive.take_in,
    events.OfferAdmin: handover.offer,
    events.AcceptAdmin: handover.accept,
    events.CancelAdmin: handover.cancel,
    events.MarkRead: reading.mark,
    events.AlarmsShown: alarms.shown,
    events.HandledNotices: cursors.handled,
    events.OpenCursor: cursors.open_cursor,
    events.CloseCursor: cursors.close_cursor,
    events.GiveUpNotice: cursors.give_up,
    events.ForgetDeadLetter: cursors.forget,
}
_FIRST_COMMANDS: Final[dict[type, Callable[[Step, Any], None]]] = {  # also in a vault without an account
    events.VaultOpened: alarms.opened,
    events.CreateAccount: account.create,
    events.JoinAsDevice: devices.join,
    events.LinkDevice: linking.join,
    events.RecoverAccount: recovery.begin,
}


def _command(step: Step, event: Event) -> None:
    first = _FIRST_COMMANDS.get(type(event))
    if first is not None:
        first(step, event)
        return
    require_account(step.tx)
    _COMMANDS[type(event)](step, event)
