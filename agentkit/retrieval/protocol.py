"""What the agent and the index need of retrieval; implementations live beside this file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from agentkit.messages import Passage


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


class Retriever(Protocol):
    """Finds passages for a question."""

    def search(self, query: str, limit: int = 4) -> list[Passage]:
        """The best passages, best first; empty where the knowledge base is empty."""
        ...
