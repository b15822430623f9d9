"""Documents for the tests that every backend of `Index` must pass, and a writer that is a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from agentkit.retrieval.chunks import Chunk
from agentkit.retrieval.index import SqliteIndex
from agentkit.retrieval.postgres import PostgresIndex
from agentkit.retrieval.protocol import Index
from agentkit.retrieval.records import NewDocument, Vectors

DIMENSION = 8
AXES = np.eye(DIMENSION, dtype=np.float32)


def document(
    name: str,
    texts: Sequence[str] = ("some text",),
    *,
    axis: int = 0,
    vectors: Sequence[Vectors] | None = None,
    headings: Sequence[str] | None = None,
    whole: str = "the whole text",
    sha256: str = "0" * 64,
    origin: str = "folder",
    keywords: Sequence[str] = (),
    language: str = "",
    languages: Sequence[str] | None = None,
    metadata: dict[str, str] | None = None,
    own_keywords: Sequence[Sequence[str]] | None = None,
) -> NewDocument:
    """A document whose chunk number n lies along axis ``axis + n``."""
    size = len(texts)
    headings = headings or ["Title"] * size
    languages = languages or [language] * size
    chunks = [
        Chunk(heading, text, 3, 5, page, of, tuple(words[:1]), tuple(words[1:]))
        for heading, text, page, of, words in zip(
            headings, texts, [None, *range(2, size + 1)], languages, own_keywords or [()] * size, strict=True
        )
    ]
    own = vectors or [AXES[[(axis + n) % DIMENSION] * 2] for n in range(size)]
    phrases = AXES[[axis % DIMENSION, *(0 for _ in keywords)]]
    return NewDocument(
        name,
        f"Title of {name}",
        whole,
        sha256,
        origin,
        keywords,
        chunks,
        own,
        phrases,
        language,
        metadata or {},
    )  # type: ignore[arg-type]


def open_at(place: str | Path, schema: str, dimension: int = DIMENSION) -> Index:
    """An index in a SQLite file, or at the address of a PostgreSQL server."""
    if isinstance(place, Path):
        return SqliteIndex(place, dimension)
    return PostgresIndex(place, dimension, schema=schema)


def write_documents(place: str | Path, schema: str, prefix: str, number: int) -> None:
    """Run in a process of its own: puts documents one by one, every third twice."""
    index = open_at(place, schema)
    for n in range(number):
        for _ in range(2 if n % 3 == 0 else 1):
            index.put([document(f"{prefix}{n}.md", [f"{prefix} {n}", "second"], axis=n)])
    index.close()
