"""What an operator can do to a relay: look at its accounts, invite, set a quota, ban, purge.

A running relay does it itself, asked over a unix socket in its data directory: a second writer would stand
in the way of its commits, and a ban must also end connections, which only it has. Where none runs, the
same ``Steward`` works on the data, under the lock that a relay would take. Who may write in the directory
(0700, the socket 0600) is the operator; nothing here can be asked over the network.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from lokket import limits
from lokket.crypto.entropy import Entropy
from lokket.errors import LocalError
from lokket.protocol.identity import Invite, derive_invite
from lokket.relay.explain import found
from lokket.relay.office import Moment
from lokket.relay.orders import Answer, ListUsers, MakeInvite, Order, Purge, SetBan, SetQuota, Stats
from lokket.relay.relay import Relay
from lokket.relay.storage.base import InviteRow, Ruling, UserRow

SOCKET: Final = "admin.sock"
OPERATOR: Final = b""  # who made the invites of no account
_LINE_MAX_BYTES: Final = 1024 * 1024
_PAGE: Final = 500
_WAIT_S: Final = 60.0
_SOCKET_PATH_MAX: Final = 100  # bytes that every system's sockaddr_un has room for


_orders: Final = msgspec.json.Decoder(Order)
_answers: Final = msgspec.json.Decoder(Answer)


@dataclass(frozen=True, slots=True)
class Steward:
    """Carries out orders. ``running``: for clients, and not just for this order."""

    relay: Relay
    running: bool

    async def carry_out(self, order: Order, now_ms: int, entropy: Entropy) -> Answer:
        """LocalError: nobody by that name, or it cannot be done."""
        match order:
            case ListUsers(after=after):
                page = await self.relay.storage.users(after, _PAGE)
                return {"users": [_shown(user) for user in page], "more": len(page) == _PAGE}
            case MakeInvite(valid_s=valid_s):
                return await self._invite(valid_s, Moment(now_ms, entropy))
            case SetQuota(who=who):
                account = await self._who(who)
                before = await self.relay.storage.ruling(account)
                chosen = (order.count_max, order.max_bytes, order.blobs_max_bytes)
                return await self._rule(Ruling(account, before.banned, *chosen))
            case SetBan(who=who, banned=banned):
                account = await self._who(who, banned_too=not banned)
                before = await self.relay.storage.ruling(account)
                return await self._rule(replace(before, banned=banned))
            case Purge(who=who):
                account = await self._who(who)
                await self.relay.forget(account, now_ms)
                return {"genesis_hash": account.hex()}
            case Stats():
                return await self._stats()

    async def _who(self, who: str, *, banned_too: bool = False) -> bytes:
        """``banned_too``: also who has no account here any more, by all 64 digits."""
        try:
            return await found(self.relay.storage, who)
        except LocalError:
            with contextlib.suppress(ValueError):
                account = bytes.fromhex(who)
                if banned_too and (await self.relay.storage.ruling(account)).banned:
                    return account
            raise

    async def _rule(self, ruling: Ruling) -> Answer:
        await self.relay.rule(ruling)
        return {
            "genesis_hash": ruling.genesis_hash.hex(),
            "banned": ruling.banned,
            "count_max": ruling.count_max,
            "max_bytes": ruling.max_bytes,
            "blobs_max_bytes": ruling.blobs_max_bytes,
        }

    async def _invite(self, valid_s: int, moment: Moment) -> Answer:
        """For registering alone: whoever joins by it has nobody to talk to yet."""
        origin = self.relay.config.origin
        if not origin:
            raise LocalError("the relay does not run, and its origin is not set: give --origin or --config")
        invite = Invite(
            origin=origin,
            relay_key=self.relay.key,
            genesis_hash=None,
            creator_device=None,
            secret=moment.entropy.draw(32),
            expires_s=moment.now_s + valid_s,
        )
        row = InviteRow(derive_invite(invite.secret).token_hash, OPERATOR, invite.expires_s)
        if await self.relay.storage.put_invite(row, limits.OPERATOR_INVITES_OPEN_MAX, moment.now_s):
            raise LocalError("too many invites of the operator are open; wait until some are used or over")
        return {"link": invite.link(), "expires_s": invite.expires_s}

    async def _stats(self) -> Answer:
        counts = await self.relay.storage.counts()
        data = self.relay.config.data
        files = {path.name: path.stat().st_size for path in data.glob("relay.db*")} if data else {}
        return {
            "running": self.running,
            "broken": self.relay.storage.broken,
            "origin": self.relay.config.origin,
            "connections": self.relay.connections,
            "accounts": counts.accounts,
            "devices": counts.devices,
            "mail": counts.mail,
            "mail_bytes": counts.mail_bytes,
            "blobs": counts.blobs,
            "blob_bytes": counts.blob_bytes,
            "file_bytes": sum(files.values()),
            "disk_free_bytes": shutil.disk_usage(data).free if data else 0,
            "new_accounts": self.relay.shortage() or "welcome",
            "counters": dict(sorted(self.relay.counters.items())),
        }


def _shown(user: UserRow) -> Answer:
    return {
        "genesis_hash": user.genesis_hash.hex(),
        "name": user.name,
        "devices": user.devices,
        "mail": user.mail,
        "mail_bytes": user.mail_bytes,
        "blobs": user.blobs,
        "blob_bytes": user.blob_bytes,
        "banned": user.ruling.banned,
        "count_max": user.ruling.count_max,
        "max_bytes": user.ruling.max_bytes,
        "blobs_max_bytes": user.ruling.blobs_max_bytes,
    }


# --- the socket ---


@contextlib.asynccontextmanager
async def listening(
    steward: Steward, data: Path | None, now_ms: Callable[[], int], entropy: Entropy
) -> AsyncIterator[None]:
    """Takes orders in ``data`` for as long as the block lasts, where there are unix sockets."""
    if data is None or sys.platform == "win32":
        yield
        return
    path = data / SOCKET
    path.unlink(missing_ok=True)  # of a relay that was killed: the data's lock is ours

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError, ValueError):
            async with asyncio.timeout(_WAIT_S):
                line = await reader.readline()
                writer.write(msgspec.json.encode(await _answer(steward, line, now_ms(), entropy)) + b"\n")
                await writer.drain()
        writer.close()

    mask = os.umask(0o177)
    try:
        with _address(path) as address:
            server = await asyncio.start_unix_server(one, path=address, limit=_LINE_MAX_BYTES)
    finally:
        os.umask(mask)
    try:
        yield
    finally:
        server.close()
        path.unlink(missing_ok=True)


async def _answer(steward: Steward, line: bytes, now_ms: int, entropy: Entropy) -> Answer:
    try:
        return await steward.carry_out(_orders.decode(line), now_ms, entropy)
    except msgspec.MsgspecError as error:
        return {"error": f"that is no order: {error}"}
    except LocalError as error:
        return {"error": str(error)}
    except Exception as error:
        steward.relay.fault("an order", error)
        return {"error": f"the relay made a mistake ({type(error).__name__}): please report it"}


async def ask(data: Path, order: Order) -> Answer | None:
    """The running relay's answer; None: none runs on ``data``. LocalError: it refused."""
    if sys.platform == "win32":
        return None
    try:
        with _address(data / SOCKET) as address:
            reader, writer = await asyncio.open_unix_connection(address, limit=64 * _LINE_MAX_BYTES)
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except PermissionError:
        raise LocalError("this relay belongs to another user of this machine: ask as that one") from None
    try:
        writer.write(msgspec.json.encode(order) + b"\n")
        async with asyncio.timeout(_WAIT_S):
            line = await reader.readline()
    except (TimeoutError, ConnectionError):
        raise LocalError("the relay does not answer; look at its log") from None
    finally:
        writer.close()
    if not line:
        raise LocalError("the relay stopped before it answered; try again")
    answer = _answers.decode(line)
    if "error" in answer:
        raise LocalError(str(answer["error"]))
    return answer


@contextlib.contextmanager
def _address(path: Path) -> Iterator[str]:
    """A name for the socket that fits: a long folder is reached through a descriptor, where that works."""
    if len(os.fsencode(path)) <= _SOCKET_PATH_MAX or not Path("/proc/self/fd").exists():
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
