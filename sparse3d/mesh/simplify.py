"""Fewer triangles for the same shape: quadric edge collapse (Garland and Heckbert, SIGGRAPH 1997) through
fast-simplification."""

import numpy as np

from sparse3d.errors import require_extra
from sparse3d.geometry.mesh import Mesh
from sparse3d.mesh.cleaning import without_flat_faces


def simplified(mesh: Mesh, faces: int, aggressiveness: float = 4.0) -> Mesh:
    """About `faces` triangles, or more where no further edge can go; the mesh itself where it has no more.

    Vertices get the mean colour of those that fell into them; a texture becomes such colours first
    (`sparse3d.mesh.baking` puts one on the result). `aggressiveness`: how fast errors may grow, 0 to 10,
    smaller is slower and better. ValueError for fewer than 4 triangles; MissingExtraError without
    fast-simplification.
    """
    if faces < 4:
        raise ValueError(f"a shape needs at least 4 triangles, got {faces}")
    if len(mesh.faces) <= faces:
        return mesh
    library = require_extra("fast_simplification", "mesh")
    mesh = without_flat_faces(mesh.with_vertex_colors() if mesh.has_texture else mesh)
    # In a cube of side one around the middle: the library compares errors with numbers of its own.
    low, high = (edge.astype(np.float64) for edge in (mesh.vertices.min(0), mesh.vertices.max(0)))
    side = max(float((high - low).max()), np.finfo(np.float32).tiny)
    unit = ((mesh.vertices - (low + high) / 2) / side).astype(np.float32)
    _, _, collapses = library.simplify(
        unit, mesh.faces, target_count=faces, agg=aggressiveness, return_collapses=True
    )
    points, triangles, rows = library.replay_simplification(unit, mesh.faces, collapses)
    vertices = np.asarray(points, dtype=np.float64) * side + (low + high) / 2
    colors = None
    if mesh.colors is not None:
        count = np.maximum(np.bincount(rows, minlength=len(vertices)), 1)
        total = [np.bincount(rows, mesh.colors[:, k], len(vertices)) for k in range(3)]
        colors = np.rint(np.stack(total, 1) / count[:, None]).astype(np.uint8)
    found = Mesh(vertices, np.asarray(triangles), colors, material=mesh.material)
    return without_flat_faces(found)
