"""The oracle of the windows on cases worked out by hand."""

import torch

from tests.oracles.windows import slots_of_windows, window_sets


def test_five_voxels_of_one_window_by_hand():
    # (x, y): 0 (0,0), 1 (1,0), 2 (0,1), 3 (1,1), 4 (2,0). Along y: 0 1 4 2 3; along x: 0 2 1 3 4. With sets
    # of 4 there are 2, and slots 0..7 hold ranks floor(t * 5 / 8) = 0 0 1 1 | 2 3 3 4.
    cells = torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 1, 1, 0], [0, 2, 0, 0]]).int()
    (along_y, along_x), place = slots_of_windows(cells, [3, 2, 1], [3, 2, 1], [0, 0, 0], 4)
    assert [slots for _, slots in along_y] == [[0, 0, 1, 1], [4, 2, 2, 3]]
    assert [slots for _, slots in along_x] == [[0, 0, 2, 2], [1, 3, 3, 4]]
    assert place == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [2, 0, 0]]
    order_y, order_x, offsets, window, _ = window_sets(cells, [3, 2, 1], [3, 2, 1], [0, 0, 0], 4)
    assert order_y.tolist() == [0, 1, 4, 2, 3] and order_x.tolist() == [0, 2, 1, 3, 4]
    assert offsets.tolist() == [0, 2, 5] and window.tolist() == [0, 0]


def test_windows_are_counted_by_sample_then_x_then_y_and_shifted_by_hand():
    # Shifted by 1 with windows of 2: x = 0 lies in window 0 at place 1, x = 1 in window 1 at place 0.
    cells = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]).int()
    order, _, offsets, window, place = window_sets(cells, [2, 2, 1], [2, 2, 1], [1, 1, 1], 3)
    assert order.tolist() == [2, 3, 1, 0] and window.tolist() == [0, 1, 2, 3]
    assert offsets.tolist() == [0, 1, 2, 3, 4]
    assert place.tolist() == [[1, 1, 0], [0, 1, 0], [1, 1, 0], [1, 0, 0]]  # z is not shifted: one layer
