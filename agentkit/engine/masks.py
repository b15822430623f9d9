"""Masks over the vocabulary, one bit for each token: words of 32 bits, the lowest first, as llguidance writes them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Bits = NDArray[np.int32]
"""(vocabulary / 32,), rounded up"""


def packed_bits(allowed: NDArray[np.bool_]) -> Bits:
    """The bits of a mask of shape (vocabulary,)."""
    room = np.zeros(-(-len(allowed) // 32) * 32, bool)
    room[: len(allowed)] = allowed
    return np.packbits(room, bitorder="little").view(np.int32)


def first_of(bits: Bits) -> int:
    """The lowest token of a mask that has one."""
    at = int(bits.astype(bool).argmax())
    word = int(bits[at])
    return 32 * at + (word & -word).bit_length() - 1


def has(bits: Bits, token: int) -> bool:
    """Whether a token is in the mask."""
    return bool(bits[token // 32] >> token % 32 & 1)


class Masked:
    """Logits under one mask after the other, in a buffer of its own.

    The memory behind a vocabulary costs more than the arithmetic: where neither this mask nor the last one allows a
    token, minus infinity stands there already, and is not written again.
    """

    def __init__(self, vocab_size: int) -> None:
        self._size = vocab_size
        self._out: torch.Tensor | None = None
        self._before: Bits = np.zeros(-(-vocab_size // 32), np.int32)

    def __call__(self, logits: torch.Tensor, bits: Bits) -> torch.Tensor:
        """The logits, (vocabulary,), with minus infinity for every token that is not in the mask.

        The result holds until the next call.
        """
        import torch

        if logits.device.type == "cpu" and logits.dtype == torch.float32:
            if self._out is None:
                self._out = torch.full((self._size,), -torch.inf)
            _kernel()(logits.numpy(), bits, self._before, self._out.numpy())
            return self._out
        words = torch.from_numpy(bits).to(logits.device)
        allowed = words[:, None] >> torch.arange(32, device=logits.device) & 1
        return logits.masked_fill(allowed.flatten()[: self._size] == 0, -torch.inf)


@cache
def _kernel() -> Any:
    from agentkit.engine.compiled import compiled

    return compiled(_keep)


def _keep(logits: Any, bits: Any, before: Any, out: Any) -> None:
    none, one = np.float32(-np.inf), np.uint32(1)
    for n in range(len(bits)):
        word, start = np.uint32(bits[n]), 32 * n
        if word | np.uint32(before[n]):
            for k in range(min(32, len(logits) - start)):
                out[start + k] = logits[start + k] if (word >> np.uint32(k)) & one else none
        before[n] = bits[n]
