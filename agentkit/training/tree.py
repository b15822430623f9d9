"""Attention over conversations that share a beginning, which is read once.

The tokens of a `Span` lie one after the other: the shared prefix, then branch after branch, each at the positions that
follow the prefix. A query sees the prefix and its own branch up to itself, so losses and gradients are those of the
whole conversations one by one.

On a CPU blocks of queries are multiplied with just the keys that they see, and the backward pass is written out: for
spans of some hundred tokens that takes half the time of PyTorch's flash kernel, whose blocks are made for longer ones.
Elsewhere one mask does it for the whole pack.
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

_ROWS = 256
"""Queries of a block: of a longer causal part half would be computed in vain."""
_KEPT = 1 << 25
"""Bytes of attention weights, of one layer, that are kept for the backward pass: to make them anew would be
a quarter of the work. More than these would be more than all else that a pass keeps."""


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
    query, key = query.to(value.dtype), key.to(value.dtype)  # under autocast rotary embeddings widen them
    if query.device.type == "cpu":
        states = query[0], key[0], value[0]
        # What is kept has to be of the type that the backward pass, which has no autocast, computes in.
        with torch.autocast("cpu", enabled=False):
            out = _TreeAttention.apply(*states, scaling, SPANS.get())  # type: ignore[no-untyped-call]
        return out.transpose(0, 1)[None], None
    shared = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1)
    return _masked(query, key, value, scaling, tuple(SPANS.get())).transpose(1, 2), None


def _masked(q: Tensor, k: Tensor, v: Tensor, scaling: float, spans: tuple[Span, ...]) -> Tensor:
    attention = torch.nn.functional.scaled_dot_product_attention
    if len(spans) == 1 and not spans[0].prefix and len(spans[0].branches) == 1:
        return attention(q, k, v, is_causal=True, scale=scaling)  # the fastest kernels take no mask
    return attention(q, k, v, _mask(spans, q.device), scale=scaling)


@lru_cache(maxsize=1)  # for all layers of a pass
def _mask(spans: tuple[Span, ...], device: torch.device) -> Tensor:
    """(T, T) booleans over a whole pack."""
    blocks: Tensor = torch.block_diag(*(span.sees() for span in spans))  # type: ignore[no-untyped-call]
    return blocks.bool().to(device)


@dataclass(frozen=True, slots=True)
class _Block:
    """Queries that lie together, and the keys that they see: the prefix, and their own branch up to themselves."""

    rows: slice
    prefix: slice
    own: slice

    @property
    def pairs(self) -> int:
        """Queries times keys."""
        keys = self.prefix.stop - self.prefix.start + self.own.stop - self.own.start
        return int((self.rows.stop - self.rows.start) * keys)

    def seen(self, states: Tensor) -> Tensor:
        """(kv heads, T, d) keys or values to those that the block sees."""
        if self.prefix.stop == self.prefix.start:
            return states[:, self.own]
        return torch.cat((states[:, self.prefix], states[:, self.own]), dim=1)


def _blocks(span: Span) -> list[_Block]:
    blocks, begin = [], span.start
    prefix = slice(begin, begin + span.prefix)
    for length in (span.prefix, *span.branches):
        before = slice(begin, begin) if begin == span.start else prefix
        for row in range(begin, begin + length, _ROWS):
            end = min(row + _ROWS, begin + length)
            blocks.append(_Block(slice(row, end), before, slice(begin, end)))
        begin += length
    return blocks


class _TreeAttention(torch.autograd.Function):
    """(heads, T, d) queries, (kv heads, T, d) keys and values to (heads, T, d).

    Heads that share keys are computed as one with more rows.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scaling: float, spans: Sequence[Span]) -> Tensor:
        q = (q * scaling).view(len(k), -1, *q.shape[1:])
        ctx.scaling, ctx.blocks = scaling, [block for span in spans for block in _blocks(span)]
        pairs = sum(block.pairs for block in ctx.blocks)
        keeps = len(k) * q.shape[1] * pairs * q.element_size() <= _KEPT and any(ctx.needs_input_grad)
        out, kept = torch.empty_like(q), []
        for block in ctx.blocks:
            weights = _weights(_rows_of(q, block), block.seen(k), block)
            out[:, :, block.rows] = (weights @ block.seen(v)).view(out[:, :, block.rows].shape)
            if keeps:
                kept.append(weights)
        ctx.save_for_backward(q, k, v, *kept)
        return out.flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *kept = ctx.saved_tensors
        grad, gq = grads[0].reshape(q.shape), torch.empty_like(q)
        gk, gv = (torch.zeros(k.shape, dtype=torch.float32) for _ in range(2))
        for n, block in enumerate(ctx.blocks):
            rows, keys, above = _rows_of(q, block), block.seen(k), _rows_of(grad, block)
            weights = kept[n] if kept else _weights(rows, keys, block)
            scores = torch._softmax_backward_data(above @ block.seen(v).mT, weights, -1, weights.dtype)
            gq[:, :, block.rows] = (scores @ keys).view(gq[:, :, block.rows].shape)
            shared = block.prefix.stop - block.prefix.start
            for total, found in ((gk, scores.mT @ rows), (gv, weights.mT @ above)):
                total[:, block.prefix] += found[:, :shared]
                total[:, block.own] += found[:, shared:]
        return gq.flatten(0, 1) * ctx.scaling, gk.to(k.dtype), gv.to(v.dtype), None, None


def _rows_of(states: Tensor, block: _Block) -> Tensor:
    """(kv heads, shared, T, d) to the block's (kv heads, shared · rows, d)."""
    return states[:, :, block.rows].flatten(1, 2)


def _weights(q: Tensor, k: Tensor, block: _Block) -> Tensor:
    """(kv heads, shared · rows, keys) of attention."""
    scores = q @ k.mT
    rows = block.rows.stop - block.rows.start
    last = scores.view(len(k), -1, rows, k.shape[1])[..., -rows:]  # only there lie keys behind a query
    last.masked_fill_(_later(rows), -torch.inf)
    return torch.softmax(scores, -1)


@lru_cache(maxsize=_ROWS)
def _later(rows: int) -> Tensor:
    """(rows, rows) booleans: what comes after each row."""
    return torch.ones(rows, rows, dtype=torch.bool).triu(1)
