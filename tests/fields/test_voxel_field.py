"""The sparse voxel field obeys the physics that it renders, and changes its shape without changing itself."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from sparse3d.fields import RadianceField
from sparse3d.fields.voxel_field import VoxelField, VoxelFieldConfig
from sparse3d.fields.voxel_lattice import VoxelLattice

EXACT = {"min_alpha": 0.0, "stop": 0.0}


def random_field(resolution=5, dtype=torch.float32, **changes):
    """Values of all sizes on a part of the cube's voxels, colours of degree 1."""
    torch.manual_seed(0)
    field = VoxelField(VoxelFieldConfig(resolution=resolution, sh_degree=1, unit=0.2 / 1.5, **changes)).to(
        dtype
    )
    with torch.no_grad():
        field.raw_density.normal_(0, 2)
        field.harmonics.normal_()
    return field


def rays(count, dtype=torch.float32):
    """Towards the cube from all around."""
    origins = normalize(torch.randn(count, 3, dtype=dtype), dim=1) * 3
    return origins, normalize(torch.rand(count, 3, dtype=dtype) * 1.4 - 0.7 - origins, dim=1)


def test_it_is_a_radiance_field():
    assert isinstance(random_field(), RadianceField)


def test_a_homogeneous_cube_lets_through_what_its_chord_says():
    field = VoxelField(VoxelFieldConfig(resolution=8, step=0.02, unit=0.2, initial_density=0.4, **EXACT))
    torch.manual_seed(0)
    origins, directions = rays(200)
    seen = field.render(origins, directions)
    inverse = 1 / directions.double()
    ends = torch.stack([(side - origins) * inverse for side in (-0.75, 0.75)])
    chord = (ends.amax(0).amin(1) - ends.amin(0).amax(1)).clamp(min=0)
    sigma = math.log1p(math.exp(0.4)) / 0.3
    # The ends of a ray are counted in steps of 0.02 voxels: half a one too much or too little.
    slack = sigma * 0.02 * 1.5 / 8
    assert (seen.opacity - (1 - torch.exp(-sigma * chord))).abs().max() < slack
    assert (chord > 0.5).any() and (seen.opacity[chord == 0] == 0).all()


def test_what_is_rendered_is_what_density_and_color_say():
    field = random_field(step=0.02, **EXACT)
    field.prune(0.06)  # of alpha on 6 mm
    origins, directions = rays(6)
    with torch.no_grad():
        seen = field.render(origins, directions, torch.tensor([0.2, 0.5, 0.9]))
    t = torch.linspace(1, 5, 4001)[:-1] + 0.0005
    for ray in range(6):
        points = origins[ray] + t[:, None] * directions[ray]
        depth = field.density(points).detach() * 0.001
        through = torch.exp(-torch.cat([torch.zeros(1), depth.cumsum(0)]))
        weights = through[:-1] - through[1:]
        color = (weights[:, None] * field.color(points, directions[ray].expand(len(t), 3))).sum(0).detach()
        color = color + through[-1] * torch.tensor([0.2, 0.5, 0.9])
        # Two Riemann sums, of steps of 0.006 and 0.001 metres.
        assert seen.opacity[ray] == pytest.approx(float(weights.sum()), abs=4e-3)
        assert seen.color[ray].tolist() == pytest.approx(color.tolist(), abs=4e-3)
        mean = float((weights * t).sum() / weights.sum().clamp(min=1e-9))
        assert seen.depth[ray] == pytest.approx(mean, abs=0.02)
    assert (seen.opacity > 0.1).sum() >= 3


def test_gradients_are_finite_differences():
    field = random_field(3, torch.float64, **EXACT)
    field.prune(0.5)
    origins, directions = rays(4, torch.float64)
    torch.manual_seed(1)
    weights = torch.rand(4, 5, dtype=torch.float64)

    def objective():
        seen = field.render(origins, directions, torch.ones(3, dtype=torch.float64))
        parts = torch.cat([seen.color, seen.opacity[:, None], seen.depth[:, None]], 1)
        return (parts * weights).sum()

    objective().backward()
    for parameter in (field.raw_density, field.harmonics):
        flat, gradient = parameter.data.view(-1), parameter.grad.view(-1)
        for place in gradient.abs().argsort(descending=True)[:: len(gradient) // 12 + 1].tolist():
            value, h = float(flat[place]), 1e-5
            ends = []
            for step in (h, -h):
                flat[place] = value + step
                with torch.no_grad():
                    ends.append(float(objective()))
            flat[place] = value
            assert float(gradient[place]) == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-4, abs=1e-8)


def test_a_split_changes_nothing():
    field = random_field()
    field.prune(0.3)
    points = torch.rand(500, 3) * 1.8 - 0.9
    directions = normalize(torch.randn(500, 3), dim=1)
    before = field.density(points), field.color(points, directions)
    voxels = len(field.coordinates)
    field.grow()
    assert len(field.coordinates) == 8 * voxels and field.lattice.resolution == 10
    for old, new in zip(before, (field.density(points), field.color(points, directions)), strict=True):
        torch.testing.assert_close(new, old, rtol=1e-5, atol=1e-6)
    assert (before[0] == 0).any() and (before[0] > 0).any()


def test_pruning_drops_empty_voxels_alone():
    field = VoxelField(VoxelFieldConfig(resolution=16, initial_density=-12.0, **EXACT))
    middle = (field.lattice.points[:, 1:].float() - 8).norm(dim=1) < 3
    with torch.no_grad():
        field.raw_density[middle] = 5.0
    origins, directions = rays(300)
    before = field.render(origins, directions)
    dropped = field.prune(0.01)
    assert dropped > 2000 and dropped + len(field.coordinates) == 16**3
    kept = (field.coordinates[:, 1:].float() - 7.5).norm(dim=1)
    assert kept.max() < 3 + 2 * 3**0.5 + 1, "a voxel of margin"
    after = field.render(origins, directions)
    assert (after.opacity - before.opacity).abs().max() < 1e-3
    assert field.prune(0.01) == 0
    with torch.no_grad():
        field.raw_density.fill_(-50.0)
    field.prune(0.01)
    assert 1 <= len(field.coordinates) <= 27, "the last voxel stays, with those around it"


def test_normals_point_out_of_a_ball():
    field = VoxelField(VoxelFieldConfig(resolution=24))
    places = field.lattice.points[:, 1:] / 24 * 1.5 - 0.75
    with torch.no_grad():
        field.raw_density[:, 0] = (0.4 - places.norm(dim=1)) * 300
    origins, directions = rays(200)
    seen = field.render(origins, directions, normals=True)
    hit = seen.opacity > 0.99
    surface = normalize(origins[hit] + seen.depth[hit, None] * directions[hit], dim=1)
    assert hit.sum() > 50
    assert (normalize(seen.normal[hit], dim=1) * surface).sum(1).min() > 0.97


def test_a_field_is_loaded_in_the_shape_that_it_had():
    field = random_field()
    field.grow()
    field.prune(0.3)
    fresh = VoxelField(field.config)
    fresh.reshape_for(field.state_dict())
    fresh.load_state_dict(field.state_dict())
    origins, directions = rays(50)
    assert torch.equal(fresh.render(origins, directions).color, field.render(origins, directions).color)


def test_total_variation_counts_each_edge_that_was_seen_once():
    field = VoxelField(VoxelFieldConfig(resolution=2, tv_density=0.5, **EXACT))
    torch.manual_seed(0)
    with torch.no_grad():
        field.raw_density.normal_()
    origins, directions = rays(400)
    with torch.no_grad():
        traced = field.trace(origins, directions, torch.ones(3), torch.full((400,), 0.5))
    values = field.raw_density.detach().view(3, 3, 3)  # points are sorted by x, y, z
    want = sum(values.diff(dim=axis).square().sum() for axis in range(3)) / 2
    assert float(traced.terms["tv_density"]) == pytest.approx(0.5 * float(want), rel=1e-5)


def test_total_variation_falls_with_each_split():
    finer, (origins, directions) = [], rays(50)
    for fall in (1.0, 0.25):
        field = VoxelField(VoxelFieldConfig(resolution=2, tv_density=0.5, tv_fall=fall, **EXACT))
        with torch.no_grad():
            field.raw_density.copy_(torch.linspace(-1, 3, 27)[:, None])
        field.grow()
        field.grow()
        traced = field.trace(origins, directions, torch.ones(3), torch.full((50,), 0.5))
        finer.append(float(traced.terms["tv_density"].detach()))
    assert finer[1] == pytest.approx(finer[0] / 16)


def test_nothing_is_where_no_voxel_is():
    lattice = VoxelLattice(torch.tensor([[0, 1, 1, 1]], dtype=torch.int32), 4)
    places = torch.tensor([[1.5, 1.5, 1.5], [0.5, 1.5, 1.5], [-1.0, 0, 0], [math.nan, 0, 0], [1e30, 0, 0]])
    assert lattice.find(places).tolist() == [0, -1, -1, -1, -1]


@pytest.mark.parametrize("change", [{"resolution": 0}, {"sh_degree": 5}, {"step": -1.0}])
def test_a_field_that_cannot_be_is_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        VoxelFieldConfig(**change)
