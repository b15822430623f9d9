"""The sink: nothing that passes it can steer a terminal."""

from __future__ import annotations

import io
import json
import os
import select

import pytest

from agentkit.cli import output
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


def test_json_stays_json_in_any_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    value = {"text": "für \x7f 🏮"}
    for encoding in ("ascii", "latin-1", "utf-8"):
        raw = io.BytesIO()
        stream = io.TextIOWrapper(raw, encoding=encoding, errors="backslashreplace")
        monkeypatch.setattr("sys.stdout", stream)
        output.json_line(value)
        line = raw.getvalue().decode(encoding)
        assert json.loads(line) == value
        assert "\x7f" not in line


def test_status_has_no_colours_where_none_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    output.status("loading")
    output.status("")
    assert terminal.getvalue() == "\r\x1b[Kloading\r\x1b[K"
    monkeypatch.delenv("NO_COLOR")
    output.status("loading")
    output.status("")
    assert "\x1b[2mloading\x1b[0m" in terminal.getvalue()


def test_what_was_typed_before_a_question_does_not_answer_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pty = pytest.importorskip("pty")
    person, terminal = pty.openpty()
    os.write(person, b"y\n")

    class Screen(io.StringIO):
        def write(self, text: str) -> int:
            os.write(person, b"n\n")  # having read the question
            return super().write(text)

    with open(terminal, encoding="utf-8") as stdin:
        assert select.select([stdin], [], [], 5.0)[0]
        monkeypatch.setattr("sys.stdin", stdin)
        monkeypatch.setattr("sys.stderr", Screen())
        assert not output.confirm("Allow it?")
    os.close(person)
