from __future__ import annotations

import pytest

from agentkit.retrieval.chunks import MAX_WORDS, chunk_document, count_words
from agentkit.retrieval.documents import DocumentBuilder
from agentkit.retrieval.sentences import sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("It costs 4.95 euros, approx. 5. Fine.", ["It costs 4.95 euros, approx. 5.", "Fine."]),
        ("Ask Dr. Lee, e.g. by mail. Or J. Smith.", ["Ask Dr. Lee, e.g. by mail.", "Or J. Smith."]),
        ("Choose Forgot password? on the page. Done!", ["Choose Forgot password? on the page.", "Done!"]),
        ('He said "Go." Then left.', ['He said "Go."', "Then left."]),
        ("1. Open it.\n2. Close it.", ["1. Open it.", "2. Close it."]),
        ("Visit www.example.org now. Bye.", ["Visit www.example.org now.", "Bye."]),
        ("Open until 5 p.m. Monday only.", ["Open until 5 p.m.", "Monday only."]),
        ("是的。不是。", ["是的。", "不是。"]),
        ("  \n ", []),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


def test_chunks_follow_the_structure() -> None:
    builder = DocumentBuilder()
    builder.heading(1, "Guide")
    builder.paragraph("Intro.")
    builder.heading(2, "Long")
    builder.paragraph(" ".join(f"Sentence number {n} has exactly seven words." for n in range(40)))
    builder.heading(2, "Short")
    builder.paragraph("First.")
    builder.paragraph("Second.")
    document = builder.build("guide.md")
    chunks = chunk_document(document)
    assert [chunk.heading for chunk in chunks] == ["Guide", *["Guide > Long"] * 3, "Guide > Short"]
    assert chunks[-1].text == "First.\n\nSecond."
    for chunk in chunks:
        assert document.text[chunk.start : chunk.end] == chunk.text
        assert count_words(chunk.text) <= MAX_WORDS
        assert chunk.text.endswith(".")


def test_a_sentence_without_end_is_cut() -> None:
    builder = DocumentBuilder()
    builder.paragraph("word " * 500)
    builder.paragraph("x" * 10_000)
    chunks = chunk_document(builder.build("a.txt"))
    assert all(count_words(chunk.text) <= MAX_WORDS for chunk in chunks)
    assert sum(chunk.text.count("word") for chunk in chunks) == 500
    assert sum(chunk.text.count("x") for chunk in chunks) == 10_000
