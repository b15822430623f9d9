"""The rows of the index, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Origin = Literal["folder", "added"]
Vectors = NDArray[np.float32]


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


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """One chunk with its vector."""

    id: int
    document: str
    heading: str
    text: str
    page: int | None
    start: int
    end: int
    vectors: Vectors
    """Unit rows (1 + sentences, dimension): heading and text, then every sentence."""
    phrase_vectors: Vectors
    """Unit rows (1 + keywords, dimension): the document's title, then every keyword."""
    keywords: str
    """The document's keywords, one a line."""
