"""Laws of the segment reductions beyond the law suite."""

import math

import pytest
import torch

from sparse3d_ops.segment import gather_rows, segment_max, segment_mean, segment_softmax, segment_sum


def rows(count=50, channels=4, segments=7):
    torch.manual_seed(2)
    return torch.randn(count, channels), torch.randint(0, segments, (count,)), segments


def test_sums_of_sorted_and_unsorted_rows_are_the_same_bits():
    # Stable sorting keeps the order of addition within a segment.
    values, segment, count = rows()
    order = segment.argsort(stable=True)
    assert torch.equal(segment_sum(values, segment, count), segment_sum(values[order], segment[order], count))


@pytest.mark.parametrize("order", ["any", "sorted"])
def test_many_rows_that_are_sorted_in_several_chunks(order):
    """Empty segments at both ends and in between, and segments across the borders of chunks."""
    segment = torch.randint(3, 900, (40_000,), generator=torch.Generator().manual_seed(3)) // 7 * 7
    segment = segment.sort()[0] if order == "sorted" else segment
    values = torch.arange(40_000)[:, None].double()  # integers: sums are exact
    want = torch.zeros(950, 1).double().index_add_(0, segment, values)
    assert torch.equal(segment_sum(values, segment, 950), want)
    out, argmax = segment_max(-values, segment, 950)
    full = torch.bincount(segment, minlength=950) > 0
    assert torch.equal(argmax[:, 0] >= 0, full) and torch.equal(-out[full], argmax[full].double())
    assert torch.equal(segment[argmax[full, 0]], full.nonzero()[:, 0])


def test_max_does_not_depend_on_the_order_of_the_rows():
    values, segment, count = rows()
    shuffle = torch.randperm(len(values))
    out, argmax = segment_max(values, segment, count)
    out_shuffled, argmax_shuffled = segment_max(values[shuffle], segment[shuffle], count)
    assert torch.equal(out, out_shuffled) and torch.equal(argmax, shuffle[argmax_shuffled])


def test_max_treats_nan_as_largest_and_minus_infinity_as_a_number():
    values = torch.tensor([[-math.inf, 1.0], [-math.inf, math.nan], [-math.inf, math.nan], [-math.inf, 2.0]])
    out, argmax = segment_max(values, torch.zeros(4, dtype=torch.int64), 2)
    assert argmax.tolist() == [[0, 1], [-1, -1]]
    assert out[0, 0] == -math.inf and out[0, 1].isnan() and out[1].tolist() == [0.0, 0.0]


def test_gradient_of_max_goes_to_the_lowest_of_tied_rows():
    values = torch.tensor([[5.0], [5.0], [1.0]], requires_grad=True)
    segment_max(values, torch.zeros(3, dtype=torch.int64), 1)[0].sum().backward()
    assert values.grad is not None and values.grad.tolist() == [[1.0], [0.0], [0.0]]


def test_softmax_sums_to_one_and_survives_large_values():
    values, segment, count = rows()
    values = values * 1e4
    total = segment_sum(segment_softmax(values, segment, count), segment, count)
    present = torch.bincount(segment, minlength=count) > 0
    torch.testing.assert_close(total[present], torch.ones_like(total[present]))


def test_softmax_does_not_change_when_a_constant_is_added_to_a_segment():
    values, segment, count = rows()
    shift = torch.randn(count, values.shape[1])[segment]
    torch.testing.assert_close(
        segment_softmax(values + shift, segment, count), segment_softmax(values, segment, count)
    )


@pytest.mark.parametrize("op", [segment_sum, segment_mean, segment_softmax])
def test_half_precision_is_rounded_once(op):
    values, segment, count = rows()
    half = values.half()
    assert torch.equal(op(half, segment, count), op(half.float(), segment, count).half())


def test_gradient_of_a_half_precision_mean_counts_beyond_2048():
    values = torch.zeros(5001, 1, dtype=torch.float16, requires_grad=True)
    segment_mean(values, torch.zeros(5001, dtype=torch.int64), 1).sum().backward()
    assert values.grad is not None
    assert values.grad[0] == torch.tensor(1 / 5001, dtype=torch.float16)


@pytest.mark.parametrize("op", [segment_sum, segment_mean, segment_max, segment_softmax])
def test_errors_say_what_came(op):
    values, segment, count = rows()
    with pytest.raises(ValueError, match=r"segment\[0\] is 9"):
        op(values, torch.full_like(segment, 9), count)
    with pytest.raises(ValueError, match="segment has shape"):
        op(values, segment[:3], count)
    with pytest.raises(ValueError, match="values is int64"):
        op(values.long(), segment, count)


@pytest.mark.parametrize("row", [0, 255, 256, 700])
def test_the_first_nan_wins_wherever_it_stands_in_a_long_segment(row):
    values = torch.arange(900.0)[:, None]
    values[row] = values[800] = torch.nan
    out, argmax = segment_max(values, torch.zeros(900, dtype=torch.int64), 1)
    assert out.isnan().all() and argmax.item() == row


@pytest.mark.numba_bodies
def test_gradient_of_gathered_rows_is_the_same_with_every_run_and_thread():
    """Large enough for threads; torch's own indexing sums such gradients in the order of chance."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(50, 32, generator=generator)
    rows = torch.randint(-1, 50, (40_000,), generator=generator)
    weights = torch.randn(40_000, 32, generator=generator)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 2, 2, 2):
            torch.set_num_threads(threads)
            leaf = values.clone().requires_grad_()
            (gather_rows(leaf, rows) * weights).sum().backward()
            found.append(leaf.grad)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0], other) for other in found[1:])
    want = torch.zeros(51, 32, dtype=torch.float64).index_add_(0, rows + 1, weights.double())[1:]
    torch.testing.assert_close(found[0].double(), want, rtol=1e-5, atol=1e-3)


def test_ids_outside_are_named_before_anything_is_written():
    values = torch.ones(4, 2)
    for op in (segment_sum, segment_mean, segment_max, segment_softmax):
        for segment, row in (([0, 1, 5, 1], 2), ([0, -1, 1, 1], 1), ([0, 1, 2, 3], 3)):
            with pytest.raises(ValueError, match=rf"segment\[{row}\] is {segment[row]}, expected .*\[0, 3\)"):
                op(values, torch.tensor(segment), 3)


def test_empty_segments_between_full_ones_over_many_chunks():
    """Sorted ids whose segments run over the borders of the parts that are looked at side by side."""
    rng = torch.Generator().manual_seed(5)
    segment = torch.randint(0, 40, (200_000,), generator=rng).sort()[0] * 3 + 1
    sums = segment_sum(torch.ones(len(segment), 1, dtype=torch.float64), segment, 130)
    assert torch.equal(sums[:, 0].long(), torch.bincount(segment, minlength=130))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_gathered_rows_are_the_same_bits(dtype):
    values = torch.randn(7, 5).to(dtype)
    values[2] = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0, 0.0]).to(dtype)
    rows = torch.tensor([2, -1, 6, 6, 0])
    got = gather_rows(values, rows)
    padded = torch.cat([values, torch.zeros(1, 5, dtype=dtype)])[rows]
    bits = torch.int64 if dtype.itemsize == 8 else torch.int32 if dtype.itemsize == 4 else torch.int16
    assert got.dtype == dtype and torch.equal(got.view(bits), padded.view(bits))


@pytest.mark.numba_bodies
@pytest.mark.parametrize("order", ["sorted", "any"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_columns_of_any_number_are_reduced_alike(dtype, order):
    # Widths pass through four, two and one vectors in registers and through what fills none, for every length
    # of a vector; numbers repeat, so that rows tie, and some are NaN.
    generator = torch.Generator().manual_seed(3)
    segment = torch.randint(0, 30, (400,), generator=generator)
    segment[segment == 7] = 8  # an empty one
    segment = segment.sort()[0] if order == "sorted" else segment
    values = torch.randint(-20, 20, (400, 130), generator=generator).to(dtype)
    values[torch.rand(400, 130, generator=generator) < 0.005] = torch.nan
    rows = torch.arange(400)[:, None].expand(-1, 130)
    total = torch.zeros(30, 130, dtype=dtype).index_add_(0, segment, values)
    index = segment[:, None].expand(-1, 130)
    most = torch.zeros(30, 130, dtype=dtype).scatter_reduce_(0, index, values, "amax", include_self=False)
    first = torch.where((values == most[segment]) | values.isnan(), rows, 400)
    lowest = torch.full((30, 130), 400).scatter_reduce_(0, index, first, "amin")
    lowest[7] = -1
    for width in (1, 3, 4, 8, 15, 16, 17, 32, 33, 50, 64, 97, 130):
        part = values[:, :width]
        torch.testing.assert_close(segment_sum(part, segment, 30), total[:, :width], equal_nan=True)
        largest, place = segment_max(part, segment, 30)
        torch.testing.assert_close(largest, most[:, :width], rtol=0, atol=0, equal_nan=True)
        assert torch.equal(place, lowest[:, :width])
