"""Whole numbers in `Lanes`: bits, places in memory, and what lies there.

    cell = to_int32(floor(x))             # 16 int32; + - * and comparisons as for floats
    inner = cell & 7                      # & | << >> take lanes and numbers; >> keeps the sign
    found = gather_float32(address, to_int64(cell), mask)

A gather reads elements of the array that begins at an address, where the mask holds, and is 0 elsewhere. It
takes an address because numba counts references to arrays that functions pass on, atomically; nothing is
checked, and the array must live as long. Masks get `|` and `~`.
"""

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from sparse3d_ops.cpu.lanes import (
    I32,
    LANES,
    LanesType,
    MaskType,
    call_intrinsic,
    comparison,
    lane_by_lane,
    offer,
    vector_of,
)
from sparse3d_ops.cpu.microkernel import spread

for _symbol, _name in (
    (operator.and_, "and_"),
    (operator.or_, "or_"),
    (operator.lshift, "shl"),
    (operator.rshift, "ashr"),
):
    offer(_symbol, lane_by_lane(lambda builder, a, b, name=_name: getattr(builder, name)(a, b)))

offer(operator.ne, comparison("!="))
_mask_or = lane_by_lane(lambda builder, a, b: builder.or_(a, b))


@overload(operator.or_)
def _or(a, b):
    if isinstance(a, MaskType) and isinstance(b, MaskType):
        return lambda a, b: _mask_or(a, b)  # pyright: ignore[reportCallIssue]


@intrinsic
def _mask_not(typing_context, a):
    signature = a(a)

    def generate(context, builder, signature, arguments):
        return builder.not_(arguments[0])

    return signature, generate


@overload(operator.invert)
def _invert(a):
    if isinstance(a, MaskType):
        return lambda a: _mask_not(a)  # pyright: ignore[reportCallIssue]


def _function(name: str) -> Any:
    """A function of one float, lane by lane."""

    @intrinsic
    def apply(typing_context, a):
        signature = a(a)

        def generate(context, builder, signature, arguments):
            return call_intrinsic(builder, name, list(arguments))

        return signature, generate

    return apply


floor, ceil, sqrt = _function("llvm.floor"), _function("llvm.ceil"), _function("llvm.sqrt")


def _conversion(element: Any) -> Any:
    @intrinsic
    def convert(typing_context, a):
        """Lanes of another type; floats lose what is behind the point, and must fit."""
        signature = LanesType(element)(a)
        whole, from_whole = isinstance(element, types.Integer), isinstance(a.element, types.Integer)
        wider = element.bitwidth > a.element.bitwidth

        def generate(context, builder, signature, arguments):
            if whole and from_whole:
                change = builder.sext if wider else builder.trunc
            elif whole:
                change = builder.fptosi
            elif from_whole:
                change = builder.sitofp
            else:
                change = builder.fpext if wider else builder.fptrunc
            return change(arguments[0], vector_of(element))

        return signature, generate

    return convert


to_int32, to_int64 = _conversion(types.int32), _conversion(types.int64)
to_float32, to_float64 = _conversion(types.float32), _conversion(types.float64)


def _gather(element: Any, letter: str) -> Any:
    @intrinsic
    def gather(typing_context, address, number, mask):
        """Elements `number` (int64 lanes) of an array, see the top of the file."""
        signature = LanesType(element)(types.int64, number, mask)

        def generate(context, builder, signature, arguments):
            begin, number, mask = arguments
            vector = vector_of(element)
            size = ir.Constant(number.type, [element.bitwidth // 8] * LANES)
            places = builder.add(spread(builder, begin, LANES), builder.mul(number, size))
            pointers = ir.VectorType(vector.element.as_pointer(), LANES)
            function = ir.FunctionType(vector, [pointers, I32, mask.type, vector])
            name = f"llvm.masked.gather.v{LANES}{letter}{element.bitwidth}.v{LANES}p0"
            known = cgutils.get_or_insert_function(builder.module, function, name)
            alignment = ir.Constant(I32, element.bitwidth // 8)
            nothing = ir.Constant(vector, [0] * LANES)
            return builder.call(known, [builder.inttoptr(places, pointers), alignment, mask, nothing])

        return signature, generate

    return gather


gather_int32, gather_int64 = _gather(types.int32, "i"), _gather(types.int64, "i")
gather_float32 = _gather(types.float32, "f")
