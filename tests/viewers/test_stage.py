"""Where the demos play: what becomes a panel, what the window is given, and shapes that explain."""

import numpy as np
import pytest
import torch
from PIL import Image

from sparse3d.gaussians.initial import from_points
from sparse3d.geometry.cameras import Camera
from sparse3d.geometry.mesh import Mesh
from sparse3d.viewers.exhibit import DARK, Exhibit, Lines, Points, Viewpoint
from sparse3d.viewers.shapes import cube_edges, cubes, frustum
from sparse3d.viewers.stage import WINDOW, Stage, demo_arguments, geometries, montage
from sparse3d.viewers.still import draw_exhibit

VIEW = Viewpoint((0.0, -4.0, 0.0), (0.0, 0.0, 0.0))
RED, GREEN = (255, 0, 0), (0, 255, 0)


def of_lines(*ends, color=RED):
    return Lines(np.array(ends, float), np.tile(np.array(color, np.uint8), (len(ends), 1)))


def test_cubes_are_closed_and_as_large_as_voxels():
    low, colors = np.array([[0, 0, 0], [2, 0, 0]]) * 0.5, np.array([RED, GREEN], np.uint8)
    whole = cubes(low, 0.5, colors, shrink=0.0)
    assert whole.volume == pytest.approx(2 * 0.5**3)  # sides turned to the inside would take some away
    assert whole.vertices.min() == 0 and whole.vertices[:, 0].max() == pytest.approx(1.5)
    assert cubes(low, 0.5, colors, shrink=0.1).volume == pytest.approx(2 * 0.45**3)
    tops = whole.vertices.reshape(2, 6, 4, 3)[..., 2].min(2) == 0.5
    assert (whole.colors.reshape(2, 6, 4, 3)[tops] == colors[:, None]).all()
    edges = cube_edges(low, 0.5)
    assert edges.shape == (24, 2, 3)
    assert np.linalg.norm(edges[:, 0] - edges[:, 1], axis=1) == pytest.approx(0.5)


def test_a_frustum_ends_at_the_corners_of_the_picture():
    pose = np.eye(4)
    pose[:3, 3] = 1, 2, 3
    camera = Camera(100, 100, 40, 30, 80, 60, pose)
    ends = frustum(camera, 2.0)
    assert (ends[:4, 0] == [1, 2, 3]).all()
    pixels, depth = camera.project(ends[:4, 1])
    assert pixels == pytest.approx(np.array([[0, 0], [80, 0], [80, 60], [0, 60]]))
    assert depth == pytest.approx(2.0)
    # At two metres the picture is as wide as 80 pixels of a focal length of 100.
    assert np.linalg.norm(ends[4:, 0] - ends[4:, 1], axis=1) == pytest.approx([1.6, 1.2, 1.6, 1.2])


def test_lines_are_drawn_where_they_are_and_hidden_by_what_is_before_them():
    wall = Mesh(np.array([[-9, 0, 0], [9, 0, 0], [9, 0, 9], [-9, 0, 9.0]]), np.array([[0, 1, 2], [0, 2, 3]]))
    before, behind = [[-1, -1, 0.5], [1, -1, 0.5]], [[-1, 1, 0.5], [1, 1, 0.5]]
    empty = np.asarray(draw_exhibit(Exhibit("", VIEW, (wall,)), (60, 40), title=False)).astype(int)
    for ends, shown in ((before, True), (behind, False)):
        exhibit = Exhibit("", VIEW, (wall,), lines=of_lines(ends))
        drawn = np.asarray(draw_exhibit(exhibit, (60, 40), title=False)).astype(int)
        assert ((drawn != empty).any(2).sum() > 10) == shown
    # Across the middle of the picture, from a quarter to three quarters of it, and nowhere else.
    line = of_lines([[-1, 0, 0], [1, 0, 0]])
    drawn = np.asarray(draw_exhibit(Exhibit("", VIEW, lines=line), (60, 40), title=False)).astype(int)
    rows, columns = np.nonzero((drawn != DARK).any(2))
    focal = 20 / np.tan(np.radians(VIEW.field_of_view / 2))
    assert set(rows) <= {18, 19, 20, 21}
    assert columns.min() == pytest.approx(30 - focal / 4, abs=1.1)
    assert columns.max() == pytest.approx(30 + focal / 4, abs=1.1)
    # What comes from behind the eye, or runs straight away from it, does no harm.
    for ends in ([[0.1, -9, 0], [0.1, 2, 0]], [[0, -4, 0], [0, 2, 0]]):
        draw_exhibit(Exhibit("", VIEW, lines=of_lines(ends)), (60, 40), title=False)


def test_what_is_kept_becomes_a_panel_under_its_title(tmp_path, capsys):
    stage = Stage(tmp_path / "deep/a.png", panel=(40, 30))
    cube = cubes(np.array([[-0.5, -0.5, -0.5]]), 1.0, np.array([RED], np.uint8))
    stage.show(Exhibit("passing", VIEW, (cube,)))
    stage.keep(Exhibit("a cube", VIEW, (cube,)))
    stage.keep_picture(np.ones((10, 20, 3)), "white")
    stage.play([Exhibit("again", VIEW, (cube,))])
    assert stage.is_open
    stage.end()
    assert capsys.readouterr().out.splitlines()[:2] == ["a cube", "white"]
    with Image.open(tmp_path / "deep/a.png") as picture:
        pixels = np.asarray(picture).astype(int)
    assert pixels.shape == (30 + 26, 2 * 40 + 6, 3)
    middle = pixels[26:, 10:30]
    assert middle[..., 0].max() > 100 and middle[..., 1].max() <= DARK[1]
    # Twice as wide as high: as wide as the panel, half as high, in its middle.
    assert (pixels[26 + 5 : 26 + 25, 46:] == 255).all() and (pixels[26 : 26 + 5, 46:] == DARK).all()


def test_panels_stand_in_two_rows_when_there_are_more_than_three():
    panel = (Image.new("RGB", (40, 30)), "x")
    sizes = {count: montage([panel] * count).size for count in (1, 3, 4, 5)}
    assert sizes == {1: (40, 56), 3: (132, 56), 4: (86, 118), 5: (132, 118)}
    with pytest.raises(ValueError, match="nothing to put"):
        montage([])


def test_without_a_display_the_way_out_is_named(tmp_path, monkeypatch):
    pytest.importorskip("open3d")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(ValueError, match="no display here; use --headless"):
        Stage()
    with pytest.raises(ValueError, match="must end in .png"):
        Stage(tmp_path / "a.jpg")
    arguments = demo_arguments("x").parse_args(["--headless", "a.png", "--quick"])
    assert arguments.headless.name == "a.png" and arguments.quick


def everything():
    cloud = from_points(torch.rand(5, 3), torch.rand(5, 3), opacity=0.9)
    points = Points(np.random.default_rng(0).random((4, 3)), np.full((4, 3), 7, np.uint8), 0.1)
    lines = of_lines([[0, 0, 0], [1, 1, 1]])
    return Exhibit(
        "all", VIEW, (cubes(np.zeros((1, 3)), 1.0, np.array([RED], np.uint8)),), cloud, points, lines
    )


def test_the_window_is_given_what_the_picture_shows():
    o3d = pytest.importorskip("open3d")
    shown = everything()
    mesh, points, splats, lines = geometries(o3d, shown)
    assert np.asarray(mesh.vertices) == pytest.approx(shown.meshes[0].vertices)
    assert np.asarray(points.colors) == pytest.approx(7 / 255)
    assert np.asarray(splats.points) == pytest.approx(shown.splats.means.numpy())
    assert (np.asarray(lines.points)[np.asarray(lines.lines)] == shown.lines.ends).all()


@pytest.mark.slow
def test_the_window_looks_from_where_the_picture_does():
    """Open3D draws without a display by EGL, where the system has it."""
    pytest.importorskip("open3d")
    try:
        stage = Stage(visible=False)
    except ValueError as error:
        pytest.skip(str(error))
    cube = cubes(np.array([[-1.0, -1.0, -1.0]]), 2.0, np.array([RED], np.uint8), shrink=0.0)
    view = Viewpoint((3.0, -5.0, 2.0), (0.3, 0.0, 0.2))
    stage.show(Exhibit("a part of it", view, (cube.select(np.arange(12) < 3),)))
    exhibit = Exhibit("a cube", view, (cube,))
    stage.show(exhibit)
    shown = np.asarray(stage._window._visualizer.capture_screen_float_buffer(True))
    stage._window._visualizer.destroy_window()
    drawn = np.asarray(draw_exhibit(exhibit, WINDOW, title=False)) / 255
    # Both draw the painted colours; what differs is how edges are smoothed.
    assert (np.abs(shown - drawn).max(2) > 0.02).mean() < 0.005


class Recorder:
    """In place of Open3D's window: what is in it, its keys, and when it is closed."""

    def __init__(self):
        self.shown, self.keys, self.left = [], {}, 3

    def __getattr__(self, name):
        return lambda *arguments, **options: self

    def add_geometry(self, geometry, reset_bounding_box):
        self.shown.append(geometry)

    def remove_geometry(self, geometry, reset_bounding_box):
        self.shown.remove(geometry)

    def register_key_callback(self, key, act):
        self.keys[chr(key)] = act

    def poll_events(self):
        self.left -= 1
        return self.left > 0


def test_the_window_follows_until_it_is_closed(monkeypatch, capsys):
    o3d = pytest.importorskip("open3d")
    recorder = Recorder()
    monkeypatch.setattr(o3d.visualization, "VisualizerWithKeyCallback", lambda: recorder)
    stage = Stage(visible=False)
    stage.show(everything())
    assert len(recorder.shown) == 4 and stage.is_open
    stage.browse([everything(), Exhibit("lines", VIEW, lines=of_lines([[0, 0, 0], [1, 1, 1]]))])
    assert not stage.is_open
    recorder.left = 9
    stage._window.is_open = True
    recorder.keys["N"](recorder)
    assert len(recorder.shown) == 4 and "all" in capsys.readouterr().out
    recorder.keys["P"](recorder)
    assert len(recorder.shown) == 1
    stage.play([everything()], period=0.0)
    stage.end()
    assert not stage.is_open
