"""Layers of a model that learns by LoRA, as single steps of the autograd graph.

PEFT computes the adapter's part in the adapter's 32-bit precision, with a copy of the input and a dropout module; on a
CPU that takes longer than the layer itself. Here both parts are computed in the precision of the layer, added inside
the matrix product, and the weights stay in 32 bits for the optimizer. Linears over the same input are one step, so that
what the adapter does to that input is one product too. transformers' norms pass over their input some twenty times
where five do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from agentkit.engine.peft_files import PRODUCTS


class _LoraLinears(torch.autograd.Function):
    """x Wᵀ + b + scale · (x Aᵀ) Bᵀ of several linears over the same x, without gradients for W and b."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scales: Sequence[float], *weights: Any) -> tuple[Tensor, ...]:
        ws, biases, down, up = (weights[n::4] for n in range(4))
        dtype = ws[0].dtype
        flat = x.reshape(-1, x.shape[-1]).to(dtype)  # under autocast some norms widen it
        ctx.scales, ctx.shape, ctx.ranks = scales, x.shape, [len(a) for a in down]
        a = torch.cat(down).to(dtype)
        bs = [b.to(dtype) for b in up]
        inner = flat @ a.T
        outs = [
            linear(flat, w, bias).addmm_(part, b.T, alpha=scale)
            for w, bias, b, scale, part in zip(
                ws, biases, bs, scales, torch.split(inner, ctx.ranks, 1), strict=True
            )
        ]
        ctx.save_for_backward(flat, a, inner, *ws, *bs)
        return tuple(out.view(*x.shape[:-1], -1) for out in outs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        flat, a, inner, *both = ctx.saved_tensors
        ws, bs = both[: len(grads)], both[len(grads) :]
        flats = [grad.reshape(-1, grad.shape[-1]) for grad in grads]
        above = [(grad @ b).mul_(scale) for grad, b, scale in zip(flats, bs, ctx.scales, strict=True)]
        grad_inner = torch.cat(above, 1)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = grad_inner @ a
            for grad, w in zip(flats, ws, strict=True):
                grad_x.addmm_(grad, w)
            grad_x = grad_x.view(ctx.shape)
        found: list[Tensor | None] = []
        grad_a = (grad_inner.T @ flat).float().split(ctx.ranks)
        for grad, part, of_a, scale in zip(
            flats, torch.split(inner, ctx.ranks, 1), grad_a, ctx.scales, strict=True
        ):
            found += [None, None, of_a, (grad.T @ part).float().mul_(scale)]
        return grad_x, None, *found


class _Group:
    """Linears over the same input: whoever is asked first computes for all of them."""

    def __init__(self, modules: Sequence[Any], name: str) -> None:
        self._modules = modules
        self._scales = tuple(module.scaling[name] for module in modules)
        self._weights: list[Any] = []
        for module in modules:
            base, a, b = module.base_layer, module.lora_A[name], module.lora_B[name]
            self._weights += [base.weight, base.bias, a.weight, b.weight]
        self._input: Tensor | None = None
        self._made: dict[int, Tensor] = {}

    def forward_of(self, number: int) -> Any:
        """The forward pass of one of them."""

        def forward(x: Tensor, *_: Any, **__: Any) -> Any:
            if self._modules[number].disable_adapters:
                return self._modules[number].base_layer(x)
            if x is not self._input or number not in self._made:
                made = _LoraLinears.apply(x, self._scales, *self._weights)  # type: ignore[no-untyped-call]
                self._input, self._made = x, dict(enumerate(made))
            out = self._made.pop(number)
            if not self._made:
                self._input = None
            return out

        return forward


class _Norm(torch.autograd.Function):
    """w · x / √(mean(x²) + ε) over the last axis, without a gradient for w (arXiv:1910.07467)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        factor = norm.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        unit: Tensor = (x * factor).to(x.dtype)
        ctx.save_for_backward(unit, factor, weight)
        return unit * weight

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        unit, factor, weight = ctx.saved_tensors
        grad = grads[0] * weight
        along = (grad * unit).mean(-1, keepdim=True)
        return (grad.addcmul_(unit, along, value=-1) * factor).to(grad.dtype), None, None


def fuse(model: Any) -> int:
    """Let the plain LoRA layers of a PEFT model run fused, and its norms on a CPU; returns how many layers do.

    Layers of other methods, with dropout, several adapters or quantized weights are left as they are, and so are norms
    that compute anything else.
    """
    found = 0
    for parent in model.modules():
        plain = {name: child for name, child in parent.named_children() if _is_plain(child)}
        groups = [names for _, names in PRODUCTS if plain.keys() >= set(names)]
        together = {name for names in groups for name in names}
        for names in (*groups, *((name,) for name in plain if name not in together)):
            modules = [plain[name] for name in names]
            group = _Group(modules, modules[0].active_adapters[0])
            for number, module in enumerate(modules):
                module.forward = group.forward_of(number)
        found += len(plain)
        if model.device.type == "cpu" and _is_norm(parent):
            parent.forward = _norm(parent)
    return found


def _is_plain(module: Any) -> bool:
    from peft.tuners.lora import Linear

    if type(module) is not Linear or type(module.base_layer) is not torch.nn.Linear:
        return False
    if len(module.active_adapters) != 1 or module.merged:
        return False
    name = module.active_adapters[0]
    return isinstance(module.lora_dropout[name], torch.nn.Identity) and not module.use_dora.get(name)


def _is_norm(module: Any) -> bool:
    """Whether a module is the norm that `_Norm` computes, by what it makes of some numbers."""
    if not hasattr(module, "variance_epsilon") or module.weight.requires_grad:
        return False
    sample = torch.linspace(-1, 2, len(module.weight), dtype=torch.float32, device=module.weight.device)
    sample = sample.to(module.weight.dtype)
    return torch.allclose(module(sample), _norm(module)(sample), rtol=0.02)


def _norm(module: Any) -> Any:
    return lambda x: _Norm.apply(x, module.weight, module.variance_epsilon)  # type: ignore[no-untyped-call]
