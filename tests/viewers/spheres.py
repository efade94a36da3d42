"""Three coloured spheres, as triangles and as Gaussians, that viewers are held to."""

import numpy as np
import torch

from sparse3d.data.three_spheres import CENTRES, RADII
from sparse3d.gaussians.cloud import SH0, GaussianCloud
from sparse3d.geometry.material import Material
from sparse3d.geometry.mesh import Mesh

PAINT = np.array([[220, 40, 30], [40, 190, 60], [50, 70, 230]], dtype=np.uint8)


def sphere_mesh(colors=True, at=(0.0, 0.0, 0.0), rings=32):
    """Closed, with as many colours as spheres."""
    polar, turn = np.meshgrid(
        np.linspace(0, np.pi, rings), np.linspace(0, 2 * np.pi, 2 * rings), indexing="ij"
    )
    unit = np.stack([np.sin(polar) * np.cos(turn), np.sin(polar) * np.sin(turn), np.cos(polar)], -1)
    corner = np.arange(rings - 1)[:, None] * 2 * rings + np.arange(2 * rings - 1)
    right, below = corner + 1, corner + 2 * rings
    faces = np.stack([corner, below, right, right, below, below + 1], -1).reshape(-1, 3)
    count = unit[..., 0].size
    vertices = np.concatenate([unit.reshape(-1, 3) * r + c for c, r in zip(CENTRES, RADII, strict=True)])
    everything = np.concatenate([faces + k * count for k in range(3)])
    return Mesh(vertices + np.array(at), everything, PAINT.repeat(count, axis=0) if colors else None)


def textured_mesh(unlit=True):
    """A chequered panel of 2 x 2 metres before -y, its texture four times across and once up, u from -1."""
    texture = np.zeros((8, 16, 3), np.uint8)
    texture[:4, :8], texture[:4, 8:] = PAINT[0], PAINT[1]
    texture[4:, :8], texture[4:, 8:] = PAINT[2], (240, 240, 240)
    vertices = np.array([[-1, 0, 1], [1, 0, 1], [1, 0, -1], [-1, 0, -1]])
    faces = np.array([[0, 3, 1], [1, 3, 2]])
    places = np.array([[-1, 0], [3, 0], [3, 1], [-1, 1]], dtype=np.float32)
    return Mesh(vertices, faces, uv=places[faces], material=Material(texture=texture, unlit=unlit))


def sphere_cloud(count=1500, degree=2, seed=0, surfels=False, size=1.0):
    """Gaussians scattered over the spheres, in their colours, with some harmonics."""
    rng = np.random.default_rng(seed)
    which = rng.integers(0, 3, count)
    away = rng.normal(size=(count, 3))
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    means = CENTRES[which] + RADII[which, None] * away
    rest = 0.15 * rng.normal(size=(count, (degree + 1) ** 2 - 1, 3))
    parts = {
        "means": means,
        "scales": np.log(size * rng.uniform(0.004, 0.05, (count, 2 if surfels else 3))),
        "quats": rng.normal(size=(count, 4)),
        "opacities": rng.normal(1.5, 1, count),
        "sh0": (PAINT[which, None] / 255 - 0.5) / SH0,
        "shN": rest,
    }
    return GaussianCloud.of({name: torch.tensor(part, dtype=torch.float32) for name, part in parts.items()})
