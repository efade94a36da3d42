"""`sparse3d data check` on drives, and the scripts that put downloads together."""

import importlib.util
import json
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sparse3d import cli, config
from sparse3d.data.augment import AugmentConfig
from sparse3d.data.drives_check import check_drives
from sparse3d.data.gt_sampling import GroundTruthSampling
from sparse3d.data.kitti_check import check_kitti
from sparse3d.data.open import open_dataset
from sparse3d.data.waymo import WaymoConfig, WaymoDataset
from sparse3d.errors import DataError
from sparse3d.io.archives import unpack
from sparse3d.recipes.detection_config import DetectionConfig
from tests.data.argoverse2_folder import TIMES, write_argoverse2
from tests.data.kitti_folder import write_folder
from tests.data.kitti_raw_folder import write_kitti_raw
from tests.data.nuscenes_folder import write_nuscenes
from tests.data.waymo_folder import NAME, write_waymo

SCRIPTS = Path(__file__).resolve().parents[2] / "datasets"
pytest.importorskip("pyarrow")


@pytest.mark.parametrize(
    "name, write, splits, objects",
    [
        ("nuscenes", write_nuscenes, {"v1.0-mini": 6}, {"vehicle.car": 6, "vehicle.bicycle": 6}),
        ("argoverse2", write_argoverse2, {"val": 8}, {"REGULAR_VEHICLE": 8, "ANIMAL": 8}),
        ("kitti_raw", write_kitti_raw, {"all": 4}, {"Car": 4, "Van": 1}),
    ],
)
def test_a_whole_folder(tmp_path, name, write, splits, objects):
    root = write(tmp_path / name)
    report = check_drives(name, root)
    assert report.ok and report.splits == splits, report
    assert report.objects.items() >= objects.items() and report.points > 100
    assert report.empty_boxes == {} and not report.notes
    assert str(report).splitlines()[-1] == "ok"


def test_boxes_that_should_hold_points_are_noted(tmp_path, capsys):
    # The made-up segment's boxes stand beside its wall; it has no lasers but two.
    root = write_waymo(tmp_path / "waymo")
    report = check_drives("waymo", root)
    assert report.splits == {"train": 3} and len(report.problems) == 3
    assert "no laser SIDE_LEFT in the frame" in report.problems[0]
    scan = write_nuscenes(tmp_path / "nuscenes") / "samples/LIDAR_TOP"
    for path in sorted(scan.glob("scene-0061*"))[:1]:
        path.write_bytes(np.full((10, 5), 90, "<f4").tobytes())
    report = check_drives("nuscenes", tmp_path / "nuscenes")
    assert report.ok and report.empty_boxes["vehicle.car"] == 1
    assert "frame scene-0061-s0: 4 boxes are empty that should hold points" in report.notes[0]


def test_every_broken_thing_of_nuscenes_is_named(tmp_path, capsys):
    root = write_nuscenes(tmp_path / "nuscenes")
    scans = sorted((root / "samples/LIDAR_TOP").glob("scene-0061*"))
    scans[0].write_bytes(scans[0].read_bytes()[:-1])
    scans[1].unlink()
    sorted((root / "sweeps/LIDAR_TOP").glob("scene-0103*"))[3].unlink()
    table = root / "v1.0-mini/sample_annotation.json"
    rows = json.loads(table.read_text())
    rows[0]["size"], rows[5]["translation"] = [0, 1, 1], [0, 0, 0]
    table.write_text(json.dumps(rows))
    assert cli.main(["data", "check", "nuscenes", "--root", str(root)]) == 1
    shown = capsys.readouterr().out
    for expected in (
        "v1.0-mini 5 frames",
        "are not whole points of 5 float32",
        "no such file, and a frame needs it",
        "no such file, and the sweeps of frames need it",
        "frame scene-0061-s0: object 0 (vehicle.car) has a size that is not positive",
        "1.00 s without a frame",
        "object 1 (human.pedestrian.child) has a speed above 70 m/s",
        "6 problems",
    ):
        assert expected in shown, shown


def test_a_picture_and_fewer_frames(tmp_path, capsys):
    root = write_argoverse2(tmp_path / "argoverse2")
    (root / f"val/log-a/sensors/lidar/{TIMES[0]}.feather").write_bytes(b"")
    picture = tmp_path / "first.png"
    call = ["data", "check", "argoverse2", "--root", str(root), "--every", "2"]
    assert cli.main(call) == 1
    assert "sensors/lidar/" in capsys.readouterr().out
    write_argoverse2(root)
    assert cli.main([*call, "--picture", str(picture)]) == 0
    assert np.asarray(Image.open(picture)).std() > 5
    assert cli.main(["data", "check", "semantickitti", "--root", str(root), "--picture", "x.png"]) == 2


def test_a_folder_of_something_else(tmp_path):
    for name in ("nuscenes", "argoverse2", "waymo"):
        assert "nothing of" in check_drives(name, tmp_path).problems[0]
    assert "no split or drive all" in check_drives("kitti_raw", tmp_path).problems[0]


# ---- downloads ---------------------------------------------------------------------------------------------


@pytest.fixture
def prepare(monkeypatch, capsys):
    """`prepare("waymo", "--root", ...)` runs the script; returns what it prints."""

    def run(name: str, *arguments: object) -> str:
        path = SCRIPTS / f"prepare_{name}.py"
        spec = importlib.util.spec_from_file_location(f"prepare_{name}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
        assert module.main() == 0
        return capsys.readouterr().out

    return run


def packed(folder: Path, archive: Path, below: str = "") -> Path:
    """Every file of a folder, a picture and a way out of it."""
    (folder / "pictures").mkdir()
    (folder / "pictures/CAM.jpg").write_text("not needed")
    (folder / "evil.txt").write_text("outside")
    files = [
        (p, f"{below}{p.relative_to(folder).as_posix()}") for p in sorted(folder.rglob("*")) if p.is_file()
    ]
    files = [(p, "../../evil.json" if p.name == "evil.txt" else name) for p, name in files]
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as opened:
            for path, name in files:
                opened.write(path, name)
    else:
        with tarfile.open(archive, "w:gz" if archive.suffix == ".tgz" else "w") as opened:
            for path, name in files:
                opened.add(path, name)
    return archive


@pytest.mark.parametrize(
    "name, write, archive, below",
    [
        ("nuscenes", write_nuscenes, "v1.0-mini.tgz", ""),
        ("argoverse2", write_argoverse2, "val-000.tar", "sensor/"),
        ("kitti_raw", write_kitti_raw, "drive.zip", ""),
    ],
)
def test_downloads_become_a_good_folder(prepare, tmp_path, name, write, archive, below):
    packed(write(tmp_path / "source"), tmp_path / archive, below)
    out = tmp_path / "out"
    done = prepare(name, "--out", out, tmp_path / archive)
    assert ", 0 were there" in done and check_drives(name, out).ok
    assert not list(out.rglob("*.jpg")) and not list(tmp_path.rglob("evil.json"))
    scan = next(
        path for path in out.rglob("*") if path.suffix in (".bin", ".feather") and path.stat().st_size > 400
    )
    whole = scan.read_bytes()
    scan.write_bytes(whole[:100])  # as an interrupted copy leaves it
    again = prepare(name, "--out", out, tmp_path / archive)
    assert "1 files written" in again and scan.read_bytes() == whole


def test_archives_that_are_damaged_or_others_are_named(tmp_path):
    whole = packed(write_kitti_raw(tmp_path / "source"), tmp_path / "drive.tgz")
    cut = tmp_path / "cut.tgz"
    cut.write_bytes(whole.read_bytes()[:2000])
    for path, message in (
        (cut, "not a whole archive"),
        (tmp_path / "none.tgz", "no such file"),
        (SCRIPTS / "README.md", "not a whole archive"),
    ):
        with pytest.raises(DataError, match=message):
            unpack(path, tmp_path / "out", lambda place: place)
    with pytest.raises(DataError, match="nothing in it that is needed"):
        unpack(whole, tmp_path / "out", lambda place: None)


def test_decoded_waymo_points_are_those_of_the_images(prepare, tmp_path):
    root = write_waymo(tmp_path / "waymo", all_lasers=True)
    config = WaymoConfig(root=str(root))
    before = [WaymoDataset(config, "train")[i].points for i in range(3)]
    done = prepare("waymo", "--root", root, "--workers", 0)
    assert f"{NAME}: 3 frames written" in done
    (root / f"training/lidar/{NAME}.parquet").unlink()
    for index in range(3):
        np.testing.assert_array_equal(WaymoDataset(config, "train")[index].points, before[index])
    assert "0 frames written" in prepare("waymo", "--root", root, "--workers", 0)


def test_kitti_gets_its_splits(prepare, tmp_path):
    source = write_folder(tmp_path / "source", frames=6)
    splits = tmp_path / "splits"
    (source / "ImageSets").rename(splits)
    archive = packed(source, tmp_path / "data_object.zip")
    assert "val (2), 4 in train" in prepare("kitti", "--out", tmp_path / "made", archive)
    assert check_kitti(tmp_path / "made").splits == {"train": 4, "val": 2}
    assert "splits were there" in prepare("kitti", "--out", tmp_path / "made")
    prepare("kitti", "--out", tmp_path / "given", "--splits", splits, archive)
    assert check_kitti(tmp_path / "given").ok
    assert check_kitti(tmp_path / "given").splits == {"train": 6, "val": 1}


def test_objects_are_cut_out_before_training(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    root = write_nuscenes(tmp_path / "nuscenes")
    call = ["data", "objects", "centerpoint_nuscenes", f"data.root={root}", "loader.split=mini_train"]
    assert cli.main([*call, "--workers", "0"]) == 0
    shown = capsys.readouterr()
    assert "car: 3\n" in shown.out and "truck: 0\n" in shown.out and "9 objects of 3 frames" in shown.err
    folder = next(root.glob("sparse3d_objects_*"))
    data = open_dataset(config.load(DetectionConfig, call[2], call[3:]).dataset, "mini_train")
    data.augment_with(AugmentConfig((GroundTruthSampling(counts=()),)))
    assert list(root.glob("sparse3d_objects_*")) == [folder], "training finds it"
