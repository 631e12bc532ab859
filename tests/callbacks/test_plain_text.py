"""Texts of user code in a history: without terminal codes."""

from __future__ import annotations

import pytest

from syncblocks.callbacks.plain_text import plain_text
from tests.budget import within


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("\x1b[1;31mred\x1b[0m alert", "red alert"),
        ("\x1b[38;2;255;0;0mred\x1b[m", "red"),
        ("50 %\x1b[2K\r100 %", "50 %\r100 %"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;https://a.example\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b(Bplain\x1b7\x1b8", "plain"),
        ("cut off \x1b[3", "cut off "),
        ("array[0] is [31m", "array[0] is [31m"),
        ("käse\nzwei\t\0\ud800", "käse\nzwei\t\\0\\ud800"),
    ],
)
def test_terminal_codes_go_and_all_else_stays(text: str, plain: str) -> None:
    assert plain_text(text) == plain


@pytest.mark.parametrize(
    "text", ["\x1b[" * 200_000, "\x1b]" * 200_000, "\x1b[" + "0" * 400_000, "\x1b]" + "a" * 400_000]
)
def test_a_long_text_of_codes_takes_no_time(text: str) -> None:
    with within(2):
        assert "\x1b" not in plain_text(text)
