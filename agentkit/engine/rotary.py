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
        model: The transformers model.
        config: Of its text part.
        kinds: The kinds of layers it has.
        dtype: Of the tables.

    Raises:
        NotImplementedError: The angles depend on more than the position, or only a part of a head is turned.
    """

    def __init__(self, model: Any, config: Any, kinds: set[str], dtype: torch.dtype) -> None:
        self._module = model.model.rotary_emb
        self._types = getattr(self._module, "rope_type", "default")
        for kind in kinds:
            if (self._types.get(kind) if isinstance(self._types, dict) else self._types) not in _FIXED:
                raise NotImplementedError(f"rotary embedding {self._types}")
        self._size, self._dtype, self._device = head_size(config), dtype, model.device
        both = ("full_attention", "sliding_attention")
        self._order = [kind if kind in kinds else next(iter(kinds)) for kind in both]
        self._held = [self._compute(_FIRST)]
        """All that were made: what was recorded on a GPU (`graphs`) goes on reading those that it found."""

    def upto(self, length: int) -> tuple[Tensor, Tensor]:
        """Tables of at least ``length`` positions: (2, positions, head size), full layers first.

        The first half of the sines is negated: turning is ``x * cos + swapped_halves(x) * sin``.
        """
        if length > self._held[-1][0].shape[1]:
            self._held.append(self._compute(1 << (length - 1).bit_length()))
        return self._held[-1]

    @torch.inference_mode()
    def _compute(self, length: int) -> tuple[Tensor, Tensor]:
        positions = torch.arange(length, device=self._device)[None]
        probe = torch.empty(1, device=self._device)
        by_kind = isinstance(self._types, dict)
        pairs = [self._module(probe, positions, *([kind] if by_kind else [])) for kind in self._order]
        cos, sin = (torch.cat([pair[n] for pair in pairs]) for n in (0, 1))
        if cos.shape[-1] != self._size:
            raise NotImplementedError("partial rotary embedding")
        sin[..., : self._size // 2] *= -1
        return cos.to(self._dtype), sin.to(self._dtype)
