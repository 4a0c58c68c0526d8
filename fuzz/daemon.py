"""Targets and starting values of the daemon's socket, for ``targets.py`` and ``seeds.py``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from lokket.client.rpc import table, told
from lokket.engine import events

_MID: Final = "AAECAwQFBgcICQoLDA0ODw=="
_PARAMS: Final[dict[str, dict[str, Any]]] = {
    "hello": {"versions": [1]},
    "history": {"petname": "bob", "limit": 5},
    "wait_state": {"mid": _MID, "state": "sent", "timeout_s": 1.5},
    "next": {"cursor": "mailer", "after": 7, "limit": 9, "wait_s": 0},
    "archive_page": {"place": "", "limit": 3, "only": ""},
    "send": {"petname": "bob", "text": "hi \u202e", "mid": _MID},
    "handled": {"order": 12, "cursor": "mailer"},
    "open_cursor": {"name": "mailer", "oldest": True, "anew": False},
    "give_up": {"cursor": "mailer", "order": 3, "tries": 5, "sentence": "no"},
    "import_records": {"records": [[1, _MID], [2, ""]]},
    "status": {},
}


def request(data: bytes) -> object:
    """What is accepted is of a method that there is, and has its type."""
    request_id, method, params = table.decode(data)
    kind = table.COMMANDS.get(method) or table.QUESTIONS[method]
    assert isinstance(params, kind)
    assert isinstance(request_id, int | str)
    return params


def happening(data: bytes) -> object:
    """What a daemon tells its callers."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        raise table.Fault(table.NO_JSON, "no JSON") from None
    found = told.from_object(fields)
    if found is not None:
        assert told.from_object(told.as_object(found)) == found
    return found


def requests() -> Iterator[bytes]:
    for number, (method, params) in enumerate(_PARAMS.items()):
        request_id = number if number % 2 else f"n{number}"
        yield (
            json.dumps({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}).encode()
            + b"\n"
        )


def happenings() -> Iterator[bytes]:
    for one in (
        events.MessageShown(1, "bob", "hi", bytes(16), bytes(32), 3, 4, False, True),
        events.MessageState("bob", bytes(16), "sent"),
        events.Online(3),
    ):
        yield json.dumps(told.as_object(one)).encode()


TARGETS: Final[dict[str, Callable[[bytes], object]]] = {
    "daemon_request": request,
    "daemon_happening": happening,
}
SEEDS: Final[dict[str, Callable[[], Iterator[bytes]]]] = {
    "daemon_request": requests,
    "daemon_happening": happenings,
}
