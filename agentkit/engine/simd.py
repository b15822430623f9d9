"""Vector code for the CPU: products of a few rows with packed weights, in LLVM's portable vectors.

numba compiles the loops around these intrinsics; what they emit is fixed here, because compilers do not find it by
themselves. One output vector holds 16 neighbouring outputs, so no sum ever runs across a register, and every output
is summed in the same order whatever the number of rows: a token's result does not depend on which others are
computed with it. AVX-512, AVX2 and NEON come out of the same text.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import types
from numba.core import cgutils

from agentkit.engine.compiled import compiled_address, intrinsic

Kind = Literal["int4", "int8", "bfloat16", "float16", "float32"]
LANES = 16
"""Outputs of one vector."""
GROUP = 32
"""Inputs that share a scale under int8 and int4; the widths of weights are multiples of it."""
_CHAINS = 2
"""Sums that run beside each other to hide the latency of an addition."""
_MOST = 8 if get_host_cpu_features().get("avx512f") else 4
"""Rows that share a weight once it is widened: their sums must fit into the processor's vector registers."""

_F32, _I8, _I16, _I32, _I64 = ir.FloatType(), ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)
_HALF = ir.HalfType()
_FUSED = ("contract",)
_ADDRESS = types.int64


def _vector(element: ir.Type) -> ir.VectorType:
    return ir.VectorType(element, LANES)


class _Emitter:
    """A few words of vector code over an llvmlite builder."""

    def __init__(self, builder: Any) -> None:
        self.b = builder

    def constant(self, value: int) -> ir.Constant:
        return ir.Constant(_I64, value)

    def at(self, address: Any, offset: Any) -> Any:
        return self.b.add(address, self.constant(offset) if isinstance(offset, int) else offset)

    def load(self, kind: ir.Type, address: Any, align: int) -> Any:
        return self.b.load(self.b.inttoptr(address, kind.as_pointer()), align=align)

    def store(self, value: Any, address: Any, align: int = 4) -> None:
        self.b.store(value, self.b.inttoptr(address, value.type.as_pointer()), align=align)

    def splat(self, value: Any) -> Any:
        empty = ir.Constant(_vector(value.type), ir.Undefined)
        first = self.b.insert_element(empty, value, ir.Constant(_I32, 0))
        return self.b.shuffle_vector(first, empty, ir.Constant(_vector(_I32), [0] * LANES))

    def fma(self, x: Any, y: Any, z: Any) -> Any:
        return self.b.fadd(self.b.fmul(x, y, flags=_FUSED), z, flags=_FUSED)

    def integers(self, value: int) -> ir.Constant:
        return ir.Constant(_vector(_I32), [value] * LANES)

    def float16(self, address: Any) -> Any:
        """16 fp16 numbers as float32."""
        return self.b.fpext(self.load(_vector(_HALF), address, 2), _vector(_F32))

    def row(self, kind: Kind, address: Any) -> list[Any]:
        """The weights at an address as float32 vectors: one, or two of int4."""
        b, numbers = self.b, _vector(_F32)
        if kind == "bfloat16":  # they are float32's upper halves
            halves = b.zext(self.load(_vector(_I16), address, 2), _vector(_I32))
            return [b.bitcast(b.shl(halves, self.integers(16)), numbers)]
        if kind == "float16":
            return [self.float16(address)]
        if kind == "float32":
            return [self.load(numbers, address, 4)]
        raw = self.load(_vector(_I8), address, 1)
        if kind == "int8":
            return [b.sitofp(b.sext(raw, _vector(_I32)), numbers)]
        wide = b.zext(raw, _vector(_I32))
        low, high = b.and_(wide, self.integers(15)), b.lshr(wide, self.integers(4))
        return [b.sitofp(low, numbers), b.sitofp(high, numbers)]


def _tile(kind: Kind, rows: int, unit: int) -> Any:
    """An intrinsic: ``rows`` rows of x times one block of 16 outputs, ``unit`` inputs at a time."""
    steps = unit // 2 if kind == "int4" else unit

    @intrinsic
    def tile(
        typing: Any, w: Any, stride: Any, x: Any, x_stride: Any, scale: Any, zero: Any, sums: Any,
        sums_stride: Any, groups: Any, out: Any, out_stride: Any,
    ) -> Any:  # fmt: skip
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            w, stride, x, x_stride, scale, zero, sums, sums_stride, groups, out, out_stride = args
            e = _Emitter(builder)
            nothing = ir.Constant(_vector(_F32), [0.0] * LANES)
            totals = [cgutils.alloca_once_value(builder, nothing) for _ in range(rows)]
            inputs = [e.at(x, builder.mul(x_stride, e.constant(m))) for m in range(rows)]
            with cgutils.for_range(builder, groups) as loop:
                weights = e.at(w, builder.mul(builder.mul(loop.index, e.constant(steps)), stride))
                offset = builder.mul(loop.index, e.constant(4 * unit))
                starts = [e.at(address, offset) for address in inputs]
                chains: list[list[Any]] = [[None] * _CHAINS for _ in range(rows)]
                for step in range(steps):
                    vectors = e.row(kind, e.at(weights, builder.mul(stride, e.constant(step))))
                    for n, weight in enumerate(vectors):
                        column = step + n * steps  # the high halves of int4 are the second half of the group
                        for m in range(rows):
                            value = e.splat(e.load(_F32, e.at(starts[m], 4 * column), 4))
                            before = chains[m][step % _CHAINS]
                            chains[m][step % _CHAINS] = (
                                builder.fmul(weight, value)
                                if before is None
                                else e.fma(weight, value, before)
                            )
                group = builder.mul(loop.index, e.constant(2 * LANES))
                scales = e.float16(e.at(scale, group)) if kind in ("int4", "int8") else None
                for m, whole in enumerate(totals):
                    part, before = builder.fadd(*chains[m]), builder.load(whole)
                    after = builder.fadd(before, part) if scales is None else e.fma(scales, part, before)
                    if kind == "int4":
                        place = e.at(
                            builder.mul(sums_stride, e.constant(m)), builder.mul(loop.index, e.constant(4))
                        )
                        level = e.splat(e.load(_F32, e.at(sums, place), 4))
                        after = e.fma(e.float16(e.at(zero, group)), level, after)
                    builder.store(after, whole)
            for m, whole in enumerate(totals):
                e.store(builder.load(whole), e.at(out, builder.mul(out_stride, e.constant(m))))
            return context.get_dummy_value()

        return types.void(*[_ADDRESS] * 11), emit

    return tile


_PRODUCT = types.void(*[_ADDRESS] * 12)


@cache
def product(kind: Kind, unit: int = GROUP) -> int:
    """The address of a compiled function: any number of rows times one block of 16 outputs.

    Its arguments are addresses and strides in bytes: the weights and the distance of their rows, the inputs
    (float32), the block's scales (int8 and int4) and zero points (int4), the sums of every group of inputs (int4),
    the number of groups, the number of rows, and where the outputs go (float32). `call_product` calls it.
    """
    one, two, four, most = (_tile(kind, rows, unit) for rows in (1, 2, 4, _MOST))
    many = _MOST

    def run(
        w: int, stride: int, x: int, x_stride: int, scale: int, zero: int, sums: int, sums_stride: int,
        groups: int, rows: int, out: int, out_stride: int,
    ) -> None:  # fmt: skip
        m = 0
        while rows - m >= many:
            most(w, stride, x + m * x_stride, x_stride, scale, zero, sums + m * sums_stride, sums_stride, groups,
                 out + m * out_stride, out_stride)  # fmt: skip
            m += many
        while rows - m >= 4:
            four(w, stride, x + m * x_stride, x_stride, scale, zero, sums + m * sums_stride, sums_stride, groups,
                 out + m * out_stride, out_stride)  # fmt: skip
            m += 4
        if rows - m >= 2:
            two(w, stride, x + m * x_stride, x_stride, scale, zero, sums + m * sums_stride, sums_stride, groups,
                out + m * out_stride, out_stride)  # fmt: skip
            m += 2
        if rows - m >= 1:
            one(w, stride, x + m * x_stride, x_stride, scale, zero, sums + m * sums_stride, sums_stride, groups,
                out + m * out_stride, out_stride)  # fmt: skip

    return compiled_address(run, _PRODUCT, f"{kind}_{unit}")


@intrinsic
def call_product(
    typing: Any, function: Any, w: Any, stride: Any, x: Any, x_stride: Any, scale: Any, zero: Any, sums: Any,
    sums_stride: Any, groups: Any, rows: Any, out: Any, out_stride: Any,
) -> Any:  # fmt: skip
    """Call a `product` by its address: linked in, it would be compiled again with every function that uses it."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [_I64] * 12)
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(*[_ADDRESS] * 13), emit


@intrinsic
def dot(typing: Any, a: Any, b: Any, vectors: Any) -> Any:
    """The dot product of two float32 arrays of ``vectors`` times 16 numbers."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        a, b, vectors = args
        e = _Emitter(builder)
        whole = cgutils.alloca_once_value(builder, ir.Constant(_vector(_F32), [0.0] * LANES))
        with cgutils.for_range(builder, vectors) as loop:
            offset = builder.mul(loop.index, e.constant(4 * LANES))
            x, y = (e.load(_vector(_F32), e.at(base, offset), 4) for base in (a, b))
            builder.store(e.fma(x, y, builder.load(whole)), whole)
        return _across(builder, builder.load(whole))

    return types.float32(_ADDRESS, _ADDRESS, _ADDRESS), emit


@intrinsic
def total(typing: Any, address: Any, vectors: Any) -> Any:
    """The sum of ``vectors`` times 16 float32 numbers; zeros in front or behind change nothing."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address, vectors = args
        e = _Emitter(builder)
        whole = cgutils.alloca_once_value(builder, ir.Constant(_vector(_F32), [0.0] * LANES))
        with cgutils.for_range(builder, vectors) as loop:
            part = e.load(_vector(_F32), e.at(address, builder.mul(loop.index, e.constant(4 * LANES))), 4)
            builder.store(builder.fadd(builder.load(whole), part), whole)
        return _across(builder, builder.load(whole))

    return types.float32(_ADDRESS, _ADDRESS), emit


def _across(builder: Any, vector: Any) -> Any:
    """The sum of a vector's numbers, halves upon halves."""
    width = LANES
    while width > 1:
        width //= 2
        lanes = [(n + width) % LANES for n in range(LANES)]
        vector = builder.fadd(
            vector,
            builder.shuffle_vector(
                vector, ir.Constant(vector.type, ir.Undefined), ir.Constant(_vector(_I32), lanes)
            ),
        )
    return builder.extract_element(vector, ir.Constant(_I32, 0))


@intrinsic
def store_half(typing: Any, address: Any, value: Any) -> Any:
    """Write a float32 as float16."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _Emitter(builder).store(builder.fptrunc(args[1], _HALF), args[0], 2)
        return context.get_dummy_value()

    return types.void(_ADDRESS, types.float32), emit


@intrinsic
def power_of_two(typing: Any, exponent: Any) -> Any:
    """2 to the power of a whole float32 in [-126, 127]."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        whole = builder.fptosi(args[0], _I32)
        bits = builder.shl(builder.add(whole, ir.Constant(_I32, 127)), ir.Constant(_I32, 23))
        return builder.bitcast(bits, _F32)

    return types.float32(types.float32), emit


@intrinsic
def atomic_increment(typing: Any, address: Any) -> Any:
    """Add one to an int64 that threads share."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], _I64.as_pointer())
        builder.atomic_rmw("add", pointer, ir.Constant(_I64, 1), "seq_cst")
        return context.get_dummy_value()

    return types.void(_ADDRESS), emit


@intrinsic
def atomic_read(typing: Any, address: Any) -> Any:
    """Read an int64 that threads share."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], _I64.as_pointer())
        return builder.load_atomic(pointer, "seq_cst", 8)

    return types.int64(_ADDRESS), emit


@intrinsic
def give_way(typing: Any) -> Any:
    """Let another thread have the core: the C library's ``sched_yield``."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(_I32, [])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), emit
