"""Attention over conversations that share a beginning, which is read once.

The tokens of a `Span` lie one after the other: the shared prefix, then branch after branch, each at the positions that
follow the prefix. A query sees the prefix and its own branch up to itself, so losses and gradients are those of the
whole conversations one by one.

On a CPU no mask is needed: a branch's attention to the prefix and to itself are two calls of PyTorch's flash kernel,
joined by their log-sum-exps as blocks of keys are inside the kernel (arXiv:2205.14135, section 3.1). The backward pass
is written out; for spans of some hundred tokens it takes half the time of the kernel's. Elsewhere one mask does it for
the whole pack.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

IMPLEMENTATION = "agentkit_tree"
"""Name under which the attention is registered with transformers."""

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


@dataclass(frozen=True, slots=True)
class Span:
    """Where a prefix and its branches lie in a pack."""

    start: int
    prefix: int
    """Tokens; 0 where nothing is shared."""
    branches: tuple[int, ...]
    """Tokens of each."""

    @property
    def end(self) -> int:
        """One past the last token."""
        return self.start + self.prefix + sum(self.branches)

    def positions(self) -> Tensor:
        """(T,) positions within the conversations."""
        parts = [torch.arange(self.prefix)]
        parts += [torch.arange(self.prefix, self.prefix + length) for length in self.branches]
        return torch.cat(parts)

    def sees(self) -> Tensor:
        """(T, T) booleans: the keys (columns) that each query sees."""
        lengths = torch.tensor([self.prefix, *self.branches])
        owner = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
        return ((owner[:, None] == owner) | (owner == 0)).tril()


SPANS: ContextVar[Sequence[Span]] = ContextVar("spans")
"""What lies in the pack that the model is reading."""


def register() -> None:
    """Make the attention known to transformers."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(IMPLEMENTATION, attend)
    AttentionMaskInterface.register(IMPLEMENTATION, lambda *_, **__: None)


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: None, scaling: float, **_: Any
) -> tuple[Tensor, None]:
    """(1, heads, T, d) queries, (1, kv heads, T, d) keys and values to (1, T, heads, d)."""
    shared = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1)
    query, key = query.to(value.dtype), key.to(value.dtype)  # under autocast rotary embeddings widen them
    if query.device.type != "cpu":
        return _masked(query, key, value, scaling, tuple(SPANS.get())).transpose(1, 2), None
    parts = []
    for span in SPANS.get():
        part = slice(span.start, span.end)
        states = query[:, :, part], key[:, :, part], value[:, :, part]
        parts.append(_TreeAttention.apply(*states, scaling, span))  # type: ignore[no-untyped-call]
    return torch.cat(parts, dim=2).transpose(1, 2), None


def _masked(q: Tensor, k: Tensor, v: Tensor, scaling: float, spans: tuple[Span, ...]) -> Tensor:
    attention = torch.nn.functional.scaled_dot_product_attention
    if len(spans) == 1 and not spans[0].prefix and len(spans[0].branches) == 1:
        return attention(q, k, v, is_causal=True, scale=scaling)  # the fastest kernels take no mask
    return attention(q, k, v, _mask(spans, q.device), scale=scaling)


@lru_cache(maxsize=1)  # for all layers of a pass
def _mask(spans: tuple[Span, ...], device: torch.device) -> Tensor:
    """(T, T) booleans over a whole pack."""
    mask: Tensor = torch.block_diag(*(span.sees() for span in spans))  # type: ignore[no-untyped-call]
    return mask.to(device)


class _TreeAttention(torch.autograd.Function):
    """One span: three times (1, heads, T, d) to (1, heads, T, d)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scaling: float, span: Span) -> Tensor:
        out = torch.empty(q.shape, dtype=q.dtype)
        sums = torch.empty(q.shape[:3], dtype=torch.float32)
        for part in _parts(span):
            out[:, :, part], sums[:, :, part] = _call(q, k, v, part, part, scaling, causal=True)
        if span.prefix and span.branches:
            first, rest = slice(0, span.prefix), slice(span.prefix, None)
            before, before_sum = _call(q, k, v, rest, first, scaling, causal=False)
            own, own_sum = out[:, :, rest], sums[:, :, rest]
            both = torch.logaddexp(own_sum, before_sum)
            own *= (own_sum - both).exp()[..., None]
            own += before * (before_sum - both).exp()[..., None]
            sums[:, :, rest] = both
        ctx.save_for_backward(q, k, v, out, sums)
        ctx.scaling, ctx.span = scaling, span
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, sums = ctx.saved_tensors
        span: Span = ctx.span
        grad = grads[0]
        q = q * ctx.scaling
        delta = (grad.float() * out.float()).sum(-1)
        gq, gk, gv = (torch.empty(q.shape, dtype=q.dtype) for _ in range(3))
        pairs = [(part, part, True) for part in _parts(span)]
        if span.prefix and span.branches:
            pairs.append((slice(span.prefix, None), slice(0, span.prefix), False))
        for rows, columns, causal in pairs:
            weights = (q[:, :, rows] @ k[:, :, columns].mT).float().sub_(sums[:, :, rows, None]).exp_()
            if causal:
                weights.tril_()
            scores = (grad[:, :, rows] @ v[:, :, columns].mT).float().sub_(delta[:, :, rows, None])
            scores = scores.mul_(weights).to(q.dtype)
            found = (
                (gq, rows, scores @ k[:, :, columns]),
                (gk, columns, scores.mT @ q[:, :, rows]),
                (gv, columns, weights.to(q.dtype).mT @ grad[:, :, rows]),
            )
            for total, where, more in found:
                if causal:
                    total[:, :, where] = more
                else:
                    total[:, :, where] += more
        return gq * ctx.scaling, gk, gv, None, None


def _parts(span: Span) -> list[slice]:
    """The prefix and each branch, from the start of the span."""
    parts, begin = [], 0
    for length in (span.prefix, *span.branches):
        if length:
            parts.append(slice(begin, begin + length))
        begin += length
    return parts


def _call(
    q: Tensor, k: Tensor, v: Tensor, rows: slice, columns: slice, scaling: float, *, causal: bool
) -> tuple[Tensor, Tensor]:
    states = q[:, :, rows], k[:, :, columns], v[:, :, columns]
    out, sums = _flash(*states, 0.0, causal, scale=scaling)
    return out, sums.view(out.shape[:3])
