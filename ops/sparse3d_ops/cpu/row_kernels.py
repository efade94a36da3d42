"""Sums over rows that stay in vector registers, emitted as LLVM IR as in `microkernel.py`: over rows that are
listed, over products with other rows, number by number or within narrow groups, and over eight rows with a
weight each. The largest of listed rows is found in the same way.
"""

from collections.abc import Callable

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

from sparse3d_ops.cpu.microkernel import I32, I64, VECTOR_BYTES, Emitter, spread

# Sums in registers at a time, as many as hide the latency of a multiply-add.
MOST_SUMS = 8


def _members(e: Emitter, address: ir.Value, group: int) -> list[ir.Value]:
    """Of the vector at an address: lane l of the i-th result is member i of the group of `group` lanes that l
    belongs to."""
    if group == e.lanes:
        return [e.broadcast(e.offset(address, e.bytes * i)) for i in range(group)]
    value = e.load_vector(address)
    if group == 1:
        return [value]
    undefined = ir.Constant(e.vector, ir.Undefined)
    lanes = [[l // group * group + i for l in range(e.lanes)] for i in range(group)]
    masks = [ir.Constant(ir.VectorType(I32, e.lanes), mask) for mask in lanes]
    return [e.b.shuffle_vector(value, undefined, mask) for mask in masks]


def _sum_of_neighbours(group: int, blocks: int) -> Callable[..., None]:
    """out[c] = sum over taps t and members i of x[table[t], member i of c's group] * weight[t][i, c], for
    blocks * LANES columns in groups of `group` of them; added to what `out` holds where `more` is not 0."""

    @intrinsic
    def kernel(typing_context, x, x_base, stride, table, bits, taps, weight, tap_stride, more, out):
        # x: any array of the element type. x_base: address of the columns in row 0 of x, rows of `stride`
        # bytes. table: address of int32 rows of x, one a tap. bits: bit t is set for each of `taps` >= 1 taps
        # that take part. weight: address of the columns in `group` rows of `stride` bytes, `tap_stride` bytes
        # a tap.
        signature = types.void(x, *[types.intp] * 9)

        def generate(context, builder, signature, arguments):
            e = Emitter(builder, builder.module, signature.args[0].dtype)
            _, x_base, stride, table, bits, taps, weight, tap_stride, more, out = arguments
            if e.lanes % group:  # such groups are not asked for
                return context.get_dummy_value()
            # Several sums for each vector where there is more than one product, so that one does not wait for
            # the other.
            chains = min(group, max(2, MOST_SUMS // blocks))

            def body(step, pointers, carried):
                left, *sums = carried
                tap = builder.cttz(left, ir.Constant(ir.IntType(1), 1))
                number = e.load(e.row(table, tap, ir.Constant(I64, 4)), I32, 4)
                row, factors = (
                    e.row(x_base, builder.sext(number, I64), stride),
                    e.row(weight, tap, tap_stride),
                )
                for j in range(blocks):
                    at, place = VECTOR_BYTES * j, factors
                    for i, member in enumerate(_members(e, e.offset(row, at), group)):
                        k = j * chains + i % chains
                        sums[k] = e.multiply_add(member, e.load_vector(e.offset(place, at)), sums[k])
                        place = e.offset(place, stride)
                return [builder.and_(left, builder.sub(left, ir.Constant(I64, 1))), *sums]

            starts: list[ir.Value] = [bits]
            zero = ir.Constant(e.vector, None)
            keep = builder.icmp_signed("!=", more, ir.Constant(I64, 0))
            for j in range(blocks):
                before = e.load_vector(e.offset(out, VECTOR_BYTES * j))
                starts += [builder.select(keep, before, zero), *[zero] * (chains - 1)]
            _, *sums = e.loop(taps, [], starts, body)
            for j in range(blocks):
                parts = sums[j * chains : (j + 1) * chains]
                while len(parts) > 1:
                    parts = [builder.fadd(*parts[i : i + 2]) for i in range(0, len(parts), 2)]
                e.store_vector(parts[0], e.offset(out, VECTOR_BYTES * j))
            return context.get_dummy_value()

        return signature, generate

    return kernel


def _add_products(group: int, blocks: int) -> Callable[..., None]:
    """out[i, c] += sum over pairs p of x[p, member i of c's group] * y[p, c], for blocks * LANES columns in
    groups of `group` of them."""

    @intrinsic
    def kernel(typing_context, like, x_rows, y_rows, offset, pairs, out, out_stride):
        # x_rows, y_rows: address of int64[pairs >= 1] of row addresses; offset: bytes, in `out` too.
        signature = types.void(like, *[types.intp] * 6)

        def generate(context, builder, signature, arguments):
            e = Emitter(builder, builder.module, signature.args[0].dtype)
            _, x_rows, y_rows, offset, pairs, out, out_stride = arguments
            if e.lanes % group:
                return context.get_dummy_value()
            starts = [
                e.offset(e.offset(out, offset), builder.mul(out_stride, ir.Constant(I64, i)))
                for i in range(group)
            ]
            places = [e.offset(start, VECTOR_BYTES * j) for j in range(blocks) for start in starts]

            def body(step, pointers, sums):
                x, y = (e.offset(e.load(pointer, I64, 8), offset) for pointer in pointers)
                results = []
                for j in range(blocks):
                    at = VECTOR_BYTES * j
                    factor = e.load_vector(e.offset(y, at))
                    members = _members(e, e.offset(x, at), group)
                    before = sums[j * group : (j + 1) * group]
                    results += [
                        e.multiply_add(member, factor, total)
                        for member, total in zip(members, before, strict=True)
                    ]
                return results

            start = [e.load_vector(place) for place in places]
            sums = e.loop(pairs, [(x_rows, 8), (y_rows, 8)], start, body)
            for value, place in zip(sums, places, strict=True):
                e.store_vector(value, place)
            return context.get_dummy_value()

        return signature, generate

    return kernel


def _eight(e: Emitter, address: ir.Value) -> ir.Value:
    """Eight int32."""
    return e.load(address, ir.VectorType(I32, 8), 4)


def _row_addresses(e: Emitter, rows: ir.Value, base: ir.Value, stride: ir.Value) -> list[ir.Value]:
    """Addresses of eight rows of `stride` bytes from base on, by their numbers."""
    wide = e.b.sext(rows, ir.VectorType(I64, 8))
    numbers = [e.b.extract_element(wide, ir.Constant(I32, k)) for k in range(8)]
    return [e.row(base, number, stride) for number in numbers]


@intrinsic
def weighted_rows(typing_context, like, base, stride, rows, other, weights, out, columns, ahead):
    """out = sum over 8 rows of weights[k] * row k, of `columns` numbers each.

    rows: address of int32[8] of row numbers, rows of `stride` bytes from `base` on; instead of a negative one
    row `other` takes part, times zero. weights: address of 8 numbers. ahead: address of eight other numbers,
    whose rows are asked for.
    """
    signature = types.void(like, *[types.intp] * 8)

    def generate(context, builder, signature, arguments):
        e = Emitter(builder, builder.module, signature.args[0].dtype)
        _, base, stride, rows, other, weights, out, columns, ahead = arguments
        eight = ir.VectorType(I32, 8)
        zeros = ir.Constant(eight, None)

        found = _eight(e, rows)
        there = builder.icmp_signed(">=", found, zeros)
        instead = spread(builder, builder.trunc(other, I32), 8)
        starts = _row_addresses(e, builder.select(there, found, instead), base, stride)
        numbers = ir.VectorType(e.scalar, 8)
        given = e.load(weights, numbers, e.bytes)
        given = builder.select(there, given, ir.Constant(numbers, None))
        none = ir.Constant(numbers, ir.Undefined)

        later = _eight(e, ahead)
        later = builder.select(builder.icmp_signed(">=", later, zeros), later, zeros)
        wanted = _row_addresses(e, later, base, stride)

        def body(e, at, _):
            for address in wanted:
                e.prefetch(e.offset(address, at))
            halves = []
            for half in (range(4), range(4, 8)):  # two sums, so that one does not wait for the other
                total = ir.Constant(e.vector, None)
                for k in half:
                    lane = ir.Constant(ir.VectorType(I32, e.lanes), [k] * e.lanes)
                    factor = builder.shuffle_vector(given, none, lane)
                    total = e.multiply_add(factor, e.load_vector(e.offset(starts[k], at)), total)
                halves.append(total)
            e.store_vector(builder.fadd(*halves), e.offset(out, at))

        e.columns(columns, body)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def add_scaled(typing_context, values, row, out, to, weight, columns):
    """The `columns` numbers of `out` at the address `to` += weight * those of `values` at the address `row`.
    Numbers of two kinds are refused when this is compiled."""
    if not values.dtype == out.dtype == weight:
        raise TypingError(
            f"add_scaled takes one type of numbers, not {values.dtype}, {out.dtype} and {weight}"
        )
    signature = types.void(values, types.intp, out, types.intp, weight, types.intp)

    def generate(context, builder, signature, arguments):
        _, row, _, to, weight, columns = arguments

        def body(e, at, _):
            place, factor = e.offset(to, at), spread(builder, weight, e.lanes)
            total = e.multiply_add(factor, e.load_vector(e.offset(row, at)), e.load_vector(place))
            e.store_vector(total, place)

        Emitter(builder, builder.module, signature.args[4]).columns(columns, body)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def largest_of_eight(typing_context, address, limit):
    """The largest of 8 int32 from an address on; -2 where one of them is not in [-1, limit)."""
    signature = types.int64(types.intp, types.int64)

    def generate(context, builder, signature, arguments):
        eight = ir.VectorType(I32, 8)
        numbers = builder.load(builder.inttoptr(arguments[0], ir.PointerType(eight)), align=4)
        above = builder.add(numbers, ir.Constant(eight, [1] * 8))  # 0 .. limit, without a sign

        def largest(name: str):
            kind = ir.FunctionType(I32, [eight])
            function = f"llvm.vector.reduce.{name}.v8i32"
            return builder.call(cgutils.get_or_insert_function(builder.module, kind, function), [above])

        most = builder.zext(largest("umax"), I64)
        wrong = builder.icmp_unsigned(">", most, arguments[1])
        return builder.select(wrong, ir.Constant(I64, -2), builder.sub(most, ir.Constant(I64, 1)))

    return signature, generate


def _row_pointer(
    e: Emitter, listed: bool, base: ir.Value, stride: ir.Value, order: ir.Value
) -> tuple[tuple[ir.Value, int | ir.Value], Callable[[ir.Value], tuple[ir.Value, ir.Value | None]]]:
    """What moves along the rows of a loop, and the address of a row from it and its number."""
    if not listed:
        return (base, stride), lambda pointer: (pointer, None)

    def row(pointer: ir.Value) -> tuple[ir.Value, ir.Value | None]:
        number = e.load(pointer, I32, 4)
        return e.row(base, e.b.sext(number, I64), stride), number  # pyright: ignore[reportArgumentType]

    return (order, 4), row


def _sum_rows(listed: bool) -> Callable[..., None]:
    """out = sum of `count` >= 1 rows, first to last, of `columns` numbers each."""

    @intrinsic
    def kernel(typing_context, like, base, stride, order, count, columns, out):
        # listed: order is the address of int32[count] of numbers of rows of `stride` bytes from base on; else
        # the rows follow each other from base on.
        signature = types.void(like, *[types.intp] * 6)

        def generate(context, builder, signature, arguments):
            _, base, stride, order, count, columns, out = arguments

            def part(e, offset, blocks):
                moving, row = _row_pointer(e, listed, e.offset(base, offset), stride, order)

                def body(step, pointers, sums):
                    at, _ = row(pointers[0])
                    vectors = [e.load_vector(e.offset(at, VECTOR_BYTES * j)) for j in range(blocks)]
                    return [builder.fadd(total, value) for total, value in zip(sums, vectors, strict=True)]

                zeros: list[ir.Value] = [ir.Constant(e.vector, None)] * blocks
                for j, total in enumerate(e.loop(count, [moving], zeros, body)):
                    e.store_vector(total, e.offset(e.offset(out, offset), VECTOR_BYTES * j))

            Emitter(builder, builder.module, signature.args[0].dtype).columns(columns, part, most=4)
            return context.get_dummy_value()

        return signature, generate

    return kernel


def _largest_rows(listed: bool) -> Callable[..., None]:
    """out = the largest of `count` >= 1 rows and argmax (int64) its number, `columns` numbers each.

    Rows come in rising order, and a tie stays with the lowest. NaN is larger than any number and stays.
    """

    @intrinsic
    def kernel(typing_context, like, base, stride, order, first, count, columns, out, argmax):
        # order: as in `_sum_rows`; without a list, base is the address of row number `first`.
        signature = types.void(like, *[types.intp] * 8)

        def generate(context, builder, signature, arguments):
            _, base, stride, order, first, count, columns, out, argmax = arguments
            low = builder.trunc(first, I32)

            def part(e, offset, blocks):
                moving, row = _row_pointer(e, listed, e.offset(base, offset), stride, order)
                at, number = row(moving[0])  # of the first row
                best = [e.load_vector(e.offset(at, VECTOR_BYTES * j)) for j in range(blocks)]
                places = [spread(builder, low if number is None else number, e.lanes)] * blocks

                def body(step, pointers, carried):
                    at, number = row(pointers[0])
                    row_number = builder.add(low, builder.trunc(step, I32)) if number is None else number
                    here = spread(builder, row_number, e.lanes)
                    values, rows = [], []
                    for j in range(blocks):
                        value, before = e.load_vector(e.offset(at, VECTOR_BYTES * j)), carried[j]
                        larger = builder.and_(
                            builder.fcmp_unordered(">", value, before),
                            builder.fcmp_ordered("==", before, before),
                        )
                        values.append(builder.select(larger, value, before))
                        rows.append(builder.select(larger, here, carried[blocks + j]))
                    return values + rows

                # The first row is looked at twice, so that a loop takes at least one.
                found = e.loop(count, [moving], best + places, body)
                wide = ir.VectorType(I64, e.lanes)
                rows = e.offset(argmax, builder.mul(offset, ir.Constant(I64, 8 // e.bytes)))
                for j in range(blocks):
                    e.store_vector(found[j], e.offset(e.offset(out, offset), VECTOR_BYTES * j))
                    pointer = builder.inttoptr(e.offset(rows, 8 * e.lanes * j), ir.PointerType(wide))
                    builder.store(builder.sext(found[blocks + j], wide), pointer, align=8)

            Emitter(builder, builder.module, signature.args[0].dtype).columns(columns, part, most=2)
            return context.get_dummy_value()

        return signature, generate

    return kernel


sum_listed, sum_following = _sum_rows(True), _sum_rows(False)
largest_listed, largest_following = _largest_rows(True), _largest_rows(False)
# One vector of columns, or some; of eight members no more than two vectors of sums fit the registers.
sum_of_neighbours = {(g, n): _sum_of_neighbours(g, n) for g in (1, 2, 4, 8) for n in (1, 2, 4) if g * n <= 16}
add_products = {(g, n): _add_products(g, n) for g in (1, 2, 4, 8) for n in (1, 4 if g < 8 else 2)}
