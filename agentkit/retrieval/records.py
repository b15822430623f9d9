"""The rows of the index, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from agentkit.retrieval.chunks import Chunk

Origin = Literal["folder", "added"]
Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class NewDocument:
    """A document that has been read, cut and embedded."""

    name: str
    """Path within the knowledge base."""
    title: str
    text: str
    """The extracted text; chunks point into it."""
    sha256: str
    """Of the file's bytes."""
    origin: Origin
    keywords: Sequence[str]
    chunks: Sequence[Chunk]
    vectors: Sequence[Vectors]
    """`StoredChunk.vectors` of each chunk."""
    phrases: Vectors
    """`StoredChunk.phrase_vectors`."""
    language: str = ""
    """ISO 639-1; empty where it is not known."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What the document says of itself; searches can be narrowed by it."""


@dataclass(frozen=True, slots=True)
class IndexedDocument:
    """One document of the index."""

    name: str
    """Path within the knowledge base."""
    title: str
    sha256: str
    """Of the file's bytes."""
    origin: Origin
    chunks: int
    language: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """One chunk with its vectors."""

    id: int
    document: str
    heading: str
    text: str
    page: int | None
    start: int
    end: int
    vectors: Vectors
    """Unit rows (1 + sentences + keywords, dimension): heading and text, every sentence, every keyword of its own."""
    phrase_vectors: Vectors
    """Unit rows (1 + keywords, dimension): the document's title, then every keyword."""
    keywords: str
    """Its own keywords and terms, then the document's keywords, one a line."""
    language: str = ""
    position: int = 0
    """Place among the document's chunks, from 0."""
