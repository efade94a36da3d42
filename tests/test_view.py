"""`sparse3d view`: what it finds of a thing, and the picture of it."""

import builtins
import socket
import sys

import numpy as np
import pytest
from PIL import Image

from sparse3d import cli
from sparse3d.commands.view_files import kind_of
from sparse3d.commands.view_runs import RunChoice, run_gallery
from sparse3d.commands.view_things import clouds_of, read_scene
from sparse3d.gaussians.formats.table import write_splats
from sparse3d.io.meshes import write_mesh
from sparse3d.io.points import write_points
from sparse3d.io.semantickitti import write_labels
from sparse3d.models.centerpoint import CenterPoint
from sparse3d.viewers.guard import GuardedServer
from tests.data.kitti_folder import write_folder
from tests.recipes.small_run import finding, write_run
from tests.test_cli import fault
from tests.viewers.spheres import sphere_cloud, sphere_mesh


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_cloud(path, points=50):
    rows = np.random.default_rng(0).uniform([2, -9, -2, 0], [20, 9, 1, 1], (points, 4)).astype(np.float32)
    write_points(path, rows)
    return rows


def test_a_cloud_becomes_a_picture(here, capsys):
    write_cloud(here / "a.bin")
    assert cli.main(["view", "a.bin", "--out", "deep/a.png"]) == 0
    assert "50 points, 0 objects found, written to deep/a.png" in capsys.readouterr().err
    with Image.open(here / "deep/a.png") as picture:
        colors = np.asarray(picture)
    assert colors.shape == (900, 1600, 3) and colors.max() > 90


def test_a_data_set_shows_its_labelled_boxes(here):
    root = write_folder(here / "kitti", frames=3)
    clouds = clouds_of(root)
    assert [cloud.stem for cloud in clouds] == ["000000", "000001", "000002"]
    assert clouds_of(root / "training") == clouds == clouds_of(root / "training/velodyne")
    scene = read_scene(clouds[0])
    assert len(scene.truth.boxes) and "DontCare" not in scene.box_classes
    assert {scene.box_classes[k] for k in scene.truth.labels} == set(scene.box_classes)
    assert cli.main(["view", "kitti", "--frame", "000001", "--out", "b.png"]) == 0


def test_point_labels_are_found_beside_and_by_name(here, capsys):
    write_cloud(here / "00/velodyne/000000.bin", 4)
    write_labels(here / "00/labels/000000.label", np.array([10, 40, 0, 252]))
    (cloud,) = clouds_of(here / "00")
    scene = read_scene(cloud)
    assert scene.labels is not None
    assert [scene.point_classes[k] if k >= 0 else None for k in scene.labels] == ["car", "road", None, "car"]
    write_cloud(here / "b.bin", 4)
    assert read_scene(here / "b.bin").labels is None
    command = ["view", "b.bin", "--out", "b.png", "--labels"]
    assert cli.main([*command, "00/labels/000000.label"]) == 0
    write_labels(here / "bad.label", np.array([10, 40, 0]))
    capsys.readouterr()
    assert "bad.label: 3 labels for a scan of 4 points" in fault(capsys, *command, "bad.label")
    write_labels(here / "bad.label", np.array([10, 40, 0, 7]))
    assert "bad.label: label 3 has the class id 7" in fault(capsys, *command, "bad.label")


def test_a_run_shows_what_it_finds(here, monkeypatch, capsys):
    run = write_run(here / "run")
    write_cloud(here / "a.bin")
    car, low = [10.0, 0, -1, 4, 2, 1.5, 0.0], [15.0, 3, -1, 4, 2, 1.5, 0.0]
    monkeypatch.setattr(CenterPoint, "predict", finding([car, low], [0.9, 0.2], [0, 1]))
    assert cli.main(["view", str(run), "a.bin", "--out", "a.png"]) == 0
    assert "1 objects found" in capsys.readouterr().err
    assert cli.main(["view", str(run), "a.bin", "--out", "b.png", "--score", "0.1"]) == 0
    assert "2 objects found" in capsys.readouterr().err
    with Image.open(here / "a.png") as one, Image.open(here / "b.png") as two:
        assert not np.array_equal(np.asarray(one), np.asarray(two))


def test_a_run_alone_shows_the_data_that_it_is_judged_on(here, monkeypatch, capsys):
    root = write_folder(here / "kitti", frames=3)
    run = write_run(here / "run", root, data={"root": str(root), "camera_view": False})
    car = [10.0, 0, -1, 4, 2, 1.5, 0.0]
    monkeypatch.setattr(CenterPoint, "predict", finding([car], [0.9], [0]))
    gallery = run_gallery(RunChoice(run), split="train")
    (first, *_) = gallery.names
    scene = gallery.scene(0)
    assert scene.title == first and scene.box_classes == ("Car", "Pedestrian", "Cyclist")
    assert scene.found.boxes.tolist() == [car] and scene.found.scores == pytest.approx([0.9])
    assert scene.truth.boxes.shape[1] == 7 and len(scene.points)
    assert cli.main(["view", str(run), "--split", "train", "--frame", first, "--out", "a.png"]) == 0
    capsys.readouterr()
    assert "no such split" in fault(capsys, "view", str(run), "--split", "vla", "--out", "a.png")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("mesh.ply", "mesh"),
        ("mesh.obj", "mesh"),
        ("mesh.glb", "mesh"),
        ("splats.ply", "splats"),
        ("splats.compressed.ply", "splats"),
        ("splats.splat", "splats"),
        ("splats.spz", "splats"),
        ("splats.sog", "splats"),
        ("splats.glb", "splats"),
        ("surfels.ply", "splats"),
        ("cloud.ply", "cloud"),
        ("cloud.npy", "cloud"),
    ],
)
def test_what_a_file_holds_is_found_and_drawn(here, capsys, name, kind):
    if kind == "mesh":
        write_mesh(here / name, sphere_mesh(rings=8))
    elif kind == "splats":
        write_splats(here / name, sphere_cloud(300, degree=1, surfels=name.startswith("surfels")))
    else:
        write_cloud(here / name)
    assert kind_of(here / name) == kind
    assert cli.main(["view", name, "--out", "a.png", "--size", "160", "--up=-z"]) == 0
    with Image.open("a.png") as picture:
        assert picture.size == (160, 90) and len(np.unique(np.asarray(picture))) > 10
    assert cli.main(["view", name, "--html", "deep/a.html"]) == 0
    said = capsys.readouterr().err
    contents = {"mesh": "630 triangles", "splats": "300 Gaussians", "cloud": "50 points"}[kind]
    assert f"{contents.replace('Gaussians', 'surfels') if 'surfels' in name else contents} in 0." in said
    assert "<canvas" in (here / "deep/a.html").read_text()


def test_gaussians_that_cannot_be_drawn_are_left_out(here, capsys):
    cloud = sphere_cloud(20, degree=0)
    cloud.means[3] = float("nan")
    write_splats(here / "a.ply", cloud)
    assert cli.main(["view", "a.ply", "--html", "a.html"]) == 0
    said = capsys.readouterr().err
    assert (
        "a.ply: 1 Gaussians have a NaN or an infinity and are left out" in said and "19 Gaussians in" in said
    )


def test_a_page_is_served_until_it_is_interrupted(here, monkeypatch, capsys):
    pytest.importorskip("viser")
    write_mesh(here / "a.glb", sphere_mesh(rings=8))
    waited = []

    def wait(self):
        waited.append(self.url)
        raise KeyboardInterrupt

    monkeypatch.setattr(GuardedServer, "wait", wait)
    for more in ([], ["--browser"]):
        assert cli.main(["view", "a.glb", *more]) == 130
        out = capsys.readouterr()
        assert out.out.strip() == waited[-1] and "from this machine alone" in out.err
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen(1)
        port = str(other.getsockname()[1])
        assert f"port {port} of 127.0.0.1 is in use" in fault(capsys, "view", "a.glb", "--port", port)
        assert "is in use" in fault(capsys, "view", "a.glb", "--port", port, "--browser")
    assert "cannot listen on port 0 of 192.0.2.1" in fault(capsys, "view", "a.glb", "--host", "192.0.2.1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--out", "a.png"], "nowhere: no such file or folder"),
        (["empty", "--out", "a.png"], "empty: no point clouds here (.bin, .pcd, .ply, .npy)"),
        (["a.bin", "--out", "a.jpg"], "a.jpg: the picture is a PNG"),
        (["a.bin", "--out", "a.png", "--browser"], "--out and --browser"),
        (["a.bin", "--html", "a.html", "--browser"], "choose one"),
        (["a.bin", "--html", "a.png"], "a.png: the page's name must end in .html"),
        (["a.bin", "--out", "a.png", "--size", "3"], "--size is 3, expected 16"),
        (["a.bin", "--out", "a.png", "--up", "up"], "unknown word 'up'"),
        (["empty.ply", "--out", "a.png"], "empty.ply: does not begin with 'ply'"),
        (["m.obj", "b.bin", "--out", "a.png"], "m.obj is not a detector, to be applied to b.bin"),
        (["a.bin", "--out", "a.png", "--frame", "7"], "no frame '7'; there are 1: a to a"),
        (["a.bin", "b.bin", "--out", "a.png"], "a.bin is not the folder of a run"),
        (["a.bin", "--out", "a.png", "--score", "2"], "expected a number from 0 to 1"),
        (["a.bin", "--out", "a.png", "--color", "class"], "points have no class; colour them by height"),
        (["a.bin", "--out", "a.png", "--color", "clss"], "did you mean 'class'?"),
        (["a.txt", "--out", "a.png"], "a.txt: unknown ending '.txt'"),
    ],
)
def test_faults_are_one_line_with_the_way_out(here, capsys, arguments, message):
    write_cloud(here / "a.bin")
    (here / "a.txt").touch()
    (here / "empty").mkdir()
    (here / "empty.ply").touch()
    write_mesh(here / "m.obj", sphere_mesh(rings=4))
    assert message in fault(capsys, "view", *arguments)


@pytest.mark.parametrize(("option", "package"), [([], "open3d"), (["--browser"], "viser")])
def test_a_missing_extra_is_named(here, capsys, monkeypatch, option, package):
    write_cloud(here / "a.bin")
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name.split(".")[0] == package:
            raise ImportError(name)
        return real(name, *arguments, **options)

    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(builtins, "__import__", without)
    message = fault(capsys, "view", "a.bin", *option)
    assert f"{package} is not installed; get it with: pip install 'sparse3d[viz]'" in message
    assert cli.main(["view", "a.bin", "--out", "a.png"]) == 0, "a picture needs neither"
