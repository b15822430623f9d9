"""Noise on the embeddings of what is learned from (NEFTune, arXiv:2310.05914)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from agentkit.training.packing import Pack

if TYPE_CHECKING:
    import torch


@contextmanager
def noisy_embeddings(model: Any, pack: Pack, alpha: float, *, shared: bool) -> Iterator[None]:
    """Add uniform noise of size alpha / √(L d) to the embeddings, of L tokens and d dimensions; none for 0.

    What rows share has one noise for all of them, of the size that suits the longest. The numbers come from PyTorch's
    generator for the CPU on every device, whose state checkpoints keep.

    Args:
        model: A transformers causal language model, or a PEFT model.
        pack: What it is about to read.
        alpha: 5 to 15 in the paper.
        shared: Whether rows are read as `loss_sum` does with ``shared``.
    """
    if not alpha:
        yield
        return
    lengths = _lengths(pack, shared=shared)

    def add(module: Any, inputs: Any, embedded: torch.Tensor) -> torch.Tensor:
        import torch

        size = alpha / (lengths * embedded.shape[-1]).sqrt()
        noise = (torch.rand(embedded.shape) * 2 - 1) * size[..., None]
        return embedded + noise.to(embedded)

    hook = model.get_input_embeddings().register_forward_hook(add)
    try:
        yield
    finally:
        hook.remove()


def _lengths(pack: Pack, *, shared: bool) -> torch.Tensor:
    """(1, T) or (rows, 1): tokens of the row, or the longest of the rows, that a token belongs to."""
    import torch

    if not shared:
        return torch.tensor([[float(len(row.ids))] for group in pack.groups for row in group.rows])
    parts = []
    for group in pack.groups:
        own = [len(row.ids) for row in group.rows]
        parts += [max(own)] * group.prefix
        for length in own:
            parts += [length] * (length - group.prefix)
    return torch.tensor([parts], dtype=torch.float32)
