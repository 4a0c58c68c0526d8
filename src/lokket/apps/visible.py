"""Text of others, made safe to print: what a terminal would obey or hide is shown instead.

Covers CWE-150 (escape sequences) and CVE-2021-42574 (bidirectional overrides): every character of the
Unicode categories Cc, Cf, Cs, Zl, Zp and Cn comes out as its number, as do letters that look like nothing.
"""

from __future__ import annotations

import unicodedata
from typing import Final

_SHOWN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Cn"})
_BLANK_LETTERS: Final = frozenset("\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
_JOINER: Final = "\u200d"
_MARKS_MAX: Final = 6  # combining marks on one character; more climb over neighbouring lines
_RIGHT_TO_LEFT: Final = frozenset({"R", "AL", "AN"})
_ISOLATE, _END_ISOLATE = "\u2068", "\u2069"


def visible(text: str, *, isolate: bool = True) -> str:
    """One line. Right-to-left text is isolated, so that it cannot reorder what we print around it."""
    shown = "".join(_characters(text))
    if isolate and any(unicodedata.bidirectional(char) in _RIGHT_TO_LEFT for char in shown):
        return f"{_ISOLATE}{shown}{_END_ISOLATE}"
    return shown


def visible_lines(text: str) -> list[str]:
    """Line by line, for a message: its own line ends are honoured, nothing else is."""
    return [visible(line) for line in text.replace("\r\n", "\n").replace("\t", "    ").split("\n")]


def _characters(text: str) -> list[str]:
    shown: list[str] = []
    marks = 0
    for at, char in enumerate(text):
        category = unicodedata.category(char)
        marks = marks + 1 if category in ("Mn", "Me") else 0
        hidden = category in _SHOWN or char in _BLANK_LETTERS or marks > _MARKS_MAX
        if hidden and not (char == _JOINER and _joins_emoji(text, at)):
            shown.append(f"⟨{ord(char):04X}⟩")
        else:
            shown.append(char)
    return shown


def _joins_emoji(text: str, at: int) -> bool:
    """A joiner between two pictures draws one picture: harmless, and common."""
    before = text[:at].rstrip("\ufe0f\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff")[-1:]
    after = text[at + 1 : at + 2]
    return _is_picture(before) and _is_picture(after)


def _is_picture(char: str) -> bool:
    return bool(char) and unicodedata.category(char) == "So" and ord(char) >= 0x2190
