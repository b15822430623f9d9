"""The forward pass of Llama-class models on the CPU, compiled as one function that a team of threads runs together.

Every thread computes its share of each product and meets the others at a barrier; what comes before the products they
share too where there are many tokens, and each does for itself where there are few. Sums are in float32, in an order
that depends on nothing but a token's own past: the same token gets the same bits whether it is read alone, within a
prompt or beside other conversations.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agentkit.engine.barrier import Ints, Span, arrive, await_others, share, wait, wait_if
from agentkit.engine.compiled import compiled, part
from agentkit.engine.lora import DOWN, GATE_UP, OUT, QKV, Loras, Reduced, lora_down, lora_reduce, lora_up
from agentkit.engine.simd import (
    GROUP,
    LANES,
    MOST_ROWS,
    add,
    call_product,
    dot,
    exponential_pairs,
    exponentials,
    gated,
    largest,
    pack_group,
    pack_units,
    rotate,
    scaled,
    store_bf16,
    store_fp16,
    total,
)

Floats = NDArray[np.float32]
Ints32 = NDArray[np.int32]

ROOM = 256
"""Blocks of gates that a thread computes at once, rows times blocks: they stay in its core's cache."""
TILE = MOST_ROWS
"""Queries that read the same keys together at most."""


class Linear(NamedTuple):
    """Addresses of one kind of linear, all layers behind each other."""

    product: int
    """The compiled function for its format: `simd.product`."""
    packed: int
    block_bytes: int
    """Of a block's weights."""
    stride: int
    """Bytes of the weights of one input, or of two under int4."""
    scale: int
    zero: int
    """0 where the format has none."""
    scale_bytes: int
    """Of a block's scales."""
    pairs: int
    """1 where the product takes bf16 pairs: `simd.takes_pairs`."""
    blocks: int
    """Outputs, in blocks of 16."""
    groups: int
    """Inputs, in groups of 32."""


class Norms(NamedTuple):
    """Weights of the norms, float32, (layers, width); no rows where the family has no such norm."""

    before_attention: Floats
    after_attention: Floats
    before_mlp: Floats
    after_mlp: Floats
    query: Floats
    key: Floats
    final: Floats


class Shape(NamedTuple):
    """Sizes of a model."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    size: int
    """Of a head."""
    inner: int
    """Of the MLP."""
    window: int
    """Tokens that a sliding layer sees."""
    gelu: int
    """1 for the tanh form of GELU, 0 for SiLU."""
    eps: float
    scaling: float
    """Of the attention scores."""
    cached: int
    """The compiled function for products with keys and values: `simd.product`."""
    cached_pairs: int
    """1 where that function takes bf16 pairs, and the cache is in bf16; else it is in fp16."""
    threads: int


class Inputs(NamedTuple):
    """What threads prepare for the products: all of them their share of many rows, or each for itself a few."""

    x: Floats
    """(rows, hidden): the residual stream of a few rows; that of many is the batch's own"""
    normed: Floats
    """(rows, hidden)"""
    pairs: Ints32
    """(rows, half of the widest input): inputs as `simd.pack_group` leaves them"""
    sums: Floats
    """(rows, groups of the widest input)"""

    @classmethod
    def empty(cls, rows: int, hidden: int, widest: int) -> Inputs:
        """Room for so many rows."""
        floats = [np.empty((rows, width), np.float32) for width in (hidden, hidden, widest // GROUP)]
        return cls(floats[0], floats[1], np.empty((rows, widest // 2), np.int32), floats[2])


class Scratch(NamedTuple):
    """Buffers of a pass, float32 but for the pairs."""

    together: Inputs
    own: tuple[Inputs, ...]
    """One for each thread, for a few rows."""
    qkv: Floats
    """(rows, outputs)"""
    attended: Floats
    """(rows, heads * size)"""
    y: Floats
    """(rows, hidden)"""
    h: Floats
    """(rows, inner)"""
    block: Floats
    """(threads, 2, ROOM * 16); from here on every thread has its own"""
    head: Floats
    """(threads, 2, size)"""
    query: Floats
    """(threads, TILE, size)"""
    own_attended: Floats
    """(threads, TILE, size)"""
    scores: Floats
    """(threads, TILE, tokens)"""
    packed_query: Ints32
    """(threads, TILE, size / 2): as `simd.pack_units` leaves it"""
    packed_scores: Ints32
    """(threads, TILE, tokens / 2)"""


class Crew(NamedTuple):
    """Whose share of a pass is computed."""

    thread: int
    threads: int
    shared: bool
    """Rows are prepared by turns, and handed over; else each thread prepares all of them."""
    meeting: Ints
    """The barrier: one number."""


class Batch(NamedTuple):
    """What is to be computed."""

    x: Floats
    """(rows, hidden): embeddings, on which every layer adds its part"""
    sequences: Ints
    """(conversations, 6): first row, rows, tokens before them, capacity, address of the keys, of the values"""
    cos: Floats
    """(2, rows, size): of full and of sliding layers"""
    sin: Floats
    """(2, rows, size), the first half negated"""
    wanted: Ints
    """Rows whose logits are wanted."""
    logits: Floats
    """(wanted, outputs): written"""


@part
def _norm(x: Floats, weight: Floats, eps: float, out: Floats) -> None:
    """Root mean square norm (arXiv:1910.07467) of one row."""
    width = len(weight)
    square = dot(x.ctypes.data, x.ctypes.data, width // LANES)
    factor = np.float32(1.0 / math.sqrt(square / width + eps))
    scaled(x.ctypes.data, factor, weight.ctypes.data, width // LANES, out.ctypes.data)


@part
def _pack(linear: Linear, x: Floats, rows: Span, inputs: Inputs) -> None:
    """Rows in the form that a product takes, and the sums of their groups for int4."""
    for m in range(rows[0], rows[1]):
        if linear.pairs:
            for g in range(linear.groups):
                place = inputs.pairs[m].ctypes.data + 2 * GROUP * g
                inputs.sums[m, g] = pack_group(x[m].ctypes.data + 4 * GROUP * g, place)
        elif linear.zero:
            for g in range(linear.groups):
                inputs.sums[m, g] = total(x[m].ctypes.data + 4 * GROUP * g, GROUP // LANES)


@part
def _settle(
    shape: Shape, x: Floats, rows: Span, y: Floats, after: Floats, layer: int, inputs: Inputs
) -> None:
    """Add a block's output to the residual stream, through its norm where there is one."""
    for m in range(rows[0], rows[1]):
        source = y[m]
        if len(after):
            _norm(source, after[layer], shape.eps, inputs.normed[m])
            source = inputs.normed[m]
        add(x[m].ctypes.data, source.ctypes.data, shape.hidden // LANES)


@part
def _enter(shape: Shape, linear: Linear, x: Floats, rows: Span, weight: Floats, inputs: Inputs) -> None:
    """The norms of rows, as inputs of a product."""
    for m in range(rows[0], rows[1]):
        _norm(x[m], weight, shape.eps, inputs.normed[m])
    _pack(linear, inputs.normed, rows, inputs)


@part
def _blocks(
    linear: Linear, bias: Floats, layer: int, first: int, count: int, x: Floats, rows: int, inputs: Inputs, out: Floats
) -> None:  # fmt: skip
    """``count`` blocks of outputs of every row, to ``out``, (rows, outputs); ``x`` has been packed."""
    n = layer * linear.blocks + first
    scales = n * linear.scale_bytes
    source, width = (
        (inputs.pairs.ctypes.data, inputs.pairs.shape[1]) if linear.pairs else (x.ctypes.data, x.shape[1])
    )
    call_product(
        linear.product, linear.packed + n * linear.block_bytes, linear.stride, linear.block_bytes, source, 4 * width,
        linear.scale + scales, linear.zero + scales, linear.scale_bytes, inputs.sums.ctypes.data,
        4 * inputs.sums.shape[1], linear.groups, count, rows, out.ctypes.data, out.strides[0],
    )  # fmt: skip
    if len(bias):
        for m in range(rows):
            for column in range(count * LANES):
                out[m, column] += bias[layer, first * LANES + column]


@part
def _linear(
    linear: Linear, bias: Floats, layer: int, x: Floats, rows: int, inputs: Inputs, out: Floats, thread: int,
    threads: int,
) -> None:  # fmt: skip
    """This thread's share of a product."""
    first, last = share(linear.blocks, thread, threads)
    _blocks(linear, bias, layer, first, last - first, x, rows, inputs, out[:, first * LANES :])


@part
def _adapted(
    linear: Linear, bias: Floats, which: int, layer: int, x: Floats, rows: int, inputs: Inputs, out: Floats,
    loras: Loras, reduced: Reduced, own: Span, crew: Crew, phase: int,
) -> int:  # fmt: skip
    """This thread's share of a product and of what adapters add to it; ``own`` are the rows it prepares."""
    adapted = len(loras.groups) > 0
    if adapted:
        lora_down(loras, which, layer, linear.groups, x, inputs.pairs, crew.thread, crew.threads)
        # Nobody need wait for the others yet: the product with the weights comes first.
        arrive(crew.meeting, crew.threads)
    _linear(linear, bias, layer, x, rows, inputs, out, crew.thread, crew.threads)
    if adapted:
        phase = await_others(crew.meeting, phase, crew.threads)
        lora_reduce(loras, which, layer, own, reduced)
        phase = wait_if(crew.shared, crew.meeting, phase, crew.threads)
        first, last = share(linear.blocks, crew.thread, crew.threads)
        place = out.ctypes.data + 4 * LANES * first
        lora_up(loras, which, layer, reduced, first, last - first, place, out.strides[0])
    return phase


@part
def _gated(
    shape: Shape, linear: Linear, bias: Floats, layer: int, rows: int, inputs: Inputs, scratch: Scratch, loras: Loras,
    reduced: Reduced, own: Span, crew: Crew, phase: int,
) -> int:  # fmt: skip
    """Gate and up, activated: the two halves of one product."""
    adapted, thread = len(loras.groups) > 0, crew.thread
    if adapted:
        lora_down(loras, GATE_UP, layer, linear.groups, inputs.normed, inputs.pairs, thread, crew.threads)
        phase = wait(crew.meeting, phase, crew.threads)
        lora_reduce(loras, GATE_UP, layer, own, reduced)
        phase = wait_if(crew.shared, crew.meeting, phase, crew.threads)
    half = linear.blocks // 2
    first, last = share(half, thread, shape.threads)
    most = max(1, ROOM // rows)
    for block in range(first, last, most):
        count = min(most, last - block)
        room = rows * count * LANES
        gate = scratch.block[thread, 0, :room].reshape(rows, count * LANES)
        up = scratch.block[thread, 1, :room].reshape(rows, count * LANES)
        _blocks(linear, bias, layer, block, count, inputs.normed, rows, inputs, gate)
        _blocks(linear, bias, layer, block + half, count, inputs.normed, rows, inputs, up)
        if adapted:
            lora_up(loras, GATE_UP, layer, reduced, block, count, gate.ctypes.data, gate.strides[0])
            lora_up(loras, GATE_UP, layer, reduced, block + half, count, up.ctypes.data, up.strides[0])
        for m in range(rows):
            out, here, there = scratch.h[m].ctypes.data, gate[m].ctypes.data, up[m].ctypes.data
            for n in range(count):
                at = 4 * LANES * n
                gated(shape.gelu, here + at, there + at, out + 4 * LANES * block + at)
    return phase


@part
def _rotate(x: Floats, batch: Batch, sliding: int, row: int, factor: Any, out: Floats) -> None:
    """The rotary embedding of a head at a row's position."""
    cos, sin = batch.cos[sliding, row], batch.sin[sliding, row]
    rotate(x.ctypes.data, cos.ctypes.data, sin.ctypes.data, len(x) // 2, factor, out.ctypes.data)


@part
def _keep(shape: Shape, x: int, out: int, stride: int) -> None:
    """16 numbers in the cache's format."""
    if shape.cached_pairs:
        store_bf16(x, out, stride)
    else:
        store_fp16(x, out, stride)


@part
def _store(
    shape: Shape, norms: Norms, layer: int, sliding: int, batch: Batch, scratch: Scratch, thread: int
) -> None:
    """Write this thread's share of new keys and values into the caches (`cache.PackedCache` has the layout)."""
    size, groups = shape.size, shape.kv_heads
    key, normed = scratch.head[thread]
    for s in range(len(batch.sequences)):
        first_row, rows, before, capacity, keys, values = batch.sequences[s]
        first, last = share(rows * groups, thread, shape.threads)
        for item in range(first, last):
            row, g = first_row + item // groups, item % groups
            position = before + item // groups
            start = (shape.heads + g) * size
            source = scratch.qkv[row, start : start + size]
            if len(norms.key):
                _norm(source, norms.key[layer], shape.eps, normed)
                source = normed
            _rotate(source, batch, sliding, row, np.float32(1.0), key)
            head = (layer * groups + g) * size * capacity
            key_at = head + position // LANES * LANES * size + position % LANES
            value = scratch.qkv[row, start + groups * size : start + groups * size + size]
            for n in range(0, size, LANES):
                value_at = head + n * capacity + position * LANES
                _keep(shape, key.ctypes.data + 4 * n, keys + 2 * (key_at + n * LANES), 2 * LANES)
                _keep(shape, value.ctypes.data + 4 * n, values + 2 * value_at, 2)


@part
def _tile_for(queries: int, kv_heads: int, threads: int) -> int:
    """How many queries read the same keys together: reading and widening a key costs about as much as two products."""
    best, least = 1, 1 << 60
    for tile in (1, 2, 4, TILE):  # as many as `simd.product` takes together
        items = kv_heads * ((queries + tile - 1) // tile)
        cost = (items + threads - 1) // threads * (2 + min(tile, queries))
        if cost < least:
            best, least = tile, cost
    return best


@part
def _attend(
    shape: Shape, norms: Norms, layer: int, sliding: int, batch: Batch, scratch: Scratch, thread: int
) -> None:
    """This thread's share of the attention: queries over the same keys in tiles, the tiles dealt out in turn."""
    group = shape.heads // shape.kv_heads
    turn = 0
    for s in range(len(batch.sequences)):
        queries = batch.sequences[s, 1] * group
        tile = _tile_for(queries, shape.kv_heads, shape.threads)
        for g in range(shape.kv_heads):
            for first in range(0, queries, tile):
                if turn % shape.threads == thread:
                    count = min(tile, queries - first)
                    _attend_tile(shape, norms, layer, sliding, batch, scratch, thread, s, g, first, count)
                turn += 1


@part
def _attend_tile(
    shape: Shape, norms: Norms, layer: int, sliding: int, batch: Batch, scratch: Scratch, thread: int, s: int, g: int,
    first: int, count: int,
) -> None:  # fmt: skip
    """``count`` queries of one conversation and one group of heads, counted row by row and head by head."""
    size, group = shape.size, shape.heads // shape.kv_heads
    first_row, _, before, capacity, keys, values = batch.sequences[s]
    query, scores = scratch.query[thread], scratch.scores[thread]
    packed_query, packed_scores = scratch.packed_query[thread], scratch.packed_scores[thread]
    normed, factors = scratch.head[thread]
    for n in range(count):
        row, head = first_row + (first + n) // group, g * group + (first + n) % group
        source = scratch.qkv[row, head * size : (head + 1) * size]
        if len(norms.query):
            _norm(source, norms.query[layer], shape.eps, normed)
            source = normed
        _rotate(source, batch, sliding, row, np.float32(shape.scaling), query[n])
        if shape.cached_pairs:
            pack_units(query[n].ctypes.data, size // LANES, packed_query[n].ctypes.data)
    queries, query_bytes = _either(shape, packed_query, query)
    weights, weight_bytes = _either(shape, packed_scores, scores)
    lowest = max(0, before + first // group - shape.window + 1) if sliding else 0
    start = lowest // LANES * LANES
    end = (before + (first + count - 1) // group) // LANES * LANES + LANES
    units = (end - start) // LANES
    base = (layer * shape.kv_heads + g) * size * capacity
    call_product(
        shape.cached, keys + 2 * (base + start * size), 2 * LANES, 2 * LANES * size, queries, query_bytes, 0, 0, 0, 0,
        0, size // LANES, units, count, scores.ctypes.data, 4 * scores.shape[1],
    )  # fmt: skip
    for n in range(count):
        position = before + (first + n) // group
        low = max(0, position - shape.window + 1) if sliding else 0
        scores[n, : low - start] = -np.inf
        scores[n, position + 1 - start : end - start] = -np.inf
        factors[n] = np.float32(1.0) / _softmax(shape, scores[n], units, packed_scores[n])
    attended = scratch.own_attended[thread]
    call_product(
        shape.cached, values + 2 * (base + start * LANES), 2 * LANES, 2 * LANES * capacity, weights, weight_bytes,
        0, 0, 0, 0, 0, units, size // LANES, count, attended.ctypes.data, 4 * size,
    )  # fmt: skip
    for n in range(count):
        row, head = first_row + (first + n) // group, g * group + (first + n) % group
        for d in range(size):
            scratch.attended[row, head * size + d] = attended[n, d] * factors[n]


@part
def _either(shape: Shape, pairs: Ints32, numbers: Floats) -> tuple[int, int]:
    """Address and row stride of inputs for `Shape.cached`."""
    if shape.cached_pairs:
        return pairs.ctypes.data, 4 * pairs.shape[1]
    return numbers.ctypes.data, 4 * numbers.shape[1]


@part
def _softmax(shape: Shape, scores: Floats, units: int, pairs: Ints32) -> Any:
    """Softmax without its division: exponentials in place, or as pairs; returns their sum."""
    address = scores.ctypes.data
    best = largest(address, units)
    if shape.cached_pairs:
        return exponential_pairs(address, units, best, pairs.ctypes.data)
    return exponentials(address, units, best, address)


class Linears(NamedTuple):
    """The linears of a model, and their biases, (layers, outputs), no rows without."""

    qkv: Linear
    qkv_bias: Floats
    out: Linear
    out_bias: Floats
    gate_up: Linear
    gate_up_bias: Floats
    down: Linear
    down_bias: Floats
    head: Linear
    head_bias: Floats


@compiled
def forward(
    thread: int, shape: Shape, linears: Linears, norms: Norms, sliding: Ints, batch: Batch, loras: Loras,
    scratch: Scratch, meeting: Ints, phase: int,
) -> int:  # fmt: skip
    """Append every row to its conversation and write the logits of the wanted rows; all threads call it at once.

    Args:
        thread: Which of ``shape.threads`` this is.
        sliding: 1 for every layer that sees ``shape.window`` tokens only, else 0.
        meeting: The barrier: one number, shared.
        phase: What the call before returned; 0 at first.
    """
    count, threads = len(batch.x), shape.threads
    shared = count > len(scratch.own[0].x)
    if shared:
        inputs, x, rows = scratch.together, batch.x, share(count, thread, threads)
    else:  # a few rows are prepared by everybody: to hand them over takes longer
        inputs, rows = scratch.own[thread], (0, count)
        x = inputs.x
        x[:count] = batch.x
    crew = Crew(thread, threads, shared, meeting)
    reduced = Reduced(loras.together, loras.together_pairs)
    if not shared:
        reduced = Reduced(loras.own[thread], loras.own_pairs[thread])
    for layer in range(shape.layers):
        if layer:
            _settle(shape, x, rows, scratch.y, norms.after_mlp, layer - 1, inputs)
        _enter(shape, linears.qkv, x, rows, norms.before_attention[layer], inputs)
        phase = wait_if(shared, meeting, phase, threads)
        phase = _adapted(
            linears.qkv, linears.qkv_bias, QKV, layer, inputs.normed, count, inputs, scratch.qkv, loras, reduced, rows,
            crew, phase,
        )  # fmt: skip
        phase = wait(meeting, phase, threads)
        _store(shape, norms, layer, sliding[layer], batch, scratch, thread)
        phase = wait(meeting, phase, threads)
        _attend(shape, norms, layer, sliding[layer], batch, scratch, thread)
        phase = wait(meeting, phase, threads)
        _pack(linears.out, scratch.attended, rows, inputs)
        phase = wait_if(shared, meeting, phase, threads)
        phase = _adapted(
            linears.out, linears.out_bias, OUT, layer, scratch.attended, count, inputs, scratch.y, loras, reduced, rows,
            crew, phase,
        )  # fmt: skip
        phase = wait(meeting, phase, threads)
        _settle(shape, x, rows, scratch.y, norms.after_attention, layer, inputs)
        _enter(shape, linears.gate_up, x, rows, norms.before_mlp[layer], inputs)
        phase = wait_if(shared, meeting, phase, threads)
        phase = _gated(
            shape, linears.gate_up, linears.gate_up_bias, layer, count, inputs, scratch, loras, reduced, rows, crew,
            phase,
        )  # fmt: skip
        phase = wait(meeting, phase, threads)
        _pack(linears.down, scratch.h, rows, inputs)
        phase = wait_if(shared, meeting, phase, threads)
        phase = _adapted(
            linears.down, linears.down_bias, DOWN, layer, scratch.h, count, inputs, scratch.y, loras, reduced, rows,
            crew, phase,
        )  # fmt: skip
        phase = wait(meeting, phase, threads)
    _settle(shape, x, rows, scratch.y, norms.after_mlp, shape.layers - 1, inputs)
    phase = wait_if(shared, meeting, phase, threads)
    wanted = len(batch.wanted)
    ends = share(wanted, thread, threads) if shared else (0, wanted)
    for n in range(ends[0], ends[1]):
        _norm(x[batch.wanted[n]], norms.final[0], shape.eps, inputs.normed[n])
    _pack(linears.head, inputs.normed, ends, inputs)
    phase = wait_if(shared, meeting, phase, threads)
    _linear(linears.head, linears.head_bias, 0, inputs.normed, wanted, inputs, batch.logits, thread, threads)
    return wait(meeting, phase, threads)


@compiled
def multiply(
    thread: int, threads: int, linear: Linear, bias: Floats, layer: int, x: Floats, inputs: Inputs, out: Floats,
    meeting: Ints,
) -> int:  # fmt: skip
    """One linear alone: ``out`` (rows, outputs) from ``x`` (rows, inputs)."""
    _pack(linear, x, share(len(x), thread, threads), inputs)
    phase = wait(meeting, 0, threads)
    _linear(linear, bias, layer, x, len(x), inputs, out, thread, threads)
    return phase
