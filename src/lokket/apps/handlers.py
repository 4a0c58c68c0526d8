"""What may be done with a message that came: a command, a web address, a file. Each says whether it worked.

The message goes to a command's standard input, into a request's body, onto a file's line: never into
arguments, an environment or a log.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import shlex
import signal
import sys
import threading
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import SplitResult, urlsplit

from lokket import __version__, limits
from lokket.client.transport import is_loopback
from lokket.errors import LocalError

_GRACE_S: Final = 2.0


class Handler(Protocol):
    """``name``: a cursor's, the same for the same handler."""

    name: str

    async def handle(self, line: bytes, message_id: str) -> str:
        """Why it did not work, without a word of the message; "": it did."""


class Command:
    """A program, run anew for each message; it worked when it ends with 0."""

    name = "exec"

    def __init__(self, words: str, wait_s: float) -> None:
        """LocalError: no command. It is split as a shell does, and run without one."""
        try:
            self._arguments = shlex.split(words)
        except ValueError:
            raise LocalError("the command is not written as a shell wants it: a quote is missing") from None
        if not self._arguments:
            raise LocalError("--exec needs a command")
        self._wait_s = wait_s

    async def handle(self, line: bytes, message_id: str) -> str:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=sys.stderr,  # our own output is ours
                start_new_session=True,
            )
        except OSError as error:
            return f"the command cannot be run: {error.strerror}"
        try:
            async with asyncio.timeout(self._wait_s):
                await process.communicate(line + b"\n")
        except TimeoutError:
            return f"the command took longer than {self._wait_s:g} s"
        finally:
            await _end(process)
        code = process.returncode
        return "" if code == 0 else f"the command ended with {code}"


async def _end(process: asyncio.subprocess.Process) -> None:
    """It, and where the system can tell, what it started, if it is still there."""
    for name in ("SIGTERM", "SIGKILL"):
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, getattr(signal, name))
            else:
                process.kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE_S):
                await process.wait()


class Webhook:
    """A POST to the address that the person gave, and to no other: redirects are not followed."""

    name = "webhook"

    def __init__(self, address: str, wait_s: float, *, allow_plaintext: bool) -> None:
        """LocalError: no web address, or one that would show the message to the network."""
        try:
            parts = urlsplit(address)
            host, _ = parts.hostname, parts.port
        except ValueError:
            host, parts = None, SplitResult("", "", "", "", "")
        if parts.scheme not in ("http", "https") or not host or parts.username is not None:
            raise LocalError("--webhook needs an http:// or https:// address")
        if parts.scheme == "http" and not (is_loopback(host) or allow_plaintext):
            raise LocalError(
                "this address is on another machine and without TLS, so everyone on the way could read the "
                "messages: use https, or say --allow-plaintext"
            )
        self._parts = parts
        self._wait_s = wait_s

    async def handle(self, line: bytes, message_id: str) -> str:
        """The thread that waits for the server is nobody's to wait for: a stop need not."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[str] = loop.create_future()

        def tell(outcome: str) -> None:
            if not answer.done():
                answer.set_result(outcome)

        def post() -> None:
            outcome = self._post(line, message_id)
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(tell, outcome)

        threading.Thread(target=post, name="lokket-webhook", daemon=True).start()
        try:
            async with asyncio.timeout(self._wait_s):
                return await answer
        except TimeoutError:
            return f"the server took longer than {self._wait_s:g} s"

    def _post(self, line: bytes, message_id: str) -> str:
        parts = self._parts
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=self._wait_s)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"lokket/{__version__}",
            "Idempotency-Key": message_id,
        }
        try:
            connection.request("POST", path, line, headers)
            response = connection.getresponse()
            response.read(limits.HANDLER_ANSWER_MAX_BYTES)
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            return f"the server cannot be reached: {reason}"
        finally:
            connection.close()
        return "" if 200 <= response.status < 300 else f"the server answered {response.status}"


class Lines:
    """One line for each message, on the disk before it counts as handled; ``-``: standard output."""

    name = "jsonl"

    def __init__(self, path: str) -> None:
        """LocalError: it cannot be written."""
        self._stream = sys.stdout.buffer
        self._is_file = path != "-"
        if self._is_file:
            target = Path(path).expanduser()
            try:
                descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            except OSError as error:
                raise LocalError(f"cannot write {target}: {error.strerror}") from None
            self._stream = os.fdopen(descriptor, "ab", buffering=0)

    async def handle(self, line: bytes, message_id: str) -> str:
        try:
            await asyncio.to_thread(self._write, line + b"\n")
        except BrokenPipeError:
            raise
        except OSError as error:
            return f"the line cannot be written: {error.strerror}"
        return ""

    def _write(self, data: bytes) -> None:
        self._stream.write(data)
        self._stream.flush()
        if self._is_file:
            os.fsync(self._stream.fileno())
