"""Projection and blending of surfels under the law suite."""

import math

import torch

from sparse3d_ops import surfel_blend, surfel_projection
from sparse3d_ops.splat_tiles import list_splats
from tests.ops.laws import OpLaw
from tests.oracles import surfels as oracle

SIZE = (37, 21)  # tiles at the borders are cut


def camera(dtype, device, orthographic=False):
    """Looks along +z from a little beside the origin, turned by 20 degrees; the orthographic one sees as much
    at a depth of 2."""
    turn = math.radians(20)
    world = torch.eye(4, dtype=dtype)
    world[0, 0], world[0, 2] = math.cos(turn), -math.sin(turn)
    world[2, 0], world[2, 2] = math.sin(turn), math.cos(turn)
    world[:3, 3] = torch.tensor([-0.9, 0.1, 0.3])
    focal = [20.0, 22.0] if orthographic else [40.0, 44.0]
    return world.to(device), torch.tensor([*focal, 18.0, 11.5], dtype=dtype, device=device)


def surfels(count, dtype, device, scale=0.3):
    """In front of the camera, beside it and behind."""
    means = torch.rand(count, 3, dtype=dtype) * torch.tensor([3, 2, 4]) + torch.tensor([-1.5, -1, -0.3])
    quats = torch.randn(count, 4, dtype=dtype)
    scales = (torch.rand(count, 2, dtype=dtype) + 0.1) * scale
    opacities = torch.rand(count, dtype=dtype)
    return [x.to(device) for x in (means, quats, scales, opacities)]


def _project(make, near=0.2, orthographic=False):
    def case(dtype, device):
        return *make(dtype, device), *camera(dtype, device, orthographic), *SIZE, near, orthographic

    return case


def _special(dtype, device):
    """Nothing of these is seen: behind, too near, transparent, flat to nothing, no rotation, not finite."""
    means, quats, scales, opacities = surfels(8, dtype, "cpu")
    means[:] = torch.tensor([0.5, 0.0, 2.0])
    means[0, 2], means[1] = -3, torch.tensor([0.85, -0.1, -0.5])
    opacities[:] = 0.7
    opacities[2] = 1 / 256
    scales[3, 1], quats[4] = 0, 0
    means[5, 1], scales[6, 0], opacities[7] = torch.nan, -1, torch.nan
    return [x.to(device) for x in (means, quats, scales, opacities)]


def _edge_on(offset, orthographic=False):
    """Planes that hold the ray through the centre, but for `offset` radians."""

    def make(dtype, device):
        means, quats, scales, opacities = surfels(3, dtype, "cpu")
        opacities[:] = 0.8
        world, _ = camera(dtype, "cpu")
        for n, p in enumerate(
            torch.tensor([[0.1, 0.0, 2.0], [0.0, 0.1, 3.0], [-0.2, 0.1, 1.5]], dtype=dtype)
        ):
            ray = torch.tensor([0.0, 0.0, 1.0], dtype=dtype) if orthographic else p
            normal = torch.linalg.cross(ray, torch.tensor([0.3, 1.0 - n, 0.2], dtype=dtype))
            normal = normal / normal.norm() + offset * ray / ray.norm()
            along = torch.linalg.cross(normal, torch.tensor([0.0, 0.3, 1.0], dtype=dtype))
            along = along / along.norm()
            frame = torch.stack((along, torch.linalg.cross(normal / normal.norm(), along), normal), 1)
            quats[n] = _quaternion(world[:3, :3].T @ frame)
            means[n] = world[:3, :3].T @ (p - world[:3, 3])
        return [x.to(device) for x in (means, quats, scales, opacities)]

    return make


def _quaternion(r):
    w = torch.sqrt(torch.clamp(1 + r[0, 0] + r[1, 1] + r[2, 2], min=1e-12)) / 2
    x, y, z = (r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1])
    return torch.stack((w, x / (4 * w), y / (4 * w), z / (4 * w)))


def _through_the_camera(dtype, device):
    # As large as the floor one stands on: no outline, and a horizon within the image.
    means, quats, scales, opacities = surfels(3, dtype, "cpu")
    means[:] = torch.tensor([[0.5, 0.6, 2.0], [0.9, -0.7, 2.5], [1.2, 0.5, 1.5]])
    angle = math.radians(40)
    quats[:] = torch.tensor(
        [[1.0, 1.0, 0.05, 0.0], [math.cos(angle), math.sin(angle), 0, 0], [1, -0.8, 0, 0.2]]
    )
    scales[:], opacities[:] = 2.0, 0.8
    return [x.to(device) for x in (means, quats, scales, opacities)]


def _one(dtype, device):
    means, *rest = surfels(1, dtype, device)
    return [means * 0 + torch.tensor([1.2, 0.1, 2.0], dtype=dtype, device=device), *rest]


def _some(count, scale=0.3):
    return lambda dtype, device: surfels(count, dtype, device, scale)


SCENES = {
    "empty": _some(0),
    "single": _one,
    "some": _some(14),
    "tiny": _some(9, scale=0.004),
    "special": _special,
    "nearly_edge_on": _edge_on(0.01),
    "edge_on": _edge_on(5e-5),
    "through_the_camera": _through_the_camera,
}
PARALLEL = {
    "orthographic": _some(14),
    "orthographic_tiny": _some(9, scale=0.004),
    "orthographic_nearly_edge_on": _edge_on(0.01, orthographic=True),
    "orthographic_edge_on": _edge_on(5e-5, orthographic=True),
    "orthographic_through_the_camera": _through_the_camera,
}
PROJECTIONS = {
    **{name: _project(make) for name, make in SCENES.items()},
    **{name: _project(make, orthographic=True) for name, make in PARALLEL.items()},
    "orthographic_special": _project(_special, orthographic=True),
}


def projected(make, dtype, device, orthographic=False):
    """Tensors of a scene for blending, with the lists of its tiles."""
    inputs = _project(make, orthographic=orthographic)(dtype, device)
    found = surfel_projection.ProjectedSurfels(*surfel_projection.surfel_forms(*inputs))
    tiles = list_splats(found.means2d, found.reach, found.depths, SIZE)
    return found.means2d, found.slopes, found.depths, inputs[3], tiles


def _blend(make, channels=3, near=0.2, low_pass=2.0, orthographic=False):
    def case(dtype, device):
        means2d, slopes, depths, opacities, tiles = projected(make, dtype, device, orthographic)
        features = torch.randn(len(means2d), channels, dtype=dtype).to(device)
        absolute = features.new_zeros(0, 2)
        limits = *SIZE, near, low_pass, orthographic
        return means2d, slopes, depths, opacities, features, absolute, *tiles, *limits

    return case


def _opaque(dtype, device):
    # One behind the other, until no light is left, and alphas that are held down.
    means, quats, scales, opacities = surfels(24, dtype, "cpu")
    means = torch.tensor([0.3, 0.0, 1.5]) + 0.2 * (means - means.mean(0))
    opacities = 0.7 + 0.299 * opacities
    opacities[::3] = 1
    return [x.to(device) for x in (means.to(dtype), quats, scales, opacities)]


def _duplicates(dtype, device):
    # At one depth the lower row comes first.
    return [torch.cat((x, x, x)) for x in surfels(3, dtype, device)]


BLENDS = {
    **{name: _blend(make) for name, make in SCENES.items() if name != "special"},
    "opaque": _blend(_opaque),
    "duplicates": _blend(_duplicates),
    "no_features": _blend(_some(5), channels=0),
    "many_features": _blend(_some(5), channels=9),
    "near_plane": _blend(_through_the_camera, near=1.4),
    **{name: _blend(make, orthographic=True) for name, make in PARALLEL.items()},
    "orthographic_near_plane": _blend(_through_the_camera, near=1.4, orthographic=True),
    "no_low_pass": _blend(_some(9), low_pass=surfel_blend.NO_LOW_PASS),
}
GRADIENTS_OF_BLENDS = (
    "single",
    "tiny",
    "opaque",
    "through_the_camera",
    "near_plane",
    "no_low_pass",
    "orthographic",
    "orthographic_near_plane",
)

LAWS = [
    OpLaw(
        surfel_projection.surfel_forms,
        oracle.project,
        PROJECTIONS,
        differentiable=(0, 1, 2, 4, 5),
        gradient_cases=tuple(name for name in PROJECTIONS if "special" not in name),
        tolerance=3e-5,  # slopes of what is nearly edge-on are quotients of small differences
    ),
    OpLaw(
        surfel_blend.blend,
        oracle.blend,
        BLENDS,
        differentiable=(0, 1, 2, 3, 4),
        gradient_cases=GRADIENTS_OF_BLENDS,
        tolerance=1e-4,  # of exponents: 1e-6 of a few hundred steps along steep slopes
    ),
]
