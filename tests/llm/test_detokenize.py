"""Ids to text in pieces: whole characters, no stop string, nothing lost."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentkit.llm.detokenize import TextStream
from agentkit.llm.local import LocalModel

TEXTS = st.text(
    st.characters(max_codepoint=0x2FFFF, exclude_categories=["Cs", "Cc"], exclude_characters="\ufffd")
)
"""What the tokenizer has bytes for: its vocabulary lacks some controls and the unassigned planes."""


def deltas(
    smollm: LocalModel, text: str, stops: tuple[str, ...] = (), size: int = 1
) -> tuple[TextStream, list[str]]:
    stream = TextStream(smollm.tokenizer, stops)
    ids = list(smollm.encoder.plain(text))
    pieces = [stream.push(ids[n : n + size]) for n in range(0, len(ids), size)]
    return stream, [*pieces, stream.finish()]


@settings(max_examples=150, deadline=None)
@given(TEXTS, st.integers(1, 4))
def test_pieces_join_to_the_text_without_broken_characters(smollm: LocalModel, text: str, size: int) -> None:
    stream, pieces = deltas(smollm, text, size=size)
    assert "".join(pieces) == stream.text == text
    assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize(
    "text", ["👩‍👩‍👧‍👦 family", "é🎉日本語", "a" + "\u0301" * 5, "  leading and trailing  ", "\n\n"]
)
def test_multi_byte_characters(smollm: LocalModel, text: str) -> None:
    assert "".join(deltas(smollm, text)[1]) == text


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [
        ("Hello world. User: hi", ("User:",), "Hello world. "),
        ("Hello world", ("wor",), "Hello "),
        ("one\n\ntwo", ("\n\n",), "one"),
        ("aaaab", ("aab",), "aa"),
        ("xyz", ("yz", "xy"), ""),
        ("no stop here", ("absent",), "no stop here"),
        ("ends like a sto", ("stop",), "ends like a sto"),
        ("ends like a stop", ("stop",), "ends like a "),
        ("🎉 party", ("🎉",), ""),
        ("text", ("",), "text"),
    ],
)
def test_stop_strings(smollm: LocalModel, text: str, stops: tuple[str, ...], expected: str) -> None:
    for size in (1, 2, 100):
        stream, pieces = deltas(smollm, text, stops, size)
        assert "".join(pieces) == stream.text == expected
        assert stream.stopped == any(stop in text for stop in stops if stop)
        for heard in itertools.accumulate(pieces):
            assert not any(stop in heard for stop in stops if stop)


def test_an_unfinished_character_is_dropped_at_the_end(smollm: LocalModel) -> None:
    stream = TextStream(smollm.tokenizer)
    ids = list(smollm.encoder.plain("ok 🎉"))
    assert stream.push(ids[:-1]) + stream.finish() == "ok "
