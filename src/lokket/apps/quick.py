"""``send`` without typer, which takes longer to load than a daemon takes to send.

Reads what is written plainly; anything else, and every mistake, is left to typer, which explains it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lokket.apps.send import send
from lokket.apps.session import Session, perform, session_of

_FLAGS: Final = {"--json": "as_json", "--allow-plaintext": "allow_plaintext"}
_COMMON: Final = {"--home": "home", "--profile": "profile", "--ca": "ca"}
_OWN: Final = {"--wait": "wait", "--timeout": "timeout", "--id": "message_id"}
_PATHS: Final = frozenset({"home", "ca"})
_FROM_ENVIRONMENT: Final = {"home": "LOKKET_HOME", "profile": "LOKKET_PROFILE", "ca": "LOKKET_CA"}


@dataclass(frozen=True, slots=True)
class Written:
    """What was typed behind ``lokket send``."""

    petname: str
    words: list[str]
    own: dict[str, Any]
    common: dict[str, Any]


def run(arguments: list[str]) -> int | None:
    """The exit code. None: not this way."""
    written = read(arguments, os.environ)
    if written is None:
        return None
    session: Session = session_of(**written.common)
    return perform(session, lambda: send(session, written.petname, written.words, **written.own))


def read(arguments: list[str], environment: Any) -> Written | None:
    """None: not written plainly."""
    words: list[str] = []
    given: dict[str, Any] = {
        option: environment[name] for option, name in _FROM_ENVIRONMENT.items() if environment.get(name)
    }
    own: dict[str, Any] = {}
    left = iter(arguments)
    for argument in left:
        if argument in _FLAGS:
            given[_FLAGS[argument]] = True
        elif argument in _COMMON or argument in _OWN:
            value = next(left, None)
            if value is None or value.startswith("-"):
                return None
            (own if argument in _OWN else given)[_OWN.get(argument) or _COMMON[argument]] = value
        elif argument.startswith("-") and argument != "-":
            return None
        else:
            words.append(argument)
    if len(words) < 2:
        return None
    if "timeout" in own:
        try:
            own["timeout"] = float(own["timeout"])
        except ValueError:
            return None
        if not 0 <= own["timeout"] < float("inf"):
            return None
    common = {name: Path(value) if name in _PATHS else value for name, value in given.items()}
    return Written(words[0], words[1:], own, common)
