"""A knowledge base, wired."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from agentkit.build.models import load_embedder
from agentkit.retrieval.knowledge import KnowledgeBase as BaseKnowledge
from agentkit.settings import POSTGRES, data_dir, expanded, user_dir

if TYPE_CHECKING:
    from agentkit.retrieval.places import IndexPlace
    from agentkit.retrieval.protocol import Embedder, Reranker


class KnowledgeBase(BaseKnowledge):
    """A folder of documents, searched by meaning and by words.

    Args:
        folder: The documents; ``None`` for a knowledge base of added documents only.
        index_path: The SQLite file of the index; beside the other user data by default, one for each folder and
            embedder. Or a PostgreSQL database with pgvector: ``postgresql://USER@HOST:PORT/DATABASE``.
        embedder: Texts to unit vectors: ``minilm``, which is the default, ``mpnet``, a folder, a hub id, or an object.
        index_schema: Schema of the PostgreSQL database; knowledge bases in one schema are one.
        reranker: Reads question and passage together; folder or hub id of a cross-encoder, or an object.

    Raises:
        KnowledgeError: The folder does not exist, or the index cannot be reached.
    """

    def __init__(
        self,
        folder: str | Path | None,
        index_path: str | Path | None = None,
        embedder: Embedder | str | None = None,
        index_schema: str = "agentkit",
        reranker: Reranker | str | None = None,
    ) -> None:
        own = load_embedder(embedder) if isinstance(embedder, str) else embedder
        root = expanded(folder).resolve() if folder is not None else None
        address = index_path if isinstance(index_path, str) and index_path.startswith(POSTGRES) else ""
        place = index_place(address, index_schema)
        if index_path is None or address:
            # Each embedder has an index of its own, or two programs would make one anew in turns.
            what = os.fsencode(root or "added") + (f"\0{own.name}".encode() if own else b"")
            key = hashlib.sha256(what).hexdigest()[:16]
            index_path = user_dir(data_dir() / "knowledge") / f"{key}.{'postgres' if address else 'sqlite'}"
        super().__init__(
            root,
            expanded(index_path),
            own or load_embedder(),
            reranker=reranker_of(reranker) if isinstance(reranker, str) else reranker,
            place=place,
        )
        self.sync()


def reranker_of(source: str) -> Reranker | None:
    """The cross-encoder of a folder or hub id; its weights load at the first search."""
    from agentkit.retrieval.rerank import CrossEncoder

    return CrossEncoder(source) if source else None


def index_place(address: str, schema: str) -> IndexPlace | None:
    """Where an index on a server is kept; ``None`` without an address: in a file."""
    if not address:
        return None
    from agentkit.retrieval.postgres import PostgresPlace

    return PostgresPlace(address, schema)
