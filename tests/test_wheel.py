"""The wheel: pure Python, complete, and usable outside of the repository."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def run(*command, **options):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_configs_are_found_by_name_from_an_installed_wheel(tmp_path):
    build = ("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path)
    run(sys.executable, *build, REPOSITORY)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {
        "sparse3d",
        "sparse3d_ops",
        wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info",
    }

    assert {f"sparse3d/viewers/page/{name}" for name in ("page.html", "viewer.css", "viewer.js")} <= set(
        names
    )

    home = tmp_path / "environment"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel)
    # The dependencies of this environment without its editable sparse3d: PYTHONPATH ignores .pth files.
    libraries = next(path for path in sys.path if path.endswith("site-packages"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    outside = {"cwd": elsewhere, "env": {**os.environ, "PYTHONPATH": libraries}}
    where = run(python, "-c", "import sparse3d, sparse3d_ops; print(sparse3d.__file__)", **outside)
    assert where.startswith(str(home))
    listed = run(home / "bin" / "sparse3d", "config", "list", **outside)
    assert "centerpoint_minidrive" in listed
    shown = run(home / "bin" / "sparse3d", "config", "show", "centerpoint_minidrive", **outside)
    assert "voxel_size: [0.1, 0.1, 0.125]" in shown
