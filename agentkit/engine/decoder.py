"""The forward pass of Llama-class models, written out in torch: for GPUs and for bitsandbytes.

transformers' modules serve training and every architecture; per token they cost more than the arithmetic of a small
model. Here a token's attention runs over grouped heads without repeating them, rotary tables are computed once, and
sums stay in float32; what lies between the attentions can be fused by torch.compile. The models are recognised by their
parts, and a probe compares the first logits with those of transformers: what does not agree is not used. On the CPU
`native` does the same, compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # as torch's own documentation calls it

from agentkit.engine.cache import GrowingLayer, new_cache
from agentkit.engine.families import agrees, check_family, head_size, layer_kinds
from agentkit.engine.rotary import Rotary


class _Norm(nn.Module):
    """Root mean square norm (arXiv:1910.07467)."""

    weight: Tensor

    def __init__(self, weight: Tensor, eps: float) -> None:
        super().__init__()
        self._eps, self._dtype, self._size = eps, weight.dtype, weight.shape[0]
        self.register_buffer("weight", weight.float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) to (…, width) in the weights' own type."""
        return F.rms_norm(x.float(), (self._size,), self.weight, self._eps).to(self._dtype)


class _Layer(nn.Module):
    """What a layer does before and after its attention, token by token; the linears are transformers' own."""

    def __init__(
        self, source: Any, kind: str, heads: int, groups: int, size: int, norm: Callable[[Any], _Norm]
    ) -> None:
        super().__init__()
        attention, mlp = source.self_attn, source.mlp
        sandwich = hasattr(source, "pre_feedforward_layernorm")
        after = norm(source.post_attention_layernorm)
        self.kind, self.scaling = kind, attention.scaling
        self._heads, self._groups, self._size = heads, groups, size
        self._activation = mlp.act_fn
        self.qkv = nn.ModuleList([attention.q_proj, attention.k_proj, attention.v_proj])
        self.out, self.down = attention.o_proj, mlp.down_proj
        self.gate, self.up = mlp.gate_proj, mlp.up_proj
        self.before_attention = norm(source.input_layernorm)
        self.after_attention = after if sandwich else None
        self.before_mlp = norm(source.pre_feedforward_layernorm) if sandwich else after
        self.after_mlp = norm(source.post_feedforward_layernorm) if sandwich else None
        self.query = norm(attention.q_norm) if hasattr(attention, "q_norm") else None
        self.key = norm(attention.k_norm) if hasattr(attention, "k_norm") else None

    def front(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (n, heads, size), of (n, hidden); queries and keys turned to their positions."""
        x = self.before_attention(x)
        q, k, v = (linear(x).view(len(x), -1, self._size) for linear in self.qkv)
        if self.query is not None and self.key is not None:
            q, k = self.query(q), self.key(k)
        qk = torch.cat((q, k), dim=1)
        # Rotation of the two halves: the sign of the swapped first half is in the table of sines.
        qk = torch.addcmul(qk * cos, qk.roll(self._size // 2, -1), sin)
        return qk[:, : self._heads], qk[:, self._heads :], v

    def back(self, x: Tensor, y: Tensor) -> Tensor:
        """The residual stream, (n, hidden), after attention's outputs, (n, heads * size), and the MLP."""
        y = self.out(y)
        x = x + (y if self.after_attention is None else self.after_attention(y))
        inner = self.before_mlp(x)
        y = self.down(self._activation(self.gate(inner)) * self.up(inner))
        return x + (y if self.after_mlp is None else self.after_mlp(y))


class Decoder:
    """A causal language model's forward pass over one conversation or several.

    Raises:
        NotImplementedError: The model is of a kind that this pass does not cover.
    """

    name = "torch"

    def __init__(self, model: Any) -> None:
        config = model.config.get_text_config()
        check_family(config)
        inner = model.model
        self._model = model
        self._plus_one = config.model_type.startswith("gemma")
        self._heads, self._groups = config.num_attention_heads, config.num_key_value_heads
        self._size = head_size(config)
        self._window = getattr(config, "sliding_window", None)
        self._softcap = getattr(config, "final_logit_softcapping", None)
        kinds = layer_kinds(config)
        sizes = self._heads, self._groups, self._size
        self._layers = [_Layer(*pair, *sizes, self._norm) for pair in zip(inner.layers, kinds, strict=True)]
        self._final = self._norm(inner.norm)
        self._embed = inner.embed_tokens
        self._head = model.get_output_embeddings()
        self._rotary = Rotary(model, config, set(kinds), inner.norm.weight.dtype)
        self._front: Callable[..., tuple[Tensor, Tensor, Tensor]] = _Layer.front
        self._back: Callable[..., Tensor] = _Layer.back

    def compile(self, backend: str = "inductor") -> None:
        """Have torch.compile fuse what lies between the attentions; all layers share the code.

        The attention itself is one kernel of torch's already, over a cache that grows.
        """
        self._front = torch.compile(_Layer.front, dynamic=True, backend=backend)
        self._back = torch.compile(_Layer.back, dynamic=True, backend=backend)
        self.name = "torch, compiled"

    def __call__(self, ids: Tensor, cache: Any, *, every: bool = False) -> Tensor:
        """Append ``ids`` (shape (n,)) to the cache; logits after the last id, (vocabulary,), or after each, (n, …)."""
        logits = self.batch([ids], [cache], [len(ids) if every else 1])
        return logits if every else logits[0]

    def batch(self, ids: Sequence[Tensor], caches: Sequence[Any], last: Sequence[int]) -> Tensor:
        """Append some ids to each of several conversations: the linears take all rows, the attention each by itself.

        Args:
            last: After how many of the last ids of each the logits are wanted.

        Returns:
            The logits, (sum of ``last``, vocabulary), in the order of the ids; float32.
        """
        counts = [len(part) for part in ids]
        starts = [cache.layers[0].length for cache in caches]
        # Sums stay in float32: in bf16 a few tokens with huge activations drown the rest, and the same conversation,
        # read in other portions, would answer differently.
        x = self._embed(torch.cat(list(ids))).float()
        spans = list(zip(starts, counts, strict=True))
        places = torch.cat([torch.arange(start, start + n, device=x.device) for start, n in spans])
        upto = self._rotary.upto(max(start + n for start, n in spans))
        cos, sin = (table[:, places, None] for table in upto)
        tables = {"full_attention": (cos[0], sin[0]), "sliding_attention": (cos[1], sin[1])}
        masks = {kind: [self._mask(kind, start, n, x.device) for start, n in spans] for kind in tables}
        for layer, *held in zip(self._layers, *(cache.layers for cache in caches), strict=True):
            rows = [torch.split(part, counts) for part in self._front(layer, x, *tables[layer.kind])]
            parts = zip(*rows, held, masks[layer.kind], strict=True)
            x = self._back(
                layer, x, torch.cat([self._attend(*part, scaling=layer.scaling) for part in parts])
            )
        wanted = [
            row for part, n in zip(torch.split(x, counts), last, strict=True) for row in part[len(part) - n :]
        ]
        if not wanted:
            empty: Tensor = x.new_empty(0, self._head.out_features)
            return empty
        logits: Tensor = self._head(self._final(torch.stack(wanted))).float()
        if self._softcap is not None:
            logits = torch.tanh(logits / self._softcap) * self._softcap
        return logits

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, held: GrowingLayer, mask: Tensor | None, *, scaling: float
    ) -> Tensor:
        n, heads, groups = len(q), self._heads, self._groups
        keys, values = held.update(k.transpose(0, 1)[None], v.transpose(0, 1)[None])
        if n == 1:
            # The heads of a group are rows over the same keys: nothing is repeated, nothing needs a causal mask.
            query = q.reshape(1, groups, heads // groups, self._size)
            if mask is not None:
                keys, values = keys[:, :, -mask.shape[-1] :], values[:, :, -mask.shape[-1] :]
            return F.scaled_dot_product_attention(query, keys, values, scale=scaling).reshape(1, -1)
        y = F.scaled_dot_product_attention(
            q.transpose(0, 1)[None],
            keys,
            values,
            attn_mask=mask,
            is_causal=mask is None,
            scale=scaling,
            enable_gqa=heads != groups,
        )
        return y[0].transpose(0, 1).reshape(n, -1)

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
