"""Nothing that others write makes a terminal do, hide or reorder anything."""

from __future__ import annotations

import io
import sys
import unicodedata

import pytest

from lokket.apps.output import Output, message_lines
from lokket.apps.visible import visible, visible_lines

EVERY = [chr(number) for number in range(sys.maxunicode + 1)]
DANGEROUS_CATEGORIES = ("Cc", "Cf", "Cs", "Zl", "Zp")
DANGEROUS = [char for char in EVERY if unicodedata.category(char) in DANGEROUS_CATEGORIES]


@pytest.mark.attack(109)
def test_every_control_and_format_character_is_shown_as_its_number() -> None:
    assert len(DANGEROUS) > 2_000
    for char in DANGEROUS:
        shown = visible(f"a{char}b")
        assert char not in shown
        assert f"⟨{ord(char):04X}⟩" in shown


@pytest.mark.attack(109)
def test_no_line_of_a_message_keeps_one() -> None:
    for line in visible_lines("".join(DANGEROUS)):
        assert not {unicodedata.category(char) for char in line} & set(DANGEROUS_CATEGORIES)


@pytest.mark.attack(109)
def test_every_character_of_unicode_comes_out_safe() -> None:
    """All of them, beside each other: nothing but isolation that is ours, and closed again."""
    for start in range(0, len(EVERY), 4096):
        shown = visible("".join(EVERY[start : start + 4096]))
        inner = shown.removeprefix("\u2068").removesuffix("\u2069")
        assert shown == inner or (shown[0], shown[-1]) == ("\u2068", "\u2069")
        assert not [
            char for char in inner if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp", "Cn")
        ]


@pytest.mark.attack(109)
@pytest.mark.parametrize(
    "text",
    [
        "\x1b[2J\x1b[H",  # clear the screen
        "\x1b]0;title\x07",  # set the title
        "\x1b]52;c;cm0gLXJm\x07",  # write the clipboard
        "\x9b31m",  # the one-byte CSI
        "\r\x1b[1A✓ delivered",  # overwrite a line of ours
        "\u202egnp.exe",  # right to left override
        "\u2066\u2067\u202a",
        "bo\u200bb",  # zero width: looks like bob
        "\u115f\u3164",  # letters that look like nothing
        "a\u0301" + "\u0301" * 40,  # marks that climb over other lines
        "\U000e0041\U000e007f",  # tags
    ],
)
def test_known_tricks_are_seen(text: str) -> None:
    assert "⟨" in visible(text)


@pytest.mark.parametrize(
    "text",
    [
        "Grüße, Łódź, ñandú",
        "добрый день",
        "こんにちは",
        "한국어",
        "नमस्ते",
        "👍🏽",
        "👩‍👩‍👧‍👦",
        "🏳️‍🌈",
        "e\u0301",
        "x → y ✓ 3½",
    ],
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert visible(text) == text


def test_a_joiner_that_joins_no_pictures_is_shown() -> None:
    assert visible("pay\u200dpal") == "pay⟨200D⟩pal"
    assert visible("\u200d") == "⟨200D⟩"


@pytest.mark.attack(109)
def test_right_to_left_text_cannot_reorder_what_stands_around_it() -> None:
    shown = visible("שלום 123")
    assert shown.startswith("\u2068")
    assert shown.endswith("\u2069")
    assert visible("\u2069שלום").count("\u2069") == 1  # theirs is shown, ours closes


@pytest.mark.attack(109)
def test_a_second_line_cannot_pose_as_another_message() -> None:
    first, second = message_lines("eve", "hi\n12:30  bob: pay eve", 0).split("\n")
    assert first.endswith("eve: hi")
    assert second.startswith("       | ")


@pytest.mark.attack(109)
def test_json_output_is_ascii_whatever_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(sys, "stdout", written)
    Output(as_json=True).record("message", text="".join(DANGEROUS))
    assert written.getvalue().isascii()
    assert written.getvalue().count("\n") == 1
    assert not [char for char in written.getvalue()[:-1] if ord(char) < 32]
