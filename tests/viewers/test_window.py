"""What the window draws, without opening one: points and lines where they are, keys that change them."""

import numpy as np
import pytest

o3d = pytest.importorskip("open3d")

from sparse3d.viewers.scene import TRUTH_COLOR, Boxes, Scene, box_lines  # noqa: E402
from sparse3d.viewers.window import SceneWindow, geometries  # noqa: E402

CAR = np.array([[12.0, 1.0, -1.0, 4.0, 2.0, 1.5, 0.4]])


def scene(number):
    points = np.random.default_rng(number).uniform(-9, 9, (20 + number, 4)).astype(np.float32)
    points[3] = np.nan
    boxes = Boxes(CAR, np.zeros(1, int))
    return Scene(str(number), points, found=boxes, truth=boxes, box_classes=("Car",))


def test_geometries_are_the_scene():
    shown = scene(0)
    cloud, found, truth = geometries(o3d, shown, "height", True)
    finite = np.isfinite(shown.points[:, 0])
    assert np.asarray(cloud.points) == pytest.approx(shown.points[finite, :3])
    assert np.asarray(cloud.colors) == pytest.approx(shown.colors("height")[finite] / 255)
    for lines in (found, truth):
        ends = np.asarray(lines.points)[np.asarray(lines.lines)]
        assert ends == pytest.approx(box_lines(CAR)[0])
    assert np.unique(np.asarray(truth.colors), axis=0) == pytest.approx(np.array([TRUTH_COLOR]) / 255)
    assert len(geometries(o3d, shown, None, False)) == 2
    assert len(geometries(o3d, Scene("", np.zeros((0, 4))), None, True)) == 1


class Recorder:
    """In place of Open3D's window: what is in it, and the keys it knows."""

    def __init__(self):
        self.shown, self.keys = [], {}

    def __getattr__(self, name):
        return lambda *arguments, **options: self

    def add_geometry(self, geometry, reset_bounding_box):
        self.shown.append(geometry)

    def remove_geometry(self, geometry, reset_bounding_box):
        self.shown = [other for other in self.shown if other is not geometry]

    def register_key_callback(self, key, act):
        self.keys[chr(key)] = act


def test_keys_step_through_frames_and_ways_of_colouring(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(o3d.visualization, "VisualizerWithKeyCallback", lambda: recorder)
    window = SceneWindow(3, scene)

    def points():
        return len(recorder.shown[0].points)

    assert points() == 19 and len(recorder.shown) == 3
    for key, count in (("N", 20), ("N", 21), ("N", 19), ("P", 21)):
        recorder.keys[key](recorder)
        assert points() == count and len(recorder.shown) == 3, key
    recorder.keys["L"](recorder)
    assert len(recorder.shown) == 2
    before = np.asarray(recorder.shown[0].colors).copy()
    recorder.keys["C"](recorder)
    assert window.coloring == "intensity" and not np.array_equal(before, np.asarray(recorder.shown[0].colors))
    recorder.keys["C"](recorder)
    assert window.coloring == "height"
