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
    contacts,
    devices,
    events,
    healing,
    incoming,
    invites,
    outbox,
    outgoing,
    prekeys,
    siblings,
    trust,
    upkeep,
)
from lokket.engine.events import Effect, Event
from lokket.engine.step import Link, Step, account_of, require_account
from lokket.engine.store import Transaction
from lokket.errors import LocalError
from lokket.wire import api


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
        self._decide(step, event)
        self._settle(step)
        return step.effects

    def _decide(self, step: Step, event: Event) -> None:
        match event:
            case events.Connected(hello=hello):
                self._reset()
                account.connected(step, hello)
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
        incoming.send_receipts(step)
        healing.run(step)
        if step.link.online:
            step.ask_due()
            upkeep.run(step)
        outgoing.advance(step)

    def _reset(self) -> None:
        link = self._link
        link.hello, link.online, link.clock_agrees = None, False, False
        link.calls.clear()
        link.later.clear()
        link.sending.clear()


def _may_wait(call: str) -> bool:
    """Questions that are simply asked again; the others have rules of their own."""
    return call.partition(":")[0] not in ("register", "login", "send")


def _answered(step: Step, call: str, reply: api.Reply) -> None:
    """``call`` names the room and what it asked for."""
    name, _, detail = call.partition(":")
    match name:
        case "register":
            account.registered(step, reply)
        case "login":
            account.logged_in(step, reply)
        case "list":
            devices.answered(step, reply)
        case "publish":
            prekeys.published(step, int(detail), reply)
        case "account":
            contacts.chain_arrived(step, bytes.fromhex(detail), reply)
        case "name":
            contacts.name_answered(step, detail, reply)
        case "bundle":
            outgoing.bundle_arrived(step, bytes.fromhex(detail), reply)
        case "send":
            outgoing.sent(step, call, reply)
        case "invite":
            invites.offered(step, bytes.fromhex(detail), reply)
        case _:
            raise LocalError(f"no room of the engine asked for {name!r}")


_COMMANDS: Final[dict[type, Callable[[Step, Any], None]]] = {
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
    events.HandledNotices: outbox.handled,
}
_FIRST_COMMANDS: Final[dict[type, Callable[[Step, Any], None]]] = {  # in a vault without an account
    events.CreateAccount: account.create,
    events.JoinAsDevice: devices.join,
}


def _command(step: Step, event: Event) -> None:
    first = _FIRST_COMMANDS.get(type(event))
    if first is not None:
        first(step, event)
        return
    require_account(step.tx)
    _COMMANDS[type(event)](step, event)
