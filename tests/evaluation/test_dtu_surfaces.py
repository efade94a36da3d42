"""DTU's protocol, on a scan made by hand: a ball on a table, seen from above."""

import numpy as np
import pytest
import scipy.io
from scipy.spatial import KDTree

from sparse3d import cli
from sparse3d.errors import DataError
from sparse3d.evaluation.dtu_surfaces import ScannedScene, score_dtu
from sparse3d.geometry.mesh import Mesh
from sparse3d.io.dtu_scans import read_dtu_scan
from sparse3d.io.meshes import write_mesh
from sparse3d.io.points import write_points
from tests.evaluation.test_surfaces import ball, on_sphere

RADIUS = 10.0  # mm


@pytest.fixture(scope="module")
def scene():
    """Scanned: the upper 3/4 of the ball; the mask ends at z = 5 mm; the table's plane is at z = -2 mm."""
    points = on_sphere(60000, RADIUS)
    points = points[points[:, 2] > -5]
    low, cube = np.array([-15.0, -15, -15]), 1.0
    heights = low[2] + np.arange(31) * cube
    observed = np.zeros((31, 31, 31), bool)
    observed[:, :, heights < 5] = True
    return ScannedScene(points, observed, cube, low, low + 30, np.array([0, 0, 1.0, 2.0]))


def scaled(mesh, factor):
    return Mesh(mesh.vertices * np.float32(factor), mesh.faces)


def test_only_what_was_observed_counts(scene):
    exact = score_dtu(scaled(ball(1.0), RADIUS), scene)
    # Points 0.2 mm apart: the nearest is about half of that away. Below z = -5 nothing was scanned, but the
    # mask says it was observed: distances up to 5 mm count there.
    assert exact.completeness < 0.15 < exact.accuracy < 2
    cut = scaled(ball(1.0), RADIUS)
    cut = cut.select(cut.vertices[cut.faces].mean(1)[:, 2] > -4.5)
    good = score_dtu(cut, scene)
    assert good.accuracy < 0.15 and good.completeness < 0.15
    assert good.overall == (good.accuracy + good.completeness) / 2
    cap = cut.select(cut.vertices[cut.faces].mean(1)[:, 2] < 3)
    without = score_dtu(cap, scene)
    assert without.accuracy < 0.15 and without.completeness > 0.5, "the missing cap counts for completeness"
    blind = ScannedScene(
        *(getattr(scene, name) for name in ("points",)),
        np.zeros_like(scene.observed),
        *(getattr(scene, name) for name in ("cube", "low", "high", "plane")),
    )
    assert np.isnan(score_dtu(cut, blind).accuracy)


def test_numbers_are_those_of_the_definition(scene):
    """Spelled out, with the points of one triangle."""
    rng = np.random.default_rng(0)
    triangle = Mesh(np.array([[-3, -3, 9.0], [3, -3, 9.5], [0, 9, 3.0]]), np.array([[0, 1, 2]]))
    found = score_dtu(triangle, scene, spacing=0.5, farthest=4.0)
    face, weights = triangle.spread_points(20_000, 3)
    dense = (weights[:, :, None] * triangle.vertices[triangle.faces[face]].astype(float)).sum(1)
    cells = np.rint(dense + 15).astype(int)
    seen = dense[scene.observed[cells[:, 0], cells[:, 1], cells[:, 2]]]
    to_scan = np.array(
        [np.linalg.norm(scene.points - p, axis=1).min() for p in seen[rng.integers(0, len(seen), 300)]]
    )
    assert found.accuracy == pytest.approx(to_scan[to_scan < 4].mean(), rel=0.15)
    above = scene.points[scene.points[:, 2] > -2]
    assert found.scanned == len(above)
    to_mesh = KDTree(dense).query(above, distance_upper_bound=4.0)[0]
    # Points half a millimetre apart instead of a whole triangle: up to that much more.
    assert found.completeness == pytest.approx(to_mesh[to_mesh < 4].mean(), abs=0.1)


def write_sample_set(root, scene, scan=9):
    (root / "ObsMask").mkdir(parents=True)
    (root / "Points/stl").mkdir(parents=True)
    box = np.stack([scene.low, scene.high])
    masks = {"ObsMask": scene.observed.astype(np.uint8), "BB": box, "Res": np.array([[scene.cube]])}
    scipy.io.savemat(root / f"ObsMask/ObsMask{scan}_10.mat", masks)
    scipy.io.savemat(root / f"ObsMask/Plane{scan}.mat", {"P": scene.plane[:, None]})
    points = np.concatenate([scene.points, np.zeros((len(scene.points), 1))], 1)
    write_points(root / f"Points/stl/stl{scan:03d}_total.ply", points)


def test_files_and_the_command(tmp_path, scene, capsys):
    write_sample_set(tmp_path / "MVS Data", scene)
    found = read_dtu_scan(tmp_path, 9)
    assert np.array_equal(found.observed, scene.observed) and found.cube == 1
    np.testing.assert_allclose(found.points, scene.points, atol=1e-5)
    np.testing.assert_array_equal(found.plane, scene.plane)
    write_mesh(tmp_path / "m.ply", scaled(ball(1.0), RADIUS))
    assert cli.main(["evaluate", str(tmp_path / "m.ply"), "--dtu", str(tmp_path), "--scan", "9"]) == 0
    assert "overall" in capsys.readouterr().out
    assert cli.main(["evaluate", str(tmp_path / "m.ply"), "--dtu", str(tmp_path), "--scan", "10"]) == 2
    assert "ObsMask10_10.mat" in capsys.readouterr().err
    assert cli.main(["evaluate", str(tmp_path / "m.ply"), "--dtu", str(tmp_path)]) == 2


def test_damaged_masks_are_told(tmp_path, scene):
    write_sample_set(tmp_path, scene)
    path = tmp_path / "ObsMask/ObsMask9_10.mat"
    data = path.read_bytes()
    for damaged in (b"", data[:60], data[: len(data) // 2], data[:-5], b"x" * len(data)):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="ObsMask9_10"):
            read_dtu_scan(tmp_path, 9)
    scipy.io.savemat(path, {"ObsMask": scene.observed.astype(np.uint8), "BB": np.zeros((3, 3)), "Res": 1.0})
    with pytest.raises(DataError, match="BB"):
        read_dtu_scan(tmp_path, 9)
    scipy.io.savemat(path, {"BB": np.zeros((2, 3)), "Res": 1.0})
    with pytest.raises(DataError, match="has no ObsMask"):
        read_dtu_scan(tmp_path, 9)
