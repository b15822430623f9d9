"""What transformers' reader passes over in a GGUF file: that it is one of several, and how it scales.

After llama.cpp, whose files they are: ``rope_freqs.weight`` holds the numbers by which the frequencies of Llama 3.1 and
later are divided; a linear scaling divides the positions, of Gemma 3 those of the full layers alone; by which number
Gemma's attention is scaled the file does not say.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentkit.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_REMEDY = "use the model's safetensors repository"
_FREQUENCIES = "rope_freqs.weight"
_LARGEST = {"gemma2": 46, "gemma3_text": 62}
"""Layers of the 27B models, which llama.cpp tells by them."""


@dataclass(frozen=True, slots=True)
class Positions:
    """How a file's positions are scaled."""

    factor: float
    """They are divided by it."""
    frequencies: NDArray[np.float32] | None
    """What the frequencies are divided by, (head size / 2,)."""


def read_positions(path: Path) -> Positions:
    """How the positions of a file are scaled.

    Raises:
        ModelError: It is one of several files of a model, or scales positions in a way that is not known here.
        Exception: Of many kinds, for a damaged file.
    """
    from gguf import GGUFReader

    reader = GGUFReader(path)

    def value(key: str) -> Any:
        field = reader.get_field(key)
        return None if field is None else field.contents()

    if (value("split.count") or 0) > 1:
        cause = f"{path.name} is one of {value('split.count')} files of a model"
        raise ModelError(cause, "merge them with `llama-gguf-split --merge`")
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    scaling = f"{value('general.architecture')}.rope."
    kind = value(f"{scaling}scaling.type") or "linear"
    if any(name.startswith("rope_factors_") for name in tensors):
        kind = "longrope"
    if kind not in ("none", "linear"):
        raise ModelError(f"{path.name} scales positions by {kind}: not read from .gguf files here", _REMEDY)
    factor = value(f"{scaling}scaling.factor") or value(f"{scaling}scale_linear") or 1.0
    return Positions(1.0 if kind == "none" else float(factor), tensors.get(_FREQUENCIES))


def scale_positions(model: Any, positions: Positions) -> None:
    """Have a model that was read from a file turn queries and keys as the file means it.

    Raises:
        ModelError: The model has no such frequencies.
    """
    if positions.factor == 1 and positions.frequencies is None:
        return
    divisor: Any = positions.factor
    if positions.frequencies is not None:
        import torch

        divisor = torch.tensor(positions.frequencies) * positions.factor
    turned = [
        buffer
        for name, buffer in model.named_buffers()
        if name.endswith("inv_freq") and "sliding_attention" not in name
    ]
    if not turned or any(positions.frequencies is not None and len(b) != len(divisor) for b in turned):
        raise ModelError(f"a {model.config.model_type} cannot scale positions as its file wants it", _REMEDY)
    for buffer in turned:
        buffer /= divisor


def scale_attention(model: Any) -> None:
    """Have the attention of a Gemma that was read from a file scale by the size of a head, of 27B by width per head."""
    config = model.config
    if config.model_type in _LARGEST:
        largest = config.num_hidden_layers == _LARGEST[config.model_type]
        scalar = config.hidden_size // config.num_attention_heads if largest else config.head_dim
        config.query_pre_attn_scalar = scalar
        for layer in model.model.layers:
            layer.self_attn.scaling = scalar**-0.5
