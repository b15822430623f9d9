"""Documents in order, found by the whole search and by cosine alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agentkit.errors import NotFoundError
from agentkit.evaluation.ranking import Dense, first_documents
from agentkit.evaluation.sources import Sources
from agentkit.messages import Passage
from agentkit.retrieval.embedder import MiniLMEmbedder
from agentkit.retrieval.knowledge import KnowledgeBase


def passages(documents: str) -> list[Passage]:
    return [Passage(n, name, "", "", 0.0) for n, name in enumerate(documents)]


def test_search_is_widened_until_there_are_enough_documents() -> None:
    asked = []

    def search(limit: int) -> list[Passage]:
        asked.append(limit)
        return passages("aaaaabacad")[:limit]

    assert first_documents(search, 3) == ["a", "b", "c"]
    assert asked == [3, 6, 12]


def test_a_small_base_ends_the_search() -> None:
    assert first_documents(lambda limit: passages("ab")[:limit], 10) == ["a", "b"]
    assert first_documents(lambda limit: [], 10) == []


def test_dense_takes_the_best_sentence_of_a_chunk(base: KnowledgeBase, minilm: MiniLMEmbedder) -> None:
    sources = Sources.of(base)
    dense = Dense(sources.all, minilm)
    query = "Can I use bleach on a wool throw?"
    assert dense.documents(query, 10) == ["care.txt", "orders/returns.md"]
    assert dense.documents(query, 1) == ["care.txt"]
    vector = minilm.embed([query])[0]
    chunks = base._index().fetch(base._index().nearest(vector, 100)).values()
    best = max(chunks, key=lambda chunk: float((chunk.vectors @ vector).max()))
    assert best.document == "care.txt"
    ours = (dense._rows @ vector).max()
    assert ours == pytest.approx(max(float((chunk.vectors @ vector).max()) for chunk in chunks), abs=0.01)
    assert len(dense._rows) == sum(len(chunk.vectors) for chunk in chunks)
    assert np.allclose(np.linalg.norm(dense._rows, axis=1), 1, atol=1e-3)


def test_sources_read_files_and_not_the_index(base: KnowledgeBase, tmp_path: Path) -> None:
    (tmp_path / "extra.md").write_text("# Extra\n\nWe open at nine.\n")
    base.add([tmp_path / "extra.md"])
    sources = Sources.of(base)
    assert sources.names == ["care.txt", "extra.md", "orders/returns.md"]
    assert "We open at nine." in sources.text("extra.md")
    with pytest.raises(NotFoundError, match=r"no document 'gone\.md'"):
        sources.text("gone.md")
