"""Triangle meshes as arrays, and what can be said about their shape."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


@dataclass(frozen=True, eq=False)
class Mesh:
    """`vertices` (V, 3) float32 world, metres; `faces` (F, 3) int32 rows of vertices, counter-clockwise as
    seen from outside; `colors` (V, 3) uint8 RGB in sRGB, as photos have them, or None.

    ValueError for other shapes, vertices that are not finite, and faces that name a vertex that is not there.
    """

    vertices: np.ndarray
    faces: np.ndarray
    colors: np.ndarray | None = None

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
        return Mesh(self.vertices[used], rows.reshape(-1, 3), colors)

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
