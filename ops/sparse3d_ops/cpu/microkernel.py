"""Register-tiled multiply-add kernels, emitted as LLVM IR through numba intrinsics: no compiler at install.

`accumulate_rows` is the heart of the convolution, `accumulate_outer` of its weight gradient. Both keep a tile
of rows x (blocks * LANES) sums in registers and walk the inner dimension once. The IR names vectors of LANES
elements; LLVM splits them where the machine's are narrower, so the code is right everywhere and fast where
LANES fits.
"""

from collections.abc import Callable

from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic

I32, I64 = ir.IntType(32), ir.IntType(64)


def vector_bytes(features: str) -> int:
    """Width of the vector registers that LLVM's feature list allows: 64 (AVX-512), 32 (AVX2), else 16 (SSE,
    NEON)."""
    allowed = features.split(",")
    if "+avx512f" in allowed:
        return 64
    return 32 if "+avx2" in allowed else 16


# What numba compiles for, which its settings (NUMBA_CPU_FEATURES, NUMBA_ENABLE_AVX) can narrow below the
# host. A width that does not fit would still be right, but slow.
_NARROWED: str | None = config.CPU_FEATURES  # pyright: ignore[reportAttributeAccessIssue]
VECTOR_BYTES = vector_bytes(get_host_cpu_features() if _NARROWED is None else _NARROWED)
# Rows of a tile by the number of column blocks (index 1..4): sums, a row of weights and a factor stay within
# the registers (32 vectors with AVX-512 and NEON, 16 with AVX2), and rows * blocks is at least 8, the
# multiply-adds in flight that hide their latency. The fewer rows, the fewer idle ones in the last tile; with
# more than ten of them x86's sixteen registers for addresses do not hold where each row lies.
ROWS = (0, 8, 6, 4, 3) if VECTOR_BYTES == 32 else (0, 10, 10, 8, 6)
# With 16 registers, tiles of more than two blocks leave none for the factor.
MOST_BLOCKS = 2 if VECTOR_BYTES == 32 else 4
OUTER_ROWS = 4 if VECTOR_BYTES == 32 else 8


def spread(builder: ir.IRBuilder, value: ir.Value, lanes: int) -> ir.Value:
    """A vector with the number in every lane."""
    kind = ir.VectorType(value.type, lanes)  # pyright: ignore[reportAttributeAccessIssue]
    undefined = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(I32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, lanes), None))


class Emitter:
    """Builder shorthand for one element type."""

    def __init__(self, builder: ir.IRBuilder, module: ir.Module, element: types.Float, lanes: int = 0):
        self.b, self.module, self.element = builder, module, element
        self.scalar = ir.FloatType() if element.bitwidth == 32 else ir.DoubleType()
        self.bytes = element.bitwidth // 8
        self.lanes = lanes or VECTOR_BYTES // self.bytes
        self.vector = ir.VectorType(self.scalar, self.lanes)

    def offset(self, address: ir.Value, distance: int | ir.Value) -> ir.Value:
        distance = ir.Constant(I64, distance) if isinstance(distance, int) else distance
        return self.b.add(address, distance)  # pyright: ignore[reportReturnType]

    def row(self, base: ir.Value, number: ir.Value, stride: ir.Value) -> ir.Value:
        """The address of a row."""
        return self.offset(base, self.b.mul(number, stride))  # pyright: ignore[reportArgumentType]

    def load(self, address: ir.Value, kind: ir.Type, align: int) -> ir.Value:
        return self.b.load(self.b.inttoptr(address, ir.PointerType(kind)), align=align)

    def load_vector(self, address: ir.Value) -> ir.Value:
        return self.load(address, self.vector, self.bytes)

    def store_vector(self, value: ir.Value, address: ir.Value) -> None:
        self.b.store(value, self.b.inttoptr(address, ir.PointerType(self.vector)), align=self.bytes)

    def broadcast(self, address: ir.Value) -> ir.Value:
        return spread(self.b, self.load(address, self.scalar, self.bytes), self.lanes)

    def multiply_add(self, x: ir.Value, y: ir.Value, sums: ir.Value) -> ir.Value:
        # fmuladd, not fma: a machine without the instruction multiplies and adds instead of calling a slow
        # library.
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        name = f"llvm.fmuladd.v{self.lanes}f{self.bytes * 8}"
        return self.b.call(cgutils.get_or_insert_function(self.module, kind, name), [x, y, sums])

    def prefetch(self, address: ir.Value) -> None:
        pointer = self.b.inttoptr(address, ir.PointerType(ir.IntType(8)))
        kind = ir.FunctionType(ir.VoidType(), [ir.PointerType(ir.IntType(8)), I32, I32, I32])
        function = cgutils.get_or_insert_function(self.module, kind, "llvm.prefetch.p0i8")
        self.b.call(function, [pointer, ir.Constant(I32, 0), ir.Constant(I32, 3), ir.Constant(I32, 1)])

    def columns(
        self, count: ir.Value, body: Callable[["Emitter", ir.Value, int], None], most: int = 1
    ) -> None:
        """body(emitter, offset in bytes, vectors) for the parts of `count` columns: `most` vectors at a time,
        as often as they go into them, then at most one part each of half as many lanes, a quarter, .., one,
        so that nothing behind the columns is touched."""
        b, zero, width = self.b, ir.Constant(I64, 0), most * self.lanes
        times = b.udiv(count, ir.Constant(I64, width))
        with b.if_then(b.icmp_signed(">", times, zero)):

            def part(step, pointers, sums):
                body(self, pointers[0], most)
                return []

            self.loop(times, [(zero, width * self.bytes)], [], part)  # pyright: ignore[reportArgumentType]
        at: ir.Value = b.mul(times, ir.Constant(I64, width * self.bytes))  # pyright: ignore[reportAssignmentType]
        while width := width // 2:
            rest: ir.Value = b.and_(count, ir.Constant(I64, width))  # pyright: ignore[reportAssignmentType]
            with b.if_then(b.icmp_signed("!=", rest, zero)):
                lanes = min(width, self.lanes)
                body(Emitter(b, self.module, self.element, lanes), at, width // lanes)
            at = self.offset(at, b.mul(rest, ir.Constant(I64, self.bytes)))  # pyright: ignore[reportArgumentType]

    def loop(
        self, count: ir.Value, moving: list[tuple[ir.Value, int | ir.Value]], sums: list[ir.Value], body
    ):
        """sums = body(step, moving pointers, sums), `count` >= 1 times; each pointer advances by its
        stride."""
        before, inside = self.b.block, self.b.append_basic_block("inner")
        after = self.b.append_basic_block("after")
        self.b.branch(inside)
        self.b.position_at_end(inside)
        step = self.b.phi(I64)
        step.add_incoming(ir.Constant(I64, 0), before)
        pointers = [self.b.phi(I64) for _ in moving]
        for pointer, (start, _) in zip(pointers, moving, strict=True):
            pointer.add_incoming(start, before)
        carried = [self.b.phi(start.type) for start in sums]  # pyright: ignore[reportAttributeAccessIssue]
        for phi, start in zip(carried, sums, strict=True):
            phi.add_incoming(start, before)
        results = body(step, pointers, carried)
        last = self.b.block  # another one than `inside` where the body has loops of its own
        following = self.b.add(step, ir.Constant(I64, 1))
        step.add_incoming(following, last)
        for pointer, (_, stride) in zip(pointers, moving, strict=True):
            pointer.add_incoming(self.offset(pointer, stride), last)
        for phi, result in zip(carried, results, strict=True):
            phi.add_incoming(result, last)
        self.b.cbranch(self.b.icmp_signed("<", following, count), inside, after)
        self.b.position_at_end(after)
        return results


def _accumulate_rows(rows: int, blocks: int) -> Callable[..., None]:
    """out[r, :] += x[r, :] @ weight for `rows` rows given by address and blocks * LANES columns."""

    @intrinsic
    def kernel(typing_context, like, x_rows, x_offset, out_rows, out_offset, weight, weight_stride, depth):
        # like: any array of the element type. x_rows, out_rows: address of int64[rows] of row addresses.
        # x_offset, out_offset, weight_stride: bytes. weight: address of the panel's first row. depth: input
        # channels.
        signature = types.void(like, *[types.intp] * 7)

        def generate(context, builder, signature, arguments):
            e = Emitter(builder, builder.module, signature.args[0].dtype)
            _, x_rows, x_offset, out_rows, out_offset, weight, weight_stride, depth = arguments
            x = [e.offset(e.load(e.offset(x_rows, 8 * r), I64, 8), x_offset) for r in range(rows)]
            out = [e.offset(e.load(e.offset(out_rows, 8 * r), I64, 8), out_offset) for r in range(rows)]
            tiles = [(r, j) for r in range(rows) for j in range(blocks)]
            places = [e.offset(out[r], VECTOR_BYTES * j) for r, j in tiles]

            def body(step, pointers, sums):
                panel = [e.load_vector(e.offset(pointers[0], VECTOR_BYTES * j)) for j in range(blocks)]
                along = builder.mul(step, ir.Constant(I64, e.bytes))
                added = []
                for r in range(rows):  # each factor right before its use: not all of them fit the registers
                    value = e.broadcast(e.offset(x[r], along))
                    added += [e.multiply_add(value, panel[j], sums[r * blocks + j]) for j in range(blocks)]
                return added

            sums = e.loop(depth, [(weight, weight_stride)], [e.load_vector(p) for p in places], body)
            for value, place in zip(sums, places, strict=True):
                e.store_vector(value, place)
            return context.get_dummy_value()

        return signature, generate

    return kernel


def _accumulate_outer(rows: int, blocks: int) -> Callable[..., None]:
    """out[r, :] += sum over pairs p of x[p, r] * y[p, :] for `rows` consecutive r and blocks * LANES
    columns."""

    @intrinsic
    def kernel(typing_context, like, x_rows, y_rows, x_offset, y_offset, pairs, out, out_stride):
        # x_rows, y_rows: address of int64[pairs] of row addresses; offsets and strides in bytes.
        signature = types.void(like, *[types.intp] * 7)

        def generate(context, builder, signature, arguments):
            e = Emitter(builder, builder.module, signature.args[0].dtype)
            _, x_rows, y_rows, x_offset, y_offset, pairs, out, out_stride = arguments
            tiles = [(r, j) for r in range(rows) for j in range(blocks)]
            starts = [e.offset(out, builder.mul(out_stride, ir.Constant(I64, r))) for r in range(rows)]
            places = [e.offset(starts[r], VECTOR_BYTES * j) for r, j in tiles]

            def body(step, pointers, sums):
                x = e.offset(e.load(pointers[0], I64, 8), x_offset)
                y = e.offset(e.load(pointers[1], I64, 8), y_offset)
                panel = [e.load_vector(e.offset(y, VECTOR_BYTES * j)) for j in range(blocks)]
                values = [e.broadcast(e.offset(x, e.bytes * r)) for r in range(rows)]
                return [e.multiply_add(values[r], panel[j], s) for (r, j), s in zip(tiles, sums, strict=True)]

            sums = e.loop(pairs, [(x_rows, 8), (y_rows, 8)], [e.load_vector(p) for p in places], body)
            for value, place in zip(sums, places, strict=True):
                e.store_vector(value, place)
            return context.get_dummy_value()

        return signature, generate

    return kernel


accumulate_rows_1 = _accumulate_rows(ROWS[1], 1)
accumulate_rows_2 = _accumulate_rows(ROWS[2], 2)
accumulate_rows_3 = _accumulate_rows(ROWS[3], 3)
accumulate_rows_4 = _accumulate_rows(ROWS[4], 4)
# For what is left of a list: a full tile would work on copies of a row that are thrown away.
accumulate_half_1 = _accumulate_rows((ROWS[1] + 1) // 2, 1)
accumulate_half_2 = _accumulate_rows((ROWS[2] + 1) // 2, 2)
accumulate_half_3 = _accumulate_rows((ROWS[3] + 1) // 2, 3)
accumulate_half_4 = _accumulate_rows((ROWS[4] + 1) // 2, 4)
accumulate_outer_1 = _accumulate_outer(8, 1)
accumulate_outer_2 = _accumulate_outer(OUTER_ROWS, 2)
accumulate_outer_4 = _accumulate_outer(4, 4)
accumulate_outer_row = _accumulate_outer(1, 1)


def _tell(compare: Callable[[ir.IRBuilder, ir.Value, ir.Value], ir.Value]) -> Callable[..., int]:
    @intrinsic
    def tell(typing_context, address, limit):
        signature = types.int64(types.intp, types.int64)

        def generate(context, builder, signature, arguments):
            kind = ir.VectorType(I32, 16)
            numbers = builder.load(builder.inttoptr(arguments[0], ir.PointerType(kind)), align=4)
            bits = compare(builder, numbers, spread(builder, builder.trunc(arguments[1], I32), 16))
            return builder.zext(builder.bitcast(bits, ir.IntType(16)), I64)

        return signature, generate

    return tell


# Bit k of the result tells of the k-th of 16 int32 from an address on whether it is at least `limit`, and
# whether it is outside of [-1, limit).
at_least = _tell(lambda b, numbers, limit: b.icmp_signed(">=", numbers, limit))
outside = _tell(
    lambda b, numbers, limit: b.icmp_unsigned(
        ">", b.add(numbers, ir.Constant(ir.VectorType(I32, 16), [1] * 16)), limit
    )
)


@intrinsic
def lowest_bit(typing_context, bits):
    """The place of the lowest bit that is set in an int64 other than 0."""
    signature = types.int64(types.int64)

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return signature, generate


@intrinsic
def highest_bit(typing_context, bits):
    """The place of the highest bit that is set in an int64 other than 0."""
    signature = types.int64(types.int64)

    def generate(context, builder, signature, arguments):
        above = builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 1))
        return builder.sub(ir.Constant(I64, 63), above)

    return signature, generate


@intrinsic
def bits_set(typing_context, bits):
    """How many bits of an int64 are set."""
    signature = types.int64(types.int64)

    def generate(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return signature, generate


@intrinsic
def prefetch(typing_context, address):
    """Ask for the cache line at an address, which may be any: nothing is read."""
    signature = types.void(types.intp)

    def generate(context, builder, signature, arguments):
        Emitter(builder, builder.module, types.float32).prefetch(arguments[0])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def take_number(typing_context, address):
    """The int64 at an address, which becomes one larger; no two threads get the same."""
    signature = types.int64(types.intp)

    def generate(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], ir.PointerType(I64))
        return builder.atomic_rmw("add", pointer, ir.Constant(I64, 1), "monotonic")

    return signature, generate
