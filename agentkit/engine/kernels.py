"""Weight-only linears for decoding on the CPU.

Decoding one token reads every weight once, so its speed is bound by the bytes of the weights. These linears keep
a packed copy (int8 or int4) for steps of a few rows and the plain weight for prefill, where a wide matrix product
is bound by arithmetic and unpacking would only be slower. Both copies are resident.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from agentkit.engine.precision import packed_rows

INT4_GROUP = 32
"""Weights that share one scale and zero point. 32 keeps the greedy answers of a 135M model."""


WIDTH = 32
"""The kernels read whole vectors: for a width that is no multiple of them they read past the end, and crash."""


class Int8Linear(nn.Module):
    """Symmetric int8 weights, one bf16 scale per output row."""

    packed: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias, self._rows = linear.weight, linear.bias, packed_rows()
        weight = linear.weight.detach().float()
        scale = (weight.abs().amax(dim=1) / 127).clamp(min=1e-8)
        packed = (weight / scale[:, None]).round().clamp(-127, 127).to(torch.int8)
        self.register_buffer("packed", packed, persistent=False)
        self.register_buffer("scale", scale.to(torch.bfloat16), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(…, in_features) to (…, out_features), in the type of ``x``."""
        rows = x.reshape(-1, x.shape[-1])
        if rows.shape[0] > self._rows:
            return nn.functional.linear(x, self.weight, self.bias)
        # The kernels are vectorized for bf16 activations only.
        y = torch._weight_int8pack_mm(rows.bfloat16(), self.packed, self.scale).to(x.dtype)
        return (y if self.bias is None else y + self.bias).view(*x.shape[:-1], -1)


class Int4Linear(nn.Module):
    """Asymmetric int4 weights, one bf16 scale and zero point per group of `INT4_GROUP` inputs."""

    packed: Tensor
    scale_zero: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias, self._rows = linear.weight, linear.bias, packed_rows()
        rows, columns = linear.weight.shape
        groups = linear.weight.detach().float().reshape(rows, columns // INT4_GROUP, INT4_GROUP)
        low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
        scale = ((high - low) / 15).clamp(min=1e-6)
        levels = ((groups - low) / scale).round().clamp(0, 15).to(torch.int32).reshape(rows, columns)
        # The kernel computes (level - 8) * scale + zero.
        scale_zero = torch.cat([scale, low + 8 * scale], dim=-1).transpose(0, 1).contiguous()
        self.register_buffer("packed", torch._convert_weight_to_int4pack_for_cpu(levels, 1), persistent=False)
        self.register_buffer("scale_zero", scale_zero.to(torch.bfloat16), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(…, in_features) to (…, out_features), in the type of ``x``."""
        rows = x.reshape(-1, x.shape[-1])
        if rows.shape[0] > self._rows:
            return nn.functional.linear(x, self.weight, self.bias)
        y = torch._weight_int4pack_mm_for_cpu(rows.bfloat16(), self.packed, INT4_GROUP, self.scale_zero).to(
            x.dtype
        )
        return (y if self.bias is None else y + self.bias).view(*x.shape[:-1], -1)


def pack_linears(model: Any, bits: int) -> None:
    """Replace the model's linears by packed ones, in place.

    The output head stays int8 under int4: its error goes straight into the logits, and it is read once a token
    whatever its rows cost. A linear whose height does not fit int4 becomes int8 too; one of odd width stays plain.

    Args:
        model: A transformers model on the CPU.
        bits: 8 or 4.
    """
    head = model.get_output_embeddings()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is not nn.Linear:
                continue
            if child.in_features % WIDTH:
                continue
            fits_int4 = child.in_features % INT4_GROUP == 0 and child.out_features % 16 == 0
            packed = Int4Linear if bits == 4 and child is not head and fits_int4 else Int8Linear
            setattr(parent, name, packed(child))


def packed_bytes(model: Any) -> int:
    """Bytes of the packed copies."""
    linears = [m for m in model.modules() if isinstance(m, Int8Linear | Int4Linear)]
    return sum(buffer.numel() * buffer.element_size() for m in linears for buffer in m.buffers())
