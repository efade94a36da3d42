"""Blocks of truncated distances under the law suite. Places in the world are float64 whatever the type of the
case, and what is kept is float32."""

import torch

from sparse3d.geometry.rigid import rigid, rotation_from_euler
from sparse3d_ops import hashing, tsdf, tsdf_blocks, tsdf_cast
from tests.ops.laws import OpLaw
from tests.oracles import tsdf as oracle

INTRINSICS = [9.5, 10.25, 5.8, 4.3]
SIZE, SIDE, TRUNCATION = 0.11, 4, 0.31


def _pose(seed=0):
    """Somewhere, so that blocks have negative numbers too."""
    angles = torch.rand(3, generator=torch.Generator().manual_seed(seed)).double().numpy() * 2 - 1
    place = [0.37, -0.21 * (seed + 1), -0.83]
    return torch.from_numpy(rigid(rotation_from_euler(*angles), place))


def _depth(height, width, seed=0):
    """Rough, with all that is no depth."""
    generator = torch.Generator().manual_seed(seed)
    depth = torch.rand(height, width, generator=generator) * 2 + 0.2
    bad = torch.tensor([0.0, -1.0, torch.nan, torch.inf, 65.535, 0.05])
    flat = depth.view(-1)
    if flat.numel() > 6 * 7:
        flat[:: flat.numel() // 6][:6] = bad
    return depth


def _blocks_case(height, width, truncation=TRUNCATION, side=SIDE, seed=0):
    def make(dtype, device):
        depth = _depth(height, width, seed).to(device)
        return depth, INTRINSICS, _pose(seed), SIZE, side, truncation, 0.1, 5.0

    return make


def _flat_wall(dtype, device):
    # Along the axes, from the middle of a block: only one axis changes.
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, 3] = 0.05
    return torch.full((3, 4), 1.0, device=device), [400.0, 400.0, 2.0, 1.5], pose, SIZE, 4, 0.5, 0.0, 9.0


BLOCKS = {
    "none": _blocks_case(0, 0),
    "single": _blocks_case(1, 1),
    "rough": _blocks_case(9, 12),
    "long_truncation": _blocks_case(5, 7, truncation=1.5, seed=1),
    "behind_the_camera": _blocks_case(5, 7, truncation=3.0, side=8, seed=2),
    "flat_wall": _flat_wall,
}


def _sweep(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(count, 3, generator=generator).double() * 2 - 1
    if count > 8:
        points[1, 2], points[2, 0], points[3] = torch.nan, torch.inf, 1e4
        points[4] = torch.tensor([0.13, 0.41, -0.07])  # the origin
        points[6] = points[5]
    return points


ORIGIN = [0.13, 0.41, -0.07]


def _rays_case(count, truncation=TRUNCATION, side=SIDE, origin=ORIGIN):
    def make(dtype, device):
        return _sweep(count).to(device), list(origin), SIZE, side, truncation, 0.02, 8.0

    return make


RAYS = {
    "none": _rays_case(0),
    "single": _rays_case(1),
    "many": _rays_case(40),
    "long_truncation": _rays_case(12, truncation=1.4),
    "large_blocks": _rays_case(25, side=16),
    "from_afar": _rays_case(20, origin=(-3.0, 2.5, 1.25)),
}


def _field(count, side, tinted, seed=0, seen=True):
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(count, side, side, side, generator=generator) * 2 - 1
    weights = torch.randint(0, 4, values.shape, generator=generator).float() * seen
    colors = torch.rand(count if tinted else 0, 3, side, side, side, generator=generator) * 255
    return values, weights, colors


def _frame_case(
    height, width, side=SIDE, tinted=True, weighted=True, spare=2, max_weight=3.5, every=1, seed=0
):
    def make(dtype, device):
        depth, pose = _depth(height, width, seed), _pose(seed)
        keys = tsdf_blocks.depth_blocks(depth, INTRINSICS, pose, SIZE, side, TRUNCATION, 0.1, 5.0)[::every]
        field = _field(len(keys) + spare, side, tinted)
        rows = torch.randperm(len(keys) + spare, generator=torch.Generator().manual_seed(3))[: len(keys)]
        generator = torch.Generator().manual_seed(4)
        picture = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)
        shares = torch.rand(height, width, generator=generator) - 0.1
        if weighted and shares.numel():
            shares.view(-1)[0] = torch.nan
        given = [*field, rows, hashing.unpack(keys), depth]
        extra = [picture if tinted else None, shares if weighted else None]
        moved = [None if t is None else t.to(device) for t in (*given, *extra)]
        return *moved, INTRINSICS, pose, SIZE, TRUNCATION, 0.1, 5.0, max_weight

    return make


def _far_field(dtype, device):
    """Blocks that the frame does not touch: in front, behind, beside."""
    args = list(_frame_case(9, 12)(torch.float32, torch.device("cpu")))
    args[4] = args[4] * 7 - 3
    args[4][:, 0] = 0
    return tuple(a.to(device) if isinstance(a, torch.Tensor) and k != 9 else a for k, a in enumerate(args))


FRAMES = {
    "nothing": _frame_case(0, 0),
    "single_pixel": _frame_case(1, 1),
    "rough": _frame_case(9, 12, every=3),
    "plain": _frame_case(9, 12, tinted=False, weighted=False, max_weight=float("inf"), every=4),
    "large_blocks": _frame_case(6, 5, side=8, seed=1, every=4),
    "elsewhere": _far_field,
}


def _free_case(count, side=SIDE, origin=ORIGIN, truncation=TRUNCATION, near=0.02):
    """Rays through some of the blocks that they touch near their points."""

    def make(dtype, device):
        points = _sweep(count)
        keys = tsdf_blocks.ray_blocks(points, list(origin), SIZE, side, 2 * truncation, 0.02, 8.0)[0][::2]
        table = [t.to(device) for t in hashing.build(keys)]
        return points.to(device), list(origin), *table, SIZE, side, truncation, near, 8.0

    return make


FREE = {
    "none": _free_case(0),
    "single": _free_case(1),
    "many": _free_case(25),
    "not_from_the_origin": _free_case(12, near=0.6),
    "large_blocks": _free_case(15, side=16),
    "from_afar": _free_case(12, origin=(-3.0, 2.5, 1.25), truncation=0.9),
}


def _sweep_case(count, side=SIDE, tinted=True, weight=1.0, max_weight=2.5, carved=False):
    def make(dtype, device):
        points = _sweep(count)
        given = ORIGIN, SIZE, side, TRUNCATION, 0.02, 8.0
        keys, starts, rays = tsdf_blocks.ray_blocks(points, *given)
        free_starts, free_rays = torch.zeros_like(starts), rays[:0]
        if carved:
            table = hashing.build(keys)
            found, begins, free_rays = tsdf_blocks.free_blocks(points, given[0], *table, *given[1:])
            sizes = torch.zeros_like(starts[1:])
            sizes[torch.searchsorted(keys, found)] = begins.diff()
            free_starts = torch.cat([free_starts[:1], sizes.cumsum(0)])
        field = _field(len(keys) + 1, side, tinted, seen=carved)
        rows = torch.randperm(len(keys) + 1, generator=torch.Generator().manual_seed(3))[: len(keys)]
        tints = torch.randint(0, 256, (count, 3), dtype=torch.uint8) if tinted else None
        pairs = starts, rays, free_starts, free_rays
        given = [*field, rows, hashing.unpack(keys), *pairs, points, tints]
        moved = [None if t is None else t.to(device) for t in given]
        return *moved, ORIGIN, SIZE, TRUNCATION, 0.02, 8.0, weight, max_weight, 0.7

    return make


SWEEPS = {
    "none": _sweep_case(0),
    "single": _sweep_case(1),
    "many": _sweep_case(40),
    "plain": _sweep_case(30, side=8, tinted=False, weight=0.3, max_weight=float("inf")),
    "carved": _sweep_case(25, side=8, max_weight=float("inf"), carved=True),
}


def _view_case(
    shape, height, width, side=SIDE, tinted=True, min_weight=0.5, near=0.8, far=3.6, seed=0, gap=False
):
    def make(dtype, device):
        low, high = shape
        axes = [torch.arange(low, high)] * 3
        places = torch.cartesian_prod(*axes) if high > low else torch.zeros(0, 3, dtype=torch.int64)
        generator = torch.Generator().manual_seed(seed)
        places = places[torch.rand(len(places), generator=generator) > 0.1]
        if gap:  # what is left lies in two parts, one behind the other
            places = places[(places[:, 2] < low + 2) | (places[:, 2] >= high - 1)]
        blocks = torch.cat([torch.zeros(len(places), 1), places], 1).int()
        values, weights, colors = _field(len(blocks) + 1, side, tinted, seed)
        inner = torch.cartesian_prod(*[torch.arange(side)] * 3)
        lattice = (places[:, None] * side + inner).double() * SIZE
        ball = 0.9 - (lattice - torch.tensor([0.1, 0.05, 0.2])).norm(dim=-1)
        ball += 0.1 * torch.randn(ball.shape, generator=generator)
        values[: len(blocks)] = (ball / TRUNCATION).clamp(-1, 1).float().view(-1, side, side, side)
        weights = torch.where(torch.rand(weights.shape, generator=generator) > 0.03, 1.0, 0.0)
        table = hashing.build(hashing.pack(blocks))
        pose = _pose(seed)
        pose[:3, 3] = -2.5 * pose[:3, 2]
        moved = [t.to(device) for t in (*table, values, weights, colors, blocks)]
        return *moved, INTRINSICS, pose, width, height, SIZE, near, far, min_weight

    return make


VIEWS = {
    "no_blocks": _view_case((0, 0), 3, 4),
    "single_block": _view_case((0, 1), 5, 6, side=8),
    "ball": _view_case((-3, 3), 6, 10),
    "plain": _view_case((-3, 3), 6, 10, tinted=False, seed=1),
    "large_blocks": _view_case((-1, 1), 4, 4, side=16, near=1.4, far=3.0, seed=2),
    "within": _view_case((-3, 3), 4, 5, near=1.3, far=2.2, seed=3),
    "gap": _view_case((-3, 3), 6, 6, near=0.0, far=6.0, seed=7, gap=True),
}


def _in_place(op):
    """An op that changes its first three arguments, as one that returns them."""

    def changed(*args):
        field = [tensor.clone() for tensor in args[:3]]
        op(*field, *args[3:])
        return tuple(field)

    changed.__name__ = op._name.split("::")[-1]
    return changed


def _steps(op):
    return lambda *args: [(op, (*[tensor.clone() for tensor in args[:3]], *args[3:]))]


LAWS = [
    OpLaw(tsdf_blocks.depth_blocks, oracle.depth_blocks, BLOCKS, floating=False),
    OpLaw(tsdf_blocks.ray_blocks, oracle.ray_blocks, RAYS, floating=False),
    OpLaw(tsdf_blocks.free_blocks, oracle.free_blocks, FREE, floating=False),
    OpLaw(
        _in_place(tsdf.integrate_depth),
        oracle.integrate_depth,
        FRAMES,
        floating=False,
        steps=_steps(tsdf.integrate_depth),
    ),
    OpLaw(
        _in_place(tsdf.integrate_rays),
        oracle.integrate_rays,
        SWEEPS,
        floating=False,
        steps=_steps(tsdf.integrate_rays),
    ),
    OpLaw(tsdf_cast.cast_field, oracle.cast_field, VIEWS, floating=False),
]
