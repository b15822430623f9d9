"""Misspelt words are replaced by words of the documents, and nothing else is."""

from __future__ import annotations

import pytest

from agentkit.retrieval.spelling import corrected, is_english

WORDS = {
    "delivery": 9,
    "deliver": 2,
    "warranty": 4,
    "express": 5,
    "expires": 1,
    "pillow": 3,
    "größe": 1,
    "lamp": 2,
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("how much is expres delivry", "how much is express delivery"),
        ("Warrenty?", "warranty?"),
        ("consegna", "consegna"),
        ("how long is the warrenty", "how long is the warranty"),
        ("a pilow and a lamp", "a pillow and a lamp"),
        ("how do I deliver a pillow?", "how do I deliver a pillow?"),
        ("my nieces weave", "my nieces weave"),  # in no document, but words
        ("the lmp", "the lmp"),  # too short to tell
        ("send it to files/delivry.json", "send it to files/delivry.json"),
        ("order 12delivry34", "order 12delivry34"),
        ("it isn't expresss-like", "it isn't expresss-like"),
        ("qqqqqqqqq", "qqqqqqqqq"),
        ("grösse oder größe", "grösse oder größe"),
        ("quanto costa la consegna a casa", "quanto costa la consegna a casa"),
        ("do you sell on Delivry?", "do you sell on Delivry?"),  # a name, as it is written
        ("Delivry to Norway?", "delivery to Norway?"),
        ("", ""),
        ("🎉🎉🎉🎉🎉", "🎉🎉🎉🎉🎉"),
    ],
)
def test_corrected(text: str, expected: str) -> None:
    assert corrected(text, lambda: WORDS, is_english) == expected


@pytest.mark.parametrize(
    ("question", "known"), [("返品できますか", "返金できますか"), ("반품됩니까", "반송됩니까")]
)
def test_one_character_is_another_word_where_words_are_not_spelt(question: str, known: str) -> None:
    assert corrected(question, lambda: {known: 1}, lambda word: False) == question


def test_of_words_equally_near_the_more_frequent_is_taken() -> None:
    assert corrected("expres", lambda: WORDS, is_english) == "express"
    assert corrected("expres", lambda: {**WORDS, "expires": 50}, is_english) == "expires"


def test_the_documents_are_asked_only_for_words_in_doubt() -> None:
    def vocabulary() -> dict[str, int]:
        raise AssertionError("asked")

    assert corrected("How much is delivery abroad?", vocabulary, is_english) == "How much is delivery abroad?"


def test_only_so_many_words_are_looked_at() -> None:
    text = "how is the delivry " * 1_000
    assert corrected(text, lambda: WORDS, is_english).count("delivery") == 32
