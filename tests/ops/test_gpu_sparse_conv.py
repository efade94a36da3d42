"""Laws of the Triton bodies of sparse convolution beyond the law suite: every way of cutting them up, the
order of rows, precision, and large offsets. Run with --bodies triton."""

import gc

import pytest
import torch

from tests.ops.test_sparse_conv import dense_sum, random_map

pytest.importorskip("triton")
pytestmark = pytest.mark.triton_bodies

from sparse3d_ops.gpu import narrow_groups, partial_sums, sparse_conv, tap_order, weight_gradient  # noqa: E402
from sparse3d_ops.gpu.autotune import use  # noqa: E402


def lidar_like(outputs=90, inputs=80, taps=27):
    """A table whose rows have few taps, some of them the same ones, and one row none."""
    table, reverse = random_map(inputs, outputs, taps, share=0.3)
    table[5::3, taps // 2 :] = -1
    table[7] = -1
    return table


def conv_case(depth, width, dtype=torch.float32, taps=27, groups=1):
    torch.manual_seed(0)
    table = lidar_like(taps=taps)
    return torch.randn(80, depth * groups, dtype=dtype), torch.randn(taps, depth, width, dtype=dtype), table


def assert_near(got, want, tolerance=1e-5):
    torch.testing.assert_close(got.double(), want.double(), rtol=0, atol=tolerance * float(want.abs().max()))


def default(depth, width, taps=27, rows=90, groups=1, item_bytes=4):
    return sparse_conv.default_choice(sparse_conv.Shape(rows, taps, depth, width, groups, item_bytes))


CHOICES = [
    sparse_conv.Choice(*tile, 2, *cut) for tile in sparse_conv.TILES for cut in (sparse_conv.CUTS[0], (2, 2))
] + [sparse_conv.Choice(64, 32, 32, 4, 3, *cut) for cut in sparse_conv.CUTS]


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: "-".join(map(str, choice)))
def test_every_way_of_cutting_up_gives_the_sum(choice):
    for depth, width in ((33, 40), (5, 16)):  # steps with a remainder; steps of several taps
        x, weight, table = conv_case(depth, width, torch.float16)
        got = sparse_conv.convolve_with(choice, x, weight, table, tap_order.of(table), 1)
        assert_near(got, dense_sum(x.double(), weight.double(), table), 1e-3)  # half of a last bit is 5e-4


def test_what_tuning_tries_is_what_a_file_may_say_and_what_was_tested():
    for depth in (3, 16, 40, 256):
        for width in (3, 16, 40, 256):
            for item_bytes in (2, 4, 8):
                shape = sparse_conv.Shape(10**6, 27, depth, width, 1, item_bytes)
                best = sparse_conv.default_choice(shape)
                tried = {best, *(c for vary in sparse_conv.rounds(shape) for c in vary(best))}
                assert len(tried) > 3 and all(map(sparse_conv.allowed, tried))
                assert all(
                    c[:4] in sparse_conv.TILES or c[:4] == best[:4] for c in tried if c[5:] == best[5:]
                )
                assert shape.tile_bytes(best) <= 48 << 10
                shape = weight_gradient.Shape((10**6,) * 27, depth, width, 1, item_bytes)
                best = weight_gradient.default_choice(shape)
                tried = {best, *(c for vary in weight_gradient.rounds(shape) for c in vary(best))}
                assert len(tried) > 3 and all(map(weight_gradient.allowed, tried))
    assert not sparse_conv.allowed(sparse_conv.Choice(100, 64, 32, 4, 3))
    assert not weight_gradient.allowed(weight_gradient.Choice(64, 64, 32, 4, 3, 0))


@pytest.mark.parametrize("tile", weight_gradient.TILES, ids=lambda tile: "-".join(map(str, tile)))
def test_every_way_of_cutting_up_gives_the_weight_gradient(tile, monkeypatch):
    monkeypatch.setattr(partial_sums, "piece_length", lambda counts, pieces, size, least: pieces)
    x, _, table = conv_case(33, 40, torch.float16, taps=5)
    grad = torch.randn(90, 40).half()
    rows = torch.cat([x, x.new_zeros(1, 33)])[table.long()]
    want = torch.einsum("ovi,oc->vic", rows.double(), grad.double())
    known = tap_order.of(table)
    for length in (16, 1024):  # pieces shorter than a tap's pairs, and one piece a tap
        programs = length * -(-33 // tile[0]) * -(-40 // tile[1])
        choice = weight_gradient.Choice(*tile, 2, programs)
        assert_near(weight_gradient.gradient_with(choice, x, grad, known, known.pairs(table), 1), want, 1e-3)


@pytest.mark.parametrize("taps", [1, 32, 64, 125])
def test_any_number_of_taps(taps):
    for depth, groups in ((17, 1), (1, 6), (16, 2)):
        x, weight, table = conv_case(depth, 18 if groups == 1 else depth * groups, taps=taps, groups=groups)
        blocks = x.reshape(80, groups, depth).unbind(1), weight.chunk(groups, 2)
        want = torch.cat([dense_sum(a, w, table) for a, w in zip(*blocks, strict=True)], 1)
        assert_near(sparse_conv.convolve(x, weight, table, groups), want)


def test_rows_are_ordered_by_their_taps_and_tiles_list_what_their_rows_have():
    for taps, splits in ((27, 1), (27, 3), (70, 1), (140, 2)):
        table = lidar_like(outputs=70, taps=taps)
        order, lists, counts, visit = tap_order.of(table).tiles(table, splits, 32)
        span = tap_order.split_span(taps, splits)
        for split in range(splits):
            assert torch.equal(order[split].sort().values, torch.arange(70, dtype=torch.int32))
            part = (table[:, split * span : (split + 1) * span] >= 0)[order[split].long()]
            rarest_first = part[:, part.sum(0).argsort(stable=True)]
            codes = rarest_first.cumsum(1) % 2  # of a reflected Gray code, the bits of its rank
            keys = [(*code, int(row)) for code, row in zip(codes.tolist(), order[split], strict=True)]
            assert keys == sorted(keys)
            assert torch.equal(counts[split][visit[split].long()], counts[split].sort(descending=True).values)
            for tile, rows in enumerate(part.split(32)):
                want = rows.any(0).nonzero()[:, 0] + split * span
                assert lists[split, tile, : counts[split, tile]].tolist() == want.tolist()


def test_pairs_are_all_neighbours_by_tap_and_pieces_cut_them_within_taps():
    table = lidar_like()
    known = tap_order.of(table)
    inputs, outputs, counts = known.pairs(table)
    want = [(v, o, int(table[o, v])) for v in range(27) for o in range(90) if table[o, v] >= 0]
    taps = torch.repeat_interleave(torch.arange(27), torch.tensor(counts))
    assert list(zip(taps.tolist(), outputs.tolist(), inputs.tolist(), strict=True)) == want
    begin, end, first = known.chunks(known.pairs(table), 4)
    for tap in range(27):
        mine = slice(int(first[tap]), int(first[tap + 1]))
        edges = [*begin[mine].tolist(), sum(counts[: tap + 1])]
        assert edges[0] == sum(counts[:tap]) and edges[1:] == end[mine].tolist()
        assert all(1 <= b - a <= 4 for a, b in zip(edges, edges[1:], strict=False))


def test_what_is_known_of_a_table_is_used_again_and_forgotten_with_it():
    gc.collect()
    before = len(tap_order._known)
    x, weight, table = conv_case(4, 4)
    sparse_conv.convolve(x, weight, table, 1)
    known = tap_order.of(table)
    sparse_conv.convolve(x, weight, table, 1)
    assert tap_order.of(table) is known and len(tap_order._known) == before + 1
    assert tap_order.of(table.view_as(table)) is not known
    del table
    gc.collect()
    assert len(tap_order._known) == before


def test_an_op_and_its_backward_see_the_same_tensor_object():
    # What is known of a table is found by its object: the dispatcher and autograd must hand it through.
    from sparse3d_ops.sparse_conv import sparse_conv as op

    table, reverse = random_map(20, 24, 3)
    x = torch.randn(20, 4, requires_grad=True)
    weight = torch.randn(3, 4, 5, requires_grad=True)
    out = op(x, weight, table, reverse, 1)
    made = tap_order._known[table]
    out.sum().backward()
    assert tap_order._known[table] is made and reverse in tap_order._known


@pytest.mark.parametrize("inference", [False, True])
def test_an_edit_in_place_is_seen(inference):
    with torch.inference_mode(inference):
        x, weight, table = conv_case(4, 4)
        sparse_conv.convolve(x, weight, table, 1)
        weight_gradient.weight_gradient(x, torch.randn(90, 4), table, 1)
        table.copy_(lidar_like().flip(0).flip(1))
        want = dense_sum(x, weight, table)
        assert_near(sparse_conv.convolve(x, weight, table, 1), want)
        grad = torch.randn(90, 4)
        rows = torch.cat([x, x.new_zeros(1, 4)])[table.long()]
        want = torch.einsum("ovi,oc->vic", rows, grad)
        assert_near(weight_gradient.weight_gradient(x, grad, table, 1), want)


def test_a_new_table_at_an_old_address_is_a_new_table():
    x, weight, table = conv_case(4, 4)
    memory = table.clone()
    first = memory.view(90, 27)
    sparse_conv.convolve(x, weight, first, 1)
    address = first.data_ptr()
    del first
    memory.numpy()[:] = table.flip(0).numpy()  # as when memory is given back and taken again
    second = memory.view(90, 27)
    assert second.data_ptr() == address
    assert_near(sparse_conv.convolve(x, weight, second, 1), dense_sum(x, weight, second))


@pytest.mark.parametrize(("depth", "groups"), [(4, 1), (20, 1), (1, 4)])
def test_rows_out_of_range_are_taken_for_missing_ones_by_the_kernels(depth, groups):
    # The op refuses them where it sees them; what it cannot see must not be read.
    x, weight, table = conv_case(depth, 4, groups=groups)
    x = torch.cat([x, torch.full_like(x, torch.nan)])[:80]  # what lies behind the last row would be seen
    broken = table.clone()
    broken[3, 2], broken[4, 5], broken[6, 1] = 80, 2**31 - 1, -(2**31)
    fixed = torch.where((broken >= 0) & (broken < 80), broken, -1)
    got = sparse_conv.convolve(x, weight, broken, groups)
    assert_near(got, sparse_conv.convolve(x, weight, fixed, groups))


def test_a_row_that_is_not_a_number_stays_with_its_neighbours():
    x, weight, table = conv_case(20, 16)
    x[0] = torch.nan
    out = sparse_conv.convolve(x, weight, table, 1)
    assert torch.equal(out.isnan().any(1), (table == 0).any(1))


@pytest.mark.parametrize(("dtype", "count"), [(torch.float16, 2100), (torch.bfloat16, 300)], ids=str)
def test_halves_are_summed_in_float32(dtype, count):
    # So many ones: a sum in halves would stop at 2048, in bfloat16 at 256.
    want = torch.tensor(float(count)).to(dtype)
    ones = torch.ones(count, 20, dtype=dtype)
    each, all_taps = torch.arange(count, dtype=torch.int32)[:, None], torch.zeros(2, count, dtype=torch.int32)
    for groups in (1, 20):
        got = weight_gradient.weight_gradient(ones, ones, each, groups)
        assert got.shape == (1, 20 // groups, 20) and bool((got == want).all())
    weight = torch.ones(count, 1, 20, dtype=dtype)
    assert bool((sparse_conv.convolve(ones, weight, all_taps, 20) == want).all())
    table = all_taps[:, : count // 20].contiguous()
    weight = torch.ones(count // 20, 20, 16, dtype=dtype)
    want = torch.tensor(float(count // 20 * 20)).to(dtype)
    for splits, slices in ((1, 1), (2, 1), (1, 4)):
        choice = default(20, 16, count // 20, 2, item_bytes=2)._replace(splits=splits, slices=slices)
        got = sparse_conv.convolve_with(choice, ones, weight, table, tap_order.of(table), 1)
        assert bool((got == want).all())


def test_partial_sums_are_rounded_once():
    # 1 + 2^-11 in halves is a tie that rounds to 1: three such parts count only when they are summed first.
    parts = torch.tensor([[1.0], [2**-11], [2**-11], [2**-11]])
    assert partial_sums.add_buffers(parts, torch.float16) == torch.tensor(1 + 3 * 2**-11).half()
    first = torch.tensor([0, 4, 4])
    both = partial_sums.add_by_tap(parts[:, None], first, torch.float16)
    assert both.flatten().tolist() == [float(torch.tensor(1 + 3 * 2**-11).half()), 0.0]


def test_float32_products_are_tf32_only_where_torch_allows_it():
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    try:
        for setting, name in (("ieee", "ieee"), ("tf32", "tf32")):
            matmul.fp32_precision = setting
            assert sparse_conv.precision(torch.float32) == name
            assert sparse_conv.precision(torch.float64) == sparse_conv.precision(torch.float16) == "ieee"
            assert sparse_conv.precision_name(torch.float32) == {"ieee": "float32"}.get(name, name)
    finally:
        matmul.fp32_precision = before


def test_weights_of_an_input_gradient_are_read_where_they_are():
    x, weight, table = conv_case(20, 24)
    turned = weight.transpose(1, 2).contiguous().transpose(1, 2)
    assert not turned.is_contiguous()
    got, want = (sparse_conv.convolve(x, w, table, 1) for w in (turned, weight))
    assert torch.equal(got, want)


def test_a_stored_choice_is_used(tmp_path, monkeypatch):
    import json

    x, weight, table = conv_case(20, 24)
    task = "convolve float32 rows 2^7 taps 27 channels 20x24 groups 1 weight by rows"
    wanted = [32, 16, 32, 2, 2, 3, 2]
    path = tmp_path / "choices.json"
    path.write_text(json.dumps({"choices": {task: wanted}}))
    seen = []
    launch = sparse_conv.convolve_with
    monkeypatch.setattr(
        sparse_conv, "convolve_with", lambda choice, *rest: seen.append(choice) or launch(choice, *rest)
    )
    use(str(path))
    try:
        assert_near(sparse_conv.convolve(x, weight, table, 1), dense_sum(x, weight, table))
    finally:
        use(None)
    assert [list(choice) for choice in seen] == [wanted]


@pytest.fixture
def sparse_memory(tmp_path, monkeypatch):
    """(elements) -> a float16 tensor in a file with holes: pages that nobody touches do not exist."""
    from triton.runtime.interpreter import GridExecutor

    # The interpreter writes all of an argument back to the device; here it is the same memory.
    monkeypatch.setattr(GridExecutor, "_restore_args_dev", lambda *_: None)

    def make(elements, name="memory"):
        return torch.from_file(str(tmp_path / name), shared=True, size=elements, dtype=torch.float16)

    return make


def test_offsets_beyond_int32(sparse_memory):
    step = 2**30 + 16  # elements from one row to the next: fits int32, its double does not
    wide = sparse_memory(4 * step).as_strided((4, 16), (step, 1))
    wide[:] = torch.randn(4, 16).half()
    table = torch.tensor([[1, 2], [-1, 3], [3, -1], [2, 0]], dtype=torch.int32)
    weight = torch.randn(2, 16, 16).half()
    want = dense_sum(wide.float().clone(), weight.float(), table).half()
    known = tap_order.of(table)
    choice = default(16, 16, 2, 4, item_bytes=2)._replace(slices=1)
    assert_near(sparse_conv.convolve_with(choice, wide, weight, table, known, 1), want, 1e-3)

    # The same launch, with rows of table and output as far apart.
    out = sparse_memory(4 * step, "out").as_strided((4, 16), (step, 1))
    far = sparse_memory(8 * step, "table").view(torch.int32).as_strided((4, 2), (step, 1))
    far[:] = table
    order, taps, counts, visit = known.tiles(table, 1, 128)
    sparse_conv.convolve_tile[(1, 1, 1)](
        *(wide, weight, far, order, taps, counts, visit, out),
        *(4, 4, step, 2, 1, 1, 16, 16, 1, step, *weight.stride(), step),
        **dict(ROWS=128, COLUMNS=16, STEP=16, PACK=1, WHOLE=True, SLICES=1, DOUBLE=False, PRECISION="ieee"),
    )
    assert_near(out, want, 1e-3)


def test_rows_beyond_int32_offsets_in_weight_gradients_and_narrow_groups(sparse_memory):
    rows = 2**27 + 3
    x = sparse_memory(rows * 16).view(rows, 16)
    x[-2:] = torch.randn(2, 16).half()
    pairs = tap_order.Pairs(
        torch.tensor([rows - 2, rows - 1], dtype=torch.int32), torch.tensor([0, 1], dtype=torch.int32), (2,)
    )
    table = torch.tensor([[rows - 2], [rows - 1]], dtype=torch.int32)
    known, grad = tap_order.of(table), torch.randn(2, 16).half()
    want = x[-2:].float().T @ grad.float()
    choice = weight_gradient.Choice(16, 16, 16, 4, 2, 1)
    assert_near(weight_gradient.gradient_with(choice, x, grad, known, pairs, 1)[0], want, 1e-3)
    got = narrow_groups.weight_gradient(x, grad, known, pairs, 16)
    assert_near(got[0, 0], want.diagonal(), 1e-3)
    weight = torch.randn(1, 1, 16).half()
    assert_near(narrow_groups.convolve(x, weight, table, 16), (x[-2:].float() * weight[0].float()), 1e-3)
