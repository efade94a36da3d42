"""Vectors of 16 numbers inside of numba kernels: `Lanes` of floats and `Mask`s, with operators.

What a loop over 16 pixels would be, written so that it does not depend on whether a compiler finds it out:

    x = steps(like) + left                # left, left + 1, ... left + 15
    y = where(x < limit, exp2(x), x)      # numbers are spread over all lanes
    store(y, out, offset)                 # 16 elements of a contiguous array, from its element `offset`

LLVM splits the vectors where the machine's are narrower. `like` is any number of the element type. Loads and
stores are not checked. Numbers are rounded to the element type first. a * b + c is one rounding where
`multiply_add` says so, else two.
"""

import math
import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

from sparse3d_ops.cpu.microkernel import spread

LANES = 16
I32, I64 = ir.IntType(32), ir.IntType(64)


class LanesType(types.Type):
    """16 numbers of a float type, or of a signed integer type (`integer_lanes`)."""

    def __init__(self, element):
        self.element = element
        super().__init__(name=f"Lanes({element})")


class MaskType(types.Type):
    """16 truths."""

    def __init__(self):
        super().__init__(name="Mask")


MASK = MaskType()


def _scalar(element: Any) -> ir.Type:
    if isinstance(element, types.Integer):
        return ir.IntType(element.bitwidth)  # pyright: ignore[reportAttributeAccessIssue]
    return ir.FloatType() if element.bitwidth == 32 else ir.DoubleType()


def vector_of(element: Any) -> ir.VectorType:
    """What LLVM calls `Lanes` of an element."""
    return ir.VectorType(_scalar(element), LANES)


@register_model(LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, vector_of(kind.element))


@register_model(MaskType)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, ir.VectorType(ir.IntType(1), LANES))


def call_intrinsic(
    builder: ir.IRBuilder, name: str, arguments: list[ir.Value], result: ir.Type | None = None
):
    """An LLVM intrinsic on vectors, by its name without the types."""
    kind = arguments[0].type  # pyright: ignore[reportAttributeAccessIssue]
    width = "f32" if kind.element == ir.FloatType() else "f64"
    function = ir.FunctionType(result or kind, [a.type for a in arguments])  # pyright: ignore[reportAttributeAccessIssue]
    known = cgutils.get_or_insert_function(builder.module, function, f"{name}.v{LANES}{width}")
    return builder.call(known, arguments)


@intrinsic
def spread_number(typing_context, number):
    """All 16 lanes the same."""
    signature = LanesType(number)(number)

    def generate(context, builder, signature, arguments):
        return spread(builder, arguments[0], LANES)

    return signature, generate


@intrinsic
def steps(typing_context, like):
    """0, 1, ... 15."""
    signature = LanesType(like)(like)

    def generate(context, builder, signature, arguments):
        return ir.Constant(vector_of(signature.args[0]), [float(k) for k in range(LANES)])

    return signature, generate


def lane_by_lane(emit):
    """A function of two vectors: emit(builder, a, b) on their lanes."""

    @intrinsic
    def operation(typing_context, a, b):
        signature = a(a, b)

        def generate(context, builder, signature, arguments):
            return emit(builder, *arguments)

        return signature, generate

    return operation


def comparison(sign: str):
    """A function of two vectors that gives a mask: "<", ">=" and so on, false for NaN."""

    @intrinsic
    def compare(typing_context, a, b):
        signature = MASK(a, b)
        whole = isinstance(a.element, types.Integer)

        def generate(context, builder, signature, arguments):
            return (builder.icmp_signed if whole else builder.fcmp_ordered)(sign, *arguments)

        return signature, generate

    return compare


def offer(symbol, operation):
    """Make the Python operator take Lanes with Lanes, and with numbers on either side."""

    @overload(symbol)
    def apply(a, b):
        if isinstance(a, LanesType) and isinstance(b, LanesType):
            return lambda a, b: operation(a, b)
        if isinstance(a, LanesType) and isinstance(b, types.Number):
            element = a.element
            return lambda a, b: operation(a, spread_number(element(b)))  # pyright: ignore[reportCallIssue]
        if isinstance(a, types.Number) and isinstance(b, LanesType):
            element = b.element
            return lambda a, b: operation(spread_number(element(a)), b)  # pyright: ignore[reportCallIssue]


def _arithmetic(name: str):
    def emit(builder, a, b):
        return getattr(builder, name if isinstance(a.type.element, ir.IntType) else f"f{name}")(a, b)

    return lane_by_lane(emit)


for _symbol, _name in (
    (operator.add, "add"),
    (operator.sub, "sub"),
    (operator.mul, "mul"),
    (operator.truediv, "div"),
):
    offer(_symbol, _arithmetic(_name))
for _symbol, _sign in ((operator.lt, "<"), (operator.le, "<="), (operator.gt, ">"), (operator.ge, ">=")):
    offer(_symbol, comparison(_sign))

_mask_and = lane_by_lane(lambda builder, a, b: builder.and_(a, b))


@overload(operator.and_)
def _and(a, b):
    if isinstance(a, MaskType) and isinstance(b, MaskType):
        return lambda a, b: _mask_and(a, b)  # pyright: ignore[reportCallIssue]


_smaller = lane_by_lane(lambda builder, a, b: call_intrinsic(builder, "llvm.minnum", [a, b]))
_larger = lane_by_lane(lambda builder, a, b: call_intrinsic(builder, "llvm.maxnum", [a, b]))


def least(a, b):
    """The smaller of each two; the other one beside a NaN."""


def most(a, b):
    """The larger of each two; the other one beside a NaN."""


offer(least, _smaller)
offer(most, _larger)


@intrinsic
def multiply_add(typing_context, a, b, c):
    """a * b + c with one rounding where the machine can."""
    signature = a(a, b, c)

    def generate(context, builder, signature, arguments):
        return call_intrinsic(builder, "llvm.fmuladd", list(arguments))

    return signature, generate


@intrinsic
def where(typing_context, mask, a, b):
    """a where the mask holds, else b."""
    signature = a(mask, a, b)

    def generate(context, builder, signature, arguments):
        return builder.select(*arguments)

    return signature, generate


@intrinsic
def any_lane(typing_context, mask):
    """Whether one lane holds."""
    signature = types.boolean(mask)

    def generate(context, builder, signature, arguments):
        bits = builder.bitcast(arguments[0], ir.IntType(LANES))
        return builder.icmp_unsigned("!=", bits, ir.Constant(ir.IntType(LANES), 0))

    return signature, generate


@intrinsic
def magnitude(typing_context, a):
    """Absolute values."""
    signature = a(a)

    def generate(context, builder, signature, arguments):
        return call_intrinsic(builder, "llvm.fabs", list(arguments))

    return signature, generate


def _folded(combine):
    """Sixteen lanes into one number, by halves: always in the same order."""

    @intrinsic
    def fold(typing_context, a):
        signature = a.element(a)

        def generate(context, builder, signature, arguments):
            value, width = arguments[0], LANES
            while width > 1:
                width //= 2
                halves = [
                    builder.shuffle_vector(
                        value,
                        value,
                        ir.Constant(ir.VectorType(I32, width), list(range(first, first + width))),
                    )
                    for first in (0, width)
                ]
                value = combine(builder, *halves)
            return builder.extract_element(value, ir.Constant(I32, 0))

        return signature, generate

    return fold


total = _folded(lambda builder, a, b: builder.fadd(a, b))
largest = _folded(lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))


def _address(context, builder, kind, array, offset):
    """Of element `offset` of a contiguous array."""
    view = context.make_array(kind)(context, builder, array)
    return builder.gep(view.data, [offset])


@intrinsic
def load(typing_context, array, offset):
    """16 elements of a contiguous array, from `offset` in elements on."""
    signature = LanesType(array.dtype)(array, types.intp)

    def generate(context, builder, signature, arguments):
        kind = signature.args[0]
        place = _address(context, builder, kind, *arguments)
        vector = builder.bitcast(place, ir.PointerType(vector_of(kind.dtype)))
        return builder.load(vector, align=kind.dtype.bitwidth // 8)

    return signature, generate


@intrinsic
def store(typing_context, value, array, offset):
    """16 elements of a contiguous array, from `offset` in elements on."""
    signature = types.void(value, array, types.intp)

    def generate(context, builder, signature, arguments):
        kind = signature.args[1]
        place = _address(context, builder, kind, *arguments[1:])
        vector = builder.bitcast(place, ir.PointerType(vector_of(kind.dtype)))
        builder.store(arguments[0], vector, align=kind.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def gather(typing_context, array, row, column, mask):
    """Elements [row, column] of a contiguous array (H, W) where the mask holds, whole parts of both taken;
    0 elsewhere, where nothing is read."""
    signature = row(array, row, column, mask)

    def generate(context, builder, signature, arguments):
        kind = signature.args[0]
        view = context.make_array(kind)(context, builder, arguments[0])
        width = spread(builder, cgutils.unpack_tuple(builder, view.shape, 2)[1], LANES)
        mask, whole = arguments[3], ir.VectorType(I64, LANES)
        rows, columns = (
            builder.fptosi(
                builder.select(mask, a, ir.Constant(a.type, [0.0] * LANES)), ir.VectorType(I32, LANES)
            )
            for a in arguments[1:3]
        )
        place = builder.add(builder.mul(builder.sext(rows, whole), width), builder.sext(columns, whole))
        size = ir.Constant(whole, [kind.dtype.bitwidth // 8] * LANES)
        start = spread(builder, builder.ptrtoint(view.data, I64), LANES)
        pointers = ir.VectorType(_scalar(kind.dtype).as_pointer(), LANES)
        places = builder.inttoptr(builder.add(start, builder.mul(place, size)), pointers)
        vector = vector_of(kind.dtype)
        width_name = f"v{LANES}f{kind.dtype.bitwidth}"
        function = ir.FunctionType(vector, [pointers, I32, mask.type, vector])
        known = cgutils.get_or_insert_function(
            builder.module, function, f"llvm.masked.gather.{width_name}.v{LANES}p0"
        )
        alignment = ir.Constant(I32, kind.dtype.bitwidth // 8)
        nothing = ir.Constant(vector, [0.0] * LANES)
        return builder.call(known, [places, alignment, mask, nothing])

    return signature, generate


@intrinsic
def byte_of(typing_context, bits, number):
    """Byte `number` (0 is the lowest) of each float32's bits, as a float: what `gather` brought of packed
    bytes."""
    signature = bits(bits, types.int64)

    def generate(context, builder, signature, arguments):
        whole = ir.VectorType(I32, LANES)
        shift = spread(builder, builder.mul(builder.trunc(arguments[1], I32), ir.Constant(I32, 8)), LANES)
        moved = builder.lshr(builder.bitcast(arguments[0], whole), shift)
        return builder.uitofp(
            builder.and_(moved, ir.Constant(whole, [255] * LANES)), vector_of(types.float32)
        )

    return signature, generate


# 2^f for |f| <= 1/2 as a series: the term left out is 1.2e-7 of it with 7 terms, 1.7e-16 with 13.
_TERMS = {32: 7, 64: 13}


@intrinsic
def exp2(typing_context, a):
    """2^a, to the accuracy of the type; 0 below the smallest normal number. a must not be above 127."""
    signature = a(a)

    def generate(context, builder, signature, arguments):
        element = signature.args[0].element
        bits, digits, bias = (32, 23, 127) if element.bitwidth == 32 else (64, 52, 1023)
        vector, whole = vector_of(element), ir.VectorType(ir.IntType(bits), LANES)

        def constant(value: float) -> ir.Constant:
            return ir.Constant(vector, [value] * LANES)

        x = call_intrinsic(builder, "llvm.maxnum", [arguments[0], constant(1.0 - bias)])
        nearest = call_intrinsic(builder, "llvm.rint", [x])
        rest = builder.fsub(x, nearest)
        series = constant(0.0)
        for k in reversed(range(_TERMS[element.bitwidth])):
            series = call_intrinsic(
                builder, "llvm.fmuladd", [series, rest, constant(math.log(2) ** k / math.factorial(k))]
            )
        exponent = builder.add(builder.fptosi(nearest, whole), ir.Constant(whole, [bias] * LANES))
        power = builder.bitcast(builder.shl(exponent, ir.Constant(whole, [digits] * LANES)), vector)
        small = builder.fcmp_ordered("<", arguments[0], constant(1.0 - bias))
        return builder.select(small, constant(0.0), builder.fmul(series, power))

    return signature, generate
