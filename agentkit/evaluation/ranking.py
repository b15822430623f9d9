"""Documents in the order in which a search finds them, with everything that search has, and by cosine alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from agentkit.messages import Passage
from agentkit.retrieval.chunks import chunk_document
from agentkit.retrieval.documents import Document
from agentkit.retrieval.protocol import Embedder
from agentkit.retrieval.records import Vectors
from agentkit.retrieval.sentences import sentences


def first_documents(search: Callable[[int], Sequence[Passage]], count: int) -> list[str]:
    """The documents of the best passages, each once, in order: at most ``count``.

    Args:
        search: The best passages, at most as many as it is told.
        count: Documents wanted; search is widened until they are found, or there is nothing more.
    """
    limit, before = count, -1
    while True:
        passages = search(limit)
        found = list(dict.fromkeys(passage.document for passage in passages))
        if len(found) >= count or len(passages) in (before, 0):
            return found[:count]
        limit, before = limit * 2, len(passages)


class Dense:
    """The dense part alone: every chunk by its best cosine, of the section or of one sentence of it.

    These are the very vectors that the index holds of a chunk, without words, keywords or titles. They are computed
    anew, from the files, and compared exhaustively, so that neither the index nor its search can flatter the peer.

    Args:
        documents: All documents of the knowledge base.
        embedder: Texts to unit vectors.
    """

    def __init__(self, documents: Iterable[Document], embedder: Embedder) -> None:
        self._embedder = embedder
        self._names: list[str] = []
        texts: list[str] = []
        for document in documents:
            for chunk in chunk_document(document):
                own = [chunk.embedded_text(), *sentences(chunk.text)]
                texts += own
                self._names += [document.name] * len(own)
        self._rows: Vectors = embedder.embed(texts)

    def documents(self, query: str, count: int) -> list[str]:
        """The nearest documents, each once, best first: at most ``count``."""
        cosines = self._rows @ self._embedder.embed([query])[0]
        ordered = (self._names[int(n)] for n in np.argsort(-cosines, kind="stable"))
        return list(dict.fromkeys(ordered))[:count]
