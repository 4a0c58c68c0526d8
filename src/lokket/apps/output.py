"""What the command line prints: sentences for a person, or one JSON object per line for a program."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any, Final, TextIO

from lokket.apps.visible import visible, visible_lines
from lokket.errors import LocalError

if TYPE_CHECKING:
    from rich.console import Console

    from lokket.engine.events import MessageShown

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
NOT_REACHED: Final = 3  # the relay, or an answer in time; what was asked for stays in the vault
NO_VAULT: Final = 4  # none there, in use, damaged, or the key does not open it
INTERRUPTED: Final = 130
NO_READER: Final = 141  # whoever read our output went away


class VaultTrouble(LocalError):
    """The vault could not be opened."""


class Output:
    """``say`` and ``record`` exclude each other: a person gets the one, a program the other."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.is_terminal = sys.stdout.isatty() and not as_json
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        self._consoles: dict[TextIO, Console] = {}

    def say(self, text: str = "", style: str = "") -> None:
        """A line of our own words; whatever comes from others has gone through ``visible`` before."""
        if not self.as_json:
            self._print(sys.stdout, text, style)

    def say_parts(self, *parts: tuple[str, str]) -> None:
        """One line of differently styled parts: (text, style)."""
        if self.as_json:
            return
        if not self.is_terminal:
            self.say("".join(text for text, _ in parts))
            return
        from rich.text import Text  # noqa: PLC0415

        self._console(sys.stdout).print(Text.assemble(*parts))
        sys.stdout.flush()

    def aside(self, text: str, style: str = "dim") -> None:
        """To a person, beside the output: progress, warnings."""
        if not self.as_json:
            self._print(sys.stderr, text, style)

    def record(self, kind: str, /, **fields: Any) -> None:
        """One JSON object on one line, pure ASCII. Bytes become hex."""
        if self.as_json:
            print(self.encoded(kind, **fields), flush=True)

    @staticmethod
    def encoded(kind: str, /, **fields: Any) -> str:
        return json.dumps({"type": kind, **fields}, default=_jsonable)

    def problem(self, sentence: str, code: int) -> None:
        """The one sentence that says what went wrong and what to do."""
        self.record("error", sentence=sentence, code=code)
        if not self.as_json:
            self._print(sys.stderr, f"lokket: {visible(sentence)}", "red")

    def qr(self, text: str) -> None:
        """On a terminal only."""
        if self.is_terminal:
            import segno  # noqa: PLC0415

            segno.make(text, error="l", micro=False).terminal(out=sys.stdout, border=2, compact=True)

    def _print(self, stream: TextIO, text: str, style: str) -> None:
        if stream.isatty():
            from rich.text import Text  # noqa: PLC0415

            self._console(stream).print(Text(text, style=style))
        else:
            print(text, file=stream)
        stream.flush()

    def _console(self, stream: TextIO) -> Console:
        from rich.console import Console  # noqa: PLC0415

        if stream not in self._consoles:
            self._consoles[stream] = Console(file=stream, highlight=False, soft_wrap=True)
        return self._consoles[stream]


def _jsonable(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError(type(value).__name__)


def clock(time_ms: int) -> str:
    """Local time; the date too when it is not today."""
    try:
        then = time.localtime(time_ms / 1000)
    except (OverflowError, OSError, ValueError):
        return "no time"
    today = time.localtime()[:3] == then[:3]
    return time.strftime("%H:%M" if today else "%Y-%m-%d %H:%M", then)


def message_fields(message: MessageShown) -> dict[str, object]:
    """A message that came, as every command shows it to a program."""
    return {
        "id": message.mid,
        "petname": message.petname,
        "text": message.text,
        "time_ms": message.time_ms,
        "outgoing": message.outgoing,
        "request": message.request,
        "device": message.sender_device,
        "seq": message.seq,
        "order": message.order,
    }


def message_lines(who: str, text: str, time_ms: int, mark: str = "") -> str:
    """``12:30  bob: hi``; further lines of the message stand behind a bar, so none can pose as ours."""
    first, *more = visible_lines(text)
    head = f"{clock(time_ms)}  {visible(who)}: {first}{mark}"
    return "\n".join([head, *(f"       | {line}" for line in more)])
