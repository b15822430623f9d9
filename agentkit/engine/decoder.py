"""The forward pass of Llama-class models, written out in torch: for GPUs and for bitsandbytes.

transformers' modules serve training and every architecture; per token they cost more than the arithmetic of a small
model. Here a token's attention runs over grouped heads without repeating them, rotary tables are computed once, and
sums stay in float32; what lies between the attentions can be fused by torch.compile. The models are recognised by their
parts, and a probe compares the first logits with those of transformers: what does not agree is not used. On the CPU
`native` does the same, compiled.

On a GPU the steps of a conversation are recorded (`graphs`): their attention runs over the whole buffer of the cache
and leaves out what is not there by a mask, so that every step has the same shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # as torch's own documentation calls it

from agentkit.engine.cache import TorchCache
from agentkit.engine.families import agrees, check_family, close, head_size, layer_kinds, text_model
from agentkit.engine.graphs import PLAIN, WIDTHS, Recorder, width_of
from agentkit.engine.peft_files import LowRank
from agentkit.engine.rotary import Rotary
from agentkit.engine.torch_layers import Layer, Norm
from agentkit.engine.torch_lora import TorchLora, added_to


class Decoder:
    """A causal language model's forward pass over one conversation or several.

    Raises:
        NotImplementedError: The model is of a kind that this pass does not cover.
    """

    def __init__(self, model: Any) -> None:
        config = model.config.get_text_config()
        check_family(config)
        inner = text_model(model)
        self._model = model
        self._plus_one = config.model_type.startswith("gemma")
        self._heads, self._groups = config.num_attention_heads, config.num_key_value_heads
        self._size = head_size(config)
        self._window = getattr(config, "sliding_window", None)
        self._softcap = getattr(config, "final_logit_softcapping", None)
        kinds = layer_kinds(config)
        sizes = self._heads, self._groups, self._size
        self._layers = [Layer(*pair, *sizes, self._norm) for pair in zip(inner.layers, kinds, strict=True)]
        self._final = self._norm(inner.norm)
        self._embed = inner.embed_tokens
        self._head = model.get_output_embeddings()
        self._rotary = Rotary(inner, config, set(kinds), inner.norm.weight.dtype)
        self._front: Callable[..., tuple[Tensor, Tensor, Tensor]] = Layer.front
        self._back: Callable[..., Tensor] = Layer.back
        self._recorder: Recorder | None = None
        self._compiled = False

    @property
    def name(self) -> str:
        """What `agentkit models info` calls it."""
        recorded = self._recorder is not None and not self._recorder.failure
        return "torch" + ", compiled" * self._compiled + ", recorded" * recorded

    def compile(self, backend: str = "inductor") -> None:
        """Have torch.compile fuse what lies between the attentions; all layers share the code.

        The attention itself is one kernel of torch's already, over a cache that grows.
        """
        self._front = torch.compile(Layer.front, dynamic=True, backend=backend)
        self._back = torch.compile(Layer.back, dynamic=True, backend=backend)
        self._compiled = True

    def record(self) -> bool:
        """On a GPU, record the steps of conversations from now on, if a probe of it says what the plain pass says."""
        device, model = self._model.device, self._model
        # LLM.int8() asks the GPU in every linear which columns stand out, and waits for the answer.
        waits = any(getattr(getattr(part, "state", None), "threshold", 0) for part in model.modules())
        if device.type != "cuda" or waits:
            return False
        try:
            return self._record_with(Recorder(self.fixed, device, self._head.out_features))
        except RuntimeError:
            self._recorder = None
            return False

    def _record_with(self, recorder: Recorder) -> bool:
        """Keep a recorder, if what it records of every width says what the plain pass says."""
        sizes = [width for width in WIDTHS for _ in range(PLAIN + 2)]
        spread = torch.arange(1, sum(sizes) + 1, device=self._model.device)
        ids = spread * self._embed.num_embeddings // (sum(sizes) + 2)
        with torch.inference_mode():
            expected = self(ids, self.new_cache(), every=True)
            cache = self.new_cache()
            # What is recorded ends with buffers that grow: the last width would not come often enough after it.
            cache.reserve(len(ids))
            self._recorder = recorder
            found = torch.cat([self(part, cache, every=True) for part in ids.split(sizes)])
        if recorder.failure or not close(found, expected):
            self._recorder = None
        return self._recorder is not None

    def pack_adapter(self, name: str, parts: Mapping[str, LowRank]) -> TorchLora:
        """An adapter in the form in which it runs beside the weights.

        Raises:
            ModelError: It does not fit the model.
        """
        return TorchLora(name, parts, text_model(self._model).layers, self._like)

    def new_cache(self, adapter: TorchLora | None = None) -> TorchCache:
        """An empty KV cache of a conversation with an adapter, or with none."""
        return TorchCache(len(self._layers), self._groups, self._size, adapter, like=self._like)

    @property
    def _like(self) -> Tensor:
        """A tensor of the type that attention computes in, on the model's device."""
        return self._rotary.upto(1)[0]

    def __call__(self, ids: Tensor, cache: TorchCache, *, every: bool = False) -> Tensor:
        """Append ``ids`` (shape (n,)) to the cache; logits after the last id, (vocabulary,), or after each, (n, …)."""
        logits = self.batch([ids], [cache], [len(ids) if every else 1])
        return logits if every else logits[0]

    def batch(self, ids: Sequence[Tensor], caches: Sequence[TorchCache], last: Sequence[int]) -> Tensor:
        """Append some ids to each of several conversations: the linears take all rows, the attention each by itself.

        Args:
            last: After how many of the last ids of each the logits are wanted.

        Returns:
            The logits, (sum of ``last``, vocabulary), in the order of the ids; float32.
        """
        counts = [len(part) for part in ids]
        if self._recorder is not None and len(ids) == 1 and width_of(counts[0]):
            return self._recorder.step(ids[0], caches[0], last[0])
        starts = [cache.length for cache in caches]
        for cache, count in zip(caches, counts, strict=True):
            cache.reserve(count)
        spans = list(zip(starts, counts, strict=True))
        x = self._embedded(torch.cat(list(ids)))
        places = torch.cat([torch.arange(start, start + n, device=x.device) for start, n in spans])
        tables = self._tables(places, max(start + n for start, n in spans))
        masks = {kind: [self._mask(kind, start, n, x.device) for start, n in spans] for kind in tables}

        def attend(number: int, layer: Layer, *states: Tensor) -> Tensor:
            rows = [torch.split(part, counts) for part in states]
            parts = zip(*rows, caches, starts, masks[layer.kind], strict=True)
            return torch.cat([self._attend(number, layer.scaling, *part) for part in parts])

        x = self._through(x, tables, [cache.adapter for cache in caches], counts, attend)
        for cache, count in zip(caches, counts, strict=True):
            cache.length += count
        wanted = [
            row for part, n in zip(torch.split(x, counts), last, strict=True) for row in part[len(part) - n :]
        ]
        if not wanted:
            empty: Tensor = x.new_empty(0, self._head.out_features)
            return empty
        return self._logits(torch.stack(wanted))

    def fixed(self, ids: Tensor, start: Tensor, cache: TorchCache) -> Tensor:
        """A step whose shapes depend on nothing but the number of ids and the cache's capacity.

        Args:
            ids: (n,), for which the cache has room.
            start: (), the tokens before them.
            cache: Its length stays as it is.

        Returns:
            Logits after each id, (n, vocabulary), float32.
        """
        n, capacity = len(ids), cache.capacity
        places = start + torch.arange(n, device=ids.device)
        columns = torch.arange(capacity, device=ids.device)
        seen = columns <= places[:, None]
        masks = {"full_attention": seen}
        if self._window is not None:
            masks["sliding_attention"] = seen & (columns > places[:, None] - self._window)
        together = self._heads // self._groups  # heads of a group are rows over the same keys
        hidden = {
            kind: torch.zeros_like(mask, dtype=self._like.dtype)
            .masked_fill(~mask, -torch.inf)
            .repeat(together, 1)
            for kind, mask in masks.items()
        }

        def attend(number: int, layer: Layer, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            for buffer, new in ((cache.keys[number], k), (cache.values[number], v)):
                buffer.index_copy_(1, places, new.transpose(0, 1))
            query = q.view(n, self._groups, together, self._size).permute(1, 2, 0, 3).flatten(1, 2)
            y = F.scaled_dot_product_attention(
                query[None], cache.keys[number][None], cache.values[number][None],
                attn_mask=hidden[layer.kind], scale=layer.scaling,
            )  # fmt: skip
            return y.view(self._groups, together, n, self._size).permute(2, 0, 1, 3).reshape(n, -1)

        x = self._through(self._embedded(ids), self._tables(places, capacity), [cache.adapter], [n], attend)
        return self._logits(x)

    def _embedded(self, ids: Tensor) -> Tensor:
        # Sums stay in float32: in bf16 a few tokens with huge activations drown the rest, and the same conversation,
        # read in other portions, would answer differently.
        x: Tensor = self._embed(ids).float()
        return x

    def _tables(self, places: Tensor, tokens: int) -> dict[str, tuple[Tensor, Tensor]]:
        """Cosines and sines of positions below ``tokens``, (n, 1, size) each."""
        cos, sin = (table[:, places, None] for table in self._rotary.upto(tokens))
        return {"full_attention": (cos[0], sin[0]), "sliding_attention": (cos[-1], sin[-1])}

    def _through(
        self,
        x: Tensor,
        tables: Mapping[str, tuple[Tensor, Tensor]],
        adapters: Sequence[TorchLora | None],
        counts: Sequence[int],
        attend: Callable[..., Tensor],
    ) -> Tensor:
        """All layers, over rows of which so many belong to each conversation."""
        for number, layer in enumerate(self._layers):
            added = added_to(number, adapters, counts)
            x = self._back(
                layer, x, attend(number, layer, *self._front(layer, x, *tables[layer.kind], added)), added
            )
        return x

    def _logits(self, x: Tensor) -> Tensor:
        logits: Tensor = self._head(self._final(x)).float()
        if self._softcap is not None:
            logits = torch.tanh(logits / self._softcap) * self._softcap
        return logits

    def _attend(
        self,
        number: int,
        scaling: float,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cache: TorchCache,
        start: int,
        mask: Tensor | None,
    ) -> Tensor:
        n, heads, groups = len(q), self._heads, self._groups
        keys, values = cache.append(number, k, v, start)
        if n == 1:
            # The heads of a group are rows over the same keys: nothing is repeated, nothing needs a causal mask.
            query = q.reshape(1, groups, heads // groups, self._size)
            if mask is not None:
                keys, values = keys[:, -mask.shape[-1] :], values[:, -mask.shape[-1] :]
            return F.scaled_dot_product_attention(query, keys[None], values[None], scale=scaling).reshape(
                1, -1
            )
        together = heads // groups
        if mask is not None and together > 1:
            # Torch may take its slowest kernel for a mask over grouped heads.
            keys, values = (part.repeat_interleave(together, 0) for part in (keys, values))
        y = F.scaled_dot_product_attention(
            q.transpose(0, 1)[None],
            keys[None],
            values[None],
            attn_mask=mask,
            is_causal=mask is None,
            scale=scaling,
            enable_gqa=mask is None and together > 1,
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

    def _norm(self, norm: Any) -> Norm:
        eps = getattr(norm, "variance_epsilon", None) or norm.eps
        return Norm(norm.weight.detach(), eps, plus_one=self._plus_one)

    def agrees(self) -> bool:
        """Whether the logits of a probe are those of transformers' forward pass."""
        return agrees(self, self._model)
