"""`sparse3d train` on bad data and a full disk: one line that says what and where, or the right nothing."""

import errno
import json
import math
import os
import pickle

import numpy as np
import pytest

from sparse3d import cli
from sparse3d.errors import DataError
from sparse3d.io.points import read_points, write_points
from tests.data.kitti_folder import write_folder
from tests.recipes.small_run import TINY


@pytest.fixture
def mini(tmp_path, monkeypatch):
    """Two frames of two cars and a pedestrian each; both are for training, the first for validation."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    write_folder(tmp_path / "mini", frames=2)
    return tmp_path / "mini/training"


def train(*options):
    call = ["train", "tiny.yaml", "--out", "run", "generate=null", "loader.batch_size=1", *options]
    return cli.main(call)


def fault(capsys, *options):
    """The one line of the error; progress may stand before it."""
    assert train(*options) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(errors) == 1
    return errors[0].removeprefix("sparse3d: error: ")


def losses(tmp_path):
    lines = [json.loads(text) for text in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    return [line["losses"] for line in lines if line["kind"] == "train"]


def cut_label(training):
    path = training / "label_2/000001.txt"
    path.write_text(path.read_text().split(" -10\n")[0] + "\n")  # the last column of the last row
    return "label_2/000001.txt:5: 14 columns; expected 15"


def cut_cloud(training):
    path = training / "velodyne/000001.bin"
    path.write_bytes(path.read_bytes()[:-5])
    return "velodyne/000001.bin: 8315 bytes are not whole points of 4 float32 (16 bytes)"


def drop_calibration_line(training):
    path = training / "calib/000001.txt"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if "velo_to_cam" not in line))
    return "calib/000001.txt: no line 'Tr_velo_to_cam:'; expected P2, R0_rect and Tr_velo_to_cam"


@pytest.mark.parametrize("damage", [cut_label, cut_cloud, drop_calibration_line])
def test_broken_files_are_named(mini, capsys, damage):
    message = damage(mini)
    assert message in fault(capsys, "augment.steps=[]")


def test_broken_files_are_named_from_a_worker_process_too(mini, capsys):
    message = cut_cloud(mini)
    assert message in fault(capsys, "augment.steps=[]", "loader.workers=1")


def test_faults_of_data_survive_the_way_between_processes():
    error = pickle.loads(pickle.dumps(DataError("a/b.bin:3", "too short")))
    assert isinstance(error, DataError) and str(error) == "a/b.bin:3: too short"


def test_an_empty_cloud_without_boxes_and_one_with_points_train(mini, tmp_path, capsys):
    for name in ("000000", "000001"):
        (mini / f"label_2/{name}.txt").write_text("")
    (mini / "velodyne/000001.bin").write_bytes(b"")
    assert train("augment.steps=[]") == 0
    found = losses(tmp_path)
    assert len(found) == 2
    for step in found:
        assert all(math.isfinite(value) for value in step.values())
        # Without an object only the heatmap has something to say.
        assert step["heatmap"] > 0 and step["box"] == step["iou"] == step["iou_regression"] == 0


def test_points_that_are_not_finite_change_no_loss(mini, tmp_path, caplog):
    assert train("augment.steps=[]") == 0
    clean = losses(tmp_path)
    bad = np.array([[np.nan, 0, 0, 0], [5, np.inf, 0, 0], [5, 0, -np.inf, 0], [5, 0, 0, np.nan]])
    for path in sorted((mini / "velodyne").iterdir()):
        write_points(path, np.concatenate([bad[:2], read_points(path), bad[2:]]))
    os.rename("run", "former")
    assert train("augment.steps=[]") == 0
    assert losses(tmp_path) == clean
    assert caplog.text.count("dropped 4 points with nan or infinite values") == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["model.voxel_size=[0.0001, 0.4, 0.5]"], "256000 cells"),
        (["model.point_channels=5"], "expects 5 channels, got 4"),
    ],
    ids=["key range", "channels"],
)
def test_settings_that_do_not_fit_the_data_are_named(mini, capsys, options, message):
    assert message in fault(capsys, "augment.steps=[]", *options)


# ---- a full disk -------------------------------------------------------------------------------------------


@pytest.fixture
def full_for(monkeypatch):
    """`full_for(word)`: there is no room for files with the word in their path, as fsync finds out."""
    real = os.fsync

    def fill(word):
        def fsync(handle):
            if word and word in os.readlink(f"/proc/self/fd/{handle}"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(handle)

        monkeypatch.setattr(os, "fsync", fsync)

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc to know the path of an open file")
    return fill


def test_no_room_for_a_checkpoint_leaves_the_former_one_and_resumes(mini, tmp_path, capsys, full_for):
    options = ["augment.steps=[]", "checkpoint.every_steps=1"]
    full_for("step_00000002")
    line = fault(capsys, *options)
    assert line.startswith("cannot write checkpoint run/checkpoints/step_00000002: No space left on device")
    assert "step_00000001 is intact" in line and line.endswith("continue with --resume")
    full_for("")
    assert train(*options, "--resume") == 0
    assert len(losses(tmp_path)) == 2


def test_no_room_for_the_object_database_says_so_and_the_run_can_be_started_again(mini, capsys, full_for):
    options = ["augment.steps=[{kind: gt_sampling, counts: [{name: Car, count: 2}]}]"]
    full_for("sparse3d_objects_")
    line = fault(capsys, *options)
    assert line.startswith("the disk is full (") and "No space left on device" in line
    assert line.endswith("; continue with the same command and --resume (run folder: run)")
    full_for("")
    assert train(*options, "--resume") == 0


def test_no_room_for_the_index_costs_only_time(mini, tmp_path, caplog, full_for):
    full_for("sparse3d_index_")
    assert train("augment.steps=[]") == 0
    assert "not written" in caplog.text and not list((tmp_path / "mini").glob("sparse3d_index_*"))


def test_no_room_for_generated_scenes_says_so_and_continues(tmp_path, monkeypatch, capsys, full_for):
    monkeypatch.chdir(tmp_path)
    call = ["data", "make", "minidrive", "--out", "scenes", "--scenes", "1"]
    full_for("label_2")
    assert cli.main(call) == 2
    assert capsys.readouterr().err == (
        "sparse3d: error: scenes: the disk is full; make room and give the same command again: it continues\n"
    )
    full_for("")
    assert cli.main(call) == 0
    assert (tmp_path / "scenes/training/label_2/000000.txt").is_file()
