"""Rotary position tables of a transformers model, computed as far as they are needed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from agentkit.engine.families import head_size

_FIXED = frozenset({"default", "linear", "llama3", "yarn", "proportional"})
"""Kinds whose angles do not depend on the length of the conversation."""
_FIRST = 1024


class Rotary:
    """Cosines and signed sines of positions, for full and for sliding layers.

    Args:
        model: The part of the transformers model that has the layers.
        config: Its own.
        kinds: The kinds of layers it has.
        dtype: Of the tables.

    Raises:
        NotImplementedError: The angles depend on more than the position, or only a part of a head is turned.
    """

    def __init__(self, model: Any, config: Any, kinds: set[str], dtype: torch.dtype) -> None:
        self._module = model.rotary_emb
        types: Any = getattr(self._module, "rope_type", "default")
        by_kind = isinstance(types, dict)
        for kind in kinds:
            if (types.get(kind) if by_kind else types) not in _FIXED:
                raise NotImplementedError(f"rotary embedding {types}")
        self._size, self._dtype, self._device = head_size(config), dtype, model.device
        order = [kind for kind in ("full_attention", "sliding_attention") if kind in kinds]
        self._tables = [(kind,) for kind in order] if by_kind else [()]
        """What the module takes for each besides the positions."""
        self._held = [self._compute(_FIRST)]
        """On a GPU all that were made: what was recorded there (`graphs`) goes on reading those that it found."""

    def upto(self, length: int) -> tuple[Tensor, Tensor]:
        """Tables of at least ``length`` positions, (tables, positions, head size): of all layers, or full ones first.

        The first half of the sines is negated: turning is ``x * cos + swapped_halves(x) * sin``.
        """
        if length > self._held[-1][0].shape[1]:
            made = self._compute(1 << (length - 1).bit_length())
            self._held = [made] if self._device.type == "cpu" else [*self._held, made]
        return self._held[-1]

    @torch.inference_mode()
    def _compute(self, length: int) -> tuple[Tensor, Tensor]:
        positions = torch.arange(length, device=self._device)[None]
        probe = torch.empty(1, device=self._device)
        pairs = [self._module(probe, positions, *kind) for kind in self._tables]
        cos, sin = (torch.cat([pair[n] for pair in pairs]) for n in (0, 1))
        if cos.shape[-1] != self._size:
            raise NotImplementedError("partial rotary embedding")
        sin[..., : self._size // 2] *= -1
        return cos.to(self._dtype), sin.to(self._dtype)
