"""Weight-only quantized linears for the CPU.

Decoding one token reads every weight once, so its speed is bound by the bytes of the weights: steps of a few rows
go through torch's packed int8 and int4 kernels. Many rows, a prompt, are bound by arithmetic: there the integers are
widened, a layer at a time, and multiplied in the activations' own type. Both ways multiply by the same weights, and
the plain weights are not kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from agentkit.engine.precision import packed_rows

INT4_GROUP = 32
"""Inputs that share one scale and zero point, as in GGUF's Q4_1: weights of such a file lose nothing more."""
WIDTH = 32
"""The kernels read whole vectors: for a width that is no multiple of them they read past the end, and crash."""

_LOSSLESS, _SAMPLES, _SAMPLE_ROWS, _TALL = 0.01, 12, 64, 16_384


class Int8Linear(nn.Module):
    """Symmetric int8 weights, one bf16 scale per output row."""

    packed: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self._rows = packed_rows("int8")
        weight = weight.detach().float()
        # Rounded to bf16 before it divides: the integers then fit the scale that is really used.
        scale = (weight.abs().amax(dim=1) / 127).clamp(min=1e-8).bfloat16()
        packed = (weight / scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8)
        self.register_buffer("packed", packed, persistent=False)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("bias", None if bias is None else bias.detach(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(…, in_features) to (…, out_features), in the type of ``x``."""
        if x.dim() == 2 and len(x) <= self._rows and x.dtype is torch.bfloat16 and self.bias is None:
            return torch._weight_int8pack_mm(x, self.packed, self.scale)
        rows = x.reshape(-1, x.shape[-1])
        if rows.shape[0] <= self._rows:
            # The kernels are vectorized for bf16 activations only.
            y = torch._weight_int8pack_mm(rows.bfloat16(), self.packed, self.scale).to(x.dtype)
        else:
            y = nn.functional.linear(rows, self.packed.to(x.dtype)) * self.scale.to(x.dtype)
        return (y if self.bias is None else y + self.bias).view(*x.shape[:-1], -1)


class Int4Linear(nn.Module):
    """Asymmetric int4 weights, one bf16 scale and zero point per group of `INT4_GROUP` inputs.

    The levels are held twice, in the kernel's layout and, half a byte each, in rows for prompts.
    """

    packed: Tensor
    nibbles: Tensor
    scale_zero: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        rows, columns = self.out_features, self.in_features = weight.shape
        self._rows = packed_rows("int4")
        groups = weight.detach().float().reshape(rows, columns // INT4_GROUP, INT4_GROUP)
        low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
        scale = ((high - low) / 15).clamp(min=1e-6)
        levels = ((groups - low) / scale).round().clamp(0, 15).to(torch.int32).reshape(rows, columns)
        # The kernel computes (level - 8) * scale + zero.
        scale_zero = torch.cat([scale, low + 8 * scale], dim=-1).transpose(0, 1).contiguous()
        halves = levels.to(torch.uint8).chunk(2, dim=1)
        self.register_buffer("packed", torch._convert_weight_to_int4pack_for_cpu(levels, 1), persistent=False)
        self.register_buffer("nibbles", halves[0] | (halves[1] << 4), persistent=False)
        self.register_buffer("scale_zero", scale_zero.to(torch.bfloat16), persistent=False)
        self.register_buffer("bias", None if bias is None else bias.detach(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(…, in_features) to (…, out_features), in the type of ``x``."""
        if x.dim() == 2 and len(x) <= self._rows and x.dtype is torch.bfloat16 and self.bias is None:
            return torch._weight_int4pack_mm_for_cpu(x, self.packed, INT4_GROUP, self.scale_zero)
        rows = x.reshape(-1, x.shape[-1])
        if rows.shape[0] <= self._rows:
            y = torch._weight_int4pack_mm_for_cpu(
                rows.bfloat16(), self.packed, INT4_GROUP, self.scale_zero
            ).to(x.dtype)
        else:
            y = nn.functional.linear(rows, self.widened(x.dtype))
        return (y if self.bias is None else y + self.bias).view(*x.shape[:-1], -1)

    def widened(self, dtype: torch.dtype) -> Tensor:
        """The weights as numbers, (out_features, in_features)."""
        weight = torch.empty(self.out_features, self.in_features, dtype=dtype, device=self.nibbles.device)
        low, high = weight.chunk(2, dim=1)
        low.copy_(self.nibbles & 15)
        high.copy_(self.nibbles >> 4)
        scale, zero = self.scale_zero.float().permute(2, 1, 0).unsqueeze(-1)
        groups = weight.view(self.out_features, -1, INT4_GROUP)
        groups.mul_(scale.to(dtype)).add_((zero - 8 * scale).to(dtype))
        return weight


class Joined(nn.Module):
    """Linears over the same input as one: one product instead of three for queries, keys and values."""

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        """Their outputs, concatenated."""
        return torch.cat([part(x) for part in self.parts], dim=-1)


class Part(nn.Module):
    """Some outputs of a joined linear: keeps the transformers model whole when its linears were joined."""

    def __init__(self, joined: nn.Module, start: int, stop: int) -> None:
        super().__init__()
        self.joined, self.start, self.stop = joined, start, stop

    def forward(self, x: Tensor) -> Tensor:
        """(…, in_features) to (…, stop - start)."""
        return self.joined(x)[..., self.start : self.stop]  # type: ignore[no-any-return]


class Int8Embedding(nn.Module):
    """The rows of an int8 output head as embeddings, for models that tie the two."""

    def __init__(self, head: Int8Linear, like: nn.Embedding) -> None:
        super().__init__()
        self.head, self._dtype = head, like.weight.dtype
        self._scale = float(getattr(like, "scalar_embed_scale", 1.0))  # Gemma's embeddings are multiplied

    def forward(self, ids: Tensor) -> Tensor:
        """(…) ids to (…, hidden)."""
        scale = (self.head.scale[ids].float() * self._scale).unsqueeze(-1)
        return (self.head.packed[ids] * scale).to(self._dtype)


def fits_int4(model: nn.Module) -> bool:
    """Whether int4 changes the model's weights by no more than bf16 rounds anyway: those of a 4-bit GGUF file.

    Such a file's blocks are `INT4_GROUP` weights on sixteen levels, which packing finds again. Weights that were
    trained on, or never lay on such a grid, would lose about a tenth; a sample of the linears tells.
    """
    linears = [m for m in model.modules() if type(m) is nn.Linear and m.in_features % INT4_GROUP == 0]
    body = [linear for linear in linears if linear.weight.shape[0] < _TALL][
        :: max(1, len(linears) // _SAMPLES)
    ]
    rows = [linear.weight.detach()[:_SAMPLE_ROWS].float() for linear in body]
    return bool(rows) and all(
        (Int4Linear(w).widened(torch.float32) - w).norm() <= _LOSSLESS * w.norm() for w in rows
    )


def packs(linear: nn.Module) -> bool:
    """Whether the kernels can take this linear."""
    return type(linear) is nn.Linear and linear.in_features % WIDTH == 0


def pack(linears: Sequence[nn.Linear], bits: int) -> Int8Linear | Int4Linear:
    """One packed linear for ``linears`` over the same input; int8 where the height does not fit int4."""
    weight = torch.cat([linear.weight.detach() for linear in linears])
    biases = [linear.bias.detach() for linear in linears if linear.bias is not None]
    bias = torch.cat(biases) if biases else None
    kind = Int4Linear if bits == 4 and weight.shape[0] % 16 == 0 else Int8Linear
    return kind(weight, bias)


def pack_linears(model: Any, bits: int) -> None:
    """Replace the linears of a model that `Decoder` does not cover by packed ones, in place.

    The output head stays int8 under int4: its error goes straight into the logits. A linear of odd width stays plain.
    """
    head = model.get_output_embeddings()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if packs(child):
                setattr(parent, name, pack([child], 8 if child is head else bits))
