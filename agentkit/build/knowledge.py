"""A knowledge base, wired."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentkit.assets import ASSETS, CHAT_MODEL
from agentkit.build.models import DEFAULT_MODEL, load_embedder, load_model
from agentkit.errors import UsageError
from agentkit.retrieval.knowledge import KnowledgeBase as BaseKnowledge
from agentkit.settings import POSTGRES, data_dir, expanded, user_dir

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from agentkit.llm.reading import ModelReranker
    from agentkit.retrieval.places import IndexPlace
    from agentkit.retrieval.protocol import Embedder, Reader, Reranker
    from agentkit.retrieval.rerank import CrossEncoder


class KnowledgeBase(BaseKnowledge):
    """A folder of documents, searched by meaning and by words.

    Args:
        folder: The documents; ``None`` for a knowledge base of added documents only.
        index_path: The SQLite file of the index; beside the other user data by default, one for each folder and
            embedder. Or a PostgreSQL database with pgvector: ``postgresql://USER@HOST:PORT/DATABASE``.
        embedder: Texts to unit vectors: ``minilm``, which is the default, ``mpnet``, a folder, a hub id, or an object.
        index_schema: Schema of the PostgreSQL database, of its own for each folder.
        reranker: Reads question and passage together: a chat model (``qwen2.5-coder-1.5b``), a cross-encoder (folder
            or hub id), or an object.

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
            if address:  # the added files of each schema are copied to a folder of their own
                what += f"\0{address}\0{index_schema}".encode()
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


def reranker_of(source: str, own: Callable[[], Any] | None = None) -> Reranker | None:
    """A cross-encoder or a chat model; ``None`` for no name.

    Args:
        source: An embedded chat model, a ``.gguf`` file, or folder or hub id of either.
        own: Gives the chat model of this name, where it is loaded elsewhere too.

    Raises:
        UsageError: It is an embedded model of another kind, or a model on a server, which gives no logits.
    """
    from agentkit.llm.openai.address import is_remote

    if not source:
        return None
    if is_remote(source):
        cause = f"{source!r} cannot be a reranker: a server does not tell how sure its model is"
        raise UsageError(cause, "name a model that runs here")
    if source in ASSETS and ASSETS[source].use != CHAT_MODEL:
        known = ", ".join(asset.name for asset in ASSETS.values() if asset.use == CHAT_MODEL)
        raise UsageError(f"{source!r} is no reranker", f"embedded models that can be one: {known}")
    return NamedReranker(source, own)


class NamedReranker:
    """Looked up and loaded at the first search: of a hub id that is a download.

    Args:
        source: As for `reranker_of`.
        own: As for `reranker_of`.
    """

    def __init__(self, source: str, own: Callable[[], Any] | None = None) -> None:
        self.source, self._own = source, own
        self._lock = threading.Lock()
        self._loaded: ModelReranker | CrossEncoder | None = None

    @property
    def depth(self) -> int:
        """Texts that it reads of one search."""
        return self._model().depth

    @property
    def reader(self) -> Reader | None:
        """See `Reranker`: agentkit's own judges are readers too."""
        return getattr(self._model(), "reader", None)

    def scores(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `Reranker`.

        Raises:
            ModelError: The model cannot be loaded, or fails.
        """
        return self._model().scores(query, texts)

    def _model(self) -> ModelReranker | CrossEncoder:
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
            return self._loaded

    def _load(self) -> ModelReranker | CrossEncoder:
        if not _is_chat_model(self.source):
            from agentkit.retrieval.rerank import CrossEncoder

            return CrossEncoder(self.source)
        from agentkit.llm.reading import ModelReranker
        from agentkit.training.adapters import judging

        # A small model judges nothing unless it has learned it, and the adapter in use may not have.
        judge = judging(self.source)
        adapter = str(judge) if judge else "shipped" if self.source == DEFAULT_MODEL else "none"
        return ModelReranker(self._chat_model(adapter), adapter, self.source if judge else "")

    def _chat_model(self, adapter: str) -> Any:
        """One that can run with the adapter."""
        if self._own:
            model: Any = self._own()
            try:
                model.choose_adapter(adapter, quiet=True)
                return model
            except UsageError:  # another one is merged into its weights
                pass
        return load_model(self.source, adapter=adapter, router=None)


def _is_chat_model(source: str) -> bool:
    """By its name or configuration; where that cannot be read, loading it will tell why."""
    from huggingface_hub import hf_hub_download

    if source in ASSETS or source.endswith(".gguf"):
        return True
    folder = expanded(source)
    try:
        path = folder / "config.json" if folder.is_dir() else Path(hf_hub_download(source, "config.json"))
        kinds = json.loads(path.read_text(encoding="utf-8")).get("architectures") or ()
    except (OSError, ValueError, AttributeError):
        return False
    return any(str(kind).endswith("ForCausalLM") for kind in kinds)


def index_place(address: str, schema: str) -> IndexPlace | None:
    """Where an index on a server is kept; ``None`` without an address: in a file."""
    if not address:
        return None
    from agentkit.retrieval.postgres import PostgresPlace

    return PostgresPlace(address, schema)
