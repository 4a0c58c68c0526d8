"""The lines of a chat above what is typed."""

from __future__ import annotations

import pytest

from lokket.apps.chat import _Screen
from lokket.apps.output import Output


def test_the_prompt_is_drawn_below_a_line_once_it_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output(as_json=False)
    out.is_terminal = True
    screen = _Screen(out)
    screen.show("of before")
    assert capsys.readouterr().out == "of before\n"
    screen.prompting = True
    screen.show("new")
    assert capsys.readouterr().out == "\r\x1b[Knew\n> "
