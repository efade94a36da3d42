"""DTU's protocol for surfaces: Jensen et al., "Large scale multi-view stereopsis evaluation", CVPR 2014.

Millimetres, in the data set's own frame. The mesh becomes points no nearer than 0.2 mm to each other. Of
these, those within the scan's box and where its observability mask says that the scanner saw the place count
for accuracy; scanned points above the table's plane count for completeness; distances are between points, and
those above 20 mm are left out of both means.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.spatial import KDTree

from sparse3d.evaluation.surfaces import points_on_mesh
from sparse3d.evaluation.thinning import thinned_by_radius
from sparse3d.geometry.mesh import Mesh

SPACING, FARTHEST = 0.2, 20.0  # millimetres
_BEYOND = 60.0  # around the box, and twice that behind it: as far as points of the mesh are looked at
_DRAWN = 6  # points on a square of the spacing before they are thinned


@dataclass(frozen=True, eq=False)
class ScannedScene:
    """`points` (M, 3) mm of the scanner; `observed` (X, Y, Z) bool cubes of side `cube` mm, whose first has
    its middle at `low` (3,); the box from `low` to `high`; `plane` (4,), above 0 where the table ends and the
    object begins, for (x, y, z, 1)."""

    points: np.ndarray
    observed: np.ndarray
    cube: float
    low: np.ndarray
    high: np.ndarray
    plane: np.ndarray


class DtuScores(NamedTuple):
    """Millimetres; `overall` is the mean of both. NaN where no point counts."""

    accuracy: float
    completeness: float
    overall: float
    points: int  # of the mesh that count
    scanned: int  # above the plane


def score_dtu(
    mesh: Mesh, scene: ScannedScene, spacing: float = SPACING, farthest: float = FARTHEST, seed: int = 0
) -> DtuScores:
    """A mesh in millimetres and in the frame of the data set, against its scan. ValueError for a mesh without
    area."""
    wanted = max(1, int(_DRAWN * mesh.area / spacing**2))
    drawn = np.concatenate([mesh.vertices.astype(np.float64), points_on_mesh(mesh, wanted, seed)])
    drawn = drawn[np.random.default_rng(seed).permutation(len(drawn))]
    near = ((drawn >= scene.low - _BEYOND) & (drawn < scene.high + 2 * _BEYOND)).all(1)
    points = drawn[near]
    points = points[thinned_by_radius(points, spacing)]
    counted = points[_observed(scene, points)]
    above = scene.points[scene.points @ scene.plane[:3] + scene.plane[3] > 0]
    accuracy = _mean_distance(counted, scene.points, farthest)
    completeness = _mean_distance(above, points, farthest)
    return DtuScores(accuracy, completeness, (accuracy + completeness) / 2, len(counted), len(above))


def _observed(scene: ScannedScene, points: np.ndarray) -> np.ndarray:
    """(N,) bool: whether the scanner saw the cube that each point lies in."""
    cubes = np.rint((points - scene.low) / scene.cube).astype(np.int64)
    inside = ((cubes >= 0) & (cubes < scene.observed.shape)).all(1)
    out = np.zeros(len(points), dtype=bool)
    out[inside] = scene.observed[tuple(cubes[inside].T)]
    return out


def _mean_distance(points: np.ndarray, others: np.ndarray, farthest: float) -> float:
    if not len(points) or not len(others):
        return float("nan")
    distances = KDTree(others).query(points, distance_upper_bound=farthest)[0]
    kept = distances[distances < farthest]  # inf beyond
    return float(kept.mean()) if len(kept) else float("nan")
