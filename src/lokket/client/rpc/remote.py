"""The client that asks the process which has the vault. Loads little, so that a command can be quick.

Two connections: one is asked and waited for, as a vault is read; the other, made when it is first needed,
carries what takes time and what happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from lokket import limits
from lokket.client.client import Client, P, Question, T
from lokket.client.happenings import Happening, NotReached, Stopped
from lokket.client.late import late
from lokket.client.rpc import place
from lokket.errors import LocalError, RemoteError

if TYPE_CHECKING:
    from lokket.client.rpc import told, typed
    from lokket.crypto.entropy import Entropy
    from lokket.engine import events
    from lokket.engine.answers import Health
    from lokket.wire import api
else:
    api = late("lokket.wire.api")
    told, typed = late("lokket.client.rpc.told"), late("lokket.client.rpc.typed")

VERSIONS: Final = (1,)
_NOT_REACHED: Final = -32002  # as in ``table``, which is slow to load
_REFUSED: Final = -32003
_ENDED: Final = "the daemon ended: run the command again"
_AT_ONCE: Final = 64


class DaemonEnded(LocalError):
    """The connection is gone, and what was asked may have been done or not."""


def attach(folder: Path) -> DaemonClient | None:
    """None: no daemon serves this profile. LocalError: one does, and does not understand us."""
    connection = place.connect(folder, limits.RPC_HELLO_WAIT_S)
    if connection is None:
        return None
    asking = _Asking(connection)
    try:
        hello = asking.ask("hello", {"versions": VERSIONS})
    except DaemonEnded:  # it was about to end
        asking.close()
        return None
    except BaseException:
        asking.close()
        raise
    return DaemonClient(folder, asking, int(hello["pid"]))


class _Asking:
    """One question at a time; whoever asks waits, and so does its event loop: for milliseconds, as when a
    vault is read."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(limits.RPC_ANSWER_WAIT_S)
        self._socket = connection
        self._lines = connection.makefile("rb")
        self._number = 0

    def ask(self, method: str, params: dict[str, Any]) -> Any:
        """LocalError, NotReached, RemoteError: as there. DaemonEnded."""
        self._number += 1
        try:
            self._socket.sendall(_request(self._number, method, params))
            line = self._lines.readline(limits.RPC_ANSWER_MAX_BYTES + 1)
        except TimeoutError:
            self.close()
            raise LocalError("the daemon does not answer: 'lokket daemon stop' ends it") from None
        except (OSError, ValueError):
            raise DaemonEnded(_ENDED) from None
        if not line.endswith(b"\n"):
            raise DaemonEnded(_ENDED)
        return _result(json.loads(line))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._lines.close()
            self._socket.close()


class _Talking:
    """Many requests at once, and what happens."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._number = 0
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self.listeners: set[asyncio.Queue[Happening]] = set()
        self.is_watching = False
        self.is_over = False
        self._reading = asyncio.create_task(self._read(), name="lokket-daemon-reader")

    async def request(self, method: str, params: dict[str, Any]) -> Any:
        if self.is_over:
            raise DaemonEnded(_ENDED)
        self._number += 1
        number = self._number
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            self._writer.write(_request(number, method, params))
            await self._writer.drain()
            return _result(await answer)
        except OSError:
            raise DaemonEnded(_ENDED) from None
        finally:
            self._waiting.pop(number, None)

    async def close(self) -> None:
        self._reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reading
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def _read(self) -> None:
        try:
            while True:
                self._take(json.loads(await self._reader.readuntil(b"\n")))
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            self.is_over = True
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(DaemonEnded(_ENDED))
            self._tell(Stopped(_ENDED))

    def _take(self, message: dict[str, Any]) -> None:
        if message.get("method") == "happened":
            happening = told.from_object(message["params"])
            if happening is not None:
                self._tell(happening)
            return
        answer = self._waiting.get(message.get("id", 0))
        if answer is not None and not answer.done():
            answer.set_result(message)

    def _tell(self, happening: Happening) -> None:
        for queue in self.listeners:
            queue.put_nowait(happening)


class DaemonClient(Client):
    """Made by ``attach``. ``pid``: of the process that has the vault."""

    def __init__(self, folder: Path, asking: _Asking, pid: int) -> None:
        self._folder = folder
        self._asking = asking
        self._talking: _Talking | None = None
        self._connecting = asyncio.Lock()
        self.pid = pid

    async def close(self) -> None:
        self._asking.close()
        if self._talking is not None:
            await self._talking.close()

    async def _talk(self) -> _Talking:
        """The second connection. DaemonEnded: there is nobody any more."""
        async with self._connecting:
            if self._talking is None:
                connection = place.connect(self._folder, limits.RPC_HELLO_WAIT_S)
                if connection is None:
                    raise DaemonEnded(_ENDED)
                connection.setblocking(False)
                reader, writer = await asyncio.open_unix_connection(
                    sock=connection, limit=limits.RPC_ANSWER_MAX_BYTES
                )
                self._talking = _Talking(reader, writer)
                await self._talking.request("hello", {"versions": VERSIONS})
        return self._talking

    async def request(self, method: str, **params: Any) -> Any:
        """One method of ``table``; its result as JSON holds it."""
        return await (await self._talk()).request(method, params)

    def status(self) -> dict[str, Any]:
        """What ``table.Status`` says."""
        status: dict[str, Any] = self._asking.ask("status", {})
        return status

    def stop_daemon(self) -> None:
        """It has taken note, and ends."""
        self._asking.ask("stop", {})

    def disconnect(self) -> None:
        """``close``, of a client that asked questions alone."""
        self._asking.close()

    # --- as ``Client`` says ---

    def go_online(self, origin: str) -> None:
        """The daemon is, as long as it runs."""

    async def wait_online(self, timeout_s: float) -> int:
        return int(await self.request("wait_online", timeout_s=_wait(timeout_s)))

    async def settle(self, timeout_s: float) -> bool:
        return bool(await self.request("settle", timeout_s=_wait(timeout_s)))

    async def finish(self, timeout_s: float) -> None:
        """The daemon goes on."""

    async def catch_up(self, timeout_s: float) -> bool:
        return bool(await self.request("catch_up", timeout_s=_wait(timeout_s)))

    async def perform(self, command: events.Command) -> list[events.Notice]:
        result = await self.request(typed.method_of(command), **typed.fields_of(command))
        return [notice for each in result if (notice := told.from_object(each)) is not None]  # type: ignore[misc]

    def read(self, question: Question[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        method, params = typed.question(question, arguments, named)
        answer: T = typed.answer(method, self._asking.ask(method, params))
        return answer

    def look(self, name: str, *arguments: Any) -> Any:
        result = self._asking.ask(name, dict(zip(_LOOKS.get(name, ()), arguments, strict=True)))
        return result if name in _PLAIN else typed.answer(name, result)

    def health(self) -> Health:
        health: Health = self.look("health")
        return health

    def vault_faults(self) -> tuple[str, ...]:
        return tuple(self._asking.ask("vault_faults", {}))

    async def exchange(self, request: api.Request, timeout_s: float) -> api.Reply:
        result = await self.request(
            "exchange", frame=api.encode(api.ClientFrame(1, request)), timeout_s=_wait(timeout_s)
        )
        return cast("api.Reply", api.decode_relay_frame(b64decode(result)).message)

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[asyncio.Queue[Happening]]:
        talking = await self._talk()
        queue: asyncio.Queue[Happening] = asyncio.Queue()
        talking.listeners.add(queue)
        try:
            if not talking.is_watching:
                await talking.request("watch", {})
                talking.is_watching = True
            yield queue
        finally:
            talking.listeners.discard(queue)

    async def next_messages(
        self, cursor: str = "", *, after: int = 0, limit: int = _AT_ONCE, wait_s: float = 0.0
    ) -> tuple[events.MessageShown, ...]:
        result = await self.request("next", cursor=cursor, after=after, limit=limit, wait_s=_wait(wait_s))
        shown: tuple[events.MessageShown, ...] = typed.answer("next", result)
        return shown

    async def send(self, petname: str, text: str, *, mid: bytes = b"") -> bytes:
        """As in ``Client``. DaemonEnded: it may be queued or not; the same call with the same ``mid`` settles
        it."""
        mid = mid or b64decode(self._asking.ask("new_id", {}))
        try:
            await self.request("send", petname=petname, text=text, mid=mid)
        except DaemonEnded:
            raise DaemonEnded(
                f"the daemon ended before it answered: "
                f"the same with --id {mid.hex()} sends it, and never twice"
            ) from None
        return mid

    async def wait_state(self, mid: bytes, state: str = "delivered", *, timeout_s: float) -> str:
        return str(await self.request("wait_state", mid=mid, state=state, timeout_s=_wait(timeout_s)))

    @property
    def entropy(self) -> Entropy:
        from lokket.system import SystemEntropy  # noqa: PLC0415

        return SystemEntropy()


# Views by name: what their parameters are called.
_LOOKS: Final = {
    "contact": ("petname",),
    "is_contact": ("petname",),
    "safety_number": ("petname",),
    "verify_code": ("petname",),
    "message_state": ("mid",),
    "history": ("petname", "limit"),
    "unhandled": ("cursor",),
}
_PLAIN: Final = frozenset({"is_contact", "safety_number", "verify_code", "message_state", "is_deleted"})


def _wait(timeout_s: float) -> float:
    return min(timeout_s, limits.RPC_WAIT_MAX_S)


def _request(number: int, method: str, params: dict[str, Any]) -> bytes:
    request = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
    return json.dumps(request, default=_base64, separators=(",", ":")).encode() + b"\n"


def _base64(value: object) -> str:
    if isinstance(value, bytes):
        return b64encode(value).decode()
    raise TypeError(type(value).__name__)


def _result(message: dict[str, Any]) -> Any:
    error = message.get("error")
    if error is None:
        return message.get("result")
    sentence = str(error.get("message", ""))
    kind = {_NOT_REACHED: NotReached, _REFUSED: RemoteError}.get(error.get("code"), LocalError)
    raise kind(sentence)
