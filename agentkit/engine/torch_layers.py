"""What the pass in torch does before and after an attention, token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # as torch's own documentation calls it

from agentkit.engine.peft_files import PRODUCTS
from agentkit.engine.torch_lora import Added


class Norm(nn.Module):
    """Root mean square norm (arXiv:1910.07467).

    Args:
        weight: As the model holds it.
        eps: Added to the mean square.
        plus_one: Gemma holds weights less one; bf16 would round their sum.
    """

    weight: Tensor

    def __init__(self, weight: Tensor, eps: float, *, plus_one: bool = False) -> None:
        super().__init__()
        self._eps, self._dtype, self._size = eps, weight.dtype, weight.shape[0]
        self.register_buffer("weight", weight.float() + plus_one, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) to (…, width) in the weights' own type."""
        return F.rms_norm(x.float(), (self._size,), self.weight, self._eps).to(self._dtype)


class Joined(nn.Module):
    """Linears over the same input as one; the weights of plain ones become parts of one matrix."""

    def __init__(self, linears: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(linears)
        self._whole: tuple[Tensor, Tensor | None] | None = None
        if len(linears) > 1 and all(type(linear) is nn.Linear for linear in linears):
            self._whole = _join([(linear.weight, linear.bias) for linear in linears])  # type: ignore[misc]

    def forward(self, x: Tensor, added: Sequence[Added] = ()) -> Tensor:
        """(n, inputs) to (n, outputs of all), with what adapters add to some of the rows."""
        if self._whole is not None:
            y = F.linear(x, *self._whole)
        else:
            y = (
                torch.cat([linear(x) for linear in self.parts], -1)
                if len(self.parts) > 1
                else self.parts[0](x)
            )
        for start, end, pair in added:
            if pair is not None:
                down, up = pair
                y[start:end] += x[start:end] @ down @ up
        return y


def _join(linears: Sequence[tuple[nn.Parameter, nn.Parameter | None]]) -> tuple[Tensor, Tensor | None]:
    """One matrix and one bias, of which the linears' own become views: nothing is held twice."""
    sizes = [len(weight) for weight, _ in linears]
    weight = torch.cat([weight.detach() for weight, _ in linears])
    for (held, _), part in zip(linears, torch.split(weight, sizes), strict=True):
        held.data = part
    if linears[0][1] is None:
        return weight, None
    bias = torch.cat([bias.detach() for _, bias in linears if bias is not None])
    for (_, held_bias), part in zip(linears, torch.split(bias, sizes), strict=True):
        if held_bias is not None:
            held_bias.data = part
    return weight, bias


class Layer(nn.Module):
    """What a layer does before and after its attention, token by token."""

    def __init__(
        self, source: Any, kind: str, heads: int, groups: int, size: int, norm: Callable[[Any], Norm]
    ) -> None:
        super().__init__()
        attention, mlp = source.self_attn, source.mlp
        sandwich = hasattr(source, "pre_feedforward_layernorm")
        after = norm(source.post_attention_layernorm)
        self.kind, self.scaling = kind, attention.scaling
        self._heads, self._groups, self._size = heads, groups, size
        self._activation = mlp.act_fn
        self.qkv, self.out, self.gate_up, self.down = (
            Joined([getattr(getattr(source, owner), name) for name in names]) for owner, names in PRODUCTS
        )
        self.before_attention = norm(source.input_layernorm)
        self.after_attention = after if sandwich else None
        self.before_mlp = norm(source.pre_feedforward_layernorm) if sandwich else after
        self.after_mlp = norm(source.post_feedforward_layernorm) if sandwich else None
        self.query = norm(attention.q_norm) if hasattr(attention, "q_norm") else None
        self.key = norm(attention.k_norm) if hasattr(attention, "k_norm") else None

    def front(
        self, x: Tensor, cos: Tensor, sin: Tensor, added: Sequence[Sequence[Added]]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (n, heads, size), of (n, hidden); queries and keys turned to their positions."""
        qkv = self.qkv(self.before_attention(x), added[0]).view(len(x), -1, self._size)
        turned = self._heads + self._groups
        qk, v = qkv[:, :turned], qkv[:, turned:]
        if self.query is not None and self.key is not None:
            qk = torch.cat((self.query(qk[:, : self._heads]), self.key(qk[:, self._heads :])), dim=1)
        # Rotation of the two halves: the sign of the swapped first half is in the table of sines.
        qk = torch.addcmul(qk * cos, qk.roll(self._size // 2, -1), sin)
        return qk[:, : self._heads], qk[:, self._heads :], v

    def back(self, x: Tensor, y: Tensor, added: Sequence[Sequence[Added]]) -> Tensor:
        """The residual stream, (n, hidden), after attention's outputs, (n, heads * size), and the MLP."""
        y = self.out(y, added[1])
        x = x + (y if self.after_attention is None else self.after_attention(y))
        gate, up = self.gate_up(self.before_mlp(x), added[2]).chunk(2, -1)
        y = self.down(self._activation(gate) * up, added[3])
        return x + (y if self.after_mlp is None else self.after_mlp(y))
