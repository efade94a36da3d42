"""nuScenes' result files: what is written comes back, and what the server would refuse is named."""

import json
import math

import numpy as np
import pytest

from sparse3d.errors import DataError
from sparse3d.io.nuscenes_results import MAX_BOXES, SampleBoxes, read_results, write_results


def sample_of(count, seed=0):
    rng = np.random.default_rng(seed)
    boxes = rng.uniform([-500, -500, -5, 0.2, 0.2, 0.2, -3.1], [500, 500, 5, 9, 3, 3, 3.1], (count, 7))
    return SampleBoxes(
        boxes,
        rng.normal(size=(count, 2)),
        rng.choice(["car", "pedestrian"], count).astype(np.str_),
        np.sort(rng.uniform(size=count))[::-1],
        np.array([f"tag{i}" for i in range(count)], dtype=np.str_).reshape(count),
    )


@pytest.mark.parametrize("task", ["detection", "tracking"])
def test_what_is_written_comes_back(tmp_path, task):
    samples = {"a": sample_of(7), "b": sample_of(0), "c": sample_of(3, 1)}
    write_results(tmp_path / "out" / "results.json", task, samples)
    back = read_results(tmp_path / "out" / "results.json", task)
    assert list(back) == ["a", "b", "c"]
    for token, sample in samples.items():
        assert back[token].boxes == pytest.approx(sample.boxes, abs=1e-12)
        for name in ("velocities", "scores", "names", "tags"):
            assert np.array_equal(getattr(back[token], name), getattr(sample, name)), name


def test_the_format_by_hand(tmp_path):
    boxes = np.array([[1, 2, 3, 4, 5, 6, math.pi / 2]])
    velocities, scores = np.array([[7.0, np.nan]]), np.array([0.5])
    box = SampleBoxes(boxes, velocities, np.array(["car"]), scores, np.array(["vehicle.moving"]))
    write_results(tmp_path / "r.json", "detection", {"token": box}, ("use_lidar", "use_map"))
    tree = json.loads((tmp_path / "r.json").read_text())
    used = {
        "use_camera": False,
        "use_lidar": True,
        "use_radar": False,
        "use_map": True,
        "use_external": False,
    }
    assert tree["meta"] == used
    (row,) = tree["results"]["token"]
    assert row.pop("rotation") == pytest.approx([math.sqrt(0.5), 0, 0, math.sqrt(0.5)])
    assert math.isnan(row.pop("velocity")[1])
    assert row == {
        "sample_token": "token",
        "translation": [1, 2, 3],
        "size": [5, 4, 6],  # width, length, height
        "detection_name": "car",
        "detection_score": 0.5,
        "attribute_name": "vehicle.moving",
    }


def test_the_heading_of_a_tilted_box_is_where_its_front_points_from_above(tmp_path):
    # Turned by 90 degrees about z, then pitched by 0.2 about its own y: the front still points along +y.
    a, b = math.pi / 4, 0.1
    tilted = [math.cos(a) * math.cos(b), -math.sin(a) * math.sin(b), math.cos(a) * math.sin(b)]
    tilted.append(math.sin(a) * math.cos(b))
    write_results(tmp_path / "r.json", "detection", {"t": sample_of(1)})
    tree = json.loads((tmp_path / "r.json").read_text())
    tree["results"]["t"][0]["rotation"] = [2 * value for value in tilted]  # any length
    (tmp_path / "r.json").write_text(json.dumps(tree))
    assert read_results(tmp_path / "r.json", "detection")["t"].boxes[0, 6] == pytest.approx(math.pi / 2)


def test_only_the_best_boxes_of_a_sample_are_written(tmp_path):
    many = sample_of(MAX_BOXES + 20)
    shuffled = np.random.default_rng(0).permutation(len(many.scores))
    mixed = SampleBoxes(**{name: column[shuffled] for name, column in vars(many).items()})
    write_results(tmp_path / "r.json", "detection", {"t": mixed})
    assert np.array_equal(read_results(tmp_path / "r.json", "detection")["t"].scores, many.scores[:MAX_BOXES])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tree: tree.pop("meta"), "expected an object with"),
        (lambda tree: tree["results"].update(t={}), "sample t: expected a list of at most 500"),
        (
            lambda tree: tree["results"]["t"][0].pop("size"),
            "sample t: a box is not one of a detection file: KeyErr",
        ),
        (lambda tree: tree["results"]["t"][0].update(size=[1, 0, 1]), "a size is not positive"),
        (lambda tree: tree["results"]["t"][0].update(detection_score=math.inf), "a number is not finite"),
        (lambda tree: tree["results"]["t"][0].update(translation=[1, 2]), "sample t: a box is not one"),
    ],
)
def test_bad_files_are_refused_with_the_sample(tmp_path, change, message):
    path = tmp_path / "r.json"
    write_results(path, "detection", {"t": sample_of(2)})
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))
    with pytest.raises(DataError, match=message) as caught:
        read_results(path, "detection")
    assert str(caught.value).startswith(str(path))


def test_no_json_and_no_numbers(tmp_path):
    (tmp_path / "r.json").write_text('{"meta"')
    with pytest.raises(DataError, match="no JSON results file"):
        read_results(tmp_path / "r.json", "detection")
    broken = sample_of(1)
    broken.boxes[0, 0] = np.nan
    with pytest.raises(ValueError, match="sample t has a box or score that is not finite"):
        write_results(tmp_path / "s.json", "detection", {"t": broken})
    with pytest.raises(ValueError, match="sensors use_lidars are unknown"):
        write_results(tmp_path / "s.json", "detection", {}, ("use_lidars",))
    with pytest.raises(ValueError, match=r"velocities has shape \(2, 2\), expected \(1, 2\)"):
        SampleBoxes(np.zeros((1, 7)), np.zeros((2, 2)), np.array(["car"]), np.ones(1), np.array([""]))
