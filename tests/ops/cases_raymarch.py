"""Rays through boxes and grids under the law suite."""

import torch

from sparse3d_ops import hashing, raymarch
from tests.ops.laws import OpLaw
from tests.oracles import raymarch as oracle

LOW, HIGH = (-1.0, -0.5, 0.25), (1.0, 0.75, 2.0)


def box(dtype, device):
    return torch.tensor(LOW, dtype=dtype, device=device), torch.tensor(HIGH, dtype=dtype, device=device)


def rays(count, dtype, device):
    """Rays from around the box and from inside of it, towards places in it and beside it."""
    low, high = box(dtype, "cpu")
    origins = low + (torch.rand(count, 3, dtype=dtype) * 3 - 1) * (high - low)
    directions = low + (torch.rand(count, 3, dtype=dtype) * 1.4 - 0.2) * (high - low) - origins
    return origins.to(device), (directions / directions.norm(dim=1, keepdim=True)).to(device)


def special_rays(dtype, device):
    """Along the axes, in the faces of the box, from inside, away from it, nowhere."""
    inf, nan = torch.inf, torch.nan
    listed = [
        [[-3, 0.1, 1], [1, 0, 0]],
        [[0.1, 3, 1], [0, -1, 0]],
        [[0.1, 0.1, 0.5], [0, 0, 1]],
        [[-3, 0.1, 1], [-1, 0, 0]],  # away
        [[-3, 0.75, 1], [1, 0, 0]],  # in a face
        [[-3, 0.76, 1], [1, 0, 0]],  # beside it
        [[-3, 0.75, 2], [1, -0.0, 0]],  # in an edge
        [[1, 0.75, 2], [-1, -1, -1]],  # from a corner into the box
        [[1, 0.75, 2], [1, 1, 1]],  # touches a corner
        [[0, 0, 1], [0, 0, 0]],
        [[nan, 0, 1], [1, 0, 0]],
        [[0, 0, 1], [nan, 0, 1]],
        [[-inf, 0, 1], [1, 0, 0]],
        [[0, 0, 1], [inf, 0, 0]],
        [[0, 0, 1], [1e-30, 1, 1e-30]],
    ]
    both = torch.tensor(listed, dtype=dtype, device=device)
    return both[:, 0].contiguous(), both[:, 1].contiguous()


def _box(make_rays):
    return lambda dtype, device: (*make_rays(dtype, device), *box(dtype, device))


BOXES = {
    "empty": _box(lambda dtype, device: rays(0, dtype, device)),
    "single": _box(lambda dtype, device: rays(1, dtype, device)),
    "many": _box(lambda dtype, device: rays(150, dtype, device)),
    "border": _box(special_rays),
}


def grid(shape, share):
    return torch.rand(shape) < share


def _grid(shape, share):
    return lambda dtype, device: (grid(shape, share).to(device),)


GRIDS = {
    "single": _grid((1, 1, 1), 0.0),
    "full": _grid((5, 4, 3), 1.0),
    "empty": _grid((33, 17, 16), 0.0),
    "border": _grid((19, 34, 9), 0.01),
    "many": _grid((32, 32, 32), 0.002),
}


def _march(make_rays, shape, share, step=0.11, jitter=True, limits=(0.0, torch.inf)):
    def make(dtype, device):
        origins, directions = make_rays(dtype, device)
        blocks = raymarch.empty_blocks(grid(shape, share)).to(device)
        near, far = (torch.full_like(origins[:, 0], limit) for limit in limits)
        offset = torch.full_like(near, 0.5)
        if jitter:
            offset = torch.rand(len(near), dtype=dtype).to(device)
        return origins, directions, near, far, blocks, *box(dtype, device), step, offset

    return make


def some_rays(count):
    return lambda dtype, device: rays(count, dtype, device)


def _no_order(dtype, device):
    # Limits that are NaN, in the wrong order, equal or behind the box.
    args = list(_march(some_rays(6), (4, 4, 4), 0.9)(dtype, device))
    args[2] = torch.tensor([torch.nan, 0, 2, 1, 90, 0], dtype=dtype, device=device)
    args[3] = torch.tensor([9, torch.nan, 1, 1, 99, 9], dtype=dtype, device=device)
    return tuple(args)


MARCHES = {
    "empty": _march(some_rays(0), (4, 4, 4), 0.5),
    "empty_grid": _march(some_rays(20), (16, 16, 16), 0.0),
    "single": _march(some_rays(1), (1, 1, 1), 1.0),
    "full": _march(some_rays(20), (7, 3, 5), 1.0, step=0.3),
    "negative_limits": _march(some_rays(20), (7, 3, 5), 0.7, limits=(-4.0, 0.9)),
    "no_order": _no_order,
    "border": _march(special_rays, (8, 5, 7), 0.6, step=0.125, jitter=False),
    "long_step": _march(some_rays(20), (7, 3, 5), 0.7, step=20.0),
    "sparse": _march(some_rays(60), (40, 24, 33), 0.02, step=0.03),
    "fine": _march(some_rays(12), (64, 64, 64), 0.001, step=0.004),
}


def _table(coordinates, device):
    return [part.to(device) for part in hashing.build(hashing.pack(coordinates.int()))]


def blob(count, size=9, frames=1):
    """Distinct voxels around zero, in a blob: (count, 4)."""
    axis = torch.arange(-(size // 2), size - size // 2)
    grid = torch.cartesian_prod(torch.arange(frames), axis, axis, axis)
    return grid[torch.randperm(len(grid))[:count]]


def _traverse(make_rays, make_voxels, cell=(0.3, 0.2, 0.25), limits=(0.0, torch.inf), batch=1):
    def make(dtype, device):
        origins, directions = make_rays(dtype, device)
        near, far = (torch.full_like(origins[:, 0], limit) for limit in limits)
        low, size = (torch.tensor(x, dtype=dtype, device=device) for x in ((0.1, 0.0, 1.0), cell))
        frames = torch.randint(0, batch, (len(near),)).to(device)
        return origins, directions, near, far, *_table(make_voxels(), device), low, size, frames

    return make


def _in_the_grid(dtype, device):
    """Rays along faces and through corners of voxels of one metre: nothing is rounded."""
    directions = torch.cartesian_prod(*(torch.tensor([-1.0, 0.0, 1.0, 2.0]),) * 3)
    origins = torch.tensor([[0.0, 0, 0], [0.5, 1, -1], [1, 0.25, 0.5]])
    pairs = torch.cartesian_prod(torch.arange(len(origins)), torch.arange(len(directions)))
    origins, directions = origins[pairs[:, 0]].to(dtype), directions[pairs[:, 1]].to(dtype)
    near = torch.full((len(pairs),), -20.0, dtype=dtype)
    table = _table(blob(40, size=4), device)
    low, size = torch.zeros(3, dtype=dtype), torch.ones(3, dtype=dtype)
    frames = torch.zeros(len(pairs), dtype=torch.int32)
    rest = low, size, frames
    return *(x.to(device) for x in (origins, directions, near, -near)), *table, *(x.to(device) for x in rest)


def _far_apart():
    return torch.tensor([[0, -131072, 0, 0], [0, 131071, 0, 0], [0, 5, 0, 0], [0, 5, 1, 0]])


def _along_x(dtype, device):
    origins = torch.tensor([[0.2, 0.1, 1.1]] * 2, dtype=dtype, device=device)
    directions = torch.tensor([[1.0, 0, 0], [-1.0, 1e-7, 0]], dtype=dtype, device=device)
    return origins, directions


TRAVERSES = {
    "empty": _traverse(some_rays(0), lambda: blob(9)),
    "empty_table": _traverse(some_rays(5), lambda: blob(0)),
    "single": _traverse(some_rays(9), lambda: blob(1, size=1)),
    "negative": _traverse(some_rays(40), lambda: blob(150)),
    "full": _traverse(some_rays(20), lambda: blob(729)),
    "limits": _traverse(some_rays(20), lambda: blob(300), limits=(-1.0, 1.5)),
    "frames": _traverse(some_rays(20), lambda: blob(300, size=6, frames=3), batch=4),
    "border": _traverse(special_rays, lambda: blob(300)),
    "in_the_grid": _in_the_grid,
    "far_apart": _traverse(_along_x, _far_apart, cell=(0.125, 0.125, 0.125)),
}
LAWS = [
    OpLaw(raymarch.ray_box, oracle.ray_box, BOXES),
    OpLaw(raymarch.empty_blocks, oracle.empty_blocks, GRIDS, floating=False),
    OpLaw(raymarch.march_blocks, oracle.march, MARCHES),
    OpLaw(raymarch.traverse_voxels, oracle.traverse, TRAVERSES),
]
