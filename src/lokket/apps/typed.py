"""What a person is asked for: a line, a passphrase. Ctrl-C ends the command while it waits for one."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator


async def typed_line() -> str:
    """The next line of standard input, "" at its end; meanwhile the loop goes on.

    It is read by a thread that nobody waits for at the end: ``asyncio.to_thread`` would be waited for.
    """
    loop = asyncio.get_running_loop()
    line: asyncio.Future[str] = loop.create_future()

    def give(text: str) -> None:
        if not line.done():
            line.set_result(text)

    def read() -> None:
        try:
            text = sys.stdin.readline()
        except (OSError, ValueError):
            text = ""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(give, text)

    threading.Thread(target=read, name="lokket-typing", daemon=True).start()
    return await line


def secret(prompt: str) -> str:
    """Typed unseen."""
    import getpass  # noqa: PLC0415 (``send`` is to be quick)

    with interruptible():
        return getpass.getpass(prompt)


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
