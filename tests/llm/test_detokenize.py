"""Ids to text in pieces: whole characters, no stop string, nothing lost."""

from __future__ import annotations

import functools
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


SCRIPTS = st.text(
    st.one_of(
        st.sampled_from("🎉👩👧🏽❤\ufe0f\u200d日本語한국어ção\u0301\u0302٣नि ab\n"),
        st.characters(min_codepoint=0xA0, max_codepoint=0x2FFFF, exclude_categories=["Cs", "Cc"]),
    ).filter(lambda letter: letter not in "\ufffd▁"),
    max_size=12,
)
"""Emoji and their joiners, CJK, combining marks: characters of two to four bytes."""


@functools.cache
def vocabulary(model: LocalModel) -> dict[str, int]:
    return dict(model.tokenizer.get_vocab())


def torn(model: LocalModel, text: str, data: st.DataObject) -> list[int]:
    """Ids of the text, some characters of it as single bytes."""
    from tokenizers.pre_tokenizers import ByteLevel

    known, ids = vocabulary(model), []
    by_byte = "<0xE2>" in known
    for letter in text:
        parts = [f"<0x{byte:02X}>" for byte in letter.encode()]
        if not by_byte:
            parts = list(ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(letter)[0][0])
        whole = data.draw(st.booleans()) or not all(part in known for part in parts)
        ids += model.encoder.plain(letter) if whole else [known[part] for part in parts]
    return ids


@settings(max_examples=300, deadline=None, database=None)
@given(data=st.data())
def test_characters_that_come_byte_by_byte_are_never_broken(
    smollm: LocalModel, gemma: LocalModel, data: st.DataObject
) -> None:
    model = data.draw(st.sampled_from([smollm, gemma]))
    text = data.draw(SCRIPTS)
    ids = torn(model, text, data)
    stream, pieces, start = TextStream(model.tokenizer), [], 0
    while start < len(ids):
        size = data.draw(st.integers(1, 3))
        pieces.append(stream.push(ids[start : start + size]))
        start += size
    cut = TextStream(model.tokenizer)  # the same, but the model stops in the middle of it
    heard = cut.push(ids[: data.draw(st.integers(0, len(ids)))]) + cut.finish()
    assert "".join([*pieces, stream.finish()]) == stream.text == text
    assert text.startswith(heard)
    assert not any("\ufffd" in piece for piece in [*pieces, heard])


@settings(max_examples=200, deadline=None, database=None)
@given(data=st.data())
def test_whatever_is_written_is_text(smollm: LocalModel, gemma: LocalModel, data: st.DataObject) -> None:
    """A hot model writes bytes that are no characters: each is replaced once, and what follows is whole."""
    model = data.draw(st.sampled_from([smollm, gemma]))
    some = st.one_of(st.integers(0, 600), st.integers(0, len(model.tokenizer) - 1))
    ids = [*data.draw(st.lists(some, max_size=12)), *model.encoder.plain("fin.")]
    stream = TextStream(model.tokenizer)
    text = "".join(stream.push([id]) for id in ids) + stream.finish()
    assert text.encode("utf-8").decode("utf-8") == text == stream.text
    assert text.endswith("fin.")
