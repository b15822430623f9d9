"""Adapters of the pass in torch: what they add to the linears over one input, as a pair of products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from agentkit.engine.peft_files import LAYERS, PRODUCTS, LowRank, check_fit

Pair = tuple[Tensor, Tensor]
"""(inputs, ranks) and (ranks, outputs), of all linears over the same input together."""
Added = tuple[int, int, Pair | None]
"""What is added from one row to another."""


class TorchLora:
    """One adapter, for every layer of a model. Caches that it had a part in refer to it.

    Args:
        name: What it is called.
        parts: Its low-rank products, by the path of their linear.
        layers: The model's, whose linears tell the sizes.
        like: A tensor of the type that it multiplies in, where it is to be.

    Raises:
        ModelError: It does not fit the model.
    """

    def __init__(self, name: str, parts: Mapping[str, LowRank], layers: Sequence[Any], like: Tensor) -> None:
        check_fit(name, parts, layers)
        self.name = name
        self.rank = max(part.a.shape[0] for part in parts.values())
        self.layers = [
            [
                _pair(parts, f"{LAYERS}.{n}.{owner}", getattr(layer, owner), names, like)
                for owner, names in PRODUCTS
            ]
            for n, layer in enumerate(layers)
        ]
        """(layers, products)"""

    def bytes(self) -> int:
        """Size of its numbers."""
        pairs = [pair for layer in self.layers for pair in layer if pair is not None]
        return sum(half.numel() * half.element_size() for pair in pairs for half in pair)


def _pair(
    parts: Mapping[str, LowRank], path: str, owner: Any, names: Sequence[str], like: Tensor
) -> Pair | None:
    found = [parts.get(f"{path}.{name}") for name in names]
    if not any(found):
        return None
    down = torch.cat([part.a for part in found if part])
    # Each linear's own ranks reach its own outputs alone.
    blocks = [
        part.b if part else torch.zeros(getattr(owner, name).out_features, 0)
        for name, part in zip(names, found, strict=True)
    ]
    up: Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
    return down.T.to(like).contiguous(), up.T.to(like).contiguous()


def added_to(layer: int, adapters: Sequence[TorchLora | None], counts: Sequence[int]) -> list[list[Added]]:
    """What adapters add in a layer, by `PRODUCTS`: ``counts`` rows belong to each; neighbours share their products."""
    found: list[tuple[int, int, TorchLora]] = []
    row = 0
    for adapter, count in zip(adapters, counts, strict=True):
        if adapter is not None:
            if found and found[-1][2] is adapter and found[-1][1] == row:
                found[-1] = (found[-1][0], row + count, adapter)
            else:
                found.append((row, row + count, adapter))
        row += count
    return [
        [(start, end, adapter.layers[layer][which]) for start, end, adapter in found]
        for which in range(len(PRODUCTS))
    ]
