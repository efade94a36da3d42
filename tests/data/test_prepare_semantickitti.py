"""`datasets/prepare_semantickitti.py` on small archives."""

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from sparse3d.data.semantickitti_check import check_semantickitti
from tests.data.semantic_folder import write_folder

SCRIPT = Path(__file__).resolve().parents[2] / "datasets" / "prepare_semantickitti.py"


def prepare(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True)


@pytest.fixture
def archives(tmp_path):
    """The scans in one archive and the labels in another, under the folder that the downloads have."""
    root = write_folder(tmp_path / "source")
    made = []
    for name, part in (("velodyne", "velodyne"), ("labels", "labels"), ("calib", "")):
        made.append(tmp_path / f"data_odometry_{name}.zip")
        with zipfile.ZipFile(made[-1], "w") as archive:
            for path in sorted(root.rglob("*")):
                if path.is_file() and (path.parent.name == part or not part and path.suffix == ".txt"):
                    archive.write(path, Path("dataset") / path.relative_to(root))
            archive.writestr("dataset/sequences/00/image_2/000000.png", b"not needed")
            archive.writestr("dataset/sequences/../../../evil.txt", b"outside")
    return made


def test_archives_become_a_good_folder(archives, tmp_path):
    out = tmp_path / "out" / "semantickitti"
    done = prepare("--out", out, *archives)
    assert done.returncode == 0 and "6 files written, 0 were there" in done.stdout
    report = check_semantickitti(out)
    assert report.ok and report.scans == {"00": 3, "08": 3}
    assert not list(out.rglob("*.png")) and not list(tmp_path.rglob("evil.txt"))
    scan = out / "sequences/00/velodyne/000001.bin"
    whole = scan.read_bytes()
    scan.write_bytes(whole[:100])  # as an interrupted copy leaves it
    again = prepare("--out", out, archives[0])
    assert "1 files written, 5 were there" in again.stdout and scan.read_bytes() == whole


def test_an_unpacked_folder_is_linked(archives, tmp_path):
    done = prepare("--out", tmp_path / "out", "--from", tmp_path / "source")
    assert done.returncode == 0 and check_semantickitti(tmp_path / "out").ok
    assert (tmp_path / "out/sequences/00/velodyne").is_symlink()


def test_what_is_no_archive_is_named(archives, tmp_path):
    cut = tmp_path / "cut.zip"
    cut.write_bytes(archives[0].read_bytes()[:1000])
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("a.txt", np.zeros(3).tobytes())
    faults = (
        (cut, "not a whole archive"),
        (other, "nothing in it that is needed"),
        ("x.zip", "no such file"),
    )
    for path, words in faults:
        done = prepare("--out", tmp_path / "out", path)
        assert done.returncode == 1 and words in done.stderr
    assert prepare("--out", tmp_path / "out").returncode == 2
