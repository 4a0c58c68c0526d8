"""What a person is asked for: a line, a passphrase. Ctrl-C ends the command while it waits for one."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator

from lokket.errors import LocalError


class TypedLines:
    """Lines of standard input, read by a thread that nobody waits for at the end."""

    def __init__(self, prompt: str) -> None:
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self.prompted = bool(prompt)
        self._wanted = threading.Semaphore(0)  # the prompt appears when somebody wants a line
        threading.Thread(target=self._read, args=(prompt,), name="lokket-typing", daemon=True).start()

    def __aiter__(self) -> TypedLines:
        return self

    async def __anext__(self) -> str:
        self._wanted.release()
        line = await self._lines.get()
        if line is None:
            raise StopAsyncIteration
        return line

    def _read(self, prompt: str) -> None:
        try:
            while self._wanted.acquire():
                line = input(prompt) if prompt else sys.stdin.readline()
                if not prompt and not line:
                    break
                self._put(line.rstrip("\r\n"))
        except (EOFError, KeyboardInterrupt, UnicodeDecodeError, ValueError, OSError):
            pass
        self._put(None)

    def _put(self, line: str | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._lines.put_nowait, line)
        except RuntimeError:  # the loop has ended
            return


async def typed_line() -> str:
    """The next line of standard input, "" at its end; meanwhile the loop goes on."""
    return await anext(TypedLines(""), "")


def secret(prompt: str) -> str:
    """Typed unseen."""
    import getpass  # noqa: PLC0415 (``send`` is to be quick)

    with interruptible():
        return getpass.getpass(prompt)


def new_secret(prompt: str) -> str:
    """Typed unseen, twice. LocalError: the two differ."""
    first = secret(prompt)
    if secret("The same again: ") != first:
        raise LocalError("the two passphrases differ: try again")
    return first


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """While the loop waits for a read: asyncio would keep Ctrl-C and SIGTERM until what is read has come."""
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        for each in before:
            signal.signal(each, signal.default_int_handler)
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
