"""What the agent and the index need of retrieval; implementations live beside this file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from agentkit.messages import Message, Passage
from agentkit.retrieval.records import IndexedDocument, NewDocument, StoredChunk, Vectors

Where = Mapping[str, str | Sequence[str]]
"""Narrows a search: key to the value, or to the values of which one, a chunk must have. Keys: ``document``,
``folder`` (all below it), ``format`` (the suffix without dot), ``language``, ``origin``, and whatever the documents'
metadata has."""


class Embedder(Protocol):
    """Texts to unit vectors."""

    @property
    def name(self) -> str:
        """Identifies the weights; an index built under another name is rebuilt."""
        ...

    @property
    def dimension(self) -> int: ...

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Rows of length 1, shape (len(texts), dimension), float32."""
        ...


class Reranker(Protocol):
    """Reads a question and a text together. May have ``depth``: how many texts it wants to read of a search; and
    ``reader``: itself as a `Reader`, or ``None``."""

    def scores(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """How well each text answers the question, shape (len(texts),), higher is better, on any scale."""
        ...


class Reader(Protocol):
    """Reads a passage for whether it states the answer to a question."""

    @property
    def name(self) -> str:
        """Whose judgement it is; what it is worth is fitted for each."""
        ...

    def supported(self, question: str, passage: Passage) -> float:
        """Log-odds that it does."""
        ...


class Retriever(Protocol):
    """Finds passages for a question."""

    def search(self, query: str, limit: int = 4, *, history: Sequence[Message] = ()) -> list[Passage]:
        """The best passages, best first; empty where the knowledge base is empty.

        ``history`` is the conversation before: the query may go on from it.
        """
        ...


class Index(Protocol):
    """Documents, chunks and vectors, kept durably. Safe for several threads and processes.

    Every change is one transaction: whatever stops the process, the next opening finds the state before or after it.

    Raises:
        KnowledgeError: From every method, where the index is damaged, cannot be reached or cannot be written.
    """

    def put(self, documents: Sequence[NewDocument]) -> None:
        """Add documents, or replace those of the same name, in one transaction.

        Raises:
            ValueError: A vector has another length than the index.
        """
        ...

    def remove(self, names: Sequence[str]) -> None:
        """Remove documents; unknown names are ignored."""
        ...

    def reset(self, embedder: str) -> None:
        """Drop all documents and note whose vectors will come."""
        ...

    def embedder(self) -> str:
        """Name of the embedder of all vectors; empty in a new index."""
        ...

    def documents(self) -> list[IndexedDocument]:
        """Every document, by name."""
        ...

    def counts(self) -> tuple[int, int]:
        """(documents, chunks)."""
        ...

    def nearest(self, vector: Vectors, limit: int, where: Where | None = None) -> list[int]:
        """Ids of chunks with a vector near this one, shape (dimension,): at most ``limit``, best first.

        Raises:
            UsageError: ``where`` has a key that no document has; names those there are.
        """
        ...

    def matching(self, words: Sequence[str], limit: int, where: Where | None = None) -> dict[int, float]:
        """Relevance by chunk id over any of ``words``, best first, higher is better; headings count double.

        Raises:
            UsageError: As `nearest`.
        """
        ...

    def frequency(self, word: str) -> int:
        """In how many chunks a word occurs, in any inflection that the stemmer joins."""
        ...

    def vocabulary(self) -> Mapping[str, int]:
        """Words as the chunks have them, lower case, with the number of chunks; kept until the index changes."""
        ...

    def fetch(self, ids: Sequence[int]) -> dict[int, StoredChunk]:
        """Chunks by id; ids that are gone by now are left out."""
        ...

    def text(self, document: str, start: int, end: int) -> str:
        """Characters ``start`` to ``end`` of a document's text; empty where there is no such document."""
        ...

    def flush(self) -> None:
        """After a round of changes: write what makes the next opening fast."""
        ...

    def verify(self) -> None:
        """Check everything that can be checked; what is derived is repaired and reported.

        Raises:
            KnowledgeError: What cannot be derived is damaged.
        """
        ...

    def close(self) -> None:
        """Release files and connections."""
        ...
