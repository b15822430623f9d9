"""Cross entropy over a large vocabulary, a few rows at a time.

torch's makes several copies of the logits in float32, and spends its time on bringing them to and from memory.
Here the gradient is made together with the loss, from rows that are still in the processor's cache
(as in arXiv:2410.10989, section 3.2).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

_ROWS = 32
"""Logits of so many tokens in float32 fit into a cache: 6 MB of a vocabulary of 49,152."""


def weighted_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """The sum over the rows of weight times cross entropy, in float32.

    Args:
        logits: (n, vocabulary), of any floating-point type; their gradient has it too.
        labels: (n,) ids.
        weights: (n,) float32.
    """
    if logits.dtype == torch.float16:  # small gradients have to be scaled before they are rounded to it
        return (cross_entropy(logits.float(), labels, reduction="none") * weights).sum()
    loss: Tensor = _CrossEntropy.apply(logits, labels, weights)  # type: ignore[no-untyped-call]
    return loss


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        learns = ctx.needs_input_grad[0]
        grad = torch.empty_like(logits) if learns else None
        losses = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
        for begin in range(0, len(logits), _ROWS):
            rows = slice(begin, begin + _ROWS)
            wanted = labels[rows, None]
            found = torch.log_softmax(logits[rows].float(), dim=-1)
            losses[rows] = -found.gather(1, wanted)[:, 0]
            if grad is not None:
                found.exp_().scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=found.dtype))
                grad[rows] = found.mul_(weights[rows, None])
        if grad is not None:
            ctx.save_for_backward(grad)
        return (losses * weights).sum()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = ctx.saved_tensors
        # In place: a second tensor of that size takes longer to be brought in than the product. No graph of a loss is
        # gone through twice here, and torch would say so: what is saved has changed then.
        return grad.mul_(grads[0].to(grad.dtype)), None, None
