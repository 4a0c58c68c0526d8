"""For the caller's side: commands and questions as requests, results as what they stand for."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, Final

import msgspec

from lokket.client.rpc import table
from lokket.engine import answers, archive, backups, cursors, events, farewell, views
from lokket.engine.records import BackupState
from lokket.errors import LocalError
from lokket.wire import archive as wire

_METHODS: Final = {command: name for name, command in table.COMMANDS.items()}
_VIEWS: Final = (
    *("whoami", "contacts", "contact", "is_contact", "safety_number", "verify_code"),
    *("history", "message_state", "account_code", "transfer"),
)
_QUESTIONS: Final[dict[Callable[..., Any], str]] = {
    backups.state: "backup_state",
    archive.page: "archive_page",
    cursors.unhandled: "unhandled",
    cursors.cursors: "cursors",
    cursors.dead_letters: "dead_letters",
    farewell.is_over: "is_deleted",
    **{getattr(views, name): name for name in _VIEWS},
}
_ANSWERS: Final[dict[str, Any]] = {
    "whoami": answers.Me | None,
    "health": answers.Health,
    "account_code": str,
    "is_deleted": bool,
    "is_contact": bool,
    "transfer": answers.TransferView | None,
    "contacts": tuple[answers.ContactView, ...],
    "contact": answers.ContactView,
    "safety_number": str,
    "verify_code": str,
    "message_state": str,
    "history": tuple[answers.MessageView, ...],
    "next": tuple[events.MessageShown, ...],
    "unhandled": tuple[events.MessageShown, ...],
    "cursors": tuple[cursors.CursorView, ...],
    "dead_letters": tuple[cursors.DeadLetterView, ...],
    "backup_state": BackupState | None,
}


class _Page(msgspec.Struct, frozen=True):
    records: tuple[tuple[int, bytes], ...]
    place: bytes


def method_of(command: events.Command) -> str:
    """LocalError: a command for a vault that has no account yet; no daemon serves that."""
    method = _METHODS.get(type(command))
    if method is None:
        raise LocalError(
            "this profile has an account already, and a daemon serves it: choose another --profile"
        )
    return method


def fields_of(command: events.Command) -> dict[str, Any]:
    return {each.name: getattr(command, each.name) for each in dataclasses.fields(command)}


def question(
    function: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Method and parameters. LocalError: a question that is not in the table."""
    method = _QUESTIONS.get(function)
    if method is None:
        raise LocalError("a daemon has this vault, and does not answer this question: end it first")
    bound = inspect.signature(function).bind(None, *arguments, **named)
    params = dict(list(bound.arguments.items())[1:])
    return method, params


def answer(method: str, result: Any) -> Any:
    """LocalError: not what the method answers with."""
    try:
        if method == "archive_page":
            page = msgspec.convert(result, _Page)
            records = (wire.decode(kind, body) for kind, body in page.records)
            return tuple(record for record in records if record is not None), page.place
        return msgspec.convert(result, _ANSWERS[method])
    except msgspec.MsgspecError:
        raise LocalError(
            "the daemon answers as another version does: end it with 'lokket daemon stop'"
        ) from None
