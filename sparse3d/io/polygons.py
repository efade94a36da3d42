"""What readers of mesh files share: polygons to triangles, and meshes with the path of their fault."""

from pathlib import Path

import numpy as np

from sparse3d.errors import DataError
from sparse3d.geometry.material import Material
from sparse3d.geometry.mesh import Mesh


def fans(rows: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Polygons, `sizes` (P,) corners each, one after the other in `rows` -> triangles (F, 3) around the first
    corner of each. Polygons of fewer than three corners have none."""
    count = np.maximum(sizes - 2, 0)
    starts = np.repeat(np.cumsum(sizes) - sizes, count)
    step = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return np.stack([rows[starts], rows[starts + step + 1], rows[starts + step + 2]], 1)


def checked_mesh(
    path: str | Path,
    vertices: np.ndarray,
    faces: np.ndarray,
    colors: np.ndarray | None = None,
    uv: np.ndarray | None = None,
    material: Material | None = None,
) -> Mesh:
    """A mesh of arrays from a file; DataError where they contradict each other or there is no triangle."""
    if not len(faces):
        raise DataError(path, f"holds no triangles ({len(vertices)} vertices)")
    try:
        return Mesh(vertices, faces, colors, uv, material)
    except ValueError as error:
        raise DataError(path, str(error)) from error
