"""The sink: nothing that passes it can steer a terminal."""

from __future__ import annotations

import json

import pytest

from agentkit.ui.clean import call_text, clean, json_text, one_line, source_text


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain ünïcode 🏮 \t tab\n", "plain ünïcode 🏮 \t tab\n"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "]0;titleafter"),
        ("\x9b31mC1", "31mC1"),
        ("back\x08space \x00nul \x7fdel", "backspace nul del"),
        ("over\rwritten\r\nline", "over\nwritten\nline"),
        ("abc\u202edef\u2066ghi\u200f", "abcdefghi"),
        ("lone \ud800 surrogate", "lone  surrogate"),
        ("\x1b\x1b[[31m31m", "31m31m"),
    ],
)
def test_clean(text: str, safe: str) -> None:
    assert clean(text) == safe
    assert clean(safe) == safe


def test_json_keeps_everything_and_is_safe() -> None:
    value = {"text": "ü \x1b[31m \x9b \u202e \u2028 \ud800"}
    text = json_text(value)
    assert json.loads(text) == value
    assert clean(text) == text
    assert "ü" in text


def test_lines() -> None:
    assert one_line("a\n b\x1b[2J\tc") == "a b c"
    assert one_line("abcdef", 4) == "abc…"
    assert call_text("f", {"a": "x\n", "b": 1}) == 'f(a="x\\n", b=1)'
    assert source_text("a/b.md", "T > H", None) == "a/b.md › T › H"
    assert source_text("a/b.pdf", "", 3) == "a/b.pdf, page 3"
