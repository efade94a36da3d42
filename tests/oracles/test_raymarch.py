"""The definitions of rays through boxes and grids on cases computed by hand."""

import math

import torch

from sparse3d_ops import hashing
from tests.oracles import raymarch as oracle

LOW, HIGH = torch.zeros(3), torch.tensor([4.0, 2.0, 1.0])


def rays(*listed):
    both = torch.tensor(listed)
    return both[:, 0], both[:, 1]


def test_a_box_is_met_in_front_and_from_inside_and_missed_behind_and_beside():
    x = [1.0, 0.0, 0.0]
    near, far = oracle.ray_box(
        *rays([[-1.0, 1, 0.5], x], [[1.0, 1, 0.5], x], [[5.0, 1, 0.5], x], [[-1.0, 3, 0.5], x]), LOW, HIGH
    )
    assert near.tolist() == [1, 0, math.inf, math.inf]
    assert far.tolist() == [5, 3, -math.inf, -math.inf]


def test_empty_blocks_are_aligned_and_may_reach_over_the_end():
    occupancy = torch.zeros(5, 1, 1, dtype=torch.bool)
    occupancy[0] = True
    # Cell 1 shares its block of two with cell 0; 2 and 3 make one of two; 4 to 7 one of four, and 0 to 7 is
    # none.
    assert oracle.empty_blocks(occupancy)[:, 0, 0].tolist() == [0, 1, 2, 2, 3]


def test_a_ray_is_cut_into_bins_of_which_the_last_is_shorter():
    blocks = torch.zeros(4, 1, 1, dtype=torch.uint8)
    blocks[1] = 1  # 1 to 2 metres
    origin, direction = rays([[-1.0, 1, 0.5], [1.0, 0, 0]])
    near, far = torch.tensor([1.25]), torch.tensor([9.0])
    arguments = origin, direction, near, far, blocks, LOW, HIGH
    starts, t, dt = oracle.march(*arguments, 1.0, torch.tensor([0.5]))
    # Bins from 1.25, 2.25, 3.25 and 4.25 to 5; looked at in x = 0.75, 1.75 (empty), 2.75 and 3.625
    assert starts.tolist() == [0, 3]
    assert t.tolist() == [1.75, 3.75, 4.625]
    assert dt.tolist() == [1, 1, 0.75]


def test_the_voxels_of_a_row_are_crossed_in_order_and_of_their_own_batch():
    voxels = torch.tensor([[0, 3, 0, 0], [0, 1, 0, 0], [1, 2, 0, 0], [0, 0, 1, 0]], dtype=torch.int32)
    table = hashing.build(hashing.pack(voxels))
    origin, direction = rays([[-1.0, 0.25, 0.25], [1.0, 0, 0]], [[-1.0, 0.25, 0.25], [1.0, 0, 0]])
    near, far = torch.tensor([0.0, 0.0]), torch.tensor([9.0, 2.75])
    size = torch.full((3,), 0.5)
    arguments = origin, direction, near, far, *table, torch.tensor([0.25, 0.0, 0.0]), size
    starts, row, t0, t1 = oracle.traverse(*arguments, torch.tensor([0, 1]))
    # Voxel 1 reaches from 0.25 + 0.5 to 1.25 metres, which is at 1.75 to 2.25 of the ray.
    assert starts.tolist() == [0, 2, 3] and row.tolist() == [1, 0, 2]
    assert t0.tolist() == [1.75, 2.75, 2.25] and t1.tolist() == [2.25, 3.25, 2.75]
