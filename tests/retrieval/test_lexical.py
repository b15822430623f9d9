"""Lexical search against what FTS5 says of the whole question at once."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from agentkit.retrieval import lexical
from agentkit.retrieval.chunks import Chunk
from agentkit.retrieval.index import SqliteIndex
from agentkit.retrieval.lexical import quoted
from agentkit.retrieval.records import NewDocument

WORDS = [
    "order",
    "returns",
    "returned",
    "ship",
    "parcel",
    "invoice",
    "garden",
    "lamp",
    "bench",
    "o'neil",
    "ünder",
]
QUESTIONS = (
    ["order"],
    ["return", "parcel"],
    ["lamp", "bench", "invoice", "none"],
    ["o'neil", "under"],
    WORDS,
    ["none"],
)


def put(index: SqliteIndex, first: int, count: int) -> None:
    vector = np.ones((1, 4), np.float32) / 2
    for n in range(first, first + count):
        numbers = random.Random(n)
        texts = [" ".join(numbers.choices(WORDS, range(1, 12), k=numbers.randint(3, 30))) for _ in range(2)]
        chunks = [Chunk(numbers.choice(WORDS), text, 0, len(text)) for text in texts]
        index.put(
            [NewDocument(f"{n}.md", "T", "", "0" * 64, "added", ["lamp"], chunks, [vector] * 2, vector)]
        )


def one(name: str, heading: str, text: str, keywords: Sequence[str] = ()) -> NewDocument:
    vector = np.ones((1, 4), np.float32) / 2
    chunk = Chunk(heading, text, 0, len(text))
    return NewDocument(name, "T", "", "0" * 64, "added", keywords, [chunk], [vector], vector)


def at_once(index: SqliteIndex, words: Sequence[str], limit: int) -> dict[int, float]:
    """FTS5's own answer."""
    query = (
        "SELECT rowid, -bm25(words, 2.0, 1.0, 1.0) AS score FROM words"
        " WHERE words MATCH ? ORDER BY score DESC, rowid LIMIT ?"
    )
    return dict(index._connection.execute(query, (" OR ".join(map(quoted, words)), limit)))


@pytest.fixture
def index(tmp_path: Path) -> SqliteIndex:
    index = SqliteIndex(tmp_path / "index.db", 4)
    put(index, 0, 100)
    return index


@pytest.mark.parametrize("words", QUESTIONS)
def test_the_same_as_at_once(index: SqliteIndex, words: list[str]) -> None:
    for _ in range(2):  # asked, then kept
        found, expected = index.matching(words, 12), at_once(index, words, 12)
        assert list(found.values()) == pytest.approx(list(expected.values()), rel=1e-5, abs=1e-5)
        for id_, score in found.items():
            if score > min(found.values()) + 1e-4:  # of equal ones either may be the last
                assert expected[id_] == pytest.approx(score, rel=1e-5)
        assert sorted(found.values(), reverse=True) == list(found.values())


@pytest.mark.parametrize("words", QUESTIONS)
def test_a_large_index_computes_what_fts5_does(
    index: SqliteIndex, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    index.remove(["7.md"])
    text = " ".join(
        ["lamp", *["filler"] * 20_000, "order"]
    )  # a length of three bytes, where others are of one
    index.put([one("long.md", "Invoice: order an invoice", text, ["bench, bench"])])
    monkeypatch.setattr(lexical, "EXACT_TO", 0)
    monkeypatch.setattr(lexical, "COMMON", 1.0)
    assert index.matching(words, 500) == pytest.approx(at_once(index, words, 500), rel=1e-6)
    computed = [word for word in words if "'" not in word]  # the other one is two tokens
    assert (index._lexicon._postings is not None) is bool(computed)


def test_every_change_of_a_small_index_counts_at_once(index: SqliteIndex) -> None:
    index.matching(["lamp"], 500)
    put(index, 100, 3)
    index.remove(["5.md"])
    assert index.matching(["lamp"], 500) == pytest.approx(at_once(index, ["lamp"], 500), rel=1e-5)
    assert index.frequency("lamp") == len(at_once(index, ["lamp"], 500))


def test_kept_scores_see_what_is_new_and_what_is_gone(
    index: SqliteIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lexical, "EXACT_TO", 0)
    monkeypatch.setattr(lexical, "SHARE", 0.1)
    monkeypatch.setattr(lexical, "COMMON", 1.0)
    index.matching(WORDS, 500)
    kept = index._lexicon._scores["bench"]
    put(index, 100, 4)
    index.remove(["3.md", "102.md"])
    index.flush()
    for words in QUESTIONS:
        expected = at_once(index, words, 500)
        found = index.matching(words, 500)
        assert found.keys() == expected.keys()
        assert max((abs(found[id_] - score) for id_, score in expected.items()), default=0.0) < 0.1
    assert index._lexicon._scores["bench"] is kept
    put(index, 110, 20)  # more than a tenth has changed
    assert index.matching(WORDS, 500) == pytest.approx(at_once(index, WORDS, 500), rel=1e-5)
    assert index._lexicon._scores["bench"] is not kept


def test_words_of_most_chunks_are_not_scored_in_a_large_index(
    index: SqliteIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lexical, "EXACT_TO", 0)
    expected = at_once(index, ["lamp", "order"], 10)
    assert index.frequency("lamp") == 200
    assert index.frequency("order") < 100
    found = index.matching(["lamp", "order"], 10)
    assert len(index._lexicon._scores["lamp"][0]) == 0
    assert found == pytest.approx(expected, rel=1e-4)
    assert len(index.matching(["lamp", "none"], 10)) == 10  # unless there is nothing else


def test_what_is_kept_is_bounded(index: SqliteIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lexical, "KEPT", 300)
    for word in WORDS:
        index.matching([word], 5)
        assert sum(len(ids) for ids, _ in index._lexicon._scores.values()) == index._lexicon._kept <= 300
    assert index.matching(WORDS, 10) == pytest.approx(at_once(index, WORDS, 10), rel=1e-5)
