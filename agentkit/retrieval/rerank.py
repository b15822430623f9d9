"""A cross-encoder as `Reranker`: it reads question and passage together, at the cost of one pass for each."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agentkit.errors import ModelError
from agentkit.retrieval.embedder import beginning
from agentkit.retrieval.search import RERANKED
from agentkit.settings import expanded

if TYPE_CHECKING:
    import torch

MAX_TOKENS = 512
BATCH = 8
_PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model"]


class CrossEncoder:
    """A sequence classifier with one output, such as the ms-marco and bge rerankers; loads at the first call.

    Args:
        source: Folder, or hub id.
        device: A torch device.
    """

    depth = RERANKED

    def __init__(self, source: str | Path, device: str = "cpu") -> None:
        self.source, self._device = source, device
        self._lock = threading.Lock()
        self._model: Any = None
        self._tokenizer: Any = None

    def scores(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """The model's logit for each text, shape (len(texts),).

        Raises:
            ModelError: The model cannot be loaded, or has more than one output.
        """
        import torch

        with self._lock:
            self._load()
            found = [np.zeros(0, np.float32)]
            for start in range(0, len(texts), BATCH):
                batch = [beginning(text) for text in texts[start : start + BATCH]]
                tokens = self._tokenizer(
                    [beginning(query)] * len(batch), batch, padding=True, truncation=True,
                    max_length=MAX_TOKENS, return_tensors="pt",
                ).to(self._device)  # fmt: skip
                with torch.inference_mode():
                    found.append(_column(self._model(**tokens).logits))
        return np.concatenate(found)

    def _load(self) -> None:
        if self._model is not None:
            return
        from huggingface_hub import snapshot_download
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        try:
            folder = expanded(self.source)
            if not folder.is_dir():
                folder = Path(snapshot_download(str(self.source), allow_patterns=_PATTERNS))
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = AutoModelForSequenceClassification.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            cause = f"cannot load the reranker {str(self.source)!r}: {reason}"
            raise ModelError(cause, "name a folder or hub id of a cross-encoder") from error
        if model.config.num_labels != 1:
            cause = f"{str(self.source)!r} has {model.config.num_labels} outputs"
            raise ModelError(cause, "a reranker has one: name a cross-encoder")
        self._model = model.eval().to(self._device)


def _column(logits: torch.Tensor) -> NDArray[np.float32]:
    """(n, 1) to (n,)."""
    column: NDArray[np.float32] = logits[:, 0].float().cpu().numpy()
    return column
