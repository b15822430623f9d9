"""Linears of the CPU engine: weights in blocks of 16 outputs, as `simd` reads them, in one of five formats.

Decoding one token reads every weight once, so its speed is bound by the bytes of the weights; they are widened to
float32 in the registers. Only the packed form is kept. The transformers model keeps working: its linears become views
of these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from agentkit.engine.forward import Inputs, Linear, multiply
from agentkit.engine.simd import GROUP, LANES, Kind, product, takes_pairs
from agentkit.engine.team import team

_SMALLEST = 1e-7
"""A scale that fp16 still holds."""
_LOSSLESS, _SAMPLES, _SAMPLE_ROWS, _TALL = 0.002, 12, 64, 16_384
_PLAIN: dict[torch.dtype, Kind] = {
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
    torch.float32: "float32",
}


class Packed(nn.Module):
    """The weights of one linear in every layer of a model, behind each other.

    Args:
        kind: Their format. int8 has an fp16 scale per ``unit`` inputs, int4 a scale and a zero point, as GGUF's Q8_0
            and Q4_1: weights of such files lose nothing more.
        layers: How many.
        outputs: Rows of a weight matrix; stored in whole blocks of 16.
        inputs: Columns, a multiple of ``unit``.
        unit: Inputs that share a scale.
    """

    data: Tensor
    scale: Tensor
    zero: Tensor
    bias: Tensor

    def __init__(self, kind: Kind, layers: int, outputs: int, inputs: int, unit: int = GROUP) -> None:
        super().__init__()
        self.kind: Kind = kind
        self.outputs, self.inputs, self._unit = outputs, inputs, unit
        self.blocks, self.groups = -(-outputs // LANES), inputs // unit
        dtype = {"int4": torch.uint8, "int8": torch.int8}.get(kind) or getattr(torch, kind)
        width = (self.groups, unit // 2) if kind == "int4" else (self.groups, unit)
        scales = (self.blocks, self.groups, LANES) if kind in ("int4", "int8") else (0,)
        held = {
            "data": torch.empty(layers, self.blocks, *width, LANES, dtype=dtype),
            "scale": torch.empty(layers, *scales, dtype=torch.float16),
            "zero": torch.empty(layers, *(scales if kind == "int4" else (0,)), dtype=torch.float16),
            "bias": torch.empty(0, self.blocks * LANES),
        }
        for name, tensor in held.items():
            self.register_buffer(name, tensor, persistent=False)

    def pack(self, layer: int, weight: Tensor, bias: Tensor | None = None) -> None:
        """Write one layer's weights, (outputs, inputs)."""
        rows = torch.zeros(self.blocks * LANES, self.inputs)
        rows[: self.outputs] = weight.detach().float()
        if bias is not None:
            if not len(self.bias):
                self.bias = torch.zeros(len(self.data), self.blocks * LANES)
            self.bias[layer, : self.outputs] = bias.detach().float()
        groups = rows.view(self.blocks, LANES, self.groups, self._unit)
        if self.kind == "int4":
            low, high = groups.amin(-1), groups.amax(-1)
            scale, zero = ((high - low) / 15).clamp(min=_SMALLEST).half(), low.half()
            levels = ((groups - zero.float()[..., None]) / scale.float()[..., None]).round().clamp(0, 15)
            halves = levels.to(torch.uint8).permute(0, 2, 3, 1).chunk(2, dim=2)
            self.data[layer] = halves[0] | (halves[1] << 4)
            self.scale[layer], self.zero[layer] = scale.transpose(1, 2), zero.transpose(1, 2)
        elif self.kind == "int8":
            scale = (groups.abs().amax(-1) / 127).clamp(min=_SMALLEST).half()
            levels = (groups / scale.float()[..., None]).round().clamp(-127, 127)
            self.data[layer] = levels.permute(0, 2, 3, 1)
            self.scale[layer] = scale.transpose(1, 2)
        else:
            self.data[layer] = groups.permute(0, 2, 3, 1)

    def unpacked(self, layer: int = 0) -> Tensor:
        """The weights as they are multiplied, (outputs, inputs), float32."""
        numbers = self._numbers(self.data[layer], self.scale[layer], self.zero[layer])
        return numbers.permute(0, 3, 1, 2).reshape(self.blocks * LANES, self.inputs)[: self.outputs]

    def rows(self, ids: Tensor, layer: int = 0) -> Tensor:
        """Some rows of the weights, (n, inputs), float32: embeddings that are tied to the head."""
        block, lane = ids // LANES, ids % LANES
        scale, zero = (
            held[layer, block, :, lane][..., None] if held.numel() else held
            for held in (self.scale, self.zero)
        )
        return self._numbers(self.data[layer, block, :, :, lane][..., None], scale, zero).flatten(1)

    def _numbers(self, data: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        """(…, groups, steps, lanes) of data as (…, groups, `GROUP`, lanes) of float32."""
        if self.kind == "int4":
            levels = torch.cat((data & 15, data >> 4), dim=-2).float()
            return levels * scale.float().unsqueeze(-2) + zero.float().unsqueeze(-2)
        return data.float() * scale.float().unsqueeze(-2) if self.kind == "int8" else data.float()

    def addresses(self) -> Linear:
        """The weights, as compiled code finds them."""
        item = self.data.element_size()
        return Linear(
            product(self.kind, self._unit),
            self.data.data_ptr(),
            self.data[0, 0].numel() * item,
            LANES * item,
            self.scale.data_ptr() if self.scale.numel() else 0,
            self.zero.data_ptr() if self.zero.numel() else 0,
            self.scale[0, 0].numel() * self.scale.element_size() if self.scale.numel() else 0,
            int(takes_pairs(self.kind)),
            self.blocks,
            self.groups,
        )

    def biases(self) -> NDArray[np.float32]:
        """(layers, outputs), without rows if there are none."""
        return self.bias.numpy()


class PackedLinear(nn.Module):
    """One layer of a `Packed` in the place of a linear, or some of its outputs."""

    def __init__(self, packed: Packed, layer: int = 0, start: int = 0, stop: int | None = None) -> None:
        super().__init__()
        self.packed, self._layer, self._start = packed, layer, start
        self.in_features = packed.inputs
        self._stop = packed.outputs if stop is None else stop
        self.out_features = self._stop - start

    def forward(self, x: Tensor) -> Tensor:
        """(…, in_features) to (…, out_features), in the type of ``x``."""
        packed = self.packed
        rows = np.ascontiguousarray(x.detach().reshape(-1, packed.inputs).float().numpy())
        out = np.empty((len(rows), packed.blocks * LANES), np.float32)
        crew, meeting = team(), np.zeros(1, np.int64)
        inputs = Inputs.empty(len(rows), 1, packed.inputs)
        crew.run(
            multiply, crew.size, packed.addresses(), packed.biases(), self._layer, rows, inputs, out, meeting
        )
        y = torch.from_numpy(out)[:, self._start : self._stop]
        return y.to(x.dtype).reshape(*x.shape[:-1], self.out_features)


class PackedEmbedding(nn.Module):
    """The rows of a packed output head as embeddings, for models that tie the two."""

    def __init__(self, packed: Packed, like: nn.Embedding) -> None:
        super().__init__()
        self.packed, self._dtype = packed, like.weight.dtype
        self._scale = float(getattr(like, "scalar_embed_scale", 1.0))  # Gemma's embeddings are multiplied

    def forward(self, ids: Tensor) -> Tensor:
        """(…) ids to (…, hidden)."""
        rows = self.packed.rows(ids.flatten()) * self._scale
        return rows.to(self._dtype).view(*ids.shape, -1)


def fits_int4(model: nn.Module) -> bool:
    """Whether int4 changes the model's weights by no more than bf16 rounds anyway: those of a 4-bit GGUF file.

    Such a file's blocks are `GROUP` weights on sixteen levels, which packing finds again: rounded to bf16 they differ
    by 0.0014 of their norm. Weights that never lay on such a grid would lose about a tenth, and weights that were
    trained on from it would lose what they have learnt, be it half a hundredth. A sample of the linears tells.
    """
    linears = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear) and packs(m)}
    body = {name: linear for name, linear in linears.items() if linear.weight.shape[0] < _TALL}
    # They come layer by layer: a step that shares a factor with a layer's number of them would pass some kinds by.
    kinds = max(1, len({name.rpartition(".")[2] for name in body}))
    step = max(1, len(linears) // _SAMPLES)
    while math.gcd(step, kinds) > 1:
        step += 1
    rows = [linear.weight.detach()[:_SAMPLE_ROWS].float() for linear in [*body.values()][::step]]
    return bool(rows) and all((packed("int4", w).unpacked() - w).norm() <= _LOSSLESS * w.norm() for w in rows)


def packs(module: nn.Module) -> bool:
    """Whether this is a linear that can be packed."""
    return type(module) is nn.Linear and module.in_features % GROUP == 0


def plain_kind(dtype: torch.dtype) -> Kind:
    """The format that keeps weights as they are."""
    return _PLAIN.get(dtype, "float32")


def packed(kind: Kind, weight: Tensor, bias: Tensor | None = None) -> Packed:
    """A linear that is packed alone."""
    alone = Packed(kind, 1, *weight.shape)
    alone.pack(0, weight, bias)
    return alone


def pack_layers(kind: Kind, layers: Sequence[tuple[Any, Sequence[str]]]) -> Packed:
    """Linears over the same input as one, for every layer: (module, names of its linears).

    Each layer's linears are replaced as soon as they are packed, so that the plain weights of one layer at most are
    held beside the packed ones.
    """
    first = [getattr(layers[0][0], name) for name in layers[0][1]]
    whole = Packed(kind, len(layers), sum(linear.out_features for linear in first), first[0].in_features)
    for layer, (owner, names) in enumerate(layers):
        linears = [getattr(owner, name) for name in names]
        biases = [linear.bias for linear in linears]
        bias = None
        if any(b is not None for b in biases):
            bias = torch.cat(
                [
                    torch.zeros(m.out_features) if b is None else b.detach().float()
                    for m, b in zip(linears, biases, strict=True)
                ]
            )
        whole.pack(layer, torch.cat([linear.weight.detach() for linear in linears]), bias)
        start = 0
        for name, linear in zip(names, linears, strict=True):
            setattr(owner, name, PackedLinear(whole, layer, start, start + linear.out_features))
            start += linear.out_features
    return whole


def pack_linears(model: Any, kind: Kind) -> None:
    """Replace the linears of a model that the engine's own forward pass does not cover, in place.

    The output head stays int8 under int4: its error goes straight into the logits. A linear of odd width stays plain.
    """
    head = model.get_output_embeddings()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if packs(child):
                alone = packed("int8" if child is head and kind == "int4" else kind, child.weight, child.bias)
                setattr(parent, name, PackedLinear(alone))
