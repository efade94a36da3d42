"""What `sparse3d data check semantickitti` finds in whole and in broken folders."""

import numpy as np
import pytest

from sparse3d.data.semantickitti_check import check_semantickitti
from sparse3d.errors import DataError
from tests.data.semantic_folder import write_folder, write_scan


@pytest.fixture
def root(tmp_path):
    return write_folder(tmp_path / "semantickitti")


def test_a_good_folder(root):
    report = check_semantickitti(root)
    assert report.ok and report.scans == {"00": 3, "08": 3} and report.points == 1200
    assert sum(report.labelled.values()) == 1200 and report.instances["person"] > 0
    text = str(report)
    assert "3 of the 4541 scans" in text and "car:" in text and text.endswith("ok")


def test_what_is_broken_is_named(root):
    folder = root / "sequences/00"
    (folder / "labels/000000.label").write_bytes(b"\0" * 796)
    (folder / "velodyne/000001.bin").write_bytes(b"\0" * 17)
    (folder / "labels/000002.label").write_bytes(np.full(200, 300, "<u4").tobytes())
    (folder / "poses.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0\n")
    (folder / "calib.txt").write_text("P0: 1\n")
    (root / "sequences/08/labels/000000.label").unlink()
    (root / "sequences/08/velodyne/000001.bin").unlink()
    report = check_semantickitti(root)
    found = "\n".join(report.problems)
    for word in (
        "000000.label: 199 labels for a scan of 200 points",
        "000001.bin: 17 bytes are not whole points",
        "000002.label: label 0 has the class id 300",
        "poses.txt: 1 poses, the scans need 3",
        "1 of 2 scans have no .label file, the first is 000000",
        "1 labels have no scan, the first is 000001",
    ):
        assert word in found
    assert len(report.problems) == 6 and not report.ok and str(report).endswith("6 problems")
    assert any("no row 'Tr:'" in note for note in report.notes)


def test_test_sequences_have_no_labels_by_nature(root):
    write_scan(root, "12", 0)
    (root / "sequences/12/labels/000000.label").unlink()
    assert check_semantickitti(root).ok


def test_folders_of_something_else(root, tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        check_semantickitti(tmp_path / "nowhere")
    (tmp_path / "photos").mkdir()
    assert "no sequences" in str(check_semantickitti(tmp_path / "photos"))
    (root / "sequences/05").mkdir()
    assert "no scans" in str(check_semantickitti(root))


def test_real_scans(real_data):
    root = real_data / "semantickitti"
    if not root.is_dir():
        pytest.skip("no SemanticKITTI there")
    report = check_semantickitti(root)
    assert report.ok and report.scans == {"00": 5, "07": 2}
    assert report.points == sum(report.labelled.values()) == 867132
