"""Windows and sets by the definition of DSVT (arXiv 2301.06051, section 3.2): loops over slots."""

import math
from collections import defaultdict

import torch
from torch import Tensor


def slots_of_windows(coordinates, shape, window, shift, set_size):
    """For both orders a list of sets: the window (batch, x, y, z) and the row of every slot; then the place
    of every voxel within its window."""
    if shape[2] == window[2]:
        shift = [shift[0], shift[1], 0]
    members, place = defaultdict(list), []
    for row, (batch, *cell) in enumerate(coordinates.tolist()):
        moved = [c + d for c, d in zip(cell, shift, strict=True)]
        members[(batch, *(p // w for p, w in zip(moved, window, strict=True)))].append(row)
        place.append([p % w for p, w in zip(moved, window, strict=True)])
    along_y = lambda row: (place[row][1], place[row][0], place[row][2])  # noqa: E731
    along_x = lambda row: (place[row][0], place[row][1], place[row][2])  # noqa: E731
    partitions = []
    for along in (along_y, along_x):
        sets = []
        for name in sorted(members):
            rows = sorted(members[name], key=along)
            count = math.ceil(len(rows) / set_size)
            for j in range(count):
                ranks = [
                    math.floor((j * set_size + k) * len(rows) / (count * set_size)) for k in range(set_size)
                ]
                sets.append((name, [rows[rank] for rank in ranks]))
        partitions.append(sets)
    return partitions, place


def window_sets(coordinates: Tensor, shape, window, shift, set_size):
    """What the op returns: the voxels of each set once, in the order of their slots."""
    (along_y, along_x), place = slots_of_windows(coordinates, shape, window, shift, set_size)
    orders, ends = [], []
    for sets in (along_y, along_x):
        order, end = [], [0]
        for _, slots in sets:
            order += dict.fromkeys(slots)
            end.append(len(order))
        orders.append(order)
        ends.append(end)
    assert ends[0] == ends[1]
    names = sorted({name for name, _ in along_y})
    windows = [names.index(name) for name, _ in along_y]
    return (
        torch.tensor(orders[0]).long(),
        torch.tensor(orders[1]).long(),
        torch.tensor(ends[0]),
        torch.tensor(windows).long(),
        torch.tensor(place).long().reshape(-1, 3),
    )
