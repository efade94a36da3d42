"""`sparse3d evaluate MESH --against TRUTH`."""

import numpy as np
import pytest

from sparse3d import cli
from sparse3d.data.three_spheres import surface_distance
from sparse3d.io.meshes import read_mesh, write_mesh
from sparse3d.io.points import write_points
from sparse3d.recipes.surface_scores import balls_of, score_surface
from tests.evaluation.test_surfaces import SAG, ball, on_sphere


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("surfaces")
    write_mesh(folder / "m.stl", ball(1.0))
    write_mesh(folder / "large.ply", ball(1.05))
    write_points(folder / "cloud.ply", np.pad(on_sphere(8000), ((0, 0), (0, 1))))
    write_points(folder / "cloud.npy", np.pad(on_sphere(8000), ((0, 0), (0, 1))))
    return folder


@pytest.mark.parametrize("truth", ["sphere:0,0,0,1", "m.stl", "cloud.ply", "cloud.npy"])
def test_against_whatever_the_truth_is(files, truth, capsys):
    truth = truth if ":" in truth else str(files / truth)
    command = ["evaluate", str(files / "large.ply"), "--against", truth, "--samples", "4000"]
    assert cli.main([*command, "--threshold", "0.02"]) == 0
    out = capsys.readouterr().out
    assert "chamfer" in out and "normal consistency" in out and "F-score" in out
    found = score_surface(read_mesh(files / "large.ply"), truth, count=4000)
    assert found.chamfer == pytest.approx(0.05, abs=2 * SAG) and found.normal_consistency > 0.98
    assert found.threshold == pytest.approx(0.02 * 3**0.5, rel=0.02)


def test_the_balls_are_those_of_the_scene():
    balls = balls_of("three_spheres")
    points = np.random.default_rng(0).uniform(-1, 1, (100, 3))
    np.testing.assert_allclose(balls.distance(points), surface_distance(points))
    on = balls.spread(3000)
    assert np.abs(surface_distance(on)).max() < 1e-8 and 2500 < len(on) < 3000, "some lie within another ball"
    assert balls_of("m.ply") is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--against", "sphere:1,2"], "X,Y,Z,RADIUS"),
        (["--against", "sphere:0,0,0,-1"], "radius above 0"),
        (["--against", "nothing.xyz"], "nor a cloud"),
        (["--against", "gone.ply"], "no such file"),
        (["--against", "three_spheres", "--threshold", "-1"], "more than 0"),
        (["--against", "three_spheres", "--dtu", "x", "--scan", "1"], "two truths"),
        (["--scan", "1"], "belong together"),
    ],
)
def test_what_cannot_be_compared_is_told(files, words, said, capsys):
    assert cli.main(["evaluate", str(files / "m.stl"), *words]) == 2
    assert said in capsys.readouterr().err
