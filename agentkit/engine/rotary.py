"""Rotary position tables of a transformers model, computed as far as they are needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

FIXED = frozenset({"default", "linear", "llama3", "yarn", "proportional"})
"""Kinds whose angles do not depend on the length of the conversation."""
_FIRST = 1024

Table = NDArray[np.float32]


def fixed_rotary(
    model: Any, config: Any, kinds: set[str]
) -> Callable[[NDArray[np.int64]], tuple[Table, Table]]:
    """A function from positions to cosines and signed sines, both (2, positions, head size): full, then sliding layers.

    Raises:
        NotImplementedError: The model's embedding depends on more than the position, or turns a part of the head only.
    """
    rotary = model.model.rotary_emb
    types = getattr(rotary, "rope_type", "default")
    for kind in kinds:
        if (types.get(kind) if isinstance(types, dict) else types) not in FIXED:
            raise NotImplementedError(f"rotary embedding {types}")
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    order = [kind if kind in kinds else next(iter(kinds)) for kind in ("full_attention", "sliding_attention")]

    def compute(length: int) -> tuple[Table, Table]:
        positions, probe = torch.arange(length)[None], torch.empty(1)
        pairs = [
            rotary(probe, positions, kind) if isinstance(types, dict) else rotary(probe, positions)
            for kind in order
        ]
        cos, sin = (torch.cat([pair[n] for pair in pairs]).numpy().copy() for n in (0, 1))
        if cos.shape[-1] != size:
            raise NotImplementedError("partial rotary embedding")
        sin[..., : size // 2] *= -1
        return cos, sin

    with torch.inference_mode():
        held = compute(_FIRST)

    def tables(positions: NDArray[np.int64]) -> tuple[Table, Table]:
        nonlocal held
        last = int(positions.max())
        if last >= held[0].shape[1]:
            with torch.inference_mode():
                held = compute(1 << (last + 1).bit_length())
        return held[0][:, positions], held[1][:, positions]

    return tables
