"""A LoRA linear layer as one step of the autograd graph.

PEFT computes the adapter's part in the adapter's 32-bit precision, with a copy of the input and a dropout module; on a
CPU that takes longer than the layer itself. Here both parts are computed in the precision of the layer, added inside
the matrix product, and the weights stay in 32 bits for the optimizer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear


class _LoraLinear(torch.autograd.Function):
    """x Wᵀ + b + scale · (x Aᵀ) Bᵀ, without a gradient for W and b."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float
    ) -> Tensor:
        flat = x.reshape(-1, x.shape[-1]).to(weight.dtype)  # under autocast some norms widen it
        a, b = a.to(weight.dtype), b.to(weight.dtype)
        inner = flat @ a.T
        out = linear(flat, weight, bias).addmm_(inner, b.T, alpha=scale)
        ctx.save_for_backward(flat, weight, a, b, inner)
        ctx.scale, ctx.shape = scale, x.shape
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        flat, weight, a, b, inner = ctx.saved_tensors
        grad = grads[0].reshape(-1, grads[0].shape[-1])
        grad_inner = (grad @ b) * ctx.scale
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad @ weight).addmm_(grad_inner, a).view(ctx.shape)
        return grad_x, None, None, (grad_inner.T @ flat).float(), (grad.T @ inner * ctx.scale).float(), None


def fuse(model: Any) -> int:
    """Let the plain LoRA layers of a PEFT model run fused; returns how many do.

    Layers of other methods, with dropout, several adapters or quantized weights are left as they are.
    """
    from peft.tuners.lora import Linear

    found = 0
    for module in model.modules():
        if type(module) is not Linear or type(module.base_layer) is not torch.nn.Linear:
            continue
        name = module.active_adapters[0]
        plain = isinstance(module.lora_dropout[name], torch.nn.Identity) and not module.use_dora.get(name)
        if plain and len(module.active_adapters) == 1 and not module.merged:
            module.forward = _forward(module, name)  # type: ignore[method-assign]
            found += 1
    return found


def _forward(module: Any, name: str) -> Any:
    base, a, b, scale = module.base_layer, module.lora_A[name], module.lora_B[name], module.scaling[name]

    def forward(x: Tensor, *_: Any, **__: Any) -> Any:
        if module.disable_adapters:
            return base(x)
        return _LoraLinear.apply(  # type: ignore[no-untyped-call]
            x, base.weight, base.bias, a.weight, b.weight, scale
        )

    return forward
