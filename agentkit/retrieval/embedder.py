"""Texts to unit vectors with a sentence encoder (MiniLM and its kin), on transformers alone.

`sentence_transformers` takes seconds to import; mean pooling over `AutoModel` gives the same vectors.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agentkit.errors import ModelError
from agentkit.settings import expanded

if TYPE_CHECKING:
    import torch

MAX_TOKENS = 256
MAX_CHARACTERS = 8_000
"""More than `MAX_TOKENS` of any text; keeps a question of a megabyte from being tokenized whole."""
BATCH = 32
_TURN_S = 1e-4
"""Long enough for who waits to get the lock, which would go to the same thread again."""
MEMO = 4_096
"""Texts whose vectors are kept: checking an answer meets the same sentences again and again."""
_SAMPLE = 1 << 20

_MATTERS = ("1_Pooling/config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
_PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model"]


class MiniLMEmbedder:
    """A BERT-like encoder with mean (or CLS) pooling and L2 norm; weights load at the first call.

    Args:
        folder: Holds ``config.json``, ``*.safetensors`` and the tokenizer.
        device: A torch device.

    Raises:
        ModelError: The folder holds no encoder with safetensors weights.
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.folder = folder
        self._device = device
        self._lock = threading.Lock()
        self._model: Any = None
        self._tokenizer: Any = None
        self._memo: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._config = _read_json(folder / "config.json")
        pooling = folder / "1_Pooling" / "config.json"
        self._cls = pooling.is_file() and bool(_read_json(pooling).get("pooling_mode_cls_token"))
        self.name = _fingerprint(folder, self._config)

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self._config["hidden_size"])

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors, shape (len(texts), dimension), float32; only the first 256 tokens of a text count."""
        wanted = list(dict.fromkeys(texts))
        with self._lock:
            found = {text: self._memo[text] for text in wanted if text in self._memo}
            self._remember(found)  # as the last that were used
        missing = sorted((text for text in wanted if text not in found), key=len)
        for start in range(0, len(missing), BATCH):
            batch = missing[start : start + BATCH]
            with self._lock:  # batch by batch: a question waits for one of them, not for all documents
                made = dict(zip(batch, self._embed_batch(batch), strict=True))
                self._remember(made)
            found.update(made)
            time.sleep(_TURN_S)
        rows = [found[text] for text in texts]
        return np.stack(rows) if rows else np.zeros((0, self.dimension), np.float32)

    def _remember(self, vectors: dict[str, NDArray[np.float32]]) -> None:
        for text, vector in vectors.items():
            if len(text) <= MAX_CHARACTERS:
                self._memo[text] = vector.copy()  # alone: a view would keep its whole batch in memory
                self._memo.move_to_end(text)
        while len(self._memo) > MEMO:
            self._memo.popitem(last=False)

    def _embed_batch(self, texts: list[str]) -> NDArray[np.float32]:
        import torch

        self._load()
        cut = [beginning(text) for text in texts]
        tokens = self._tokenizer(
            cut, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        )
        tokens = tokens.to(self._device)
        with torch.inference_mode():
            hidden = self._model(**tokens).last_hidden_state.float()
            pooled = hidden[:, 0] if self._cls else _mean(hidden, tokens["attention_mask"])
            unit = torch.nn.functional.normalize(pooled, dim=1)
        vectors: NDArray[np.float32] = unit.cpu().numpy()
        return vectors

    def _load(self) -> None:
        """Load the weights once, in the precision that is fast here."""
        if self._model is not None:
            return
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # it loads in a second

        try:
            self._tokenizer = AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
            model = AutoModel.from_pretrained(
                self.folder,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=_dtype(self._device),
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            cause = f"cannot load the embedding model in {self.folder}: {str(error).splitlines()[0]}"
            raise ModelError(cause, "run `agentkit models pull` or name another folder") from error
        self._model = model.eval().to(self._device)


def beginning(text: str) -> str:
    """What a tokenizer is given of a text: it refuses lone surrogates, which become question marks."""
    return text[:MAX_CHARACTERS].encode("utf-8", "replace").decode("utf-8")


def load_embedder(folder_or_hub_id: str | Path, device: str = "cpu") -> MiniLMEmbedder:
    """An embedder from a folder, or from the hub (its cache is used where the hub is offline).

    Raises:
        ModelError: There is no such folder and the hub does not give the model.
    """
    folder = expanded(folder_or_hub_id)
    if folder.is_dir():
        return MiniLMEmbedder(folder, device)
    from huggingface_hub import snapshot_download

    try:
        return MiniLMEmbedder(
            Path(snapshot_download(str(folder_or_hub_id), allow_patterns=_PATTERNS)), device
        )
    except (OSError, ValueError) as error:
        cause = f"embedding model {str(folder_or_hub_id)!r} is no folder and cannot be fetched from the hub"
        raise ModelError(cause, "check the name and the network, or run `agentkit models pull`") from error


def _dtype(device: str) -> torch.dtype:
    """bfloat16 where the hardware multiplies it: four times float32's speed there, a seventh of it elsewhere.

    Vectors of both differ by less than 0.001 in cosine, so an index built with one serves the other.
    """
    import torch

    capabilities = torch.cpu.get_capabilities()
    native = device != "cpu" or capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return torch.bfloat16 if native else torch.float32


def _mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over real tokens; hidden (batch, tokens, width), mask (batch, tokens)."""
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        body: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path} cannot be read", "run `agentkit models pull` or name another folder"
        ) from error
    return body


def _fingerprint(folder: Path, config: dict[str, Any]) -> str:
    """Names what makes the vectors, wherever the folder lies: configuration, tokenizer, pooling, weights by the size
    and both ends of each file.
    """
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name in _MATTERS:
        path = folder / name
        digest.update(name.encode() + (path.read_bytes() if path.is_file() else b""))
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise ModelError(
            f"{folder} has no .safetensors weights", "run `agentkit models pull` or name another folder"
        )
    for path in weights:
        size = path.stat().st_size
        digest.update(str(size).encode())
        with path.open("rb") as file:
            digest.update(file.read(_SAMPLE))
            file.seek(max(0, size - _SAMPLE))
            digest.update(file.read(_SAMPLE))
    return f"{config.get('model_type', 'encoder')}-{config.get('hidden_size')}-{digest.hexdigest()[:12]}"
