"""`sparse3d evaluate`: what counts, by hand, and what it says about bad data."""

import base64
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from sparse3d import cli
from sparse3d.frames import LidarFrame
from sparse3d.io.kitti import boxes_to_objects, write_calibration, write_objects
from sparse3d.io.points import write_points
from sparse3d.models.centerpoint import CenterPoint
from sparse3d.recipes.detection_metrics import countable_boxes
from tests.data.kitti_folder import CALIBRATION, points_in
from tests.recipes.small_run import finding, write_run

BOUNDS = (0.0, -12.8, -3.0, 25.6, 12.8, 1.0)
SIZE = (1242, 375)
NEAR, FAR = [10.0, 0, -1, 4, 2, 1.5, 0.25], [20.0, 4, -1, 4, 2, 1.5, 0.25]
EMPTY, BESIDE, BEYOND = [15.0, -4, -1, 4, 2, 1.5, 0], [3.0, 10, -1, 4, 2, 1.5, 0], [40.0, 0, -1, 4, 2, 1.5, 0]


def write_scene(root, boxes, points=None):
    """A folder with one frame, labelled by `boxes` of class Car, in the split val."""
    boxes = np.array(boxes, dtype=np.float64).reshape(-1, 7)
    objects = boxes_to_objects(boxes, np.full(len(boxes), "Car"), np.ones(len(boxes)), CALIBRATION, SIZE)
    objects = replace(objects, truncated=np.zeros(len(boxes)), occluded=np.zeros(len(boxes), np.int64))
    training = root / "training"
    write_points(training / "velodyne/000000.bin", cloud_in(boxes) if points is None else points)
    write_calibration(training / "calib/000000.txt", CALIBRATION)
    write_objects(training / "label_2/000000.txt", objects, with_scores=False)
    (root / "ImageSets").mkdir()
    (root / "ImageSets/val.txt").write_text("000000\n")
    return root


def cloud_in(boxes):
    rng = np.random.default_rng(0)
    return np.concatenate([np.zeros((0, 4), np.float32), *(points_in(box, 20, rng) for box in boxes)])


def test_boxes_count_in_view_within_bounds_and_with_a_point():
    boxes = np.array([NEAR, FAR, EMPTY, BESIDE, BEYOND], dtype=np.float32)
    frame = LidarFrame(
        "0",
        np.concatenate([cloud_in(boxes[[0, 3, 4]]), cloud_in(boxes[1:2])[:1]]),
        boxes,
        np.arange(5),
        {"calibration": CALIBRATION, "image_size": SIZE},
    )
    assert countable_boxes(frame, BOUNDS).labels.tolist() == [0, 1]
    assert countable_boxes(frame, (0, -20, -3, 60, 20, 1)).labels.tolist() == [0, 1, 4]
    # A centre on the lower bound counts, on the upper one it does not.
    assert countable_boxes(frame, (10, -20, -3, 20, 20, 1)).labels.tolist() == [0]


@pytest.fixture
def judged(tmp_path, monkeypatch):
    """Two cars labelled; the near one found 0.4 m too far, a detection behind the camera besides."""
    monkeypatch.chdir(tmp_path)
    shifted = [NEAR[0] + 0.4, *NEAR[1:]]
    behind = [-10.0, *NEAR[1:]]
    monkeypatch.setattr(CenterPoint, "predict", finding([behind, shifted], [0.9, 0.8], [0, 0]))
    write_scene(tmp_path / "mini", [NEAR, FAR])
    return write_run(tmp_path / "run")


def test_both_measures_by_hand(judged, tmp_path, capsys):
    assert cli.main(["evaluate", str(judged)]) == 0
    shown = capsys.readouterr()
    assert "KITTI average precision (%), 1 frames" in shown.out
    assert "centre-distance average precision (%)" in shown.out
    assert "without AVE, AAE (not NDS)" in " ".join(shown.out.split())
    assert f"step_00000001; written to {judged / 'evaluation' / 'val'}" in shown.err
    folder = judged / "evaluation/val"
    assert sorted(path.name for path in folder.iterdir()) == ["metrics.json", "results"]
    assert len((folder / "results/000000.txt").read_text().splitlines()) == 1, "the one in the image"

    document = json.loads((folder / "metrics.json").read_text())
    assert document["split"] == "val" and document["checkpoint"] == "step_00000001"
    assert document["frames"] == document["kitti"]["frames"] == 1
    car, walker, _ = document["centre_distance"]["classes"]
    assert car["class_name"] == "Car" and car["count"] == 2
    # One of two found, without a false one: precision 1 at the recalls 0.11 .. 0.5, so AP = 40 / 90.
    assert car["ap"] == pytest.approx([40 / 90] * 4)
    assert car["errors"]["ATE"] == pytest.approx(0.4, abs=1e-3)  # labels have four decimals
    assert car["errors"]["ASE"] == pytest.approx(0.0, abs=1e-3)
    assert car["errors"]["AOE"] == pytest.approx(0.0, abs=1e-3)
    assert walker["count"] == 0 and walker["ap"] == [None] * 4
    assert "(not NDS)" in document["centre_distance"]["score_name"]
    # The boxes share 3.61 x 1.90 m of 16 m2: an IoU of 0.75, true for a car. One hit is one threshold, at
    # recall 0, which is one of the eleven positions of R11.
    row = next(r for r in document["kitti"]["rows"] if (r["metric"], r["difficulty"]) == ("3d", "easy"))
    assert row["count"] == 2 and row["r11"] == pytest.approx(100 / 11)


def test_data_without_any_box_give_undefined_numbers_not_an_error(judged, tmp_path, capsys):
    write_scene(tmp_path / "bare", [], np.array([[5, 0, 0, 0]], np.float32))
    assert cli.main(["evaluate", str(judged), "--data", "bare"]) == 0
    document = json.loads((judged / "evaluation/val/metrics.json").read_text())
    assert document["centre_distance"]["mAP"] is None
    assert all(row["r40"] is None for row in document["kitti"]["rows"])


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "label_2/000000.txt",
            lambda b: b.rsplit(b" ", 1)[0] + b"\n",
            "label_2/000000.txt:2: 14 columns; expected 15",
        ),
        (
            "calib/000000.txt",
            lambda b: b.replace(b"P2:", b"P9:"),
            "calib/000000.txt: no line 'P2:'; expected",
        ),
        ("velodyne/000000.bin", lambda b: b[:-3], "velodyne/000000.bin: 637 bytes are not whole points"),
    ],
    ids=["label", "calib", "bin"],
)
def test_broken_files_are_named_in_one_line(judged, tmp_path, capsys, file, change, message):
    path = tmp_path / "mini/training" / file
    path.write_bytes(change(path.read_bytes()))
    assert cli.main(["evaluate", str(judged)]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(lines) == 1 and message in lines[0]
    assert not (judged / "evaluation").exists()


def test_the_page_of_errors_stands_alone_and_says_what_is_wrong(judged, tmp_path, capsys):
    labels = tmp_path / "mini/training/label_2/000000.txt"
    near, far = labels.read_text().splitlines()
    labels.write_text(f"{near}\n{far.replace('Car 0.00 0', 'Car 0.00 2')}\n")
    assert cli.main(["evaluate", str(judged), "--analyse"]) == 0
    page = judged / "evaluation/val/analysis.html"
    assert f"look at {page}" in capsys.readouterr().err
    text = page.read_text()
    for head in ("How good", "What is confused", "Errors of what was found", "The worst frames"):
        assert f"<h2>{head}</h2>" in text
    # Nothing to fetch, nothing to run.
    assert "<script" not in text and "<link" not in text and 'src="http' not in text
    assert set(re.findall(r"https?://[^\"]*", text)) == {"http://www.w3.org/2000/svg"}
    # Two cars: one found by an IoU of 0.75, one missed; the detection behind the camera is no false positive.
    row = re.search(r"<th>Car</th>(.*?)</tr>", text).group(1)
    cells = re.findall(r"<td>(.*?)</td>", row)
    assert cells == ["0.7", "2", "50.5", "0.80", "1", "1", "0", "0", "0", "0"]
    assert "<b>000000</b>: 1 missed of 2" in text
    assert text.count("<svg") == text.count("</svg>") == 11
    for what in ("distance", "points", "occlusion"):
        assert f"average precision by {what}" in text and f"share found by {what}" in text
    # The near car, of level 0, is found; the far one, of level 2, is not.
    shares = dict(
        re.findall(r"<title>Car, (\d): ([\d.]+)</title>", text.split("share found by occlusion")[1])
    )
    assert shares == {"0": "1", "2": "0"}
    (picture,) = re.findall(r"data:image/png;base64,([^\"]+)", text)
    with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
        assert image.size == (640, 640)
    assert "KITTI average precision" in text


def test_the_page_of_a_perfect_detector_of_nothing(judged, tmp_path, monkeypatch):
    monkeypatch.setattr(CenterPoint, "predict", finding([], [], []))
    write_scene(tmp_path / "bare", [], np.array([[5, 0, 0, 0]], np.float32))
    assert cli.main(["evaluate", str(judged), "--data", "bare", "--analyse"]) == 0
    assert "Every frame is perfect" in (judged / "evaluation/val/analysis.html").read_text()
