"""The CPU engine: a Llama-class model's forward pass as compiled code over packed weights.

transformers' modules serve training and every architecture; per token they cost more than the arithmetic of a small
model. The models covered here are recognised by their parts, and a probe compares their logits with those of
transformers over the same weights: what does not agree is not used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agentkit.engine.cache import PackedCache
from agentkit.engine.families import ROWS, agrees, check_family, head_size, layer_kinds, text_model
from agentkit.engine.forward import ROOM, TILE, Batch, Inputs, Linears, Norms, Scratch, Shape, forward
from agentkit.engine.packed import Packed, PackedEmbedding, PackedLinear, pack_layers, packed, packs
from agentkit.engine.packed_lora import LoraTable, PackedLora
from agentkit.engine.peft_files import PRODUCTS, LowRank
from agentkit.engine.rotary import Rotary
from agentkit.engine.simd import LANES, Kind, product, takes_pairs
from agentkit.engine.team import team

_ACTIVATIONS = {"silu": 0, "gelu_pytorch_tanh": 1}
_FEW = 4
"""Tokens whose norms every thread computes for itself."""
_BOTH = np.array([[0], [-1]])
"""The rotary tables of full and of sliding layers, which may be one."""


class NativeDecoder:
    """A causal language model's forward pass over one conversation or several.

    Packs the model's linears in the format ``kind``; the output head stays int8 under int4, because its error goes
    straight into the logits. Embeddings that are tied to the head are read from it.

    Raises:
        NotImplementedError: The model is of a kind that this pass does not cover; nothing has been changed.
    """

    name = "compiled"

    def __init__(self, model: Any, kind: Kind) -> None:
        config = model.config.get_text_config()
        _check(model, config)
        kinds = layer_kinds(config)
        inner = text_model(model)
        self._model, self._layers = model, inner.layers
        self._team = team()
        self._rotary = Rotary(inner, config, set(kinds), torch.float32)
        self._sliding = np.array([each == "sliding_attention" for each in kinds], np.int64)
        self._norms = _all_norms(inner, config)
        self._softcap = getattr(config, "final_logit_softcapping", None)
        self.shape = _shape(inner.layers, config, kind, self._team.size)
        self._weights = self._pack(kind)
        self._head = self._weights[-1]
        self._embed = model.get_input_embeddings()
        pairs: list[Any] = [(weight.addresses(), weight.biases()) for weight in self._weights]
        self._linears = Linears(*chain.from_iterable(pairs))
        self._meeting, self._phase = np.zeros(1, np.int64), 0
        self._loras = LoraTable(kind, self._team.size, _FEW)
        self._scratch = self._new_scratch(0)

    def _pack(self, kind: Kind) -> list[Packed]:
        model = self._model
        weights = [
            pack_layers(kind, [(getattr(layer, owner), names) for layer in self._layers])
            for owner, names in PRODUCTS
        ]
        head, embed = model.get_output_embeddings(), model.get_input_embeddings()
        tied = head.weight is embed.weight
        weights.append(packed("int8" if kind == "int4" else kind, head.weight, head.bias))
        model.set_output_embeddings(PackedLinear(weights[-1]))
        if tied:
            model.set_input_embeddings(PackedEmbedding(weights[-1], embed))
        return weights

    def pack_adapter(self, name: str, parts: Mapping[str, LowRank]) -> PackedLora:
        """An adapter in the form in which it runs beside the weights.

        Raises:
            ModelError: It does not fit the model.
        """
        return PackedLora(name, parts, self._layers, self._loras.kind)

    def new_cache(self, adapter: PackedLora | None = None) -> PackedCache:
        """An empty KV cache of a conversation with an adapter, or with none."""
        return PackedCache(self.shape.layers, self.shape.kv_heads, self.shape.size, adapter)

    def __call__(self, ids: Tensor, cache: PackedCache, *, every: bool = False) -> Tensor:
        """Append ``ids`` (shape (n,)) to the cache; logits after the last id, (vocabulary,), or after each, (n, …)."""
        parts = [
            self.batch([part], [cache], [len(part) if every else int(end)]) for part, end in _portions(ids)
        ]
        return torch.cat(parts) if every else parts[-1][0]

    def batch(self, ids: Sequence[Tensor], caches: Sequence[PackedCache], last: Sequence[int]) -> Tensor:
        """Append some ids to each of several conversations, `ROWS` ids at most together.

        Args:
            last: After how many of the last ids of each the logits are wanted.

        Returns:
            The logits, (sum of ``last``, vocabulary), in the order of the ids; float32.
        """
        counts = [len(part) for part in ids]
        before = [cache.length for cache in caches]
        for cache, count in zip(caches, counts, strict=True):
            cache.reserve(count)
        ends = np.cumsum(counts)
        sequences = np.array(
            [
                (end - n, n, old, *cache.addresses())
                for end, n, old, cache in zip(ends, counts, before, caches, strict=True)
            ],
            np.int64,
        )
        wanted = np.concatenate([np.arange(end - n, end) for end, n in zip(ends, last, strict=True)])
        out = np.empty((len(wanted), self._head.blocks * LANES), np.float32)
        positions = np.concatenate([np.arange(old, old + n) for old, n in zip(before, counts, strict=True)])
        cos, sin = (table.numpy()[_BOTH, positions] for table in self._rotary.upto(int(positions.max()) + 1))
        x = self._embed(torch.cat(list(ids))).detach().float().numpy()
        self._grow(max(old + n for old, n in zip(before, counts, strict=True)))
        self._phase = self._team.run(
            forward, self.shape, self._linears, self._norms, self._sliding,
            Batch(x, sequences, cos, sin, wanted, out), self._loras.of([cache.adapter for cache in caches], counts),
            self._scratch, self._meeting, self._phase,
        )  # fmt: skip
        for cache, count in zip(caches, counts, strict=True):
            cache.length += count
        result = torch.from_numpy(out)[:, : self._head.outputs]
        return result if self._softcap is None else torch.tanh(result / self._softcap) * self._softcap

    def agrees(self) -> bool:
        """Whether the logits of a probe are those of transformers' forward pass over the same weights."""
        return agrees(self, self._model)

    def _grow(self, tokens: int) -> None:
        if tokens > self._scratch.scores.shape[2]:
            self._scratch = self._new_scratch(tokens)

    def _new_scratch(self, tokens: int) -> Scratch:
        s, threads = self.shape, self.shape.threads
        attended = s.heads * s.size
        widest = max(s.hidden, attended, s.inner)
        room = max(256, 1 << (tokens + LANES - 1).bit_length())
        room += LANES  # rows that are a power of two apart take each other's place in the processor's cache

        def empty(*shape: int) -> NDArray[np.float32]:
            return np.empty(shape, np.float32)

        return Scratch(
            together=Inputs.empty(ROWS, s.hidden, widest),
            own=tuple(Inputs.empty(_FEW, s.hidden, widest) for _ in range(threads)),
            qkv=empty(ROWS, self._weights[0].blocks * LANES),
            attended=empty(ROWS, attended),
            y=empty(ROWS, self._weights[1].blocks * LANES),
            h=empty(ROWS, s.inner),
            block=empty(threads, 2, max(ROWS, ROOM) * LANES),
            head=empty(threads, 2, s.size),
            query=empty(threads, TILE, s.size),
            own_attended=empty(threads, TILE, s.size),
            scores=empty(threads, TILE, room),
            packed_query=np.empty((threads, TILE, s.size // 2), np.int32),
            packed_scores=np.empty((threads, TILE, room // 2), np.int32),
        )


def _portions(ids: Tensor) -> list[tuple[Tensor, bool]]:
    """`ROWS` ids at a time, the last marked."""
    parts = torch.split(ids, ROWS)
    return [(part, n == len(parts)) for n, part in enumerate(parts, 1)]


def _activation(config: Any) -> str:
    return str(getattr(config, "hidden_act", None) or config.hidden_activation)


def _check(model: Any, config: Any) -> None:
    """Raise `NotImplementedError` for what the compiled pass does not cover."""
    check_family(config)
    if _activation(config) not in _ACTIVATIONS:
        raise NotImplementedError(f"activation {_activation(config)}")
    size = head_size(config)
    if size % LANES or size > config.hidden_size or config.intermediate_size % LANES:
        raise NotImplementedError(f"heads of {size}, an MLP of {config.intermediate_size}")
    first = text_model(model).layers[0]
    attention, mlp = first.self_attn, first.mlp
    linears = [
        attention.q_proj,
        attention.k_proj,
        attention.v_proj,
        attention.o_proj,
        mlp.gate_proj,
        mlp.up_proj,
    ]
    if not all(map(packs, [*linears, mlp.down_proj, model.get_output_embeddings()])):
        raise NotImplementedError("linears of odd width")


def _shape(layers: Any, config: Any, kind: Kind, threads: int) -> Shape:
    pairs = takes_pairs(kind)  # as exact as the products with the weights, not more
    return Shape(
        layers=len(layers),
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        size=head_size(config),
        inner=config.intermediate_size,
        window=getattr(config, "sliding_window", None) or 0,
        gelu=_ACTIVATIONS[_activation(config)],
        eps=float(config.rms_norm_eps),
        scaling=float(layers[0].self_attn.scaling),
        cached=product("bfloat16" if pairs else "float16", LANES),
        cached_pairs=int(pairs),
        threads=threads,
    )


def _all_norms(inner: Any, config: Any) -> Norms:
    plus_one = config.model_type.startswith("gemma")
    layers = inner.layers

    def collect(name: str, owners: Any = layers) -> NDArray[np.float32]:
        norms: list[Any] = [getattr(owner, name) for owner in owners if hasattr(owner, name)]
        if not norms:
            return np.empty((0, 0), np.float32)
        return torch.stack([norm.weight.detach().float() + plus_one for norm in norms]).numpy()

    # Gemma has a norm behind each block too; others call the one before the MLP after what it comes after.
    sandwich = hasattr(layers[0], "pre_feedforward_layernorm")
    attentions = [layer.self_attn for layer in layers]
    return Norms(
        before_attention=collect("input_layernorm"),
        after_attention=collect("post_attention_layernorm" if sandwich else ""),
        before_mlp=collect("pre_feedforward_layernorm" if sandwich else "post_attention_layernorm"),
        after_mlp=collect("post_feedforward_layernorm"),
        query=collect("q_norm", attentions),
        key=collect("k_norm", attentions),
        final=collect("norm", [inner]),
    )
