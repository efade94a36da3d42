"""Laws of rays through boxes and occupied space beyond the law suite."""

import pytest
import torch

from sparse3d_ops.composite import composite
from sparse3d_ops.hashing import build, pack
from sparse3d_ops.raymarch import empty_blocks, march, ray_box, traverse
from tests.ops import bodies
from tests.ops.cases_raymarch import blob, box, grid, rays, special_rays

CPU = torch.device("cpu")


def scene(count=300, shape=(24, 17, 30), share=0.05, dtype=torch.float64):
    torch.manual_seed(5)
    origins, directions = rays(count, dtype, CPU)
    low, high = box(dtype, CPU)
    near, far = ray_box(origins, directions, low, high)
    return origins, directions, near, far, grid(shape, share), low, high


def opacity_of(samples, sigma):
    values = torch.ones(len(samples.t), 1, dtype=samples.t.dtype)
    return composite(torch.full_like(samples.dt, sigma), values, samples.dt, samples.ray_starts).opacity


def test_points_at_near_and_far_lie_on_the_box():
    origins, directions, near, far, _, low, high = scene()
    hit = near <= far
    assert hit.any() and not hit.all()
    for t, entering in ((near, True), (far, False)):
        points = (origins + t[:, None] * directions)[hit]
        assert ((points >= low - 1e-12) & (points <= high + 1e-12)).all()
        faces = torch.cat((points - low, high - points), 1).abs().amin(1)
        assert (faces[~(entering & (near[hit] == 0))] < 1e-12).all()
    assert (near[~hit] == torch.inf).all() and (far[~hit] == -torch.inf).all()


def test_samples_are_those_of_brute_force_over_all_cells():
    # Vectorised, in float32, for many rays: the law suite looks at few.
    many = 1000 if bodies.in_use() == "numba" else 100
    origins, directions, near, far, occupancy, low, high = scene(many, dtype=torch.float32)
    step, offset = 0.013, torch.rand(len(near))
    got = march(origins, directions, near, far, occupancy, low, high, step, offset)
    everywhere = march(origins, directions, near, far, torch.ones_like(occupancy), low, high, step, offset)
    ray = torch.repeat_interleave(everywhere.ray_starts.diff())
    o, d = origins[ray].double(), directions[ray].double()
    # t itself is rounded to float32: looked up again in float64 from the bins
    first, last = (x.double() for x in ray_box(origins.double(), directions.double(), low, high))
    k = torch.arange(len(ray)) - everywhere.ray_starts[ray]
    begin = first.maximum(near.double())[ray] + k * step
    end = last.minimum(far.double())[ray]
    is_last = k + 1 == everywhere.ray_starts.diff()[ray]
    t = begin + offset.double()[ray] * torch.where(is_last, end - begin, step)
    scale = torch.tensor(occupancy.shape) / (high.double() - low)
    cell = ((o - low) * scale + t[:, None] * (d * scale)).long()
    cell = cell.clamp_min(0).minimum(torch.tensor(occupancy.shape) - 1)
    kept = occupancy[cell.unbind(1)]
    assert 0 < kept.sum() < len(kept)
    assert torch.equal(got.ray_starts.diff(), torch.bincount(ray[kept], minlength=len(near)))
    assert torch.equal(got.t, everywhere.t[kept]) and torch.equal(got.dt, everywhere.dt[kept])


def test_bins_cover_the_ray_in_the_box_without_gap_or_overlap():
    origins, directions, near, far, occupancy, low, high = scene()
    got = march(origins, directions, near, far, torch.ones_like(occupancy), low, high, 0.07)
    ray = torch.repeat_interleave(got.ray_starts.diff())
    lengths = torch.zeros(len(near), dtype=torch.float64).index_add_(0, ray, got.dt)
    torch.testing.assert_close(lengths, (far - near).clamp_min(0))
    begin, end = got.t - got.dt / 2, got.t + got.dt / 2
    follows = ray[1:] == ray[:-1]
    torch.testing.assert_close(begin[1:][follows], end[:-1][follows])


def test_a_homogeneous_box_absorbs_by_its_chord():
    origins, directions, near, far, occupancy, low, high = scene()
    got = opacity_of(march(origins, directions, near, far, torch.ones_like(occupancy), low, high, 0.1), 0.7)
    torch.testing.assert_close(got, 1 - torch.exp(-0.7 * (far - near).clamp_min(0)))


@pytest.mark.numba_bodies  # ten thousand bins a ray: minutes in the interpreter
def test_a_homogeneous_sphere_absorbs_by_its_chord():
    """sigma inside of a sphere, sampled finely: a sample in or out changes the chord by at most one step."""
    torch.manual_seed(2)
    origins = torch.nn.functional.normalize(torch.randn(200, 3, dtype=torch.float64), dim=1) * 2.5
    targets = torch.randn(200, 3, dtype=torch.float64) * 0.3
    directions = torch.nn.functional.normalize(targets - origins, dim=1)
    high, step, radius, sigma = torch.ones(3, dtype=torch.float64), 2e-4, 0.8, 2.0
    everywhere = torch.ones(1, 1, 1, dtype=torch.bool)
    limits = ray_box(origins, directions, -high, high)
    got = march(origins, directions, *limits, everywhere, -high, high, step)
    ray = torch.repeat_interleave(got.ray_starts.diff())
    inside = (origins[ray] + got.t[:, None] * directions[ray]).norm(dim=1) < radius
    ones = torch.ones(len(got.t), 1, dtype=torch.float64)
    seen = composite(sigma * inside.double(), ones, got.dt, got.ray_starts)
    middle = -(origins * directions).sum(1)
    chord = 2 * (radius**2 - (origins.square().sum(1) - middle**2)).clamp_min(0).sqrt()
    assert (chord > 0).sum() > 100
    assert (seen.opacity - (1 - torch.exp(-sigma * chord))).abs().max() < 1e-3


def test_of_two_boxes_the_nearer_one_is_seen_first():
    """Red before blue, along x: weights 1 - e^-a and e^-a (1 - e^-b), the other way round from behind."""
    occupancy = torch.zeros(10, 1, 1, dtype=torch.bool)
    occupancy[1:3] = occupancy[6:9] = True
    origins = torch.tensor([[-1.0, 0.5, 0.5], [11.0, 0.5, 0.5]], dtype=torch.float64)
    directions = torch.tensor([[1.0, 0, 0], [-1.0, 0, 0]], dtype=torch.float64)
    low, high = torch.zeros(3), torch.tensor([10.0, 1, 1])
    near, far = ray_box(origins, directions, low, high)
    got = march(origins, directions, near, far, occupancy, low, high, 0.25)
    ray = torch.repeat_interleave(got.ray_starts.diff())
    x = (origins[ray] + got.t[:, None] * directions[ray])[:, 0]
    first = (x < 5).double()
    sigma = torch.where(x < 5, 0.4, 0.9).double()
    seen = composite(sigma, torch.stack((first, 1 - first), 1), got.dt, got.ray_starts)
    a, b = torch.exp(torch.tensor([-0.4 * 2, -0.9 * 3], dtype=torch.float64))
    want = torch.stack((torch.stack((1 - a, a * (1 - b))), torch.stack((b * (1 - a), 1 - b))))
    torch.testing.assert_close(seen.out, want)


def test_the_offset_moves_samples_in_their_bins():
    origins, directions, near, far, occupancy, low, high = scene()
    occupied = torch.ones_like(occupancy)
    start = march(origins, directions, near, far, occupied, low, high, 0.1, torch.zeros_like(near))
    later = march(origins, directions, near, far, occupied, low, high, 0.1, torch.full_like(near, 0.25))
    torch.testing.assert_close(later.t, start.t + 0.25 * start.dt)
    assert torch.equal(start.dt, later.dt)


def test_near_and_far_narrow_the_box():
    origins, directions, near, far, occupancy, low, high = scene()
    occupied = torch.ones_like(occupancy)
    unlimited = torch.zeros_like(near), torch.full_like(far, torch.inf)
    whole = march(origins, directions, *unlimited, occupied, low, high, 0.1)
    for got, want in zip(march(origins, directions, near, far, occupied, low, high, 0.1), whole, strict=True):
        torch.testing.assert_close(got, want)
    middle = (near + far) / 2
    halves = [
        march(origins, directions, a, b, occupied, low, high, 0.1) for a, b in ((near, middle), (middle, far))
    ]
    total = halves[0].dt.sum() + halves[1].dt.sum()
    torch.testing.assert_close(total, whole.dt.sum())


def test_rays_that_are_not_finite_or_go_nowhere_meet_nothing():
    origins, directions = special_rays(torch.float32, CPU)
    low, high = box(torch.float32, CPU)
    near, far = ray_box(origins, directions, low, high)
    finite = (torch.isfinite(origins) & torch.isfinite(directions)).all(1) & directions.any(1)
    assert not (near <= far)[~finite].any()
    occupied = torch.ones(3, 3, 3, dtype=torch.bool)
    everywhere = torch.zeros_like(near), torch.full_like(near, torch.inf)
    got = march(origins, directions, *everywhere, occupied, low, high, 0.1)
    assert not got.ray_starts.diff()[~finite].any() and got.ray_starts.diff()[:3].all()


def test_blocks_made_once_give_the_same_samples():
    args = list(scene())
    wanted = march(*args, 0.05)
    args[4] = empty_blocks(args[4])
    for got, want in zip(march(*args, 0.05), wanted, strict=True):
        assert torch.equal(got, want)


def voxel_scene(voxels, count=200, dtype=torch.float64):
    torch.manual_seed(6)
    origins, directions = rays(count, dtype, CPU)
    limits = torch.zeros(count, dtype=dtype), torch.full((count,), torch.inf, dtype=dtype)
    return origins, directions, *limits, *build(pack(voxels.int())), torch.zeros(3, dtype=dtype)


def test_a_full_cube_of_voxels_absorbs_by_its_chord_exactly():
    args = voxel_scene(torch.cartesian_prod(torch.zeros(1).long(), *(torch.arange(-3, 4),) * 3))
    got = traverse(*args, 0.25)
    ones = torch.ones(len(got.row), 1, dtype=torch.float64)
    seen = composite(0.7 * ones[:, 0], ones, got.t1 - got.t0, got.ray_starts)
    low, high = torch.full((3,), -0.75), torch.full((3,), 1.0)
    near, far = ray_box(*args[:2], low, high)
    assert (near < far).sum() > 50
    want = 1 - torch.exp(-0.7 * (far - near).clamp_min(0))
    torch.testing.assert_close(seen.opacity, want, rtol=0, atol=1e-7)  # 1e-8 of a voxel may be left out


def test_intervals_of_neighbours_share_their_face_to_the_last_bit():
    args = voxel_scene(blob(729))
    got = traverse(*args, 0.25)
    ray = torch.repeat_interleave(got.ray_starts.diff())
    follows = ray[1:] == ray[:-1]
    assert (got.t1 > got.t0).all() and follows.sum() > 500
    assert torch.equal(got.t0[1:][follows], got.t1[:-1][follows])


def test_blocks_that_are_skipped_change_no_bit():
    """One voxel far away makes the blocks large; without it they are small."""
    torch.manual_seed(7)
    voxels = blob(600, size=12)
    near_args = voxel_scene(voxels)
    few = traverse(*near_args, 0.25)
    away = 90_000 if bodies.in_use() == "numba" else 300  # within a block all cells are walked
    distant = torch.tensor([[0, away, -away, away]])
    many = traverse(*voxel_scene(torch.cat((voxels, distant))), 0.25)
    assert len(few.row) > 100
    hits = many.row < len(voxels)
    ray = torch.repeat_interleave(many.ray_starts.diff())
    assert torch.equal(torch.bincount(ray[hits], minlength=200), few.ray_starts.diff())
    assert torch.equal(many.row[hits], few.row)
    # Counted from another voxel, positions are rounded anew at 1e-11 voxels.
    torch.testing.assert_close(many.t0[hits], few.t0, rtol=0, atol=1e-9)


def test_the_middle_of_each_interval_is_in_its_voxel():
    voxels = blob(300)
    args = voxel_scene(voxels)
    got = traverse(*args, torch.tensor([0.1, 0.2, 0.15], dtype=torch.float64))
    ray = torch.repeat_interleave(got.ray_starts.diff())
    middle = args[0][ray] + ((got.t0 + got.t1) / 2)[:, None] * args[1][ray]
    index = (middle / torch.tensor([0.1, 0.2, 0.15])).floor().int()
    assert torch.equal(index, voxels[got.row.long(), 1:].int())


@pytest.mark.numba_bodies
def test_traversing_compiles_without_graph_break_to_the_same_bits():
    args = voxel_scene(blob(100), 20, torch.float32)
    compiled = torch.compile(traverse, fullgraph=True, backend="aot_eager")
    for got, want in zip(compiled(*args, 0.1), traverse(*args, 0.1), strict=True):
        assert torch.equal(got, want)


def test_no_gradient_passes_through_places():
    origins, directions, near, far, occupancy, low, high = scene(20)
    origins.requires_grad_()
    assert not any(limit.requires_grad for limit in ray_box(origins, directions, low, high))
    assert not march(origins, directions, near, far, occupancy, low, high, 0.1).t.requires_grad


@pytest.mark.numba_bodies
def test_marching_compiles_without_graph_break_to_the_same_bits():
    args = scene(20, dtype=torch.float32)
    compiled = torch.compile(march, fullgraph=True, backend="aot_eager")
    for got, want in zip(compiled(*args, 0.1), march(*args, 0.1), strict=True):
        assert torch.equal(got, want)


def test_errors_say_what_came():
    origins, directions, near, far, occupancy, low, high = scene(9)
    with pytest.raises(ValueError, match=r"directions has shape \(8, 3\), expected \(9, 3\)"):
        ray_box(origins, directions[1:], low, high)
    with pytest.raises(ValueError, match="origins is float16"):
        ray_box(origins.half(), directions.half(), low, high)
    with pytest.raises(ValueError, match="expected finite corners with low < high"):
        ray_box(origins, directions, high, low)
    with pytest.raises(ValueError, match="expected finite corners"):
        march(origins, directions, near, far, occupancy, low, high * torch.inf, 0.1)
    for step in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="step is"):
            march(origins, directions, near, far, occupancy, low, high, step)
    for step in (1e-9, 1e-300):
        with pytest.raises(ValueError, match=r"ray \d is cut into more than 16777216 bins"):
            march(origins, directions, near, far, occupancy, low, high, step)
    with pytest.raises(ValueError, match=r"offset\[2\] is 1.0"):
        offset = torch.tensor([0, 0, 1.0, 0, 0, 0, 0, 0, 0], dtype=torch.float64)
        march(origins, directions, near, far, occupancy, low, high, 0.1, offset)
    with pytest.raises(ValueError, match="occupancy is float64, expected uint8"):
        march(origins, directions, near, far, occupancy.double(), low, high, 0.1)
    with pytest.raises(ValueError, match="at least one cell"):
        empty_blocks(occupancy[:0])
    args = voxel_scene(blob(9), 9)
    with pytest.raises(ValueError, match=r"voxel_size is \[0.0, 0.0, 0.0\]"):
        traverse(*args, 0.0)
    with pytest.raises(ValueError, match=r"batch\[3\] is -1"):
        traverse(*args, 0.1, torch.tensor([0, 0, 0, -1, 0, 0, 0, 0, 0]))
    with pytest.raises(ValueError, match="low is .* expected a finite corner"):
        traverse(*args[:6], args[6] * torch.nan, 0.1)
