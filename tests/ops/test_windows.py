"""Laws of windows and sets beyond the law suite."""

import pytest
import torch

from sparse3d_ops.windows import padded_sets, window_sets
from tests.ops.cases_windows import CASES, voxels
from tests.oracles.windows import slots_of_windows

CPU = torch.device("cpu")


@pytest.mark.parametrize("case", CASES)
def test_padded_sets_are_the_slots_of_the_paper(case):
    arguments = CASES[case](torch.float32, CPU)
    sets = window_sets(*arguments)
    wanted, _ = slots_of_windows(*arguments)
    for order, slots in zip((sets.order_y, sets.order_x), wanted, strict=True):
        padded = padded_sets(order, sets.offsets, sets.set_window, arguments[-1])
        assert padded.slots.tolist() == [rows for _, rows in slots]
        repeated = [[k > 0 and rows[k] == rows[k - 1] for k in range(len(rows))] for _, rows in slots]
        assert padded.repeated.tolist() == repeated


@pytest.mark.parametrize("case", [case for case in CASES if case != "empty"])
def test_every_voxel_is_in_one_set_and_sets_of_a_window_differ_by_one_at_most(case):
    arguments = CASES[case](torch.float32, CPU)
    sets = window_sets(*arguments)
    for order in (sets.order_y, sets.order_x):
        assert torch.equal(order.sort()[0], torch.arange(len(arguments[0])))
    lengths = sets.offsets.diff()
    assert lengths.min() >= 1 and lengths.max() <= arguments[-1]
    for window in range(int(sets.set_window[-1]) + 1):
        own = lengths[sets.set_window == window]
        assert own.max() - own.min() <= 1
        assert len(own) == -(-int(own.sum()) // arguments[-1])


def test_sets_do_not_depend_on_the_order_of_the_voxels():
    coordinates = voxels(150, [20, 17, 3], batches=2)
    shuffle = torch.randperm(len(coordinates), generator=torch.Generator().manual_seed(1))
    rest = [20, 17, 3], [6, 6, 2], [3, 3, 1], 7
    sets, shuffled = window_sets(coordinates, *rest), window_sets(coordinates[shuffle], *rest)
    assert torch.equal(shuffle[shuffled.order_y], sets.order_y)
    assert torch.equal(shuffle[shuffled.order_x], sets.order_x)
    assert torch.equal(shuffled.offsets, sets.offsets)


def test_many_voxels_of_a_wide_grid():
    """Keys beyond 32 bits, sorted in several passes."""
    shape = [100_000, 90_000, 40]
    generator = torch.Generator().manual_seed(0)
    axes = [torch.randint(0, size, (5000,), generator=generator) for size in (5, *shape)]
    coordinates = torch.stack(axes, dim=1).int()
    arguments = coordinates, shape, [2000, 3000, 8], [1000, 500, 4], 4
    sets = window_sets(*arguments)
    wanted, _ = slots_of_windows(*arguments)
    padded = padded_sets(sets.order_x, sets.offsets, sets.set_window, 4)
    assert padded.slots.tolist() == [rows for _, rows in wanted[1]]


def test_errors_say_what_came():
    coordinates = voxels(5, [5, 5, 1])
    with pytest.raises(ValueError, match=r"coordinates reach from .* expected \(batch, x, y, z\) within"):
        window_sets(coordinates, [1, 5, 1], [2, 2, 1], [0, 0, 0], 3)
    with pytest.raises(ValueError, match="window is"):
        window_sets(coordinates, [5, 5, 1], [2, 0, 1], [0, 0, 0], 3)
    with pytest.raises(ValueError, match="larger than the window"):
        window_sets(coordinates, [5, 5, 1], [2, 2, 1], [3, 0, 0], 3)
    with pytest.raises(ValueError, match="set_size is 0"):
        window_sets(coordinates, [5, 5, 1], [2, 2, 1], [1, 1, 0], 0)
    with pytest.raises(ValueError, match="pass 2"):
        window_sets(coordinates, [1 << 30, 1 << 30, 8], [2, 2, 1], [1, 1, 0], 3)
