"""How far a mesh is from the surface that it should be: accuracy, completeness, chamfer distance, F-score,
normal consistency.

Accuracy is how far the mesh is from the truth, completeness how far the truth is from the mesh. Both are
means of distances of points that are spread evenly over a surface; a mesh is never compared by its vertices,
of which fine parts have more. Distances are those to the other surface, not to points of it: between 100 000
points on each, a perfect sphere of 0.5 m would be off by 3 mm.

A cloud of measured points stands for discs, one a point, in the plane of its neighbours and as wide as they
are apart (`score_against_cloud`). `score_against_points` has none, in the way of DTU (Jensen et al., "Large
scale multi-view stereopsis evaluation", CVPR 2014): points of the mesh no denser than `spacing`, distances
above `cap` left out of the means (they are parts that the scanner did not see, or outliers). The protocol of
that data set itself is `sparse3d.evaluation.dtu_surfaces`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from sparse3d.geometry.mesh import Mesh
from sparse3d.mesh.distance import MeshDistance

_IN_PLANE, _ABOUT = 8, 6  # neighbours that a plane is laid through, and that say how wide a disc is
_DISCS = 4  # that are looked at
_AT_ONCE = 1 << 18  # points


@dataclass(frozen=True)
class SurfaceScores:
    """Metres: mean and 95th percentile of the distances from the mesh to the truth (`accuracy`) and from the
    truth to the mesh (`completeness`). `chamfer` is the mean of both means (DTU's "overall"). `precision` and
    `recall` are the parts of both that are nearer than `threshold`, `f_score` their harmonic mean (Knapitsch
    et al., "Tanks and Temples", 2017). `normal_consistency` is the mean of both means of |n . n'|, the cosine
    between the normals of points and of what they are nearest to, whatever their sign (Mescheder et al.,
    "Occupancy Networks", CVPR 2019); NaN where nothing has normals."""

    accuracy: float
    accuracy_p95: float
    completeness: float
    completeness_p95: float
    precision: float
    recall: float
    threshold: float
    normal_consistency: float = float("nan")

    @property
    def chamfer(self) -> float:
        return (self.accuracy + self.completeness) / 2

    @property
    def f_score(self) -> float:
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total > 0 else 0.0


def score_against_shape(
    mesh: Mesh,
    distance: Callable[[np.ndarray], np.ndarray],
    on_shape: np.ndarray,
    threshold: float,
    count: int = 100_000,
    seed: int = 0,
) -> SurfaceScores:
    """Against a shape that is known exactly: `distance` of points (N, 3) from its surface (N,), negative
    inside or of one sign, and points (M, 3) spread over it. Its normals are the slopes of the distance, by
    differences over a millionth of the mesh's extent; where they cannot be told (unsigned distances on the
    surface itself), points are left out of the normals' mean."""
    on_mesh, mesh_normals = _points_with_normals(mesh, count, seed)
    to_mesh, face = nearest_on_mesh(mesh, on_shape)
    step = 1e-6 * max(float(np.ptp(mesh.vertices.astype(np.float64), axis=0).max()), 1e-300)
    cosines = [
        _cosines(_slopes(distance, on_mesh, step), mesh_normals),
        _cosines(_slopes(distance, np.asarray(on_shape, np.float64), step), mesh.face_normals[face]),
    ]
    return _scores(np.abs(distance(on_mesh)), to_mesh, threshold, np.inf, cosines)


def score_against_mesh(
    mesh: Mesh, truth: Mesh, threshold: float, count: int = 100_000, seed: int = 0
) -> SurfaceScores:
    """Against another mesh, `count` points on each. ValueError where one has no area."""
    (ours, our_normals), (theirs, their_normals) = (
        _points_with_normals(m, count, seed) for m in (mesh, truth)
    )
    to_truth, truth_face = nearest_on_mesh(truth, ours)
    to_mesh, mesh_face = nearest_on_mesh(mesh, theirs)
    cosines = [
        _cosines(our_normals, truth.face_normals[truth_face]),
        _cosines(their_normals, mesh.face_normals[mesh_face]),
    ]
    return _scores(to_truth, to_mesh, threshold, np.inf, cosines)


def score_against_cloud(
    mesh: Mesh,
    points: np.ndarray,
    threshold: float,
    cap: float = np.inf,
    count: int = 100_000,
    seed: int = 0,
) -> SurfaceScores:
    """Against the surface that measured points (M, 3) lie on, without noise; distances above `cap` are left
    out of the means. A disc is as wide as the mean distance to its point's six nearest, and the nearest of
    those of the four nearest points counts. ValueError for fewer than 8 points."""
    points = np.asarray(points, dtype=np.float64)
    if len(points) <= _IN_PLANE:
        raise ValueError(
            f"{len(points)} points; expected more than {_IN_PLANE}, for planes through neighbours"
        )
    tree = KDTree(points)
    normals, reach = _planes(tree, points)
    on_mesh, mesh_normals = _points_with_normals(mesh, count, seed)
    to_truth, disc = _to_discs(tree, normals, reach, on_mesh)
    to_mesh, face = nearest_on_mesh(mesh, points)
    cosines = [_cosines(mesh_normals, normals[disc]), _cosines(normals, mesh.face_normals[face])]
    return _scores(to_truth, to_mesh, threshold, cap, cosines)


def score_against_points(
    mesh: Mesh,
    points: np.ndarray,
    threshold: float,
    spacing: float,
    cap: float = np.inf,
    seed: int = 0,
) -> SurfaceScores:
    """Against measured points (M, 3), thinned to `spacing` as those of the mesh are: four a square of
    `spacing`, before they are thinned. ValueError without points, or for a `spacing` that is not above 0."""
    if not len(points) or not spacing > 0:
        raise ValueError(f"{len(points)} points at a spacing of {spacing}; expected some, above 0")
    on_mesh = thinned(points_on_mesh(mesh, max(1, int(4 * mesh.area / spacing**2)), seed), spacing)
    truth = thinned(np.asarray(points, dtype=np.float64), spacing)
    return _scores(KDTree(truth).query(on_mesh)[0], KDTree(on_mesh).query(truth)[0], threshold, cap)


def points_on_mesh(mesh: Mesh, count: int, seed: int = 0) -> np.ndarray:
    """(count, 3) float64: points spread evenly over a mesh by its area, the same for a seed. ValueError for a
    mesh without area."""
    face, weights = mesh.spread_points(count, seed)
    return (weights[:, :, None] * mesh.vertices[mesh.faces[face]].astype(np.float64)).sum(1)


def distance_to_mesh(mesh: Mesh, points: np.ndarray) -> np.ndarray:
    """(N, 3) -> (N,) metres to the nearest triangle, exact. ValueError for a mesh without triangles."""
    return nearest_on_mesh(mesh, points)[0]


def nearest_on_mesh(mesh: Mesh, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3) -> (N,) metres to the nearest triangle, exact, and its row (N,). ValueError for a mesh without
    triangles."""
    distance, face, _ = MeshDistance(mesh).nearest(np.asarray(points, dtype=np.float64))
    return distance, face


def thinned(points: np.ndarray, spacing: float) -> np.ndarray:
    """The first point of each cube of side `spacing`, in the order in which they came."""
    cells = np.floor((points - points.min(0)) / spacing).astype(np.int64)
    return points[np.sort(np.unique(cells, axis=0, return_index=True)[1])]


def _points_with_normals(mesh: Mesh, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`points_on_mesh` with the normals (count, 3) of their triangles, of any length."""
    face, weights = mesh.spread_points(count, seed)
    places = (weights[:, :, None] * mesh.vertices[mesh.faces[face]].astype(np.float64)).sum(1)
    return places, mesh.face_normals[face]


def _slopes(distance: Callable[[np.ndarray], np.ndarray], points: np.ndarray, step: float) -> np.ndarray:
    """(N, 3): how fast a distance grows along each axis, by central differences."""
    ahead = [distance(points + step * axis) - distance(points - step * axis) for axis in np.eye(3)]
    return np.stack(ahead, 1) / (2 * step)


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N,) in [0, 1] between normals (N, 3) of any length, whatever their sign; NaN for those without one."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.abs((a * b).sum(1)) / np.where(lengths > 0, lengths, np.nan)


def _planes(tree: KDTree, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit normals (M, 3) of the planes through each point and its neighbours, and how wide (M,) a disc has
    to be that meets those of the neighbours."""
    way, rows = (np.asarray(found) for found in tree.query(points, _IN_PLANE + 1))
    normals = np.empty_like(points)
    for begin in range(0, len(points), _AT_ONCE):
        near = points[rows[begin : begin + _AT_ONCE]]
        off = near - near.mean(1, keepdims=True)
        normals[begin : begin + _AT_ONCE] = np.linalg.eigh(np.einsum("nki,nkj->nij", off, off))[1][:, :, 0]
    return normals, way[:, 1 : _ABOUT + 1].mean(1)


def _to_discs(
    tree: KDTree, normals: np.ndarray, reach: np.ndarray, places: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(N,) distances of places (N, 3) from the nearest disc, and its row (N,)."""
    rows = np.asarray(tree.query(places, _DISCS)[1])
    off = places[:, None] - np.asarray(tree.data)[rows]
    height = np.abs((off * normals[rows]).sum(2))
    across = np.sqrt(np.maximum((off * off).sum(2) - height**2, 0))
    distances = np.hypot(height, np.maximum(across - reach[rows], 0))
    nearest = distances.argmin(1)
    each = np.arange(len(places))
    return distances[each, nearest], rows[each, nearest]


def _scores(
    to_truth: np.ndarray,
    to_mesh: np.ndarray,
    threshold: float,
    cap: float,
    cosines: Sequence[np.ndarray] = (),
) -> SurfaceScores:
    """`cosines` (N,) and (M,), those of points beyond `cap` are left out too."""
    means, tails = [], []
    for distances in (to_truth, to_mesh):
        kept = distances[distances <= cap]
        means.append(float(kept.mean()) if len(kept) else float("nan"))
        tails.append(float(np.quantile(kept, 0.95)) if len(kept) else float("nan"))
    precision, recall = (float((distances < threshold).mean()) for distances in (to_truth, to_mesh))
    normals = float("nan")
    if cosines:
        sides = zip(cosines, (to_truth, to_mesh), strict=True)
        known = [found[(away <= cap) & ~np.isnan(found)] for found, away in sides]
        normals = float(np.mean([part.mean() for part in known])) if all(map(len, known)) else normals
    return SurfaceScores(means[0], tails[0], means[1], tails[1], precision, recall, threshold, normals)
