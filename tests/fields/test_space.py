"""Laws of the spaces that bend rays: they are cut into straight pieces, and as much light passes."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from sparse3d.fields.frustum import FrustumConfig
from sparse3d.fields.hash_field import HashField, HashFieldConfig
from sparse3d.fields.layers import HashEncodingConfig
from sparse3d.fields.samplers import ProposalSamplerConfig
from sparse3d.fields.space import SpaceConfig
from sparse3d.fields.voxel_field import VoxelField, VoxelFieldConfig

TURNED = (0.6, 0.0, -0.8), (0.0, 1.0, 0.0)
FRUSTUM = FrustumConfig((0.2, -0.1, 0.3), *TURNED, slopes=(0.7, 0.4), near=1.5, far=40.0)
SPACES = {
    "merf": SpaceConfig((-1.0, -0.5, 0.0), 2.0, "merf", far=50.0),
    "frustum": SpaceConfig((-5.0, -5.0, 0.0), 10.0, "frustum", frustum=FRUSTUM),
}
spaces = pytest.mark.parametrize("name", SPACES)


def forward():
    """The frustum's optical axis."""
    return torch.linalg.cross(*(torch.tensor(axis, dtype=torch.float64) for axis in TURNED))


def some_rays(count=300, seed=0):
    generator = torch.Generator().manual_seed(seed)
    origins = torch.rand(count, 3, generator=generator, dtype=torch.float64) * 0.8 - 0.4
    spread = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    return origins, normalize(forward() * 2 + spread, dim=1)


def inside_points(space, count=2000):
    own = torch.rand(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    own = torch.tensor(space.own_low, dtype=torch.float64) + space.own_side * own
    if space.contraction == "merf":  # slabs do not fill the cube's edges
        size = own.abs().sort(1).values
        own = own[(size[:, 1] <= 1) & (size[:, 2] < 1.9)]
    return own


@spaces
def test_the_inverse_undoes_it(name):
    own = inside_points(SPACES[name])
    again, inside = SPACES[name].to_own(SPACES[name].from_own(own))
    assert inside.all()
    torch.testing.assert_close(again, own, rtol=1e-9, atol=1e-9)


def test_what_fills_the_pictures_fills_the_cube():
    axes = torch.stack([*(torch.tensor(axis, dtype=torch.float64) for axis in TURNED), forward()])
    local = torch.tensor([[-0.7 * 1.5, 0.4 * 1.5, 1.5], [0.7 * 40, -0.4 * 40, 40]], dtype=torch.float64)
    own, _ = SPACES["frustum"].to_own(local @ axes + torch.tensor(FRUSTUM.origin))
    torch.testing.assert_close(own, torch.tensor([[-1.0, 1, -1], [1, -1, 1]], dtype=torch.float64))


@spaces
def test_pieces_are_straight_and_cover_the_ray(name):
    space = SPACES[name]
    origins, directions = some_rays()
    pieces = space.pieces(origins, directions)
    near, far = space.span(origins, directions)
    total = pieces.length.view(len(origins), -1).sum(1)
    torch.testing.assert_close(total, far - near)
    long = (pieces.length > 1e-3).nonzero()[:, 0]
    assert len(long) > 100 and torch.equal(long.unique(), long)
    for part in (0.02, 0.5, 0.97):
        s = part * pieces.lengths[long]
        t, ray = pieces.metres(s, long), long // pieces.per_ray
        begin = pieces.begin[long]
        assert ((t > begin) & (t < begin + pieces.length[long])).all()
        wanted, _ = space.to_own(origins[ray] + t[:, None] * directions[ray])
        straight = pieces.origins[long] + s[:, None] * pieces.directions[long]
        torch.testing.assert_close(straight, wanted, rtol=1e-6, atol=1e-6)


def test_a_frustum_holds_what_is_between_its_planes():
    space = SPACES["frustum"]
    origins, directions = some_rays(500)
    near, far = space.span(origins, directions)
    t = torch.linspace(0, 60, 4001, dtype=torch.float64)
    inside = space.to_own((origins[:, None] + t[:, None] * directions[:, None]).flatten(0, 1))[1].view(
        500, -1
    )
    between = (t > near[:, None]) & (t < far[:, None])
    assert (inside == between).float().mean() > 0.999 and inside.any() and not inside.all(1).any()


@spaces
def test_own_lengths_are_those_of_a_step_away_from_the_middle(name):
    space = SPACES[name]
    points = space.from_own(inside_points(space))
    low, high = space.corners(points)
    middle = (low + high) / 2 if name == "merf" else torch.tensor(FRUSTUM.origin, dtype=torch.float64)
    away = normalize(points - middle, dim=1)
    step = 1e-5 * (points - middle).norm(dim=1, keepdim=True)
    ends = [space.to_own(points + sign * step * away)[0] for sign in (-1, 1)]
    measured = (ends[1] - ends[0]).norm(dim=1) / (2 * step[:, 0])
    torch.testing.assert_close(space.stretch(points), measured, rtol=1e-4, atol=0)


@spaces
def test_even_samples_stay_in_their_measure(name):
    t = torch.linspace(0.1, 900, 500, dtype=torch.float64)
    warped = SPACES[name].warp(t)
    assert (warped.diff() > 0).all()
    torch.testing.assert_close(SPACES[name].unwarp(warped), t)


def voxels(name):
    field = VoxelField(
        VoxelFieldConfig(space=SPACES[name], resolution=10, sh_degree=1, stop=0.0, min_alpha=0.0)
    )
    with torch.no_grad():
        field.raw_density.normal_(-5.0, 1.5, generator=torch.Generator().manual_seed(2))
    return field.double()


@spaces
def test_opacity_of_voxels_is_the_integral_of_their_density(name):
    """Along rays from the middle, whose density `density` tells."""
    field, space = voxels(name), SPACES[name]
    low, high = space.corners(torch.zeros(1, dtype=torch.float64))
    middle = (low + high) / 2 if name == "merf" else torch.tensor(FRUSTUM.origin, dtype=torch.float64)
    _, directions = some_rays(15)
    origins = middle.expand(15, 3)
    field.config = replace(field.config, step=0.05)
    with torch.no_grad():
        seen = field.render(origins, directions)
        near, far = space.span(origins, directions)
        edges = near[:, None] + (far - near)[:, None] * torch.linspace(0, 1, 4001, dtype=torch.float64) ** 3
        points = origins[:, None] + ((edges[:, 1:] + edges[:, :-1]) / 2)[..., None] * directions[:, None]
        sigma = field.density(points.flatten(0, 1)).view(15, -1)
        want = -torch.expm1(-(sigma * edges.diff(dim=1)).sum(1))
    assert (want > 0.05).any() and (seen.opacity - want).abs().max() < 8e-3  # half a step a piece


@spaces
def test_gradients_of_voxels_equal_finite_differences(name):
    field = voxels(name)
    origins, directions = some_rays(20)
    offsets = torch.rand(20, dtype=torch.float64)

    def loss():
        traced = field.trace(origins, directions, torch.ones(3, dtype=torch.float64), offsets)
        return traced.seen.color.square().sum() + (traced.sigma * traced.samples.dt).sum()

    parameters = list(field.parameters())
    gradients = torch.autograd.grad(loss(), parameters)
    steps = [torch.randn_like(p) for p in parameters]
    along = sum(float((g * s).sum()) for g, s in zip(gradients, steps, strict=True))
    values = []
    for sign in (1, -2):
        for parameter, step in zip(parameters, steps, strict=True):
            parameter.data += sign * 1e-6 * step
        values.append(float(loss().detach()))
    assert abs(along) > 1e-3 and (values[0] - values[1]) / 2e-6 == pytest.approx(along, rel=1e-3)


@pytest.mark.parametrize("kind", ["voxels", "hash"])
@spaces
def test_fields_learn_what_stands_in_a_bent_space(name, kind):
    """Coloured walls, one in each half of what is seen."""
    torch.manual_seed(0)
    if kind == "voxels":
        field, rate = VoxelField(VoxelFieldConfig(space=SPACES[name], resolution=24)), 0.2
    else:
        grid = HashEncodingConfig(levels=4, log2_entries=12, coarsest=8, finest=32)
        sampler = ProposalSamplerConfig(proposals=(32,), samples=24)
        field, rate = (
            HashField(HashFieldConfig(space=SPACES[name], encoding=grid, sampler=sampler, width=16)),
            1e-2,
        )
    optimizer = torch.optim.Adam(field.parameters(), rate, eps=1e-15)
    errors = []
    for step in range(60):
        origins, directions = (part.float() for part in some_rays(256, step))
        wanted = torch.stack([directions[:, 1] > 0, directions[:, 1] <= 0, directions[:, 1] > 0], 1).float()
        near, far = SPACES[name].span(origins, directions)
        traced = field.trace(origins, directions, torch.full((3,), 0.5), torch.rand(256))
        error = (traced.seen.color - wanted).square().sum(1)[far > near].mean()
        optimizer.zero_grad()
        (error + sum(traced.terms.values())).backward()
        optimizer.step()
        errors.append(float(error.detach()))
        assert all(torch.isfinite(part).all() for part in traced.seen if part is not None)
    assert sum(errors[-5:]) / 5 < 0.25 * errors[0]


def test_bad_frustums_are_refused():
    with pytest.raises(ValueError, match="near < far"):
        FrustumConfig(near=2.0, far=1.0)
    with pytest.raises(ValueError, match="right angle"):
        FrustumConfig(right=(1.0, 0.0, 0.0), down=(1.0, 0.0, 0.0))
