"""Triangle meshes as arrays, and what can be said about their shape."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sparse3d.geometry.material import Material


@dataclass(frozen=True, eq=False)
class Mesh:
    """`vertices` (V, 3) float32 world, metres; `faces` (F, 3) int32 rows of vertices, counter-clockwise as
    seen from outside; `colors` (V, 3) uint8 RGB in sRGB, as photos have them, or None.

    `uv` (F, 3, 2) float32: where each corner of each face lies in the texture of `material`, u to the right
    and v down from its top left corner, or None. They belong to corners, not to vertices: at a seam a vertex
    has two places, and a mesh that were cut there would no longer be closed.

    ValueError for other shapes, vertices that are not finite, and faces that name a vertex that is not there.
    """

    vertices: np.ndarray
    faces: np.ndarray
    colors: np.ndarray | None = None
    uv: np.ndarray | None = None
    material: Material | None = None

    def __post_init__(self):
        vertices = np.ascontiguousarray(self.vertices, dtype=np.float32)
        faces = np.ascontiguousarray(self.faces)
        if vertices.ndim != 2 or vertices.shape[1] != 3 or not np.isfinite(vertices).all():
            raise ValueError(f"vertices are finite (V, 3), these are {vertices.shape} or not finite")
        if faces.ndim != 2 or faces.shape[1] != 3 or not np.issubdtype(faces.dtype, np.integer):
            raise ValueError(f"faces are (F, 3) integers, these are {faces.dtype} {faces.shape}")
        if len(faces) and not (faces.min() >= 0 and faces.max() < len(vertices)):
            raise ValueError(
                f"faces name vertices {faces.min()} to {faces.max()}, there are {len(vertices)} from 0"
            )
        if self.colors is not None:
            colors = np.ascontiguousarray(self.colors)
            if colors.shape != vertices.shape or colors.dtype != np.uint8:
                raise ValueError(f"colors are (V, 3) uint8, these are {colors.dtype} {colors.shape}")
            object.__setattr__(self, "colors", colors)
        if self.uv is not None:
            uv = np.ascontiguousarray(self.uv, dtype=np.float32)
            if uv.shape != (len(faces), 3, 2) or not np.isfinite(uv).all():
                raise ValueError(f"uv are finite (F, 3, 2), these are {uv.shape} or not finite")
            object.__setattr__(self, "uv", uv)
        object.__setattr__(self, "vertices", vertices)
        object.__setattr__(self, "faces", faces.astype(np.int32, copy=False))

    @cached_property
    def face_normals(self) -> np.ndarray:
        """(F, 3) float64: across each face to its outside, as long as twice its area, square metres."""
        a, b, c = (self.vertices[self.faces[:, k]].astype(np.float64) for k in range(3))
        return np.cross(b - a, c - a)

    @cached_property
    def vertex_normals(self) -> np.ndarray:
        """(V, 3) float32 of unit length: the mean over a vertex's faces, weighted by area; +z where a vertex
        has no face."""
        total = np.zeros((len(self.vertices), 3))
        for k in range(3):
            for axis in range(3):
                total[:, axis] += np.bincount(
                    self.faces[:, k], self.face_normals[:, axis], len(self.vertices)
                )
        length = np.linalg.norm(total, axis=1, keepdims=True)
        unit = np.divide(total, length, out=np.zeros_like(total), where=length > 0)
        unit[length[:, 0] == 0] = (0, 0, 1)
        return unit.astype(np.float32)

    @property
    def area(self) -> float:
        """Square metres."""
        return float(np.linalg.norm(self.face_normals, axis=1).sum() / 2)

    @property
    def volume(self) -> float:
        """Cubic metres within a closed mesh; negative where its inside is out."""
        return float((self.vertices[self.faces[:, 0]] * self.face_normals).sum() / 6)

    @cached_property
    def edges(self) -> tuple[np.ndarray, np.ndarray]:
        """(E, 2) each edge once, smaller row first, and how many faces (E,) it has."""
        directed = self.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).astype(np.int64)
        keys = np.sort(directed, axis=1) @ [len(self.vertices), 1]
        found, counts = np.unique(keys, return_counts=True)
        return np.stack(np.divmod(found, max(len(self.vertices), 1)), 1), counts

    @property
    def is_closed(self) -> bool:
        """Whether each edge has exactly two faces, which go along it in opposite directions: no crack, no
        border, no face that is turned against its neighbour."""
        directed = self.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).astype(np.int64)
        there, back = (np.sort(directed[:, order] @ [len(self.vertices), 1]) for order in ([0, 1], [1, 0]))
        return bool((there[1:] != there[:-1]).all() and np.array_equal(there, back))

    @property
    def euler_number(self) -> int:
        """Vertices that have faces - edges + faces: 2 for each sphere, 0 for each torus."""
        return len(np.unique(self.faces)) - len(self.edges[0]) + len(self.faces)

    @cached_property
    def components(self) -> tuple[int, np.ndarray]:
        """How many pieces hang together by vertices, and the number (F,) of each face's piece."""
        ends, count = self.edges[0], len(self.vertices)
        graph = coo_array((np.ones(len(ends), np.int8), (ends[:, 0], ends[:, 1])), shape=(count, count))
        _, label = connected_components(graph, directed=False)
        pieces, of_face = np.unique(label[self.faces[:, 0]], return_inverse=True)
        return len(pieces), of_face

    def spread_points(self, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """`count` places spread evenly over the mesh by its area, the same for a seed: the face (count,) of
        each and the weights (count, 3) of its corners. ValueError for a mesh without area."""
        areas = np.linalg.norm(self.face_normals, axis=1)
        if not areas.sum() > 0:
            raise ValueError(f"a mesh of {len(self.faces)} triangles without area has no points on it")
        rng = np.random.default_rng(seed)
        # One draw in each of `count` equal shares of the area: less noise than independent draws.
        shares = (np.arange(count) + rng.random(count)) / max(count, 1)
        total = np.cumsum(areas)
        face = np.searchsorted(total, shares * total[-1], side="right").clip(max=len(areas) - 1)
        u, v = rng.random((2, count))
        u = np.sqrt(u)
        return face, np.stack([1 - u, u * (1 - v), u * v], 1)

    def select(self, chosen: np.ndarray) -> "Mesh":
        """The faces of (F,) bool, with the vertices that they need."""
        faces = self.faces[chosen]
        used, rows = np.unique(faces, return_inverse=True)
        colors = None if self.colors is None else self.colors[used]
        uv = None if self.uv is None else self.uv[chosen]
        return Mesh(self.vertices[used], rows.reshape(-1, 3), colors, uv, self.material)

    def without_small_pieces(self, min_faces: int) -> "Mesh":
        """Without the pieces of fewer faces. The largest piece stays whatever its size (of equally large ones
        the first)."""
        count, piece = self.components
        if count < 2:
            return self
        sizes = np.bincount(piece, minlength=count)
        large = sizes >= min_faces
        large[sizes.argmax()] = True
        return self if large.all() else self.select(large[piece])

    def without_cavities(self) -> "Mesh":
        """Without the closed pieces whose outside lies within: walls around hollows, which nobody sees."""
        count, piece = self.components
        # Volumes from a corner of the mesh, not from the world's origin, so that they keep their digits.
        corner = (self.vertices[self.faces[:, 0]] - self.vertices.min(0, initial=np.inf)).astype(np.float64)
        volume = np.bincount(piece, (corner * self.face_normals).sum(1), count)
        ends, faces = self.edges
        of_vertex = np.zeros(len(self.vertices), dtype=np.int64)
        of_vertex[self.faces[:, 0]] = of_vertex[self.faces[:, 1]] = of_vertex[self.faces[:, 2]] = piece
        is_open = np.bincount(of_vertex[ends[:, 0]], faces != 2, count) > 0
        hollow = (volume < 0) & ~is_open
        return self.select(~hollow[piece]) if hollow.any() else self

    def with_colors(self, colors: np.ndarray) -> "Mesh":
        """The same shape in other colours (V, 3) uint8."""
        return replace(self, colors=colors)

    # ---- what it looks like ------------------------------------------------------------------------------

    @property
    def has_texture(self) -> bool:
        return self.uv is not None and self.material is not None and self.material.texture is not None

    @property
    def has_paint(self) -> bool:
        """Whether anything says which colour it has where."""
        return self.has_texture or self.colors is not None

    def colors_at(self, face: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, 3) in [0, 1], sRGB: what is painted on faces (N,) at the weights (N, 3) of their corners: the
        texture, else the colours of vertices, else the material's; grey where nothing is said."""
        if self.has_texture:
            assert self.uv is not None and self.material is not None
            return self.material.at((self.uv[face] * weights[:, :, None]).sum(1))
        if self.colors is not None:
            return ((self.colors[self.faces[face]] / 255.0) * weights[:, :, None]).sum(1)
        return np.tile((0.5, 0.5, 0.5) if self.material is None else self.material.color, (len(face), 1))

    def with_vertex_colors(self) -> "Mesh":
        """With its texture, or the one colour of its material, as colours of vertices: the mean over a
        vertex's corners. Without `uv` and `material`."""
        if not self.has_texture and (self.colors is not None or self.material is None):
            return replace(self, uv=None, material=None)
        corner = np.arange(3 * len(self.faces))
        return self.with_corner_colors(self.colors_at(corner // 3, np.eye(3)[corner % 3]).reshape(-1, 3, 3))

    def with_corner_colors(self, shades: np.ndarray) -> "Mesh":
        """Colours of vertices from those of corners (F, 3, 3) in [0, 1]: the mean over a vertex's corners.
        Without `uv` and `material`."""
        rows, count = self.faces.ravel(), len(self.vertices)
        total = np.stack([np.bincount(rows, shades[..., k].ravel(), count) for k in range(3)], 1)
        mean = total / np.maximum(np.bincount(rows, minlength=count), 1)[:, None]
        return replace(self, colors=np.rint(mean * 255).astype(np.uint8), uv=None, material=None)

    def split_at_seams(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For formats that have texture coordinates at vertices: rows (V',) of our vertices, each as often as
        it has places in the texture, faces (F, 3) of those, and their uv (V', 2). ValueError without uv."""
        if self.uv is None:
            raise ValueError("the mesh has no texture coordinates")
        flat = self.uv.reshape(-1, 2)
        first, places = _distinct(self.faces.ravel(), *flat.view(np.int32).T)
        return self.faces.ravel()[first], places.reshape(-1, 3), flat[first]

    def welded_at_seams(self) -> "Mesh":
        """Vertices of the very same place (and colour) as one: files that keep texture coordinates or normals
        at vertices have those of seams several times."""
        places = (self.vertices + np.float32(0)).view(np.int32)  # -0 is 0
        first, rows = _distinct(*places.T, *(() if self.colors is None else self.colors.T))
        order = np.argsort(first)  # in the order in which they came
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        kept = first[order]
        colors = None if self.colors is None else self.colors[kept]
        return replace(self, vertices=self.vertices[kept], faces=rank[rows][self.faces], colors=colors)

    def moved(self, matrix: np.ndarray) -> "Mesh":
        """By an affine matrix (4, 4) or (3, 4); a mirror turns the faces, so that the outside stays outside.
        ValueError where that leaves the range of numbers."""
        with np.errstate(over="ignore", invalid="ignore"):
            vertices = self.vertices.astype(np.float64) @ matrix[:3, :3].T + matrix[:3, 3]
            vertices = vertices.astype(np.float32)
        mirrored = np.linalg.det(matrix[:3, :3]) < 0
        order = [2, 1, 0] if mirrored else [0, 1, 2]
        uv = None if self.uv is None else self.uv[:, order]
        return replace(self, vertices=vertices, faces=self.faces[:, order], uv=uv)

    # ---- other programs' ---------------------------------------------------------------------------------

    def to_trimesh(self) -> Any:
        """See `sparse3d.geometry.mesh_exchange.to_trimesh`."""
        from sparse3d.geometry import mesh_exchange

        return mesh_exchange.to_trimesh(self)

    def to_open3d(self) -> Any:
        """See `sparse3d.geometry.mesh_exchange.to_open3d`."""
        from sparse3d.geometry import mesh_exchange

        return mesh_exchange.to_open3d(self)


def _distinct(*columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of integers (N,), column by column: the first row of each kind, in ascending order of the columns,
    and each row's kind (N,)."""
    kind = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        values, place = np.unique(column, return_inverse=True)
        kind = np.unique(kind * max(len(values), 1) + place, return_inverse=True)[1]
    return np.unique(kind, return_index=True)[1], kind


def joined(meshes: Sequence[Mesh]) -> Mesh:
    """Meshes as one. The texture stays where all have the same material; else what is painted becomes colours
    of vertices; colours stay where each has some. ValueError for none."""
    if not meshes:
        raise ValueError("no mesh to join")
    if len(meshes) == 1:
        return meshes[0]
    material = meshes[0].material
    alike = all(mesh.material is material and (mesh.uv is None) == (meshes[0].uv is None) for mesh in meshes)
    if not alike:
        meshes, material = [mesh.with_vertex_colors() for mesh in meshes], None
    begins = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    colors, uv = (
        [m.colors for m in meshes if m.colors is not None],
        [m.uv for m in meshes if m.uv is not None],
    )
    return Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([mesh.faces + begin for mesh, begin in zip(meshes, begins, strict=False)]),
        np.concatenate(colors) if len(colors) == len(meshes) else None,
        np.concatenate(uv) if len(uv) == len(meshes) else None,
        material,
    )
