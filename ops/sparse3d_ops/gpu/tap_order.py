"""What the CUDA bodies of sparse convolution read beside a kernel map's table, computed once a table.

Rows of a table that have similar taps stand side by side in an order of rows; a tile of such rows needs few
taps. Rows are sorted as reflected Gray codes of their taps, the rarest tap first: neighbours in that order
differ in few taps, and where a tile cuts the order, it cuts the commonest taps, which most tiles need.
On a street of 100,000 voxels with 5.7 of 27 taps a row, tiles of 128 rows then need 1.5 times the taps that
their rows have; it is 1.8 times with taps in their own order as a binary number, 4.2 times with rows as they
come, and 1.2 times with the taps in two splits.

The pairs (input row, output row) of each tap, for the weight gradient, lie one tap after another. Notation:
table (N, V) int32, -1 where there is no neighbour; S splits of the taps, each with an order of its own; P
pairs.

A table is known again by the identity of its tensor object, its version (torch counts edits in place) and
its memory, and is forgotten with the tensor, so a new tensor at an old address is a new table. Edits that
torch does not count (through `.data` or another library) are not seen, as in autograd. Tensors of inference
mode have no version: of these only the order is kept, which cannot make a result wrong, and lists of taps
are made anew for each call. The op checks a table's entries once; the kernels themselves take rows out of
range for missing ones, so that an edit that nobody saw cannot reach beyond memory.
"""

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from sparse3d_ops.gpu.launch import launch_grid

# Bits of a word of a key: an int64 that is never negative sorts as its bits do.
WORD = 63
ROWS_PER_PROGRAM = 256


@triton.jit(do_not_specialize=["n", "volume", "begin", "end"])
def _tap_words(table, ranked, words, n, volume, begin, end, ROWS: tl.constexpr):
    """words[row]: what the taps ranked[begin] .. ranked[end - 1] add to the row's place in Gray order, the
    first of them in the highest bit."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = row < n
    start = row.to(tl.int64) * volume
    word = tl.zeros((ROWS,), tl.int64)
    parity = tl.zeros((ROWS,), tl.int64)
    for place in range(0, end):
        entry = tl.load(table + start + tl.load(ranked + place), mask=live, other=-1)
        parity = parity ^ (entry >= 0).to(tl.int64)
        word = tl.where(place < begin, word, word * 2 + parity)
    tl.store(words + row, word.to(words.dtype.element_ty), mask=live)


@triton.jit(do_not_specialize=["n", "volume", "span"])
def _tile_taps(table, order, taps, counts, n, volume, span, ROWS: tl.constexpr):
    """taps (S, tiles, span): the taps that any row of a tile has, ascending; counts (S, tiles): how many."""
    tile, split = tl.program_id(0), tl.program_id(1)
    place = tile * ROWS + tl.arange(0, ROWS)
    live = place < n
    row = tl.load(order + split.to(tl.int64) * n + place, mask=live, other=0)
    start = row.to(tl.int64) * volume
    list_index = split.to(tl.int64) * tl.num_programs(0) + tile
    here = taps + list_index * span
    count = 0
    for tap in range(split * span, tl.minimum(volume, (split + 1) * span)):
        entry = tl.load(table + start + tap, mask=live, other=-1)
        found = tl.max((entry >= 0).to(tl.int32), 0)
        tl.store(here + count, tap, mask=found > 0)
        count += found
    tl.store(counts + list_index, count)


class Tiles(NamedTuple):
    """Tiles of `rows` rows in each split's order: taps (S, tiles, span) int32, of which the first `counts`
    (S, tiles) count; `visit` (S, tiles) int32 are the tiles from most to fewest taps."""

    order: Tensor
    taps: Tensor
    counts: Tensor
    visit: Tensor


class Pairs(NamedTuple):
    """(P,) int32 input and output rows of all pairs, ordered by tap, then output row; pairs of each tap."""

    inputs: Tensor
    outputs: Tensor
    counts: tuple[int, ...]


class Chunks(NamedTuple):
    """Pairs cut into pieces of one tap each: the pairs of piece k are `begin[k]` .. `end[k]` (int64), those
    of tap v are pieces first[v] .. first[v + 1] (V + 1,)."""

    begin: Tensor
    end: Tensor
    first: Tensor


def split_span(volume: int, splits: int) -> int:
    """Taps of a split: the first splits take this many, the last what is left."""
    return -(-volume // splits)


def row_order(table: Tensor, splits: int) -> Tensor:
    """(S, N) int32: rows of the table in Gray order of the taps that they have within each split; ties by
    row."""
    n, volume = table.shape
    common = (table >= 0).sum(0)
    span = split_span(volume, splits)
    order = table.new_empty(splits, n)
    # Half as many bits sort in half the time.
    kind = torch.int32 if span < 32 else torch.int64
    words = torch.empty(n, dtype=kind, device=table.device)
    for split in range(splits):
        first, last = (min(volume, k * span) for k in (split, split + 1))
        ranked = torch.arange(first, last, device=table.device)[common[first:last].argsort(stable=True)]
        rows = None
        # Least significant word first; sorts are stable, so the first taps decide in the end.
        for end in range(len(ranked), 0, -WORD):
            begin = max(0, end - WORD)
            grid = (triton.cdiv(n, ROWS_PER_PROGRAM),)
            launch_grid(_tap_words, grid, table, ranked, words, n, volume, begin, end, ROWS=ROWS_PER_PROGRAM)
            step = (words if rows is None else words[rows]).sort(stable=True).indices
            rows = step if rows is None else rows[step]
        order[split] = torch.arange(n, device=table.device) if rows is None else rows
    return order


def tiles_of(table: Tensor, order: Tensor, rows: int) -> Tiles:
    """Lists of taps of the tiles of `rows` rows."""
    n, volume = table.shape
    splits = order.shape[0]
    span = split_span(volume, splits)
    count = triton.cdiv(n, rows)
    taps, counts = table.new_empty(splits, count, span), table.new_empty(splits, count)
    launch_grid(_tile_taps, (count, splits), table, order, taps, counts, n, volume, span, ROWS=rows)
    visit = counts.argsort(dim=1, descending=True, stable=True).to(torch.int32)
    return Tiles(order, taps, counts, visit)


def pairs_of(table: Tensor) -> Pairs:
    """The pairs of each tap. Waits for the device, to know how many there are."""
    n, volume = table.shape
    # torch's nonzero takes fewer than 2^31 entries on CUDA.
    step = max(1, ((1 << 31) - 1) // max(n, 1))
    inputs, outputs, counts = [], [], []
    for begin in range(0, volume, step):
        columns = table[:, begin : begin + step].T.contiguous()
        found = columns >= 0
        tap, row = found.nonzero(as_tuple=True)
        inputs.append(columns[tap, row])
        outputs.append(row.to(torch.int32))
        counts += found.sum(1).tolist()
    if len(inputs) == 1:
        return Pairs(inputs[0], outputs[0], tuple(counts))
    return Pairs(torch.cat(inputs), torch.cat(outputs), tuple(counts))


def chunks_of(counts: tuple[int, ...], length: int, device: torch.device) -> Chunks:
    """Pieces of at most `length` pairs. Nothing is copied from the host but the counts."""
    pairs = torch.tensor(counts, dtype=torch.int64).to(device, non_blocking=True)
    pieces = (pairs + length - 1) // length
    first = torch.cat([pieces.new_zeros(1), pieces.cumsum(0)])
    ends = pairs.cumsum(0)
    total = sum(-(-count // length) for count in counts)
    piece = torch.arange(total, device=device)
    tap = torch.searchsorted(first, piece, right=True) - 1
    begin = (ends - pairs)[tap] + (piece - first[tap]) * length
    return Chunks(begin, torch.minimum(begin + length, ends[tap]), first)


class _Part(NamedTuple):
    """Something kept, and the CUDA stream and moment from which it is there."""

    value: Any
    stream: Any
    ready: Any


class TapOrder:
    """What is known of one table. Raises a RuntimeError where something is to be made while a CUDA graph is
    captured."""

    def __init__(self, table: Tensor):
        self._cuda = table.is_cuda
        self._keep_lists = not table.is_inference()
        self._parts: dict[Any, _Part] = {}
        self._lock = threading.Lock()

    def _kept(self, key: Any, make: Callable[[], Any]) -> Any:
        """`make()` once. On another stream than where it was made, that stream waits for it."""
        with self._lock:
            part = self._parts.get(key)
            if part is None:
                if self._cuda and torch.cuda.is_current_stream_capturing():
                    raise RuntimeError(
                        "a kernel map is first used like this while a CUDA graph is captured, and what is "
                        "made now exists only when the graph is replayed; run the layer once before"
                    )
                part = self._parts[key] = _stamped(make())
                return part.value
        if part.stream is not None:
            _use_here(part)
        return part.value

    def tiles(self, table: Tensor, splits: int, rows: int) -> Tiles:
        order = self._kept(("order", splits), lambda: row_order(table, splits))
        if not self._keep_lists:
            return tiles_of(table, order, rows)
        return self._kept(("tiles", splits, rows), lambda: tiles_of(table, order, rows))

    def pairs(self, table: Tensor) -> Pairs:
        return self._kept("pairs", lambda: pairs_of(table)) if self._keep_lists else pairs_of(table)

    def chunks(self, pairs: Pairs, length: int) -> Chunks:
        make = lambda: chunks_of(pairs.counts, length, pairs.inputs.device)  # noqa: E731
        return self._kept(("chunks", length), make) if self._keep_lists else make()


def _tensors(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [item for item in value if isinstance(item, Tensor)]


def _stamped(value: Any) -> _Part:
    first = _tensors(value)[0]
    if not first.is_cuda:
        return _Part(value, None, None)
    stream = torch.cuda.current_stream(first.device)
    return _Part(value, stream, stream.record_event())


def _use_here(part: _Part) -> None:
    tensors = _tensors(part.value)
    stream = torch.cuda.current_stream(tensors[0].device)
    if stream != part.stream:
        stream.wait_event(part.ready)
        for tensor in tensors:
            tensor.record_stream(stream)


_known = WeakTensorKeyDictionary()


def of(table: Tensor) -> TapOrder:
    """What is known of a table."""
    stamp = (None if table.is_inference() else table._version, table.data_ptr(), table.shape, table.stride())
    stamp_and_order = _known.get(table)
    if stamp_and_order is None or stamp_and_order[0] != stamp:
        stamp_and_order = _known[table] = (stamp, TapOrder(table))
    return stamp_and_order[1]
