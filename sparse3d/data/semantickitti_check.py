"""Is this folder what SemanticKITTI should look like? The answer of `sparse3d data check semantickitti`."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sparse3d.data.kitti_index import find_root
from sparse3d.data.semantic_classes import SEMANTICKITTI_CLASSES, THINGS, LabelMap
from sparse3d.errors import DataError
from sparse3d.io.points import read_points
from sparse3d.io.semantickitti import read_camera_from_lidar, read_labels, read_poses

# Lines of one kind that a report prints; the rest is counted.
_SHOWN = 10
# Sequences 11 to 21 have no labels by nature.
_FIRST_TEST_SEQUENCE = 11
# Scans of each sequence as released, for saying which ones are not whole.
RELEASED_SCANS = {
    "00": 4541, "01": 1101, "02": 4661, "03": 801, "04": 271, "05": 2761, "06": 1101, "07": 1101,
    "08": 4071, "09": 1591, "10": 1201, "11": 921, "12": 1061, "13": 3281, "14": 631, "15": 1901,
    "16": 1731, "17": 491, "18": 1801, "19": 4981, "20": 831, "21": 2721,
}  # fmt: skip


@dataclass
class SemanticKittiReport:
    """What `check_semantickitti` found. `problems` make scans unusable or wrong; `notes` are odd but
    harmless."""

    root: Path
    scans: dict[str, int] = field(default_factory=dict)  # of each sequence
    points: int = 0
    labelled: dict[str, int] = field(default_factory=dict)  # points a class
    instances: dict[str, int] = field(default_factory=dict)  # objects a class and scan, summed
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether training and evaluation can use every scan."""
        return not self.problems

    def __str__(self) -> str:
        sequences = ", ".join(f"{name} {count} scans" for name, count in self.scans.items())
        lines = [f"{self.root}: {sequences or 'no sequence'}", f"{self.points} points"]
        total = max(sum(self.labelled.values()), 1)
        for name, count in sorted(self.labelled.items(), key=lambda item: -item[1]):
            objects = f", {self.instances[name]} objects" if name in self.instances else ""
            lines.append(f"{name}: {count} ({100 * count / total:.2f} %){objects}")
        for title, items in (("problem", self.problems), ("note", self.notes)):
            lines += [f"{title}: {item}" for item in items[:_SHOWN]]
            if len(items) > _SHOWN:
                lines.append(f"{title}: {len(items) - _SHOWN} more")
        return "\n".join([*lines, "ok" if self.ok else f"{len(self.problems)} problems"])


def check_semantickitti(root: str | Path) -> SemanticKittiReport:
    """Read every scan and label of every sequence and say what is wrong. Changes nothing.

    Missing, truncated and unreadable files, labels of another number than the scan's points and class ids
    that SemanticKITTI has not are problems. Notes are: sequences with fewer scans than were released,
    sequences without poses, points that are not finite, and objects with more than one class. Raises
    DataError where the root itself is missing.
    """
    report = SemanticKittiReport(find_root(root))
    folders = sorted(path for path in (report.root / "sequences").glob("*") if path.is_dir())
    if not folders:
        report.problems.append(f"{report.root / 'sequences'}: no sequences; see datasets/README.md")
    for folder in folders:
        _check_sequence(folder, report)
    return report


def _check_sequence(folder: Path, report: SemanticKittiReport) -> None:
    name = folder.name
    scans = sorted((folder / "velodyne").glob("*.bin"))
    labels = {path.stem: path for path in (folder / "labels").glob("*.label")}
    report.scans[name] = len(scans)
    if not scans:
        report.problems.append(f"{folder / 'velodyne'}: no scans (*.bin)")
        return
    released = RELEASED_SCANS.get(name)
    if released not in (None, len(scans)):
        report.notes.append(f"{folder}: {len(scans)} of the {released} scans that were released")
    is_test = name.isdigit() and int(name) >= _FIRST_TEST_SEQUENCE
    if not is_test or labels:
        missing = [path.stem for path in scans if path.stem not in labels]
        if missing:
            report.problems.append(
                f"{folder / 'labels'}: {len(missing)} of {len(scans)} scans have no .label file, the first "
                f"is {missing[0]}"
            )
    alone = sorted(set(labels) - {path.stem for path in scans})
    if alone:
        report.problems.append(
            f"{folder / 'velodyne'}: {len(alone)} labels have no scan, the first is {alone[0]}"
        )
    _check_poses(folder, int(scans[-1].stem) + 1 if scans[-1].stem.isdigit() else len(scans), report)
    for path in scans:
        _check_scan(path, labels.get(path.stem), report)


def _check_poses(folder: Path, wanted: int, report: SemanticKittiReport) -> None:
    """Only what joins several scans needs poses, so their absence is a note."""
    poses, calibration = folder / "poses.txt", folder / "calib.txt"
    for path in (poses, calibration):
        if not path.is_file():
            report.notes.append(f"{path}: not there; needed only to join scans")
    try:
        if poses.is_file() and (count := len(read_poses(poses))) < wanted:
            report.problems.append(f"{poses}: {count} poses, the scans need {wanted}")
    except DataError as error:
        report.problems.append(str(error))
    try:
        if calibration.is_file():
            read_camera_from_lidar(calibration)
    except DataError as error:  # the odometry benchmark's other downloads bring a calib.txt without it
        report.notes.append(f"{error}; needed only to join scans")


def _check_scan(path: Path, label_path: Path | None, report: SemanticKittiReport) -> None:
    try:
        points = read_points(path)
    except DataError as error:
        report.problems.append(str(error))
        return
    report.points += len(points)
    bad = int((~np.isfinite(points).all(axis=1)).sum())
    if bad or not len(points):
        report.notes.append(f"{path}: {len(points)} points, {bad} of them not finite")
    if label_path is None:
        return
    label_map = LabelMap(SEMANTICKITTI_CLASSES)
    try:
        raw = read_labels(label_path, len(points))
        labels = label_map.to_labels(raw.semantic)
    except DataError as error:
        report.problems.append(str(error))
        return
    except ValueError as error:
        report.problems.append(f"{label_path}: {error}")
        return
    for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
        name = "not asked for" if label < 0 else SEMANTICKITTI_CLASSES[label]
        report.labelled[name] = report.labelled.get(name, 0) + int(count)
    objects = np.unique(np.stack([labels, raw.instance])[:, raw.instance > 0], axis=1)
    for label in objects[0].tolist():
        if label >= 0 and SEMANTICKITTI_CLASSES[label] in THINGS:
            name = SEMANTICKITTI_CLASSES[label]
            report.instances[name] = report.instances.get(name, 0) + 1
