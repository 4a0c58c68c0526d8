"""How a coroutine becomes a command: the options that all have, and the session made of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from lokket.apps.session import Session, perform, session_of

Json = Annotated[bool, typer.Option("--json", help="One JSON object per line.", rich_help_panel="Everywhere")]
Home = Annotated[
    Path | None,
    typer.Option(
        "--home",
        help="Where profiles and the relay's data are.",
        envvar="LOKKET_HOME",
        rich_help_panel="Everywhere",
    ),
]
Profile = Annotated[
    str,
    typer.Option(
        "--profile",
        help="Which account of this machine.",
        envvar="LOKKET_PROFILE",
        rich_help_panel="Everywhere",
    ),
]
PassphraseFd = Annotated[
    int | None,
    typer.Option(
        "--passphrase-fd", help="Read the passphrase from this descriptor.", rich_help_panel="Everywhere"
    ),
]
AllowPlaintext = Annotated[
    bool,
    typer.Option("--allow-plaintext", help="Talk to a relay without TLS.", rich_help_panel="Everywhere"),
]
Ca = Annotated[
    Path | None,
    typer.Option(
        "--ca",
        help="The one authority (PEM) that may vouch for the relay, instead of the system's.",
        envvar="LOKKET_CA",
        rich_help_panel="Everywhere",
    ),
]
_COMMON: Final = (
    ("as_json", Json, False),
    ("home", Home, None),
    ("profile", Profile, ""),
    ("passphrase_fd", PassphraseFd, None),
    ("allow_plaintext", AllowPlaintext, False),
    ("ca", Ca, None),
)


Command = Callable[..., Coroutine[Any, Any, int | None]]


def command(group: typer.Typer, name: str | None = None, **details: Any) -> Callable[[Command], Command]:
    """Register ``async def f(session, …)``: the common options become the session."""

    def register(function: Command) -> Command:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]

        def run(**given: Any) -> None:
            session = _session(given)
            raise typer.Exit(perform(session, lambda: function(session, **given)))

        run.__name__ = function.__name__
        run.__doc__ = function.__doc__
        run.__signature__ = _signature(own)  # type: ignore[attr-defined]
        group.command(name, **details)(run)
        return function

    return register


def default_command(group: typer.Typer, function: Command | None) -> None:
    """What the group's bare name does; the common options may also stand between group and subcommand."""

    def run(**given: Any) -> None:
        context: typer.Context = given["ctx"]
        if context.invoked_subcommand is None and function is not None:
            session = _session(given)
            raise typer.Exit(perform(session, lambda: function(session)))
        context.obj = _merged(given)

    run.__signature__ = _signature([])  # type: ignore[attr-defined]
    group.callback(invoke_without_command=function is not None)(run)


def _signature(own: list[inspect.Parameter]) -> inspect.Signature:
    """The command's own parameters between the context and the common options."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    context = inspect.Parameter("ctx", keyword, annotation=typer.Context)
    common = [
        inspect.Parameter(option, keyword, default=default, annotation=annotation)
        for option, annotation, default in _COMMON
    ]
    return inspect.Signature([context, *(parameter.replace(kind=keyword) for parameter in own), *common])


def _merged(given: dict[str, Any]) -> dict[str, Any]:
    """The common options as given here, else as given before the command."""
    before = given.pop("ctx").obj or {}
    return {
        option: value if (value := given.pop(option)) != default else before.get(option, default)
        for option, _, default in _COMMON
    }


def _session(given: dict[str, Any]) -> Session:
    return session_of(**_merged(given))
