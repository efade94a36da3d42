"""Paint into textures: from the colours of vertices, from a function of places, from another mesh.

Each texel whose middle lies in a chart asks for the colour of the place on the surface that it shows; all
others take the colour of the nearest such texel, so that neither seams nor smaller copies of the texture show
what lies beside a chart.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy.ndimage import distance_transform_edt

from sparse3d.geometry.material import Material
from sparse3d.geometry.mesh import Mesh
from sparse3d.mesh.raster import rasterized

_AT_ONCE = 1 << 18  # texels

# (N, 3) places in the world and (N, 3) unit normals there -> (N, 3) in [0, 1], sRGB.
Paint = Callable[[np.ndarray, np.ndarray], np.ndarray]


def baked(mesh: Mesh, size: int = 1024, paint: Paint | None = None) -> Mesh:
    """The mesh with a texture of `size` x `size`: what `paint` says, or the mesh's own vertex colours where
    that is None. Without colours of vertices, which the texture stands for. ValueError for a mesh without uv
    or without a texel in its charts."""
    if mesh.uv is None:
        raise ValueError("a mesh without texture coordinates: unwrap it first (sparse3d.mesh.unwrapping)")
    if paint is None and mesh.colors is None:
        raise ValueError("a mesh without colours has nothing to bake: give a function of places")
    found = rasterized(mesh.uv * np.float64(size), np.ones((len(mesh.faces), 3)), (size, size))
    covered = found.face >= 0
    if not covered.any():
        raise ValueError(f"no texel of {size} x {size} lies in a chart: a larger texture, or fewer triangles")
    faces, weights = found.face[covered], found.weights[covered].astype(np.float64)
    texture = np.zeros((size, size, 3), dtype=np.uint8)
    colors = np.empty((len(faces), 3), dtype=np.uint8)
    for begin in range(0, len(faces), _AT_ONCE):
        part = slice(begin, begin + _AT_ONCE)
        shades = _shades(mesh, paint, faces[part], weights[part])
        colors[part] = np.rint(np.clip(np.nan_to_num(shades), 0, 1) * 255)
    texture[covered] = colors
    if not covered.all():
        nearest = distance_transform_edt(~covered, return_distances=False, return_indices=True)
        assert isinstance(nearest, np.ndarray)
        texture = texture[nearest[0], nearest[1]]
    material = replace(mesh.material or Material(), color=(1.0, 1.0, 1.0), texture=texture)
    return replace(mesh, colors=None, material=material)


def _shades(mesh: Mesh, paint: Paint | None, faces: np.ndarray, weights: np.ndarray) -> np.ndarray:
    corners = mesh.faces[faces]
    if paint is None:
        assert mesh.colors is not None
        return (weights[:, :, None] * (mesh.colors[corners] / 255.0)).sum(1)
    places = (weights[:, :, None] * mesh.vertices[corners].astype(np.float64)).sum(1)
    normals = (weights[:, :, None] * mesh.vertex_normals[corners]).sum(1)
    return paint(places, normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12))
