"""Every field learns a sphere that is known, with right gradients and the same bits each time."""

from dataclasses import replace

import pytest
import torch

from sparse3d.config import to_dict
from sparse3d.fields import RadianceField
from sparse3d.fields.error_bound import ErrorBoundConfig, laplace_density
from sparse3d.fields.hash_field import HashField, HashFieldConfig
from sparse3d.fields.layers import FrequencyEncodingConfig, HashEncodingConfig
from sparse3d.fields.low_rank import LowRankField, LowRankFieldConfig
from sparse3d.fields.nerf import NeRF, NeRFConfig
from sparse3d.fields.samplers import OccupancySampler, OccupancySamplerConfig, ProposalSamplerConfig
from sparse3d.fields.space import SpaceConfig
from sparse3d.fields.volsdf import VolSDF, VolSDFConfig
from sparse3d_ops.raymarch import Samples
from tests.fields import small_scene

GRID = HashEncodingConfig(levels=4, log2_entries=12, coarsest=8, finest=32)
OCCUPANCY = OccupancySamplerConfig(resolution=16, steps=64)
PROPOSAL = ProposalSamplerConfig(proposals=(32,), samples=24)
WAVES = FrequencyEncodingConfig(count=4)
BOUND = ErrorBoundConfig(initial=32, rounds=2, samples=24, even=8)

FIELDS = {
    "hash": lambda: HashField(HashFieldConfig(encoding=GRID, width=16, sampler=OCCUPANCY)),
    "hash_proposal": lambda: HashField(HashFieldConfig(encoding=GRID, width=16, sampler=PROPOSAL)),
    "lowrank": lambda: LowRankField(
        LowRankFieldConfig(
            resolution=24, density_components=4, color_components=6, width=16, sampler=OCCUPANCY
        )
    ),
    "nerf": lambda: NeRF(NeRFConfig(encoding=WAVES, width=32, depth=2, sampler=PROPOSAL)),
    "nerf_occupancy": lambda: NeRF(NeRFConfig(encoding=WAVES, width=32, depth=2, sampler=OCCUPANCY)),
    "volsdf": lambda: VolSDF(
        VolSDFConfig(encoding=FrequencyEncodingConfig(count=2), width=32, depth=2, sampler=BOUND)
    ),
    "volsdf_grid": lambda: VolSDF(
        VolSDFConfig(
            encoding=GRID,
            width=32,
            depth=1,
            sampler=replace(BOUND, grid=32),
            final_beta=0.02,
            direction_frequencies=None,
            distance_along="ray",
            color_encoding=GRID,
            smooth=0.02,
        )
    ),
    "volsdf_hash": lambda: VolSDF(VolSDFConfig(encoding=GRID, width=32, depth=1, sampler=BOUND)),
}
fields = pytest.mark.parametrize("name", FIELDS)


def made(name):
    torch.manual_seed(0)
    return FIELDS[name]()


# Steps, rate, and bounds of the mean squared error of colours and the mean error of the opacity.
BUDGET = {
    "hash": (120, 1e-2, 3e-3, 0.08),
    "hash_proposal": (120, 1e-2, 4e-3, 0.15),
    "lowrank": (80, 2e-2, 4e-3, 0.15),
    "nerf": (120, 5e-3, 8e-3, 0.10),
    "nerf_occupancy": (120, 5e-3, 8e-3, 0.10),
    "volsdf": (60, 3e-3, 1.6e-2, 0.10),
    "volsdf_grid": (60, 3e-3, 1.6e-2, 0.10),
    "volsdf_hash": (60, 3e-3, 1.6e-2, 0.10),
}


@pytest.mark.slow
@fields
def test_learns_a_sphere(name):
    steps, rate, color, opacity = BUDGET[name]
    before = small_scene.fit(made(name), 0, rate)
    after = small_scene.fit(made(name), steps, rate, count=192)
    assert before[0] > 3 * color, "or there is nothing to learn"
    assert after[0] < color and after[1] < opacity


@fields
def test_is_a_radiance_field(name):
    field = made(name)
    assert isinstance(field, RadianceField)
    points = torch.rand(20, 3) * 4 - 2
    directions = torch.nn.functional.normalize(torch.randn(20, 3), dim=1)
    density, color = field.density(points), field.color(points, directions)
    assert density.shape == (20,) and (density >= 0).all() and color.shape == (20, 3)
    assert ((color >= 0) & (color <= 1)).all()
    outside = (points.abs() > 0.75).any(1)
    assert outside.any() and not density[outside].any() and density[~outside].all()


@fields
def test_opacity_is_the_integral_of_the_density(name):
    field = made(name)
    if isinstance(field, VolSDF):
        field.raw_beta.data.fill_(0.3)  # wide enough for few samples
        field.config = replace(field.config, distance_along="normal")  # or it is each ray's own
    origins, directions = small_scene.rays(30)
    with torch.no_grad():
        seen = field.render(origins, directions, torch.ones(3), normals=True)
        edges = torch.linspace(0, 4, 4001)
        points = origins[:, None] + ((edges[1:] + edges[:-1]) / 2)[:, None] * directions[:, None]
        sigma = field.density(points.flatten(0, 1)).view(30, -1)
    want = -torch.expm1(-sigma.sum(1) * 1e-3)
    # The sampler's step, not the arithmetic, is what is left.
    assert (seen.opacity - want).abs().max() < 0.04
    assert seen.normal is not None and (seen.normal.norm(dim=1) <= seen.opacity + 1e-5).all()
    assert ((seen.depth > 0.9) & (seen.depth < 3.1) | (seen.opacity == 0)).all()


@fields
def test_rays_that_miss_see_the_background(name):
    origins, directions = torch.tensor([[5.0, 5, 5]]), torch.tensor([[0.0, 0, 1]])
    seen = made(name).render(origins, directions, torch.tensor([0.1, 0.2, 0.3]), normals=True)
    torch.testing.assert_close(seen.color, torch.tensor([[0.1, 0.2, 0.3]]))
    assert seen.opacity == 0 and seen.depth == 0 and not seen.normal.any()


@fields
def test_gradients_equal_finite_differences(name, monkeypatch):
    field = made(name).double()
    if isinstance(field, VolSDF):  # where samples lie is no function to learn: hold them
        even = torch.linspace(0.1, 0.9, 24, dtype=torch.float64)

        def samples(origins, directions, _):
            near, far = field.space.span(origins, directions)
            t = near[:, None] + (far - near)[:, None] * even
            dt = torch.cat([t, far[:, None]], 1).diff(dim=1)
            return Samples(torch.arange(len(t) + 1) * len(even), t.flatten(), dt.flatten())

        monkeypatch.setattr(field, "_samples", samples)
    origins, directions = (part.double() for part in small_scene.rays(12))
    offsets, background = torch.rand(12, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    parameters = [p for n, p in field.named_parameters() if p.requires_grad and not n.startswith("sampler.")]
    for parameter in parameters:  # away from the start, where much is zero
        parameter.data += 0.05 * torch.randn_like(parameter)

    def loss():
        torch.manual_seed(3)
        seen, *_, terms = field.trace(origins, directions, background, offsets)
        # These two hold still what they are measured at.
        extra = sum(value for key, value in terms.items() if key not in ("proposal", "smooth"))
        return seen.color.square().sum() + seen.depth.sum() + extra

    gradients = torch.autograd.grad(loss(), parameters, allow_unused=True)
    steps = [torch.randn_like(p) for p in parameters]
    along = sum(float((g * s).sum()) for g, s in zip(gradients, steps, strict=True) if g is not None)
    values = []
    for sign in (1, -1):
        for parameter, step in zip(parameters, steps, strict=True):
            parameter.data += sign * 1e-6 * step
        values.append(float(loss().detach()))
        for parameter, step in zip(parameters, steps, strict=True):
            parameter.data -= sign * 1e-6 * step
    assert abs(along) > 1e-3
    # ReLU and the faces of cells bend the loss in a few places within the step.
    assert (values[0] - values[1]) / 2e-6 == pytest.approx(along, rel=1e-3)


def test_bends_of_a_surface_have_the_gradients_of_finite_differences():
    field = made("volsdf_grid").double()
    origins, directions = (part.double() for part in small_scene.rays(40))
    parameters = list(field.encoding.parameters()) + list(field.distance_net.parameters())
    for parameter in parameters:
        parameter.data += 0.02 * torch.randn_like(parameter)
    with torch.no_grad():
        seen = field.render(origins, directions)
    assert (seen.opacity > 0.5).sum() > 10

    def bends():
        torch.manual_seed(3)
        return field._bends(origins, directions, seen)

    gradients = torch.autograd.grad(bends(), parameters, allow_unused=True)
    steps = [torch.randn_like(p) for p in parameters]
    along = sum(float((g * s).sum()) for g, s in zip(gradients, steps, strict=True) if g is not None)
    values = []
    for sign in (1, -2):
        for parameter, step in zip(parameters, steps, strict=True):
            parameter.data += sign * 1e-7 * step
        values.append(float(bends().detach()))
    # ReLU-like bends of softplus(100) and faces of cells lie within the step in a few places.
    assert (values[0] - values[1]) / 2e-7 == pytest.approx(along, rel=1e-3)


@fields
def test_training_gives_the_same_bits_for_any_number_of_threads(name):
    import numba

    found, threads, kernels = [], torch.get_num_threads(), numba.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
            field = made(name)
            small_scene.fit(field, 3, 1e-2, count=400)
            found.append(torch.cat([p.detach().flatten() for p in field.parameters()]))
    finally:
        torch.set_num_threads(threads)
        numba.set_num_threads(kernels)
    assert torch.equal(*found)


def test_proposals_learn_to_bound_the_field():
    field = made("hash_proposal")
    origins, directions = small_scene.rays(200)
    offsets, background = torch.rand(200), torch.ones(3)
    small_scene.fit(field, 20, 1e-2, count=192)
    trained = float(field.trace(origins, directions, background, offsets).terms["proposal"].detach())
    field.sampler.load_state_dict(made("hash_proposal").sampler.state_dict())
    fresh = float(field.trace(origins, directions, background, offsets).terms["proposal"].detach())
    assert trained < 0.5 * fresh


def test_the_occupancy_grid_empties_around_the_sphere():
    field = made("hash")
    small_scene.fit(field, 120, 1e-2, count=192)
    sampler = field.sampler
    assert isinstance(sampler, OccupancySampler)
    axis = (torch.arange(16) + 0.5) / 16 * 1.5 - 0.75
    radius = torch.cartesian_prod(axis, axis, axis).norm(dim=1).view(16, 16, 16)
    occupied = sampler.blocks == 0
    assert occupied[radius < small_scene.RADIUS - 0.1].float().mean() > 0.99
    assert occupied[radius > small_scene.RADIUS + 0.2].float().mean() < 0.7


def test_unbounded_fields_go_on_outside_of_the_cube():
    space = SpaceConfig(low=(-1, -1, -1), side=2, contraction="merf")
    field = HashField(HashFieldConfig(space=space, encoding=GRID, width=16, sampler=PROPOSAL))
    points = torch.tensor([[0.0, 0, 0], [3.0, 1, 0], [500.0, 20, -3]])
    assert (field.density(points) > 0).all()
    origins, directions = small_scene.rays(10)
    seen = field.render(origins, directions, normals=True)
    assert all(torch.isfinite(part).all() for part in seen)
    assert (seen.opacity > 0.9).all(), "what goes on for ever lets no light through"
    seen.color.sum().backward()
    with pytest.raises(ValueError, match="an occupancy grid has bounds"):
        HashField(HashFieldConfig(space=space))
    with pytest.raises(ValueError, match="needs bounds"):
        VolSDFConfig(space=space)


def test_fine_levels_come_in_late():
    config = HashFieldConfig(encoding=replace(GRID, fine_end=0.5), sampler=OCCUPANCY)
    field = HashField(config)
    unit = torch.rand(50, 3)
    field.encoding.table.data.normal_()
    field.advance(0.0, 1)
    assert not field.encoding(unit)[:, 5:].any() and field.encoding(unit)[:, 3:5].any()
    field.advance(0.5, 1)
    assert field.encoding(unit)[:, -2:].all()


class _Known(VolSDF):
    """A distance that is known, in half sides; beta 0.02 of them."""

    def __init__(self, distance, along):
        super().__init__(VolSDFConfig(features=1, sampler=BOUND, distance_along=along))
        self.raw_beta.data.fill_(0.02)
        self.known = distance

    def _raw(self, unit):
        return torch.stack([self.known(unit), torch.zeros(len(unit))], 1)


def test_along_a_ray_a_plane_is_as_thick_from_everywhere():
    field = _Known(lambda unit: unit[:, 2], "ray")
    directions = torch.nn.functional.normalize(torch.tensor([[0.0, 0, -1], [1, 0, -1], [3, 1, 0.5]]), dim=1)
    before = torch.linspace(-0.08, 0.08, 9)  # of the plane, along each ray
    points = (-before[:, None, None] * directions).flatten(0, 1)
    sigma = field._sigma(field._geometry(points), directions.repeat(9, 1)).view(9, 3)
    into = sigma[:, :2]  # from above
    torch.testing.assert_close(into, laplace_density(before, 0.02 + 1e-4)[:, None].expand(9, 2))
    torch.testing.assert_close(sigma[:, 2], into[:, 0].flip(0))


@pytest.mark.parametrize("along", ["normal", "ray"])
def test_along_a_ray_outlines_are_as_large_as_the_surface(along):
    field = _Known(lambda unit: unit.norm(dim=1) - 0.5, along)
    beside = torch.linspace(-0.03, 0.12, 61)  # of the outline, half sides
    origins = torch.stack([0.5 + beside, torch.zeros(61), torch.full((61,), 3.0)], 1) * field.unit
    directions = torch.tensor([[0.0, 0, -1]]).expand(61, 3)
    with torch.no_grad():
        opacity = field.render(origins, directions).opacity
    outline = beside[opacity > 0.5].max()
    assert -0.002 < outline < 0.01 if along == "ray" else outline > 0.03


def test_volsdf_starts_as_a_sphere():
    for name in ("volsdf", "volsdf_hash"):
        torch.manual_seed(0)
        wide = replace(made(name).config, width=256)
        points = torch.randn(200, 3) * 0.4
        want = points.norm(dim=1) - 0.5 * 0.75
        assert (VolSDF(wide).distance(points) - want).abs().mean() < 0.08


@pytest.mark.parametrize("config", [HashFieldConfig(), LowRankFieldConfig(), NeRFConfig(), VolSDFConfig()])
def test_configs_are_plain_trees(config):
    assert to_dict(config)["kind"] in ("hash", "lowrank", "nerf", "volsdf")
