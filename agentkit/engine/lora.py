"""LoRA beside packed weights (arXiv:2106.09685), compiled: y = W x + B (A x).

The weights stay as they were packed, so that one model serves any number of adapters. As in S-LoRA (arXiv:2311.03285)
the products with the weights take the rows of all conversations together, and what an adapter adds is computed for the
rows of its own conversations. A product with A has few outputs: its inputs are cut into `CHUNKS`, so that the threads
find something to divide, and the sums of the chunks are added up in their order, whoever computed them. So a token
still gets the same bits alone, within a prompt and beside other conversations.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agentkit.engine.barrier import Ints, Span, share
from agentkit.engine.compiled import part
from agentkit.engine.simd import GROUP, LANES, add, call_product, pack_units, scaled

Floats = NDArray[np.float32]
Ints32 = NDArray[np.int32]

QKV, OUT, GATE_UP, DOWN = range(4)
"""The products of a layer."""
PARTS = 3
"""Linears in one product at most."""
_SCALES = 2 * LANES
"""Bytes of the scales of a group of inputs, where the format has any."""
CHUNKS = 4
"""Into which the inputs of a product with A are cut."""


class Loras(NamedTuple):
    """The adapters of a pass; no groups where no conversation has one."""

    groups: Ints
    """(groups, 2): first row and rows; each group's rows belong to one adapter"""
    down: Ints
    """(groups, 4, 4): addresses of A for all layers, chunk by chunk, of its scales, and of the factors of its outputs,
    (layers, outputs), float32; its outputs in blocks of 16, none where nothing is adapted"""
    up: Ints
    """(groups, 4, PARTS, 6): first block of outputs, blocks, addresses of B and of its scales, and its inputs in the
    blocks of A's outputs: the first, and how many"""
    down_product: int
    """The compiled function for products with A: `simd.product`."""
    up_product: int
    """For products with B, which are added to what is there."""
    weight_bytes: int
    """Of one number of A or B."""
    pairs: int
    """1 where the products take bf16 pairs."""
    chunks: Floats
    """(rows, CHUNKS, widest A): sums of the chunks; from here on buffers"""
    together: Floats
    """(rows, widest A): A x of many rows, of which every thread adds up its share"""
    together_pairs: Ints32
    """(rows, half of the widest A)"""
    own: Floats
    """(threads, few rows, widest A): of a few rows, which every thread adds up for itself"""
    own_pairs: Ints32
    """(threads, few rows, half of the widest A)"""


class Reduced(NamedTuple):
    """Where a thread finds A x."""

    x: Floats
    pairs: Ints32


@part
def lora_down(
    loras: Loras, which: int, layer: int, inputs: int, x: Floats, pairs: Ints32, thread: int, threads: int
) -> None:
    """This thread's share of A x, in chunks. ``inputs`` are groups of 32 of ``x``, (rows, inputs), or its pairs."""
    source, stride = pairs.ctypes.data, 4 * pairs.shape[1]
    group_bytes = 2 * GROUP
    if not loras.pairs:
        source, stride, group_bytes = x.ctypes.data, 4 * x.shape[1], 4 * GROUP
    for g in range(len(loras.groups)):
        first_row, rows = loras.groups[g]
        address, scale, _, blocks = loras.down[g, which]
        row_bytes = LANES * loras.weight_bytes
        piece, last = share(blocks * CHUNKS, thread, threads)
        while piece < last:
            chunk, block = piece // blocks, piece % blocks
            count = min(blocks - block, last - piece)
            start, stop = share(inputs, chunk, CHUNKS)
            groups = stop - start
            at = (layer * inputs + start) * blocks + block * groups
            call_product(
                loras.down_product, address + at * GROUP * row_bytes, row_bytes, groups * GROUP * row_bytes,
                source + first_row * stride + start * group_bytes, stride, scale + at * _SCALES, 0, groups * _SCALES,
                0, 0, groups, count, rows, loras.chunks[first_row, chunk, block * LANES :].ctypes.data,
                loras.chunks.strides[0],
            )  # fmt: skip
            piece += count


@part
def lora_reduce(loras: Loras, which: int, layer: int, rows: Span, reduced: Reduced) -> None:
    """Add up the chunks of some rows, times their factors, in the form that the product with B takes."""
    for g in range(len(loras.groups)):
        _, _, factors, blocks = loras.down[g, which]
        factors += layer * blocks * 4 * LANES
        first = max(rows[0], loras.groups[g, 0])
        last = min(rows[1], loras.groups[g, 0] + loras.groups[g, 1])
        for m in range(first, last):
            place = reduced.x[m].ctypes.data
            for n in range(blocks * LANES):
                reduced.x[m, n] = loras.chunks[m, 0, n]
            for chunk in range(1, CHUNKS):
                add(place, loras.chunks[m, chunk].ctypes.data, blocks)
            scaled(place, np.float32(1.0), factors, blocks, place)
            if loras.pairs:
                pack_units(place, blocks, reduced.pairs[m].ctypes.data)


@part
def lora_up(
    loras: Loras, which: int, layer: int, reduced: Reduced, first: int, count: int, out: int, out_stride: int
) -> None:
    """Add B (A x) to ``count`` blocks of outputs from ``first`` on, which stand at the address ``out``, row by row."""
    source, stride = reduced.pairs.ctypes.data, 4 * reduced.pairs.shape[1]
    unit_bytes = 2 * LANES
    if not loras.pairs:
        source, stride, unit_bytes = reduced.x.ctypes.data, 4 * reduced.x.shape[1], 4 * LANES
    row_bytes = LANES * loras.weight_bytes
    for g in range(len(loras.groups)):
        first_row, rows = loras.groups[g]
        for p in range(PARTS):
            begin, blocks, address, scale, unit, units = loras.up[g, which, p]
            start, stop = max(first, begin), min(first + count, begin + blocks)
            if start < stop:
                at = (layer * blocks + start - begin) * units
                call_product(
                    loras.up_product, address + at * LANES * row_bytes, row_bytes, units * LANES * row_bytes,
                    source + first_row * stride + unit * unit_bytes, stride, scale + at * _SCALES, 0, units * _SCALES,
                    0, 0, units, stop - start, rows, out + first_row * out_stride + 4 * LANES * (start - first),
                    out_stride,
                )  # fmt: skip
