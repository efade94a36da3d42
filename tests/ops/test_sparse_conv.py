"""Laws of the sparse convolution beyond the law suite: widths, layouts, precision, and what it refuses."""

import numba
import pytest
import torch

from sparse3d_ops.cpu.microkernel import vector_bytes
from sparse3d_ops.sparse_conv import sparse_conv, sparse_conv_weight_gradient
from sparse3d_ops.sparse_pool import sparse_max, sparse_max_gradient


def random_map(inputs, outputs, taps, share=0.4, seed=0):
    """A table that joins each input to at most one output a tap, and its inverse."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.full((outputs, taps), -1, dtype=torch.int32)
    reverse = torch.full((inputs, taps), -1, dtype=torch.int32)
    count = int(share * min(inputs, outputs))
    for tap in range(taps):
        rows = torch.randperm(inputs, generator=generator)[:count]
        to = torch.randperm(outputs, generator=generator)[:count]
        table[to, tap] = rows.int()
        reverse[rows, tap] = to.int()
    return table, reverse


def dense_sum(features, weight, table):
    padded = torch.cat([features, features.new_zeros(1, features.shape[1])])
    return torch.einsum("ovi,vic->oc", padded[table.long()], weight)


@pytest.mark.parametrize("outputs", [1, 13, 255, 256, 257, 600])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_every_register_tile_and_its_remainder_gives_the_sum(dtype, outputs):
    # Widths pass through one, two, three and four blocks of columns for each vector width; depths through
    # the tiles of the weight gradient and their remainders; outputs through tiles of rows.
    generator = torch.Generator().manual_seed(1)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-13
    for depth, width in ((1, 1), (3, 16), (4, 17), (7, 33), (8, 48), (9, 64), (17, 80), (2, 130)):
        table, reverse = random_map(50, outputs, 3)
        x = torch.randn(50, depth, generator=generator, dtype=torch.float64)
        weight = torch.randn(3, depth, width, generator=generator, dtype=torch.float64)
        grad = torch.randn(outputs, width, generator=generator, dtype=torch.float64)
        want = dense_sum(x, weight, table)
        got = sparse_conv(x.to(dtype), weight.to(dtype), table, reverse, 1)
        torch.testing.assert_close(got.double(), want, rtol=tolerance, atol=tolerance * 10)
        padded = torch.cat([x, x.new_zeros(1, depth)])
        want = torch.einsum("ovi,oc->vic", padded[table.long()], grad)
        got = sparse_conv_weight_gradient(x.to(dtype), grad.to(dtype), table, reverse, 1)
        torch.testing.assert_close(got.double(), want, rtol=tolerance, atol=tolerance * 20)


@pytest.mark.numba_bodies
@pytest.mark.parametrize("width", [1, 2, 4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_narrow_groups_of_any_number_give_the_sum(dtype, width):
    # Columns pass through four vectors at once, two, single ones, one that overlaps the one before, and what
    # fills none. Of 3 taps the neighbours are found one by one, of 17 at once, of 70 in two words.
    generator = torch.Generator().manual_seed(2)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-13
    for groups, taps in ((2, 17), (64 // width + 1, 3), (64 // width + 1, 70), (160 // width, 17)):
        channels = groups * width
        table, reverse = random_map(50, 300, taps, share=0.7)
        x = torch.randn(50, channels, generator=generator, dtype=torch.float64)
        weight = torch.randn(taps, width, channels, generator=generator, dtype=torch.float64)
        grad = torch.randn(300, channels, generator=generator, dtype=torch.float64)
        wide = torch.zeros(taps, channels, channels, dtype=torch.float64)
        for c in range(channels):
            first = c // width * width
            wide[:, first : first + width, c] = weight[:, :, c]
        got = sparse_conv(x.to(dtype), weight.to(dtype), table, reverse, groups)
        want = dense_sum(x, wide, table)
        torch.testing.assert_close(got.double(), want, rtol=tolerance, atol=tolerance * 10)
        padded = torch.cat([x, x.new_zeros(1, channels)])
        want = torch.einsum("ovi,oc->vic", padded[table.long()], grad)
        want = torch.stack([want[:, c // width * width :, c][:, :width] for c in range(channels)], -1)
        got = sparse_conv_weight_gradient(x.to(dtype), grad.to(dtype), table, reverse, groups)
        torch.testing.assert_close(got.double(), want, rtol=tolerance, atol=tolerance * 20)


@pytest.mark.numba_bodies
@pytest.mark.parametrize("groups", [1, 4, 32])
def test_threads_change_no_bit(groups):
    # Whoever is free takes the next tile; crowded rows at the beginning make shares differ.
    table, reverse = random_map(900, 2000, 27, share=0.9)
    table[1000:, 1:] = -1
    x, weight, grad = torch.randn(900, 32), torch.randn(27, 32 // groups, 32), torch.randn(2000, 32)
    found = []
    for threads in {1, numba.config.NUMBA_NUM_THREADS}:
        before = numba.get_num_threads()
        numba.set_num_threads(threads)
        try:
            out = sparse_conv(x, weight, table, reverse, groups)
            found.append((out, sparse_conv_weight_gradient(x, grad, table, reverse, groups)))
        finally:
            numba.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_rows_without_neighbours_are_zero_whatever_memory_held():
    table, reverse = random_map(40, 300, 2, share=0.1)
    x, weight = torch.randn(40, 5), torch.randn(2, 5, 7)
    alone = (table < 0).all(1)
    assert alone.any()
    for groups, w in ((1, weight), (5, torch.randn(2, 1, 5))):
        assert not sparse_conv(x, w, table, reverse, groups)[alone].any()


def test_a_row_that_is_not_a_number_stays_with_its_neighbours():
    # Register tiles are filled up with copies of a row; what they sum must not reach an output.
    table, reverse = random_map(40, 60, 3)
    x, weight = torch.randn(40, 5), torch.randn(3, 5, 20)
    x[0] = torch.nan
    out = sparse_conv(x, weight, table, reverse, 1)
    assert torch.equal(out.isnan().any(1), (table == 0).any(1))
    clean = sparse_conv(x.nan_to_num(), weight, table, reverse, 1)
    assert torch.equal(out[~(table == 0).any(1)], clean[~(table == 0).any(1)])


@pytest.mark.parametrize("groups", [1, 3])
def test_layout_in_memory_does_not_matter(groups):
    table, reverse = random_map(40, 60, 4)
    x, weight, grad = torch.randn(40, 6), torch.randn(4, 6 // groups, 9), torch.randn(60, 9)
    out = sparse_conv(x, weight, table, reverse, groups)
    slope = sparse_conv_weight_gradient(x, grad, table, reverse, groups)

    def spread(t):  # the same numbers with every stride changed
        return torch.stack([t, t], -1).movedim(0, -2)[..., 0].movedim(-1, 0)

    for moved in (spread(x), x.T.contiguous().T):
        assert not moved.is_contiguous() and torch.equal(moved, x)
        assert torch.equal(sparse_conv(moved, spread(weight), spread(table), spread(reverse), groups), out)
        got = sparse_conv_weight_gradient(moved, spread(grad), spread(table), spread(reverse), groups)
        assert torch.equal(got, slope)
    same = x[:1].expand(40, 6)
    assert torch.equal(
        sparse_conv(same, weight, table, reverse, groups),
        sparse_conv(same.contiguous(), weight, table, reverse, groups),
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("groups", [1, 2])
def test_half_precision_is_rounded_once(dtype, groups):
    table, reverse = random_map(40, 60, 4)
    x, grad = torch.randn(40, 6).to(dtype), torch.randn(60, 8).to(dtype)
    weight = torch.randn(4, 6 // groups, 8).to(dtype)
    want = sparse_conv(x.float(), weight.float(), table, reverse, groups).to(dtype)
    assert torch.equal(sparse_conv(x, weight, table, reverse, groups), want)
    want = sparse_conv_weight_gradient(x.float(), grad.float(), table, reverse, groups).to(dtype)
    assert torch.equal(sparse_conv_weight_gradient(x, grad, table, reverse, groups), want)


def test_inputs_are_left_as_they_were():
    table, reverse = random_map(40, 60, 4)
    given = [torch.randn(40, 16), torch.randn(4, 16, 16), table, reverse]
    before = [t.clone() for t in given]
    out = sparse_conv(*given, 1)
    sparse_conv_weight_gradient(given[0], out, table, reverse, 1)
    values, argmax = sparse_max(given[0], table, reverse)
    sparse_max_gradient(values, argmax, reverse)
    assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))


def test_errors_say_what_came():
    table, reverse = random_map(10, 12, 3)
    x, weight, grad = torch.randn(10, 4), torch.randn(3, 4, 6), torch.randn(12, 6)

    def refuses(message, op=sparse_conv, **changed):
        names = ("features", "weight" if op is sparse_conv else "grad", "table", "reverse", "groups")
        values = (x, weight if op is sparse_conv else grad, table, reverse, 1)
        arguments = dict(zip(names, values, strict=True)) | changed
        with pytest.raises(ValueError, match=message):
            op(*arguments.values())

    beyond = table.clone()
    beyond[7, 2] = 10
    for op in (sparse_conv, sparse_conv_weight_gradient):
        refuses(r"table\[7, 2\] is 10, expected a value in \[-1, 10\)", op, table=beyond)
        refuses(r"table\[0, 0\] is -2", op, table=table.clamp(min=0) - 2)
        refuses("table is int64", op, table=table.long())
        refuses("table has shape", op, table=table[0])
        refuses("reverse has shape", op, reverse=reverse[:-1])
        refuses("features has shape", op, features=x[0])
        refuses("groups is 3: it must divide the 4 input channels", op, groups=3)
        refuses("groups is 0", op, groups=0)
        refuses("float64", op, features=x.double())
        # Sixteen taps and more are looked at a vector at a time.
        many = torch.full((12, 27), -1, dtype=torch.int32)
        for place, entry in (((11, 26), 10), ((3, 15), -2), ((5, 0), 2**31 - 1)):
            wrong, size = many.clone(), torch.full((10, 27), -1, dtype=torch.int32)
            wrong[place] = entry
            for groups in (1, 2):
                last = torch.randn(27, 4 // groups, 4) if op is sparse_conv else torch.randn(12, 4)
                with pytest.raises(ValueError, match=rf"table\[{place[0]}, {place[1]}\] is {entry}"):
                    op(x, last, wrong, size, groups)
    refuses(r"weight has shape \(3, 5, 6\), expected \(3, 4, Cout\)", weight=torch.randn(3, 5, 6))
    refuses("weight has shape", weight=weight[0])
    refuses("grad has shape", sparse_conv_weight_gradient, grad=grad[:-1])
    refuses("grad has shape", sparse_conv_weight_gradient, grad=grad[0])
    with pytest.raises(ValueError, match=r"table\[7, 2\] is 10"):
        sparse_max(x, beyond, reverse)
    with pytest.raises(ValueError, match=r"reverse\[0, 0\] is 12, expected a value in \[-1, 12\)"):
        sparse_max_gradient(grad, torch.zeros(12, 6, dtype=torch.int32), torch.full_like(reverse, 12))
    with pytest.raises(ValueError, match="argmax has shape"):
        sparse_max_gradient(grad, torch.zeros(12, 5, dtype=torch.int32), reverse)


def test_a_wrong_reverse_table_is_refused_in_the_backward_pass():
    table, reverse = random_map(10, 12, 3)
    x = torch.randn(10, 4, requires_grad=True)
    out = sparse_conv(x, torch.randn(3, 4, 6), table, reverse + 100, 1)
    with pytest.raises(ValueError, match=r"expected a value in \[-1, 12\)"):
        out.sum().backward()


def test_maximum_of_a_window_with_a_nan_is_nan_and_names_its_row():
    table = torch.tensor([[0, 1, 2], [2, 0, -1]], dtype=torch.int32)
    reverse = torch.tensor([[0, 1, -1], [-1, 0, -1], [1, -1, 0]], dtype=torch.int32)
    values, argmax = sparse_max(torch.tensor([[3.0], [torch.nan], [-torch.inf]]), table, reverse)
    assert values[0].isnan() and values[1] == 3 and argmax.tolist() == [[1], [0]]


@pytest.mark.parametrize(
    ("features", "width"),
    [
        ("+sse2,+avx2,+avx512f,+avx512bw", 64),
        ("+sse2,+avx,+avx2,-avx512f", 32),
        ("+sse2,+avx,-avx2", 16),
        ("+neon,+fp-armv8", 16),
        ("", 16),
    ],
)
def test_vectors_are_as_wide_as_the_machine_that_is_compiled_for(features, width):
    assert vector_bytes(features) == width


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_without_compiled_code_the_results_are_the_same(groups, monkeypatch):
    table, reverse = random_map(40, 60, 4)
    x, weight, grad = torch.randn(40, 6), torch.randn(4, 6 // groups, 12), torch.randn(60, 12)

    def results():
        return (
            sparse_conv(x, weight, table, reverse, groups),
            sparse_conv_weight_gradient(x, grad, table, reverse, groups),
        )

    want = results()
    assert not any(torch.equal(a, torch.zeros_like(a)) for a in want)
    # What NUMBA_DISABLE_JIT sets: the bodies would run as Python, but the micro-kernel is not there.
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    monkeypatch.setattr("sparse3d_ops.cpu.sparse_conv.convolve", None)
    monkeypatch.setattr("sparse3d_ops.cpu.sparse_conv.weight_gradient", None)
    monkeypatch.setattr("sparse3d_ops.cpu.narrow_conv.convolve", None)
    monkeypatch.setattr("sparse3d_ops.cpu.narrow_conv.weight_gradient", None)
    for got, expected in zip(results(), want, strict=True):
        torch.testing.assert_close(got, expected)
