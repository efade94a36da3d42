"""Meshes of any origin made fit for what follows: equal vertices as one, no triangle twice or without
area."""

import numpy as np

from sparse3d.geometry.mesh import Mesh


def welded(mesh: Mesh, distance: float) -> Mesh:
    """Vertices that share a cell of side `distance`, metres, as the first of them; triangles that collapse
    are left out. Two vertices nearer than that which a cell's border parts stay two. ValueError for a
    distance that is not above 0, or so small that cells cannot be numbered."""
    if not distance > 0:
        raise ValueError(f"vertices are welded within a distance above 0, got {distance}")
    low = mesh.vertices.min(0, initial=np.inf).astype(np.float64)
    cells = np.floor((mesh.vertices - low) / distance)
    if len(cells) and not cells.max() < 2**52:
        raise ValueError(f"cells of {distance:g} m in {cells.max() * distance:g} m: too many to be numbered")
    _, first, cell = np.unique(cells, axis=0, return_index=True, return_inverse=True)
    return without_flat_faces(
        Mesh(mesh.vertices, first[cell.reshape(-1)][mesh.faces], mesh.colors, mesh.uv, mesh.material)
    )


def without_flat_faces(mesh: Mesh) -> Mesh:
    """Without triangles that name a vertex twice or have no area, and those that stand there a second time
    (whatever their direction; the first stays)."""
    a, b, c = mesh.faces.T
    chosen = (a != b) & (b != c) & (c != a) & (np.abs(mesh.face_normals).max(1, initial=0) > 0)
    _, first = np.unique(np.sort(mesh.faces, axis=1), axis=0, return_index=True)
    once = np.zeros(len(chosen), dtype=bool)
    once[first] = True
    return mesh.select(chosen & once)


def without_forked_edges(mesh: Mesh) -> Mesh:
    """Of edges with more than two triangles all but the two largest are left out, so that each edge has one
    or two: what algorithms that walk from triangle to triangle need."""
    while True:
        ends, counts = mesh.edges
        if not (counts > 2).any():
            return mesh
        stride = max(len(mesh.vertices), 1)
        directed = mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).astype(np.int64)
        edge = np.searchsorted(ends @ [stride, 1], np.sort(directed, axis=1) @ [stride, 1])
        face = np.repeat(np.arange(len(mesh.faces)), 3)
        area = np.linalg.norm(mesh.face_normals, axis=1)[face]
        order = np.lexsort((face, -area, edge))
        starts = np.cumsum(counts) - counts
        rank = np.arange(len(order)) - np.repeat(starts, counts)
        chosen = np.ones(len(mesh.faces), dtype=bool)
        chosen[face[order[rank >= 2]]] = False
        mesh = mesh.select(chosen)
