"""Every demo runs without a display, with as little as possible, and its picture has something in it."""

import re
import runpy
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from sparse3d.geometry.cameras import Camera
from sparse3d.geometry.orbits import looking
from sparse3d.geometry.rays import pixel_centres
from tests.docs.pages import ROOT

# `lidar_detection` has no window: it is `sparse3d` commands, which tests/docs runs.
DEMOS = sorted(
    path.parent.name for path in (ROOT / "demos").glob("*/run.py") if path.parent.name != "lidar_detection"
)
MOST_BYTES = 300_000


@pytest.mark.slow
@pytest.mark.parametrize("name", DEMOS)
def test_a_demo_draws_a_picture_without_a_display(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.syspath_prepend(ROOT / "demos" / name)  # as `python demos/NAME/run.py` does
    monkeypatch.setattr("sys.argv", ["run.py", "--quick", "--headless", "out.png"])
    runpy.run_path(str(ROOT / "demos" / name / "run.py"), run_name="__main__")
    captions = capsys.readouterr().out
    assert "written to out.png" in captions
    with Image.open(tmp_path / "out.png") as picture:
        drawn, (width, height) = np.asarray(picture.convert("RGB")), picture.size
    with Image.open(ROOT / "demos" / name / "picture.png") as shown:
        assert shown.size == (width, height)  # as many panels, of the same size
    # Each quarter shows something: more than the two colours of a caption on its ground.
    for part in (
        drawn[: height // 2, : width // 2],
        drawn[height // 2 :, : width // 2],
        drawn[:, width // 2 :],
    ):
        colors = len(np.unique(part.reshape(-1, 3), axis=0))
        assert colors > 100, f"{name}: {colors} colours"


def test_depth_of_the_room_lies_on_its_surfaces():
    """What the demo of fusion is judged by agrees with what its camera sees."""
    room = SimpleNamespace(**runpy.run_path(str(ROOT / "demos/live_fusion/room.py")))
    pose = looking(np.array([2.9, 2.4, 1.3]), np.array([1.0, 1.2, 0.6]), np.array([0.0, 0.0, 1.0]))
    camera = Camera(70.0, 70.0, 40.0, 30.0, 80, 60, pose)
    frame = room.look(camera)
    seen = frame.depth.ravel() > 0
    rays = camera.unproject(pixel_centres(80, 60))[seen]
    places = rays / rays[:, 2:] * frame.depth.ravel()[seen, None] @ pose[:3, :3].T + pose[:3, 3]
    assert seen.mean() > 0.9
    assert np.abs(room.distance(places)).max() < 1e-5  # float32 of metres
    assert room.distance(places - 0.05 * (places - pose[:3, 3])).mean() > 0.01
    assert len(np.unique(frame.color.reshape(-1, 3)[seen], axis=0)) > 20


@pytest.mark.parametrize("name", ["lidar_detection", *DEMOS])
def test_a_demo_says_what_it_is_and_shows_it(name):
    folder = ROOT / "demos" / name
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert text.startswith("# ")
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert pictures
    for picture in pictures:
        assert (folder / picture).stat().st_size < MOST_BYTES
    for named in re.findall(r"python (demos/\S+\.py)((?: [^#\n]*)?)", text):
        assert (ROOT / named[0]).is_file()
        source = (ROOT / named[0]).read_text(encoding="utf-8")
        for option in re.findall(r"--[a-z-]+", named[1]):
            assert f'"{option}"' in source or option in ("--headless", "--quick"), option
