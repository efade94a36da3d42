"""Paint from one mesh onto another: what the nearest place of it has."""

import numpy as np

from sparse3d.geometry.mesh import Mesh
from sparse3d.mesh.baking import Paint
from sparse3d.mesh.distance import MeshDistance


def paint_of(mesh: Mesh) -> Paint:
    """What is painted at the place of a mesh that is nearest: its texture, else the colours of its vertices,
    else its material's; grey where it has none. ValueError for a mesh without triangles."""
    distance = MeshDistance(mesh)

    def paint(places: np.ndarray, normals: np.ndarray) -> np.ndarray:
        _, face, weights = distance.nearest(places)
        return mesh.colors_at(face, weights)

    return paint
