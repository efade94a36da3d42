"""The flexible dual grid (O-Voxel; Xiang et al., "Native and compact structured latents for 3D generation",
2025): any surface, open, sharp or non-manifold, as one vertex in each voxel and the lattice edges it crosses.

Voxel (x, y, z) covers origin + voxel_size * [i, i + 1). Its flag of an axis belongs to the lattice edge along
the axis that it shares with its next voxels along both other axes: for x the edge from lattice point (x, y +
1, z + 1). A set flag stands for a quadrilateral through the vertices of these four voxels. Nothing is said
about inside and outside but the sense of each quadrilateral, so no sign has to be found and no hole closed.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from sparse3d.geometry.mesh import Mesh
from sparse3d.mesh.band_blocks import default_origin
from sparse3d.mesh.distance import MeshDistance, nearest_colors
from sparse3d.mesh.lattice_crossings import Crossings, crossings, in_voxels
from sparse3d_ops.cpu import lattice_crossings as body
from sparse3d_ops.hashing import build, look_up, pack, unique, unpack

# The voxels around an edge, counter-clockwise as seen from further along its axis: steps along the next axis
# and the one after.
_AROUND = np.array([(0, 0), (1, 0), (1, 1), (0, 1)])


@dataclass(frozen=True, eq=False)
class DualGrid:
    """`voxels` (N, 4) int32 distinct (batch 0, x, y, z); `vertices` (N, 3) float32 in [0, 1], from the
    voxel's low corner, in voxels; `crossed` (N, 3) int8 of its x, y and z edge: 0 not crossed, 1 crossed by a
    surface whose outside lies further along the axis, -1 by one whose outside lies before. `voxel_size`
    metres, `origin` (3,) float64 world; `colors` (N, 3) uint8 sRGB or None. ValueError for anything else."""

    voxels: np.ndarray
    vertices: np.ndarray
    crossed: np.ndarray
    voxel_size: float
    origin: np.ndarray
    colors: np.ndarray | None = None

    def __post_init__(self):
        count = len(self.voxels)
        layouts = {"voxels": (4, np.int32), "vertices": (3, np.float32), "crossed": (3, np.int8)}
        if self.colors is not None:
            layouts["colors"] = (3, np.uint8)
        for name, (columns, dtype) in layouts.items():
            array = np.ascontiguousarray(getattr(self, name))
            if array.shape != (count, columns) or array.dtype != dtype:
                raise ValueError(
                    f"{name} are ({count}, {columns}) {np.dtype(dtype)}, "
                    f"these are {array.dtype} {array.shape}"
                )
            object.__setattr__(self, name, array)
        if not ((self.vertices >= 0) & (self.vertices <= 1)).all():
            raise ValueError("vertices lie within their voxels, in [0, 1]; some do not")
        if count and np.abs(self.crossed.astype(np.int16)).max() > 1:
            raise ValueError("crossed is -1, 0 or 1; some are not")
        origin = np.asarray(self.origin, dtype=np.float64)
        if origin.shape != (3,) or not np.isfinite(origin).all():
            raise ValueError(f"origin is a finite place (3,), this is {self.origin}")
        if not (np.isfinite(self.voxel_size) and self.voxel_size > 0):
            raise ValueError(f"voxel_size is {self.voxel_size}, expected metres above 0")
        object.__setattr__(self, "origin", origin)
        object.__setattr__(self, "voxel_size", float(self.voxel_size))

    @property
    def places(self) -> np.ndarray:
        """(N, 3) float64 world: the vertices."""
        return self.origin + self.voxel_size * (self.voxels[:, 1:] + self.vertices.astype(np.float64))


def mesh_to_dual_grid(
    mesh: Mesh,
    voxel_size: float,
    origin: np.ndarray | None = None,
    face_weight: float = 1.0,
    boundary_weight: float = 0.2,
    regularization: float = 0.01,
    doubled: Literal["keep", "drop"] = "keep",
) -> DualGrid:
    """A voxel for each one that touches a crossed lattice edge, in order.

    Its vertex v is where in the voxel this sum is least: the squared distances from the faces' planes at each
    crossing of its twelve edges; `face_weight` times those from the planes of all faces in it, by their area
    (h^2); `boundary_weight` times those from the mesh's open borders in it, by their length (h); and
    `regularization` times the number of crossings times the squared distance from their mean. So vertices
    come to lie on sharp edges and corners, and on the rim of an open surface. An edge that is crossed twice,
    or any even number of times, is crossed for `doubled="keep"`: plates thinner than a voxel stay, as one
    sheet. "drop" leaves such edges out: plates go, and what was closed stays closed.

    ValueError as `in_voxels`, and for weights below 0 (of regularization: not above 0).
    """
    if not (min(face_weight, boundary_weight) >= 0 and 0 < regularization < np.inf):
        raise ValueError(
            f"weights are {face_weight}, {boundary_weight} and {regularization}; expected the first two at "
            "least 0 and the regularization above 0"
        )
    if not len(mesh.faces):
        raise ValueError("a mesh without triangles has no dual grid")
    origin = default_origin(mesh, voxel_size) if origin is None else np.asarray(origin, np.float64)
    triangles = in_voxels(mesh, voxel_size, origin)
    found = crossings(triangles)
    keys, flags = _crossed_edges(found, doubled)
    table = build(keys)
    forms = np.zeros((len(keys), 13))
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    normals = np.divide(normals, length, out=np.zeros_like(normals), where=length > 0)
    slots = table[0].numpy(), table[1].numpy()
    body.add_crossings(*slots, found.edges, found.heights, normals, found.faces, forms)
    if face_weight > 0:
        body.add_faces(*slots, triangles, normals, face_weight, forms)
    if boundary_weight > 0:
        ends, count = mesh.edges
        border = (mesh.vertices[ends[count == 1]].astype(np.float64) - origin) / voxel_size
        body.add_borders(*slots, border, boundary_weight, forms)
    vertices = np.empty((len(keys), 3))
    body.solve(forms, regularization, vertices)
    grid = DualGrid(unpack(keys).numpy(), vertices.astype(np.float32), flags, voxel_size, origin)
    if not mesh.has_paint:
        return grid
    colors = nearest_colors(MeshDistance(mesh), grid.places)
    return DualGrid(grid.voxels, grid.vertices, grid.crossed, voxel_size, origin, colors)


def dual_grid_to_mesh(grid: DualGrid) -> Mesh:
    """The quadrilaterals of all set flags whose four voxels are there, each cut along the diagonal across
    which its two triangles are flattest; voxels that no one uses have no vertex."""
    keys = pack(torch.from_numpy(grid.voxels))
    table = build(keys)
    quads = []
    for axis in range(3):
        crossed = grid.crossed[:, axis]
        rows = np.flatnonzero(crossed)
        corners = np.empty((len(rows), 4), np.int64)
        for k, (b, c) in enumerate(_AROUND):
            moved = grid.voxels[rows]
            moved[:, 1 + (axis + 1) % 3] += b
            moved[:, 1 + (axis + 2) % 3] += c
            corners[:, k] = look_up(*table, pack(torch.from_numpy(moved))).numpy()
        turned = crossed[rows] < 0
        corners[turned] = corners[turned][:, ::-1]
        quads.append(corners[(corners >= 0).all(1)])
    quads = np.concatenate(quads)
    faces = _cut(grid.voxels[:, 1:] + grid.vertices.astype(np.float64), quads)
    used, rows = np.unique(faces, return_inverse=True)
    colors = None if grid.colors is None else grid.colors[used]
    return Mesh(grid.places[used].astype(np.float32), rows.reshape(-1, 3), colors)


def _crossed_edges(found: Crossings, doubled: str) -> tuple[torch.Tensor, np.ndarray]:
    """Keys (N,) of the voxels around crossed edges, in order, and their flags (N, 3) int8."""
    edges = torch.from_numpy(found.edges)
    parts, own = [edges.new_empty(0, 4)], []
    for axis in range(3):
        at = edges[edges[:, 3] == axis]
        first = torch.cat([torch.zeros_like(at[:, :1]), at[:, :3]], 1)
        b, c = 1 + (axis + 1) % 3, 1 + (axis + 2) % 3
        first[:, b] -= 1
        first[:, c] -= 1
        own.append(first)
        for step_b, step_c in _AROUND.tolist():
            moved = first.clone()
            moved[:, b] += step_b
            moved[:, c] += step_c
            parts.append(moved)
    keys = unique(pack(torch.cat(parts)))[0]
    table = build(keys)
    flags = np.zeros((len(keys), 3), np.int8)
    for axis in range(3):
        rows = look_up(*table, pack(own[axis])).numpy()
        sides = found.sides[found.edges[:, 3] == axis]
        # The sense that more crossings of an edge have, else that of the first.
        total, count = np.bincount(rows, sides, len(keys)), np.bincount(rows, minlength=len(keys))
        _, first = np.unique(rows, return_index=True)
        flags[rows[first], axis] = sides[first]
        flags[:, axis] = np.where(total != 0, np.sign(total), flags[:, axis])
        if doubled == "drop":
            flags[count % 2 == 0, axis] = 0
    return keys, flags


def _cut(places: np.ndarray, quads: np.ndarray) -> np.ndarray:
    """(2 Q, 3) triangles of quadrilaterals (Q, 4)."""
    a, b, c, d = (places[quads[:, k]] for k in range(4))
    straight = _agreement(np.cross(b - a, c - a), np.cross(c - a, d - a))
    other = _agreement(np.cross(b - a, d - a), np.cross(c - b, d - b))
    along = np.where((straight >= other)[:, None], [0, 1, 2, 0, 2, 3], [0, 1, 3, 1, 2, 3])
    return np.take_along_axis(quads, along, 1).reshape(-1, 3)


def _agreement(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The cosine between two normals; least where one of them has no length, so that no triangle is without
    area where there is a choice."""
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    product = (one * other).sum(1)
    return np.divide(product, lengths, out=np.full(len(one), -2.0), where=lengths > 0)
