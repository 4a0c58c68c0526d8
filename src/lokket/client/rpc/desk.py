"""What each method of the table does with the client that has the vault. Knows no socket and no JSON."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from lokket.client.direct import DirectClient
from lokket.client.rpc import table, told
from lokket.engine import archive as records
from lokket.engine import backups
from lokket.errors import LocalError
from lokket.wire import api, archive

_FILES: Final = (
    *(api.BeginBlob, api.PutBlobPart, api.CommitBlob),
    *(api.ListBlobs, api.FetchBlobPart, api.DeleteBlob),
)
_PAGE_BYTES: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class About:
    """Of the process that serves: lokket's version, and since when."""

    version: str
    since_ms: int


class Desk:
    """One client, asked by many."""

    def __init__(self, client: DirectClient, about: About, callers: Callable[[], int]) -> None:
        self.client = client
        self._about = about
        self._callers = callers
        self._special: dict[type[Any], Callable[[Any], Awaitable[Any]]] = {
            table.WaitOnline: lambda asked: client.wait_online(asked.timeout_s),
            table.Settle: lambda asked: client.settle(asked.timeout_s),
            table.Exchange: self._exchange,
            table.CatchUp: lambda asked: client.catch_up(asked.timeout_s),
            table.WaitState: lambda asked: client.wait_state(
                asked.mid, asked.state, timeout_s=asked.timeout_s
            ),
            table.Next: lambda asked: client.next_messages(
                asked.cursor, after=asked.after, limit=asked.limit, wait_s=asked.wait_s
            ),
        }

    async def do(self, method: str, params: Any) -> Any:
        """The result, which msgspec can encode. LokketError: as the client raises it."""
        if method in table.COMMANDS:
            return [told.as_object(notice) for notice in await self.client.perform(params)]
        special = self._special.get(type(params))
        if special is not None:
            return await special(params)
        return self._read(method, params)

    async def _exchange(self, asked: table.Exchange) -> bytes:
        """Files only: the engine has to know of everything else."""
        frame = api.decode_client_frame(asked.frame)
        if not isinstance(frame.request, _FILES):
            raise LocalError("only requests for files at the relay go past the engine")
        reply = await self.client.exchange(frame.request, asked.timeout_s)
        return api.encode(api.RelayFrame(frame.number, reply))

    def _read(self, method: str, params: Any) -> Any:
        match params:
            case table.Hello(versions=versions):
                return self._greet(versions)
            case table.Status():
                return self._status()
            case table.NewId():
                return self.client.entropy.draw(16)
            case table.Health():
                return self.client.health()
            case table.VaultFaults():
                return self.client.vault_faults()
            case table.BackupState():
                return self.client.read(backups.state)
            case table.ArchivePage():
                return self._page(params)
        return self.client.look(method, *(getattr(params, name) for name in params.__struct_fields__))

    def _greet(self, versions: tuple[int, ...]) -> dict[str, Any]:
        common = set(versions) & set(table.VERSIONS)
        if not common:
            raise LocalError(
                f"this daemon is lokket {self._about.version} and speaks another version: "
                "end it with 'lokket daemon stop'"
            )
        return {"version": max(common), "lokket": self._about.version, "pid": os.getpid()}

    def _status(self) -> dict[str, Any]:
        health = self.client.health()
        return {
            "since_ms": self._about.since_ms,
            "callers": self._callers(),
            "online": self.client.online,
            "queued": health.queued,
            "cursors": {view.name: view.behind for view in self.client.cursors()},
        }

    def _page(self, asked: table.ArchivePage) -> dict[str, Any]:
        """Fewer than asked where they are large: one record fits always."""
        limit = asked.limit
        while True:
            page, place = self.client.read(records.page, asked.place, limit, asked.only)
            encoded = [archive.encode(record) for record in page]
            if limit == 1 or sum(len(body) for _, body in encoded) <= _PAGE_BYTES:
                return {"records": encoded, "place": place}
            limit = max(1, limit // 4)
