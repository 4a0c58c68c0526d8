"""The relay without a socket: a connection is a ``Caller``, a frame is a request, time is an argument.

    connect -> Caller(hello)      handle(caller, request) -> reply      disconnect
    drain(caller), notices(caller): what to push, whenever ``caller.wake`` was called

A shell (``web``, the simulator, the test kit) calls ``handle`` for one request of a connection at a time,
and ``drain`` never twice at once for one caller.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

from lokket import limits
from lokket.crypto.entropy import Entropy
from lokket.crypto.keys import Ed25519KeyPair
from lokket.errors import DecodeError, RemoteError
from lokket.protocol.identity import Invite, sign_hello
from lokket.relay import accounts, blobs, chains, farewell, invites, kept, keys, linking, mailbox, names
from lokket.relay.admission import Read, nothing_to_read
from lokket.relay.budgets import Budgets
from lokket.relay.bus import Bus
from lokket.relay.config import RelayConfig
from lokket.relay.office import Caller, Moment, Office, Refusal
from lokket.relay.storage.base import Ruling, Storage, StorageBroken, StorageFull
from lokket.wire import api

__all__ = ["Caller", "Relay"]

_log = logging.getLogger(__name__)

Handler = Callable[[Office, Caller, Any, Moment], Awaitable[api.Reply]]


async def _ping(office: Office, caller: Caller, request: api.Ping, moment: Moment) -> api.Ok:
    return api.Ok()


_BEFORE_LOGIN: Final[dict[type, Handler]] = {
    api.Login: accounts.login,
    api.Register: accounts.register,
    api.FetchChain: accounts.fetch_chain,
    api.Recover: accounts.recover,
    api.Readmit: chains.readmit,
    api.Knock: linking.knock,
}
_AFTER_LOGIN: Final[dict[type, Handler]] = {
    api.Publish: keys.publish,
    api.Meet: linking.meet,
    api.FetchAccount: accounts.fetch,
    api.FetchBundle: keys.fetch_bundle,
    api.PutList: accounts.put_list,
    api.PutChain: chains.put_chain,
    api.ClaimName: names.claim,
    api.LookupName: names.lookup,
    api.PutInvite: invites.put,
    api.Send: mailbox.send,
    api.Acknowledge: mailbox.acknowledge,
    api.DeleteAccount: farewell.delete_account,
    api.BeginBlob: blobs.begin,
    api.PutBlobPart: blobs.put_part,
    api.CommitBlob: blobs.commit,
    api.ListBlobs: blobs.listed,
    api.FetchBlobPart: blobs.fetch_part,
    api.DeleteBlob: blobs.delete,
    api.Ping: _ping,
}


class Relay:
    """``counters``: requests by tag, refusals by code, ``fault`` for our own errors. No ids, no data."""

    def __init__(
        self,
        storage: Storage,
        config: RelayConfig,
        key: Ed25519KeyPair,
        bus: Bus,
        read_machine: Read = nothing_to_read,
    ) -> None:
        budgets = Budgets(config.rates)
        self._office = Office(storage, config, key, bus, budgets, read_machine=read_machine)
        sign_hello(key, config.origin, bytes(32), 0)  # LocalError now rather than at the first connection
        self._callers: set[Caller] = set()
        self._upkeep_ms = 0
        self._even_since_ms = 0
        self.counters: Counter[str] = Counter()
        storage.when_mended(self._wake_all)

    @property
    def connections(self) -> int:
        return len(self._callers)

    @property
    def config(self) -> RelayConfig:
        return self._office.config

    @property
    def key(self) -> bytes:
        """The relay's Ed25519 public key, 32 bytes: what invites and logins name."""
        return self._office.key.public

    @property
    def storage(self) -> Storage:
        return self._office.storage

    def connect(self, now_ms: int, entropy: Entropy) -> Caller:
        """A new connection; its greeting's nonce is drawn here and good for one login."""
        office = self._office
        nonce = entropy.draw(32)
        hello = api.Hello(
            versions=api.PROTOCOL_VERSIONS,
            origin=office.config.origin,
            relay_key=office.key.public,
            nonce=nonce,
            signature=sign_hello(office.key, office.config.origin, nonce, now_ms),
            time_ms=now_ms,
            open=office.config.open,
        )
        caller = Caller(hello, now_ms)
        self._callers.add(caller)
        return caller

    async def handle(self, caller: Caller, request: api.Request, now_ms: int, entropy: Entropy) -> api.Reply:
        """The answer, whatever was asked: what cannot be done is an ``api.Refused`` with a code."""
        self.counters[type(request).__name__] += 1
        try:
            reply = await self._dispatch(caller, request, Moment(now_ms, entropy))
        except Refusal as refusal:
            reply = refusal.reply
        except DecodeError:
            reply = api.Refused(api.MALFORMED, "the request holds bytes that are not what they should be")
        except RemoteError:
            reply = api.Refused(api.INVALID, "something signed in the request does not verify")
        except StorageFull:
            reply = api.Refused(api.STORAGE_FULL, "the relay's disk is full; its operator must make room")
        except StorageBroken:
            reply = api.Refused(api.UNAVAILABLE, "the relay's disk fails; try again later")
        except Exception as error:
            self.fault(f"a {type(request).__name__} request", error)
            reply = api.Refused(api.UNAVAILABLE, "the relay made a mistake; try again later")
        if isinstance(reply, api.Refused):
            self.counters[f"refused {reply.code}"] += 1
        return reply

    def fault(self, where: str, error: Exception) -> None:
        """Count and log a mistake of ours: where it was, not what was in it."""
        self.counters["fault"] += 1
        _log.error("%s failed with %s", where, _place(error))

    async def _dispatch(self, caller: Caller, request: api.Request, moment: Moment) -> api.Reply:
        if caller.closing is not None:
            raise Refusal(api.UNAVAILABLE, "the connection is closing")
        handler = _BEFORE_LOGIN.get(type(request))
        if handler is None:
            if not caller.logged_in:
                raise Refusal(api.NOT_LOGGED_IN, "log in first")
            await accounts.answer_came(self._office, caller)
            handler = _AFTER_LOGIN[type(request)]
            if not isinstance(request, api.Acknowledge):
                self._office.spend("request", caller.device_hash, moment)
        return await handler(self._office, caller, request, moment)

    async def drain(self, caller: Caller, now_ms: int) -> api.Deliver | None:
        """Waiting envelopes not yet pushed here, within the window of unacknowledged ones; else None."""
        try:
            deliver = await mailbox.drain(self._office, caller)
        except (StorageFull, StorageBroken):
            return None
        if deliver is not None:
            self.counters["delivered"] += len(deliver.envelopes)
        return deliver

    def _wake_all(self) -> None:
        """What could not be read for them can be now."""
        for caller in self._callers:
            caller.wake()

    def notices(self, caller: Caller) -> tuple[api.PairsLow | api.Closing, ...]:
        """Pushes that are due, once each. After ``Closing`` the shell closes the connection."""
        due: list[api.PairsLow | api.Closing] = []
        if caller.pairs_low is not None:
            due.append(api.PairsLow(caller.pairs_low))
            caller.pairs_low = None
        if caller.closing is not None:
            due.append(caller.closing)
        return tuple(due)

    def disconnect(self, caller: Caller) -> None:
        self._callers.discard(caller)
        self._office.unseat(caller)
        if caller.closing is None:
            caller.closing = api.Closing(api.UNAVAILABLE, "the connection is closed")

    def close_all(self, code: str, sentence: str) -> None:
        """Ask every connection to close: the relay stops."""
        for caller in tuple(self._callers):
            caller.close(code, sentence)

    async def first_member_invite(self, now_ms: int, entropy: Entropy) -> Invite | None:
        """A link for registering alone, replacing the one before; None once the relay has a member."""
        return await invites.first_member(self._office, Moment(now_ms, entropy))

    # --- for the operator ---

    def shortage(self) -> str:
        """Why there are no new accounts now; empty: they are welcome."""
        return self._office.shortage()

    async def rule(self, ruling: Ruling) -> None:
        """A ban ends the account's connections; its mail waits, as for anyone who is away."""
        office = self._office
        await office.storage.rule(ruling)
        row = await office.storage.account(ruling.genesis_hash)
        if row is not None and ruling.banned:
            for device_hash in kept.state(row).body.device_hashes:
                office.dismiss(device_hash, "this account is banned from this relay")

    async def forget(self, genesis_hash: bytes, now_ms: int) -> None:
        """Purge an account: what its own deletion does."""
        await farewell.forget(self._office, genesis_hash, now_ms // 1000)

    async def upkeep(self, now_ms: int) -> None:
        """Drop what has expired. Call it every ``limits.UPKEEP_S``; the work of one call is bounded.

        Nothing expires before the clock has run evenly for an hour: one that jumped years ahead, at a boot
        or under us, must not delete the mail of everyone.
        """
        self._office.budgets.forget_idle(now_ms, limits.EXPIRE_ROWS_PER_UPKEEP)
        step_s = (now_ms - self._upkeep_ms) / 1000
        if not 0 <= step_s <= limits.CLOCK_STEP_MAX_S:
            self._even_since_ms = now_ms
        self._upkeep_ms = now_ms
        if now_ms - self._even_since_ms < limits.CLOCK_EVEN_S * 1000:
            return
        self.counters["expired"] += await self._office.storage.expire(
            now_ms // 1000, limits.EXPIRE_ROWS_PER_UPKEEP
        )


def _place(error: BaseException) -> str:
    """The error's type and the line that raised it, without its text."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}" if trace is not None else "?"
    return f"{type(error).__name__} in {place}"
