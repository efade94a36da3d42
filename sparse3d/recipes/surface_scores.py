"""A mesh against the truth, whatever that is: another mesh, a measured cloud, a shape that is known exactly,
or a scan of DTU."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from sparse3d.data.three_spheres import CENTRES, RADII
from sparse3d.errors import DataError
from sparse3d.evaluation.dtu_surfaces import DtuScores, ScannedScene, score_dtu
from sparse3d.evaluation.surfaces import (
    SurfaceScores,
    score_against_cloud,
    score_against_mesh,
    score_against_shape,
)
from sparse3d.geometry.mesh import Mesh
from sparse3d.geometry.orbits import even_directions
from sparse3d.io.dtu_scans import read_dtu_scan
from sparse3d.io.meshes import MESH_ENDINGS, read_mesh
from sparse3d.io.ply_header import has_faces, open_header
from sparse3d.io.points import POINT_SUFFIXES, read_valid_points

THREE_SPHERES = "three_spheres"
_PART = 0.01  # of the truth's diagonal: the threshold where none is given


class Balls:
    """The surface of all of some spheres together: `centres` (K, 3) and `radii` (K,), metres."""

    def __init__(self, centres: np.ndarray, radii: np.ndarray):
        self.centres, self.radii = centres, radii

    def distance(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) -> (N,), negative inside."""
        return (np.linalg.norm(points[:, None] - self.centres, axis=2) - self.radii).min(1)

    def spread(self, count: int) -> np.ndarray:
        """Up to `count` points spread evenly by area (a spiral on each); those within another sphere are
        left out."""
        share = self.radii**2 / (self.radii**2).sum()
        parts = []
        for centre, radius, part in zip(self.centres, self.radii, share, strict=True):
            n = max(int(count * part), 1)
            parts.append(centre + radius * even_directions(n))
        points = np.concatenate(parts)
        return points[self.distance(points) > -1e-9 * self.radii.max()]

    @property
    def diagonal(self) -> float:
        low, high = (self.centres - self.radii[:, None]).min(0), (self.centres + self.radii[:, None]).max(0)
        return float(np.linalg.norm(high - low))


def balls_of(name: str) -> Balls | None:
    """Those that a name means: three_spheres, or sphere:X,Y,Z,RADIUS. None for another; ValueError for a
    sphere of other numbers."""
    if name == THREE_SPHERES:
        return Balls(CENTRES, RADII)
    if not name.startswith("sphere:"):
        return None
    try:
        x, y, z, radius = (float(word) for word in name.removeprefix("sphere:").split(","))
    except ValueError as error:
        raise ValueError(f"{name}: expected sphere:X,Y,Z,RADIUS in metres") from error
    if not (np.isfinite([x, y, z, radius]).all() and radius > 0):
        raise ValueError(f"{name}: expected finite numbers and a radius above 0")
    return Balls(np.array([[x, y, z]]), np.array([radius]))


def score_surface(
    mesh: Mesh, against: str, threshold: float | None = None, count: int = 100_000
) -> SurfaceScores:
    """Against `against`: the name of a shape (`balls_of`), a file of a mesh or of points. `threshold` of the
    F-score: metres, a hundredth of the truth's diagonal where None. ValueError and DataError for what is none
    of these."""
    if threshold is not None and not threshold > 0 or count < 1:
        raise ValueError(f"threshold {threshold} and {count} points: expected more than 0")
    balls = balls_of(against)
    if balls is not None:
        threshold = threshold or _PART * balls.diagonal
        return score_against_shape(mesh, balls.distance, balls.spread(count), threshold, count)
    truth = mesh_or_points(against)
    corners = truth.vertices if isinstance(truth, Mesh) else truth
    threshold = threshold or _PART * float(np.linalg.norm(np.ptp(corners.astype(np.float64), axis=0)))
    if isinstance(truth, Mesh):
        return score_against_mesh(mesh, truth, threshold, count)
    return score_against_cloud(mesh, truth, threshold, count=count)


def mesh_or_points(path: str | Path) -> Mesh | np.ndarray:
    """What a file holds: a mesh, or points (M, 3). A .ply is a mesh where it has faces. Raises DataError."""
    path = Path(path)
    ending = path.suffix.lower()
    known = {*MESH_ENDINGS, *POINT_SUFFIXES}
    if ending not in known:
        raise DataError(
            path,
            f"neither a mesh nor a cloud by its ending ({', '.join(sorted(known))}), nor"
            f" {THREE_SPHERES} or sphere:X,Y,Z,RADIUS",
        )
    if not path.is_file():
        raise DataError(path, "no such file")
    if ending == ".ply":
        with open(path, "rb") as file:
            is_mesh = has_faces(open_header(file, path))
    else:
        is_mesh = ending in MESH_ENDINGS
    if not is_mesh:
        points = read_valid_points(path)[:, :3]
        if not len(points):
            raise DataError(path, "holds no points")
        return points
    return read_mesh(path)


def score_dtu_scan(mesh: Mesh, root: str | Path, scan: int, cameras: str | Path | None = None) -> DtuScores:
    """Against a scan of DTU (`io.dtu_scans`). `cameras`: the folder of the photos, with cameras_sphere.npz,
    whose frame the mesh is in; where None, the mesh is in the data set's own frame, millimetres."""
    if cameras is not None:
        from sparse3d.io.dtu import read_idr

        mesh = mesh.moved(read_idr(cameras).original_from_world)
    found = read_dtu_scan(root, scan)
    scene = ScannedScene(found.points, found.observed, found.cube, found.box[0], found.box[1], found.plane)
    return score_dtu(mesh, scene)


def tables(scores: SurfaceScores | DtuScores, **about: Any) -> list[Table]:
    """For people: a number a row."""
    table = Table("", "", "unit")
    for name, value in about.items():
        table.add_row(name, str(value), "")
    if isinstance(scores, DtuScores):
        rows = [(name, getattr(scores, name), "mm") for name in ("accuracy", "completeness", "overall")]
    else:
        rows = [
            ("accuracy", scores.accuracy, "m"),
            ("accuracy, 95 %", scores.accuracy_p95, "m"),
            ("completeness", scores.completeness, "m"),
            ("completeness, 95 %", scores.completeness_p95, "m"),
            ("chamfer", scores.chamfer, "m"),
            ("normal consistency", scores.normal_consistency, "of 1"),
            (f"precision at {scores.threshold:.4g} m", scores.precision, "of 1"),
            (f"recall at {scores.threshold:.4g} m", scores.recall, "of 1"),
            ("F-score", scores.f_score, "of 1"),
        ]
    for name, value, unit in rows:
        table.add_row(name, f"{value:.4g}", unit)
    if isinstance(scores, DtuScores):
        table.add_row("points of the mesh", str(scores.points), "")
        table.add_row("scanned points", str(scores.scanned), "")
    return [table]
