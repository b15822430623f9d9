"""Vector code for the CPU: products of a few rows with packed weights, in LLVM's portable vectors.

numba compiles the loops around these intrinsics; what they emit is fixed here, because compilers do not find it by
themselves. One output vector holds 16 neighbouring outputs, so no sum ever runs across a register, and every output
is summed in the same order whatever the number of rows: a token's result does not depend on which others are
computed with it. AVX-512, AVX2 and NEON come out of the same text.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, reduce
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
_PAIRS = bool(get_host_cpu_features().get("avx512bf16"))
"""Whether the processor multiplies pairs of bf16: twice as many products at once, of inputs rounded to bf16."""
_WIDE = bool(get_host_cpu_features().get("avx512f"))
_CHAINS, MOST_ROWS = (1, 12) if _PAIRS else (2, 8) if _WIDE else (2, 4)
"""Sums of a row that run beside each other to hide the latency of an addition, and the rows that share a weight once it
is widened: together they must fit into the processor's vector registers."""

_F32, _I8, _I16, _I32, _I64 = ir.FloatType(), ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)
_HALF = ir.HalfType()
_HALF_MAX = 65_504.0
_EXP = (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
"""Coefficients of the polynomial of Cephes' expf, but for the first."""


class _BFloat(ir.Type):  # type: ignore[misc]  # llvmlite is untyped
    """bf16, which llvmlite does not know by name."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


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

    def numbers(self, value: float) -> ir.Constant:
        return ir.Constant(_vector(_F32), [value] * LANES)

    def exp(self, x: Any) -> Any:
        """e to the x for x <= 0, to a unit in the last place or two (Cephes' expf); zero under -87."""
        b = self.b
        floor = cgutils.get_or_insert_function(
            b.module, ir.FunctionType(x.type, [x.type]), "llvm.floor.v16f32"
        )
        n = b.call(floor, [self.fma(x, self.numbers(1.44269504088896341), self.numbers(0.5))])
        r = self.fma(n, self.numbers(2.12194440e-4), self.fma(n, self.numbers(-0.693359375), x))
        y = self.numbers(1.9875691500e-4)
        for factor in _EXP:
            y = self.fma(y, r, self.numbers(factor))
        y = self.fma(b.fmul(y, r), r, b.fadd(r, self.numbers(1.0)))
        power = b.shl(b.add(b.fptosi(n, _vector(_I32)), self.integers(127)), self.integers(23))
        in_range = b.fcmp_ordered(">", x, self.numbers(-87.0))
        return b.select(in_range, b.fmul(y, b.bitcast(power, x.type)), self.numbers(0.0))

    def pairs(self, kind: Kind, address: Any, second: Any) -> Any:
        """Two rows of weights as pairs of bf16, 16 times; of int4 both lie at the first address, 128 added to each."""
        b, wide = self.b, _vector(_I32)
        if kind == "bfloat16":
            low, high = (b.zext(self.load(_vector(_I16), place, 2), wide) for place in (address, second))
            return b.or_(low, b.shl(high, self.integers(16)))
        if kind == "int8":
            low, high = (
                b.bitcast(b.sitofp(b.sext(self.load(_vector(_I8), place, 1), wide), _vector(_F32)), wide)
                for place in (address, second)
            )
            return b.or_(b.lshr(low, self.integers(16)), b.and_(high, self.integers(-65_536)))
        raw = b.zext(self.load(_vector(_I8), address, 1), wide)
        high = b.and_(b.shl(raw, self.integers(12)), self.integers(0xF0000))
        # 0x4300 is 128 in bf16, and numbers up to 255 follow it one by one.
        return b.or_(b.or_(b.and_(raw, self.integers(15)), high), self.integers(0x43004300))

    def pair_products(self, weights: Any, inputs: Any, before: Any) -> Any:
        """AVX-512's dot product of bf16 pairs, added to float32 sums."""
        operands = ir.VectorType(_BFloat(), 2 * LANES)
        kind = ir.FunctionType(_vector(_F32), [_vector(_F32), operands, operands])
        name = "llvm.x86.avx512bf16.dpbf16ps.512"
        function = cgutils.get_or_insert_function(self.b.module, kind, name)
        return self.b.call(
            function, [before, self.b.bitcast(weights, operands), self.b.bitcast(inputs, operands)]
        )

    def rounded(self, numbers: Any) -> Any:
        """16 float32 numbers as bf16, each in a word: to the nearest, ties to even, without an instruction for it."""
        b, bits = self.b, self.b.bitcast(numbers, _vector(_I32))
        odd = b.and_(b.lshr(bits, self.integers(16)), self.integers(1))
        return b.lshr(b.add(bits, b.add(odd, self.integers(0x7FFF))), self.integers(16))

    def store_unit(self, numbers: Any, address: Any) -> Any:
        """Write 16 numbers as bf16 in pairs of the n-th and the n-th after the middle; returns them as rounded."""
        b, half = self.b, LANES // 2
        words, kind = self.rounded(numbers), ir.VectorType(_I32, half)
        low, high = (
            b.shuffle_vector(words, words, ir.Constant(kind, list(range(start, start + half))))
            for start in (0, half)
        )
        self.store(b.or_(low, b.shl(high, ir.Constant(kind, [16] * half))), address)
        return b.bitcast(b.shl(words, self.integers(16)), _vector(_F32))

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


def takes_pairs(kind: Kind) -> bool:
    """Whether the products of a format take their inputs as `pack_group` leaves them."""
    return _PAIRS and kind in ("int4", "int8", "bfloat16")


def _tile(kind: Kind, rows: int, unit: int, adds: bool) -> Any:
    """An intrinsic: ``rows`` rows of x times one block of 16 outputs, ``unit`` inputs at a time."""
    by_pairs = takes_pairs(kind)
    nothing = ir.Constant(_vector(_F32), [0.0] * LANES)

    def part(e: _Emitter, weights: Any, stride: Any, starts: list[Any]) -> list[Any]:
        """The products of one group, summed, for every row."""
        b = e.b
        chains: list[list[Any]] = [[nothing] * _CHAINS for _ in range(rows)]
        half = unit // 2
        for step in range(half):
            chain = step % _CHAINS
            here = e.at(weights, b.mul(stride, e.constant(step)))
            there = e.at(weights, b.mul(stride, e.constant(step + half)))
            if by_pairs:
                pairs = e.pairs(kind, here, there)
                for m in range(rows):
                    value = e.splat(e.load(_I32, e.at(starts[m], 4 * step), 4))
                    chains[m][chain] = e.pair_products(pairs, value, chains[m][chain])
                continue
            vectors = e.row(kind, here) if kind == "int4" else e.row(kind, here) + e.row(kind, there)
            for weight, column in zip(vectors, (step, step + half), strict=True):
                for m in range(rows):
                    value = e.splat(e.load(_F32, e.at(starts[m], 4 * column), 4))
                    chains[m][chain] = e.fma(weight, value, chains[m][chain])
        return [reduce(b.fadd, sums) for sums in chains]

    @intrinsic
    def tile(
        typing: Any, w: Any, stride: Any, x: Any, x_stride: Any, scale: Any, zero: Any, sums: Any,
        sums_stride: Any, groups: Any, out: Any, out_stride: Any,
    ) -> Any:  # fmt: skip
        def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
            w, stride, x, x_stride, scale, zero, sums, sums_stride, groups, out, out_stride = args
            e = _Emitter(b)
            places = [e.at(out, b.mul(out_stride, e.constant(m))) for m in range(rows)]
            totals = [
                cgutils.alloca_once_value(b, e.load(_vector(_F32), place, 4) if adds else nothing)
                for place in places
            ]
            inputs = [e.at(x, b.mul(x_stride, e.constant(m))) for m in range(rows)]
            with cgutils.for_range(b, groups) as loop:
                steps = unit // 2 if kind == "int4" else unit
                weights = e.at(w, b.mul(b.mul(loop.index, e.constant(steps)), stride))
                offset = b.mul(loop.index, e.constant(2 * unit if by_pairs else 4 * unit))
                parts = part(e, weights, stride, [e.at(address, offset) for address in inputs])
                group = b.mul(loop.index, e.constant(2 * LANES))
                scales = e.float16(e.at(scale, group)) if kind in ("int4", "int8") else None
                zeros = e.float16(e.at(zero, group)) if kind == "int4" else None
                if kind == "int4" and by_pairs:
                    zeros = e.fma(scales, ir.Constant(_vector(_F32), [-128.0] * LANES), zeros)
                for m, whole in enumerate(totals):
                    before = b.load(whole)
                    after = b.fadd(before, parts[m]) if scales is None else e.fma(scales, parts[m], before)
                    if zeros is not None:
                        place = e.at(b.mul(sums_stride, e.constant(m)), b.mul(loop.index, e.constant(4)))
                        after = e.fma(zeros, e.splat(e.load(_F32, e.at(sums, place), 4)), after)
                    b.store(after, whole)
            for place, whole in zip(places, totals, strict=True):
                e.store(b.load(whole), place)
            return context.get_dummy_value()

        return types.void(*[_ADDRESS] * 11), emit

    return tile


@intrinsic
def pack_group(typing: Any, x: Any, out: Any) -> Any:
    """Round a `GROUP` of float32 inputs to bf16, in pairs of the n-th and the n-th after the middle; their sum."""

    def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
        x, out = args
        e = _Emitter(b)
        words = []
        for n in range(0, GROUP, LANES):
            words.append(e.rounded(e.load(_vector(_F32), e.at(x, 4 * n), 4)))
        high = b.shl(words[1], e.integers(16))
        e.store(b.or_(words[0], high), out)
        numbers = [b.bitcast(part, _vector(_F32)) for part in (b.shl(words[0], e.integers(16)), high)]
        return _across(b, b.fadd(*numbers))

    return types.float32(_ADDRESS, _ADDRESS), emit


@intrinsic
def pack_units(typing: Any, x: Any, units: Any, out: Any) -> Any:
    """What `pack_group` does, for ``units`` times 16 numbers, 16 at a time: queries for the cached keys."""

    def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
        x, units, out = args
        e = _Emitter(b)
        with cgutils.for_range(b, units) as loop:
            numbers = e.load(_vector(_F32), e.at(x, b.mul(loop.index, e.constant(4 * LANES))), 4)
            e.store_unit(numbers, e.at(out, b.mul(loop.index, e.constant(2 * LANES))))
        return context.get_dummy_value()

    return types.void(_ADDRESS, _ADDRESS, _ADDRESS), emit


_PRODUCT = types.void(*[_ADDRESS] * 15)


@cache
def product(kind: Kind, unit: int = GROUP, *, adds: bool = False) -> int:
    """The address of a compiled function: any number of rows times neighbouring blocks of 16 outputs.

    With ``adds`` it adds to what stands where the outputs go.

    Its arguments are addresses and strides in bytes: the weights, the distance of their rows and of the blocks, the
    inputs (float32, or packed), the scales (int8 and int4), the zero points (int4) and the distance of both between
    blocks, the sums of every group of inputs (int4), the number of groups, of blocks and of rows, and where the
    outputs go (float32), block by block. `call_product` calls it.
    """
    one, two, four, most = (_tile(kind, rows, unit, adds) for rows in (1, 2, 4, MOST_ROWS))
    many = MOST_ROWS

    def run(
        w: int, stride: int, w_step: int, x: int, x_stride: int, scale: int, zero: int, scale_step: int, sums: int,
        sums_stride: int, groups: int, blocks: int, rows: int, out: int, out_stride: int,
    ) -> None:  # fmt: skip
        for _ in range(blocks):
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
            w, scale, zero, out = w + w_step, scale + scale_step, zero + scale_step, out + 4 * LANES

    return compiled_address(run, _PRODUCT, f"{kind}_{unit}{'_add' * adds}")


@intrinsic
def call_product(
    typing: Any, function: Any, w: Any, stride: Any, w_step: Any, x: Any, x_stride: Any, scale: Any, zero: Any,
    scale_step: Any, sums: Any, sums_stride: Any, groups: Any, blocks: Any, rows: Any, out: Any, out_stride: Any,
) -> Any:  # fmt: skip
    """Call a `product` by its address: linked in, it would be compiled again with every function that uses it."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [_I64] * 15)
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(*[_ADDRESS] * 16), emit


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


def _across(b: Any, vector: Any, combine: Any = None) -> Any:
    """The sum of a vector's numbers, halves upon halves, or what ``combine`` makes of them."""
    width = LANES
    while width > 1:
        width //= 2
        lanes = ir.Constant(_vector(_I32), [(n + width) % LANES for n in range(LANES)])
        other = b.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), lanes)
        vector = b.fadd(vector, other) if combine is None else combine(vector, other)
    return b.extract_element(vector, ir.Constant(_I32, 0))


def _each_vector(e: _Emitter, vectors: Any, step: Any) -> None:
    """Call ``step`` with the byte offset of each vector of 16 float32 numbers."""
    with cgutils.for_range(e.b, vectors) as loop:
        step(e.b.mul(loop.index, e.constant(4 * LANES)))


@intrinsic
def add(typing: Any, x: Any, y: Any, vectors: Any) -> Any:
    """Add ``vectors`` times 16 numbers at y to those at x."""

    def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
        x, y, vectors = args
        e = _Emitter(b)

        def step(offset: Any) -> None:
            here, there = (e.load(_vector(_F32), e.at(place, offset), 4) for place in (x, y))
            e.store(b.fadd(here, there), e.at(x, offset))

        _each_vector(e, vectors, step)
        return context.get_dummy_value()

    return types.void(_ADDRESS, _ADDRESS, _ADDRESS), emit


@intrinsic
def scaled(typing: Any, x: Any, factor: Any, weights: Any, vectors: Any, out: Any) -> Any:
    """Write ``vectors`` times 16 numbers, each times ``factor`` and its weight."""

    def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
        x, factor, weights, vectors, out = args
        e = _Emitter(b)
        factors = e.splat(factor)

        def step(offset: Any) -> None:
            number, weight = (e.load(_vector(_F32), e.at(place, offset), 4) for place in (x, weights))
            e.store(b.fmul(b.fmul(number, factors), weight), e.at(out, offset))

        _each_vector(e, vectors, step)
        return context.get_dummy_value()

    return types.void(_ADDRESS, types.float32, _ADDRESS, _ADDRESS, _ADDRESS), emit


@intrinsic
def largest(typing: Any, address: Any, vectors: Any) -> Any:
    """The largest of ``vectors`` times 16 numbers."""

    def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
        address, vectors = args
        e = _Emitter(b)
        best = cgutils.alloca_once_value(b, e.numbers(float("-inf")))

        def step(offset: Any) -> None:
            before, x = b.load(best), e.load(_vector(_F32), e.at(address, offset), 4)
            b.store(b.select(b.fcmp_ordered(">", x, before), x, before), best)

        _each_vector(e, vectors, step)
        return _across(b, b.load(best), lambda x, y: b.select(b.fcmp_ordered(">", x, y), x, y))

    return types.float32(_ADDRESS, _ADDRESS), emit


@intrinsic
def rotate(typing: Any, x: Any, cos: Any, sin: Any, half: Any, factor: Any, out: Any) -> Any:
    """Rotary embedding (arXiv:2104.09864) of one head of twice ``half`` numbers, times ``factor``.

    ``half`` is a multiple of 8; the first half of the sines is negated.
    """

    def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
        x, cos, sin, half, factor, out = args
        e, kind = _Emitter(b), ir.VectorType(_F32, LANES // 2)
        lanes = ir.Constant(ir.VectorType(_I32, LANES // 2), list(range(LANES // 2)))
        factors = b.shuffle_vector(e.splat(factor), e.numbers(0.0), lanes)
        middle = b.mul(half, e.constant(4))
        with cgutils.for_range(b, b.sdiv(half, e.constant(LANES // 2))) as loop:
            first = b.mul(loop.index, e.constant(2 * LANES))
            second = b.add(first, middle)
            for here, there in ((first, second), (second, first)):
                turned, swapped, c, s = (
                    e.load(kind, e.at(*pair), 4) for pair in ((x, here), (x, there), (cos, here), (sin, here))
                )
                e.store(b.fmul(b.fadd(b.fmul(turned, c), b.fmul(swapped, s)), factors), e.at(out, here))
        return context.get_dummy_value()

    return types.void(_ADDRESS, _ADDRESS, _ADDRESS, _ADDRESS, types.float32, _ADDRESS), emit


def _store(rounded: Callable[[_Emitter, Any], Any]) -> Any:
    """An intrinsic: write 16 numbers as 16 bits each, each ``stride`` bytes after the one before."""

    @intrinsic
    def store(typing: Any, x: Any, out: Any, stride: Any) -> Any:
        def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
            x, out, stride = args
            e = _Emitter(b)
            halves = rounded(e, x)
            for lane in range(LANES):
                half = b.extract_element(halves, ir.Constant(_I32, lane))
                e.store(half, e.at(out, b.mul(stride, e.constant(lane))), 2)
            return context.get_dummy_value()

        return types.void(_ADDRESS, _ADDRESS, _ADDRESS), emit

    return store


def _fp16(e: _Emitter, x: Any) -> Any:
    """What is too large becomes the largest number."""
    b, numbers = e.b, e.load(_vector(_F32), x, 4)
    for sign in (">", "<"):
        bound = e.numbers(_HALF_MAX if sign == ">" else -_HALF_MAX)
        numbers = b.select(b.fcmp_ordered(sign, numbers, bound), bound, numbers)
    return b.fptrunc(numbers, _vector(_HALF))


store_fp16 = _store(_fp16)
store_bf16 = _store(lambda e, x: e.b.trunc(e.rounded(e.load(_vector(_F32), x, 4)), _vector(_I16)))


def _exponentials(keep: Callable[[_Emitter, Any, Any, Any], Any]) -> Any:
    """An intrinsic: write exp(x - best) of ``vectors`` times 16 numbers as ``keep`` does; returns the sum."""

    @intrinsic
    def exponentials(typing: Any, x: Any, vectors: Any, best: Any, out: Any) -> Any:
        def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
            x, vectors, best, out = args
            e = _Emitter(b)
            whole = cgutils.alloca_once_value(b, e.numbers(0.0))
            with cgutils.for_range(b, vectors) as loop:
                place = e.at(x, b.mul(loop.index, e.constant(4 * LANES)))
                y = e.exp(b.fsub(e.load(_vector(_F32), place, 4), e.splat(best)))
                b.store(b.fadd(b.load(whole), keep(e, y, out, loop.index)), whole)
            return _across(b, b.load(whole))

        return types.float32(_ADDRESS, _ADDRESS, types.float32, _ADDRESS), emit

    return exponentials


def _keep_numbers(e: _Emitter, y: Any, out: Any, index: Any) -> Any:
    e.store(y, e.at(out, e.b.mul(index, e.constant(4 * LANES))))
    return y


def _keep_pairs(e: _Emitter, y: Any, out: Any, index: Any) -> Any:
    return e.store_unit(y, e.at(out, e.b.mul(index, e.constant(2 * LANES))))


exponentials = _exponentials(_keep_numbers)
exponential_pairs = _exponentials(_keep_pairs)


@intrinsic
def gated(typing: Any, gelu: Any, gate: Any, up: Any, out: Any) -> Any:
    """16 outputs of an MLP's first half: up times SiLU of gate, or its GELU in the tanh form.

    Both are gate times a sigmoid: of gate itself, or of 2 sqrt(2 / pi) (gate + 0.044715 gate^3).
    """

    def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
        gelu, gate, up, out = args
        e = _Emitter(b)
        g = e.load(_vector(_F32), gate, 4)
        cubic = b.fmul(e.fma(b.fmul(g, g), e.numbers(0.044715), e.numbers(1.0)), g)
        z = b.select(
            b.icmp_signed("!=", gelu, e.constant(0)), b.fmul(cubic, e.numbers(1.5957691216057308)), g
        )
        positive = b.fcmp_ordered(">=", z, e.numbers(0.0))
        small = e.exp(b.select(positive, b.fneg(z), z))
        sigmoid = b.fdiv(b.select(positive, e.numbers(1.0), small), b.fadd(small, e.numbers(1.0)))
        e.store(b.fmul(b.fmul(g, sigmoid), e.load(_vector(_F32), up, 4)), out)
        return context.get_dummy_value()

    return types.void(types.int64, _ADDRESS, _ADDRESS, _ADDRESS), emit


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
