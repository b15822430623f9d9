"""The forward pass of Llama-class models, written out in torch: for GPUs and for bitsandbytes.

transformers' modules serve training and every architecture; per token they cost more than the arithmetic of a small
model. Here a token's attention runs over grouped heads without repeating them, rotary tables are computed once, and
sums stay in float32. The models are recognised by their parts, and a probe compares the first logits with those of
transformers: what does not agree is not used. On the CPU `native` does the same, compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # as torch's own documentation calls it

from agentkit.engine.cache import GrowingLayer, new_cache
from agentkit.engine.families import agrees, check_family, head_size, layer_kinds
from agentkit.engine.rotary import Rotary

_Product = Callable[[Tensor], Tensor]
"""A linear's bound ``forward``: a module's call costs as much as a small product."""


class _Norm:
    """Root mean square norm (arXiv:1910.07467)."""

    def __init__(self, weight: Tensor, eps: float) -> None:
        self._eps = eps
        self._dtype = weight.dtype
        self._size = weight.shape[0]
        self._weight = weight.float()
        self._twice = torch.cat((self._weight, self._weight))

    def __call__(self, x: Tensor) -> Tensor:
        if len(x) > 1 or x.device.type != "cpu":
            return F.rms_norm(x.float(), (self._size,), self._weight, self._eps).to(self._dtype)
        # torch has one kernel for the layer norm on the CPU and a dozen small ones for this. The mean of a row
        # beside its negative is zero and its variance their mean square: what is left is this norm.
        x = x.float()
        twice = F.layer_norm(torch.cat((x, -x), -1), (2 * self._size,), self._twice, None, self._eps)
        return twice[..., : self._size].to(self._dtype)


@dataclass(slots=True)
class _Layer:
    kind: str
    """``full_attention`` or ``sliding_attention``."""
    scaling: float
    qkv: _Product
    out: _Product
    gate_up: _Product
    down: _Product
    before_attention: _Norm
    after_attention: _Norm | None
    before_mlp: _Norm
    after_mlp: _Norm | None
    query: _Norm | None
    key: _Norm | None


class Decoder:
    """A causal language model's forward pass over one conversation.

    Raises:
        NotImplementedError: The model is of a kind that this pass does not cover.
    """

    name = "torch"

    def __init__(self, model: Any) -> None:
        config = model.config.get_text_config()
        check_family(config)
        inner = model.model
        self._model = model
        self._config = config
        self._plus_one = config.model_type.startswith("gemma")
        self._heads = config.num_attention_heads
        self._kv_heads = config.num_key_value_heads
        self._size = head_size(config)
        self._window = getattr(config, "sliding_window", None)
        self._softcap = getattr(config, "final_logit_softcapping", None)
        self._activation: Callable[[Tensor], Tensor] = inner.layers[0].mlp.act_fn
        kinds = layer_kinds(config)
        self._layers = [self._layer(*pair) for pair in zip(inner.layers, kinds, strict=True)]
        self._final = self._norm(inner.norm)
        self._embed = inner.embed_tokens
        self._head = model.get_output_embeddings()
        self._rotary = Rotary(model, config, set(kinds), inner.norm.weight.dtype)

    def __call__(self, ids: Tensor, cache: Any, *, every: bool = False) -> Tensor:
        """Append ``ids`` (shape (n,)) to the cache; logits after the last id, (vocabulary,), or after each, (n, …)."""
        n, start = len(ids), cache.layers[0].length
        # Sums stay in float32: in bf16 a few tokens with huge activations drown the rest, and the same conversation,
        # read in other portions, would answer differently.
        x = self._embed(ids).float()
        cos, sin = (table[:, start : start + n, None] for table in self._rotary.upto(start + n))
        tables = {"full_attention": (cos[0], sin[0]), "sliding_attention": (cos[1], sin[1])}
        masks = {kind: self._mask(kind, start, n, x.device) for kind in tables}
        for layer, held in zip(self._layers, cache.layers, strict=True):
            y = self._attend(layer, layer.before_attention(x), held, *tables[layer.kind], masks[layer.kind])
            x = x + (y if layer.after_attention is None else layer.after_attention(y))
            gate, up = layer.gate_up(layer.before_mlp(x)).chunk(2, dim=-1)
            y = layer.down(self._activation(gate) * up)
            x = x + (y if layer.after_mlp is None else layer.after_mlp(y))
        x = self._final(x if every else x[-1])
        logits: Tensor = self._head(x).float()
        if self._softcap is not None:
            logits = torch.tanh(logits / self._softcap) * self._softcap
        return logits

    def _attend(
        self, layer: _Layer, x: Tensor, held: GrowingLayer, cos: Tensor, sin: Tensor, mask: Tensor | None
    ) -> Tensor:
        n, heads, groups = len(x), self._heads, self._kv_heads
        qk, v = layer.qkv(x).view(n, -1, self._size).split_with_sizes((heads + groups, groups), 1)
        if layer.query is not None and layer.key is not None:
            qk = torch.cat((layer.query(qk[:, :heads]), layer.key(qk[:, heads:])), dim=1)
        # Rotation of the two halves: the sign of the swapped first half is in the table of sines.
        qk = torch.addcmul(qk * cos, qk.roll(self._size // 2, -1), sin)
        q, k = qk.split_with_sizes((heads, groups), 1)
        keys, values = held.update(k.transpose(0, 1)[None], v.transpose(0, 1)[None])
        if n == 1:
            # The heads of a group are rows over the same keys: nothing is repeated, nothing needs a causal mask.
            query = q.view(1, groups, heads // groups, self._size)
            if mask is not None:
                keys, values = keys[:, :, -mask.shape[-1] :], values[:, :, -mask.shape[-1] :]
            y = F.scaled_dot_product_attention(query, keys, values, scale=layer.scaling)
            return layer.out(y.view(1, -1))
        query = q.transpose(0, 1)[None]
        y = F.scaled_dot_product_attention(
            query,
            keys,
            values,
            attn_mask=mask,
            is_causal=mask is None,
            scale=layer.scaling,
            enable_gqa=heads != groups,
        )
        return layer.out(y[0].transpose(0, 1).reshape(n, -1))

    def _mask(self, kind: str, start: int, n: int, device: torch.device) -> Tensor | None:
        """Which of the ``start + n`` tokens each new one sees; none where torch's causal attention does it.

        For a single token it stands only for how many of the last tokens are seen.
        """
        total = start + n
        window = self._window if kind == "sliding_attention" else None
        if window is None or total <= window:
            if start == 0 or n == 1:
                return None
            return torch.ones(n, total, dtype=torch.bool, device=device).tril(start)
        if n == 1:
            return torch.ones(1, window, dtype=torch.bool, device=device)
        return torch.ones(n, total, dtype=torch.bool, device=device).tril(start).triu(start - window + 1)

    def _layer(self, source: Any, kind: str) -> _Layer:
        attention, mlp = source.self_attn, source.mlp
        sandwich = hasattr(source, "pre_feedforward_layernorm")
        after = self._norm(source.post_attention_layernorm)
        return _Layer(
            kind,
            attention.scaling,
            Joined([attention.q_proj, attention.k_proj, attention.v_proj]).forward,
            attention.o_proj.forward,
            Joined([mlp.gate_proj, mlp.up_proj]).forward,
            mlp.down_proj.forward,
            self._norm(source.input_layernorm),
            after if sandwich else None,
            self._norm(source.pre_feedforward_layernorm) if sandwich else after,
            self._norm(source.post_feedforward_layernorm) if sandwich else None,
            self._norm(attention.q_norm) if hasattr(attention, "q_norm") else None,
            self._norm(attention.k_norm) if hasattr(attention, "k_norm") else None,
        )

    def _norm(self, norm: Any) -> _Norm:
        weight = norm.weight.detach()
        eps = getattr(norm, "variance_epsilon", None) or norm.eps
        return _Norm(weight + 1 if self._plus_one else weight, eps)

    def agrees(self) -> bool:
        """Whether the logits of a probe are those of transformers' forward pass."""
        return agrees(self, self._model)

    def new_cache(self) -> Any:
        """An empty KV cache."""
        return new_cache(self._model.config)


class Joined(nn.Module):
    """Linears over the same input, called as one."""

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        """Their outputs, concatenated."""
        return torch.cat([part(x) for part in self.parts], dim=-1)
