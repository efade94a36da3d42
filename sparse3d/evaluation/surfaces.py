"""How far a mesh is from the surface that it should be: accuracy, completeness, chamfer distance, F-score.

Accuracy is how far the mesh is from the truth, completeness how far the truth is from the mesh. Both are
means of distances of points that are spread evenly over a surface; a mesh is never compared by its vertices,
of which fine parts have more.

Where the truth is a cloud of measured points, the way of DTU (Jensen et al., "Large scale multi-view
stereopsis evaluation", CVPR 2014): points of the mesh no denser than `spacing`, distances above `cap` left
out of the means (they are parts that the scanner did not see, or outliers).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from sparse3d.geometry.mesh import Mesh

_NEIGHBOURS = 16  # triangles, by their middles, that are looked at first


@dataclass(frozen=True)
class SurfaceScores:
    """Metres: mean and 95th percentile of the distances from the mesh to the truth (`accuracy`) and from the
    truth to the mesh (`completeness`). `chamfer` is the mean of both means (DTU's "overall"). `precision` and
    `recall` are the parts of both that are nearer than `threshold`, `f_score` their harmonic mean (Knapitsch
    et al., "Tanks and Temples", 2017)."""

    accuracy: float
    accuracy_p95: float
    completeness: float
    completeness_p95: float
    precision: float
    recall: float
    threshold: float

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
    """Against a shape that is known exactly: `distance` of points (N, 3) from its surface (N,), any sign, and
    points (M, 3) spread over it."""
    to_shape = np.abs(distance(points_on_mesh(mesh, count, seed)))
    return _scores(to_shape, distance_to_mesh(mesh, on_shape), threshold, np.inf)


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
    """(N, 3) -> (N,) metres to the nearest triangle, exact. Fast where triangles are about of one size, as
    those of level sets are. ValueError for a mesh without triangles."""
    points = np.asarray(points, dtype=np.float64)
    corners = mesh.vertices[mesh.faces].astype(np.float64)
    if not len(corners):
        raise ValueError("a mesh without triangles is nowhere near")
    middles = corners.mean(1)
    reach = np.linalg.norm(corners - middles[:, None], axis=2).max()  # of a triangle around its middle
    tree, best = KDTree(middles), np.full(len(points), np.inf)
    waiting, near = np.arange(len(points)), min(_NEIGHBOURS, len(corners))
    while len(waiting):
        way, rows = tree.query(points[waiting], near)
        way, rows = way.reshape(len(waiting), near), rows.reshape(len(waiting), near)
        for column in rows.T:
            found = _point_triangle(points[waiting], *corners[column].transpose(1, 0, 2))
            best[waiting] = np.minimum(best[waiting], found)
        if near == len(corners):
            break
        # A triangle that was not looked at has its middle beyond the last one's.
        waiting = waiting[way[:, -1] - reach < best[waiting]]
        near = min(4 * near, len(corners))
    return best


def thinned(points: np.ndarray, spacing: float) -> np.ndarray:
    """The first point of each cube of side `spacing`, in the order in which they came."""
    cells = np.floor((points - points.min(0)) / spacing).astype(np.int64)
    return points[np.sort(np.unique(cells, axis=0, return_index=True)[1])]


def _point_triangle(p: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """(N, 3) each -> (N,): to the plane where the foot is within the triangle, else to the nearest side."""
    normal = np.cross(b - a, c - a)
    square = (normal * normal).sum(1)
    offset = ((p - a) * normal).sum(1)
    within = square > 0
    for tail, tip in ((a, b), (b, c), (c, a)):
        within &= (np.cross(tip - tail, p - tail) * normal).sum(1) >= 0
    sides = [_point_segment(p, tail, tip) for tail, tip in ((a, b), (b, c), (c, a))]
    flat = np.abs(offset) / np.sqrt(np.where(square > 0, square, 1))
    return np.where(within, flat, np.min(sides, axis=0))


def _point_segment(p: np.ndarray, tail: np.ndarray, tip: np.ndarray) -> np.ndarray:
    along = tip - tail
    length = (along * along).sum(1)
    part = ((p - tail) * along).sum(1) / np.where(length > 0, length, 1)
    return np.linalg.norm(p - tail - part.clip(0, 1)[:, None] * along, axis=1)


def _scores(to_truth: np.ndarray, to_mesh: np.ndarray, threshold: float, cap: float) -> SurfaceScores:
    means, tails = [], []
    for distances in (to_truth, to_mesh):
        kept = distances[distances <= cap]
        means.append(float(kept.mean()) if len(kept) else float("nan"))
        tails.append(float(np.quantile(kept, 0.95)) if len(kept) else float("nan"))
    precision, recall = (float((distances < threshold).mean()) for distances in (to_truth, to_mesh))
    return SurfaceScores(means[0], tails[0], means[1], tails[1], precision, recall, threshold)
