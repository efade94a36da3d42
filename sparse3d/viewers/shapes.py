"""Shapes that explain: voxels as cubes, cameras as pyramids. Metres, world."""

import numpy as np

from sparse3d.geometry.cameras import Camera
from sparse3d.geometry.mesh import Mesh

# Corner k of a cube is 4 dx + 2 dy + dz. The corners of each side, counter-clockwise from outside, and how
# light it is: the tops are lightest, so that cubes of one colour can be told apart.
_SIDES = np.array([[1, 5, 7, 3], [0, 2, 6, 4], [4, 6, 7, 5], [0, 1, 3, 2], [2, 3, 7, 6], [0, 4, 5, 1]])
_LIGHT = np.array([1.0, 0.45, 0.8, 0.8, 0.62, 0.62])
_CORNERS = np.array([[k >> 2 & 1, k >> 1 & 1, k & 1] for k in range(8)])
_EDGES = np.array([[a, b] for a in range(8) for b in range(a + 1, 8) if (a ^ b) in (1, 2, 4)])


def cubes(low: np.ndarray, side: np.ndarray | float, colors: np.ndarray, shrink: float = 0.08) -> Mesh:
    """Voxels as cubes: `low` (N, 3) their lowest corners, `side` metres, `colors` (N, 3) uint8. A part
    `shrink` of each is left out around it, so that neighbours stay apart."""
    low = np.asarray(low, dtype=np.float64) + side * shrink / 2
    corners = low[:, None] + side * (1 - shrink) * _CORNERS  # (N, 8, 3)
    vertices = corners[:, _SIDES].reshape(-1, 3)
    shades = (colors[:, None, None] * _LIGHT[:, None, None]).repeat(4, axis=2).reshape(-1, 3)
    first = 4 * np.arange(6 * len(low))[:, None]
    faces = np.concatenate([first + [0, 1, 2], first + [0, 2, 3]], axis=1).reshape(-1, 3)
    return Mesh(vertices, faces, shades.round().astype(np.uint8))


def cube_edges(low: np.ndarray, side: float) -> np.ndarray:
    """(12 N, 2, 3): the edges of cubes."""
    corners = np.asarray(low, dtype=np.float64)[:, None] + side * _CORNERS
    return corners[:, _EDGES].reshape(-1, 2, 3)


def frustum(camera: Camera, depth: float) -> np.ndarray:
    """(8, 2, 3): a camera as the pyramid from its place to the corners of its picture, `depth` metres
    ahead."""
    x, y = camera.width, camera.height
    rays = camera.unproject(np.array([[0.0, 0.0], [x, 0.0], [x, y], [0.0, y]]))
    pose = camera.camera_to_world
    corners = rays / rays[:, 2:] * depth @ pose[:3, :3].T + pose[:3, 3]
    eye = np.broadcast_to(pose[:3, 3], corners.shape)
    return np.concatenate([np.stack([eye, corners], 1), np.stack([corners, np.roll(corners, -1, 0)], 1)])
