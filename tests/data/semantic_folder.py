"""A small folder in SemanticKITTI's layout, made up."""

from pathlib import Path

import numpy as np

from sparse3d.io.points import write_points
from sparse3d.io.semantickitti import write_labels

IDS = np.array([0, 10, 252, 30, 40, 60, 70, 99])


def write_scan(root: Path, sequence: str, scan: int, points: int = 200) -> None:
    """Points all around; every class of IDS, cars and people with instances."""
    rng = np.random.default_rng([int(sequence), scan])
    xyz = rng.normal(0, 15, (points, 3)) * (1, 1, 0.1)
    semantic = IDS[rng.integers(0, len(IDS), points)]
    instance = np.where(np.isin(semantic, (10, 252, 30)), rng.integers(1, 6, points), 0)
    folder = root / "sequences" / sequence
    cloud = np.column_stack([xyz, rng.random(points)]).astype(np.float32)
    write_points(folder / "velodyne" / f"{scan:06d}.bin", cloud)
    write_labels(folder / "labels" / f"{scan:06d}.label", semantic, instance)


def write_folder(root: Path, scans: int = 3, sequences: tuple[str, ...] = ("00", "08")) -> Path:
    """`scans` scans in each of `sequences`, with poses and calibration."""
    for sequence in sequences:
        for scan in range(scans):
            write_scan(root, sequence, scan)
        folder = root / "sequences" / sequence
        rows = [f"1 0 0 0 0 1 0 0 0 0 1 {scan}\n" for scan in range(scans)]
        (folder / "poses.txt").write_text("".join(rows))
        (folder / "calib.txt").write_text("Tr: 0 -1 0 0 0 0 -1 0 1 0 0 0\n")
    return root
