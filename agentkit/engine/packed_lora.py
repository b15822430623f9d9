"""Adapters of the CPU engine: low-rank products in blocks of 16 outputs, as `lora` reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agentkit.engine.families import ROWS
from agentkit.engine.lora import CHUNKS, PARTS, Loras
from agentkit.engine.packed import Packed
from agentkit.engine.peft_files import LAYERS, PRODUCTS, LowRank, check_fit
from agentkit.engine.simd import GROUP, LANES, Kind, product, takes_pairs

_SMALLEST = 1e-30
"""Stands for zero where there is a division."""
_KINDS: dict[Kind, Kind] = {"int4": "int8", "int8": "int8", "bfloat16": "bfloat16"}
"""Formats of adapters beside those of the weights; beside others float32."""


class PackedLora:
    """One adapter, for every layer of a model. Caches that it had a part in refer to it.

    Args:
        name: What it is called.
        parts: Its low-rank products, by the path of their linear.
        layers: The model's, whose linears tell the sizes.
        kind: The format of its numbers.

    Raises:
        ModelError: It does not fit the model.
    """

    def __init__(self, name: str, parts: Mapping[str, LowRank], layers: Sequence[Any], kind: Kind) -> None:
        check_fit(name, parts, layers)
        self.name = name
        self.rank = max(part.a.shape[0] for part in parts.values())
        self._kind: Kind = kind
        self._held: list[Tensor] = []
        self.down = np.zeros((len(PRODUCTS), 4), np.int64)
        """As in `lora.Loras`, of one adapter."""
        self.up = np.zeros((len(PRODUCTS), PARTS, 6), np.int64)
        for which, (owner, names) in enumerate(PRODUCTS):
            self._pack(which, owner, names, layers, parts)
        self.width = LANES * int(self.down[:, -1].max())
        """Outputs of the widest A."""

    def bytes(self) -> int:
        """Size of its numbers."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self._held)

    def _pack(
        self,
        which: int,
        owner: str,
        names: Sequence[str],
        layers: Sequence[Any],
        parts: Mapping[str, LowRank],
    ) -> None:
        first = [getattr(getattr(layers[0], owner), name) for name in names]
        # Rows of A and columns of B are brought to one size, so that in int8 none drowns beside another.
        downs, factors, unit, block = [], [], 0, 0
        for part, (name, linear) in enumerate(zip(names, first, strict=True)):
            found = [parts.get(f"{LAYERS}.{n}.{owner}.{name}") for n in range(len(layers))]
            blocks = linear.out_features // LANES
            rank = max((pair.a.shape[0] for pair in found if pair), default=0)
            units = -(-rank // LANES)
            if units:
                down = torch.zeros(len(layers), units * LANES, linear.in_features)
                up = torch.zeros(len(layers), linear.out_features, units * LANES)
                for layer, pair in enumerate(found):
                    if pair is not None:
                        down[layer, : len(pair.a)], up[layer, :, : len(pair.a)] = pair.a, pair.b
                size = up.abs().amax(1).clamp(min=_SMALLEST)
                downs.append(down)
                factors.append(size)
                self.up[which, part] = block, blocks, *self._hold(up / size[:, None], LANES), unit, units
            unit, block = unit + units, block + blocks
        if downs:
            down = torch.cat(downs, dim=1)
            size = down.abs().amax(2).clamp(min=_SMALLEST)
            self._held.append(torch.cat(factors, dim=1).mul_(size))
            address = self._held[-1].data_ptr()
            self.down[which] = *self._hold(down / size[:, :, None], GROUP, CHUNKS), address, unit

    def _hold(self, weights: Tensor, unit: int, chunks: int = 1) -> tuple[int, int]:
        """Where (layers, outputs, inputs) are packed, and their scales: 0 where the format has none.

        Args:
            weights: The numbers.
            unit: Inputs that share a scale.
            chunks: Parts of the inputs that lie one after the other, each with all outputs.
        """
        layers, outputs, inputs = weights.shape
        whole = Packed(self._kind, layers, outputs, inputs, unit)
        for layer, part in enumerate(weights):
            whole.pack(layer, part)
        bounds = [whole.groups * n // chunks for n in range(chunks + 1)]
        data, scale = (
            torch.cat([held[:, :, a:b].flatten(1) for a, b in pairwise(bounds)], dim=1)
            if held.numel()
            else held
            for held in (whole.data, whole.scale)
        )
        self._held += data, scale
        return data.data_ptr(), scale.data_ptr() if scale.numel() else 0


class LoraTable:
    """The adapters of one pass after the other, and the buffers that they share.

    Args:
        kind: The format of the weights beside which they stand.
        threads: How many compute.
        few: Rows that every thread prepares for itself.
    """

    def __init__(self, kind: Kind, threads: int, few: int) -> None:
        self.kind: Kind = _KINDS.get(kind, "float32")
        """Of adapters. Inputs are prepared once: the products of both take them in the same form."""
        self._pairs, self._threads, self._few = takes_pairs(self.kind), threads, few
        self._none = self._new(0)
        self._key: tuple[tuple[Any, ...], tuple[int, ...]] = ((), ())
        self._last = self._empty = self._none

    def of(self, adapters: Sequence[PackedLora | None], counts: Sequence[int]) -> Loras:
        """The table of a pass: one adapter or none for each conversation, and their rows."""
        if not any(adapters):
            return self._none
        key = tuple(adapters), tuple(counts)
        if key != self._key:  # one conversation that decodes asks for the same again and again
            self._last, self._key = self._make(adapters, counts), key
        return self._last

    def _make(self, adapters: Sequence[PackedLora | None], counts: Sequence[int]) -> Loras:
        groups: list[tuple[PackedLora, int, int]] = []
        row = 0
        for adapter, count in zip(adapters, counts, strict=True):
            if adapter is not None:
                if groups and groups[-1][0] is adapter and sum(groups[-1][1:]) == row:
                    groups[-1] = (adapter, groups[-1][1], groups[-1][2] + count)
                else:
                    groups.append((adapter, row, count))
            row += count
        width = max(adapter.width for adapter, _, _ in groups)
        if width > self._empty.together.shape[1]:
            self._empty = self._new(width)
        return self._empty._replace(
            groups=np.array([(first, rows) for _, first, rows in groups], np.int64),
            down=np.stack([adapter.down for adapter, _, _ in groups]),
            up=np.stack([adapter.up for adapter, _, _ in groups]),
        )

    def _new(self, width: int) -> Loras:
        """A table without groups; with room for adapters up to a width."""
        rows, few = (ROWS, self._few) if width else (0, 0)
        return Loras(
            groups=np.zeros((0, 2), np.int64),
            down=np.zeros((0, len(PRODUCTS), 4), np.int64),
            up=np.zeros((0, len(PRODUCTS), PARTS, 6), np.int64),
            down_product=product(self.kind, GROUP) if width else 0,
            up_product=product(self.kind, LANES, adds=True) if width else 0,
            weight_bytes=getattr(torch, self.kind).itemsize,
            pairs=int(self._pairs),
            chunks=np.empty((rows, CHUNKS, width), np.float32),
            together=np.empty((rows, width), np.float32),
            together_pairs=np.empty((rows, width // 2), np.int32),
            own=np.empty((self._threads, few, width), np.float32),
            own_pairs=np.empty((self._threads, few, width // 2), np.int32),
        )
