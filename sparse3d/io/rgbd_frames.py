"""Depth frames of RGB-D recordings, with their poses where there are some: folders in the style of 7-Scenes,
TUM and ScanNet.

    7-Scenes  frame-000000.depth.png (millimetres), .color.png or .jpg, .pose.txt (4x4), here or in data/;
              camera-intrinsics.txt (3x3), or 7-Scenes' own
    TUM       depth.txt (1/5000 m), rgb.txt (time, file), groundtruth.txt (time, tx ty tz qx qy qz qw);
              camera-intrinsics.txt (3x3), or what the name of the recording says (freiburg1, 2, 3), or the
              driver's 525 pixels
    ScanNet   exported frames: depth/0.png (millimetres), color/0.jpg, pose/0.txt (4x4),
              intrinsic/intrinsic_depth.txt and intrinsic_color.txt (4x4)

Poses are camera-to-world with OpenCV's axes. TUM pairs by time what is less than 20 ms apart. Sources:
Shotton et al. (CVPR 2013); Sturm et al., "A benchmark for the evaluation of RGB-D SLAM systems" (IROS 2012);
Dai et al., ScanNet (CVPR 2017).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from sparse3d.errors import DataError
from sparse3d.geometry.rigid import is_rigid, rigid, rotation_from_quaternion
from sparse3d.io.captures import Skipped
from sparse3d.io.image_folders import SUFFIXES
from sparse3d.io.reading import read_text
from sparse3d.io.rgbd_folder import read_intrinsics, read_matrix

_PAIRED = 0.02  # seconds between what TUM's recordings count as one moment
_TUM_UNIT = 1 / 5000  # metres of a step
# fx, fy, cx, cy with pixel centres at whole numbers, as the benchmark's page gives them.
_TUM_CAMERAS = {
    "freiburg1": (517.3, 516.5, 318.6, 255.3),
    "freiburg2": (520.9, 521.0, 325.1, 249.7),
    "freiburg3": (535.4, 539.2, 320.1, 247.6),
    "": (525.0, 525.0, 319.5, 239.5),
}

Intrinsics = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class RgbdFrame:
    """`depth` in steps of `depth_unit` metres; intrinsics fx, fy, cx, cy in pixels, centres at +0.5, of the
    depth map and of the picture, which are seen from one place. `camera_to_world` (4, 4) or None: unknown."""

    name: str
    depth: Path
    color: Path | None
    depth_unit: float
    intrinsics: Intrinsics
    color_intrinsics: Intrinsics
    camera_to_world: np.ndarray | None


@dataclass(frozen=True, eq=False)
class RgbdRecording:
    """Frames in the order of time; either all of them have poses or none."""

    format: str
    frames: tuple[RgbdFrame, ...]
    skipped: tuple[Skipped, ...]

    @property
    def has_poses(self) -> bool:
        return self.frames[0].camera_to_world is not None


def find_rgbd_frames(root: str | Path) -> RgbdRecording | None:
    """The frames of a folder, None where it is no RGB-D recording by its files. Frames whose pose is missing
    or not finite (lost tracking) are listed in `skipped`.

    Raises DataError for a recording without a single usable frame, and for files that are malformed.
    """
    root = Path(root)
    if (root / "depth.txt").is_file():
        return _checked(root, "TUM", *_read_tum(root))
    if (root / "depth").is_dir() and (root / "intrinsic").is_dir():
        return _checked(root, "ScanNet", *_read_scannet(root))
    for folder in (root, root / "data"):
        if next(folder.glob("frame-*.depth.png"), None) is not None:
            return _checked(root, "7-Scenes", *_read_seven_scenes(root, folder))
    return None


def _checked(root: Path, format: str, frames: list[RgbdFrame], skipped: list[Skipped]) -> RgbdRecording:
    posed = [frame for frame in frames if frame.camera_to_world is not None]
    if posed and len(posed) < len(frames):
        skipped += [
            Skipped(f.name, "it has no pose, others have") for f in frames if f.camera_to_world is None
        ]
        frames = posed
    if not frames:
        first = f", first {skipped[0].name}: {skipped[0].reason}" if skipped else ""
        raise DataError(
            root, f"no frame of this {format} recording can be used ({len(skipped)} skipped{first})"
        )
    return RgbdRecording(format, tuple(frames), tuple(skipped))


def _read_seven_scenes(root: Path, folder: Path) -> tuple[list[RgbdFrame], list[Skipped]]:
    camera = _numbers(read_intrinsics(root, folder))
    frames, skipped = [], []
    for depth in sorted(folder.glob("frame-*.depth.png")):
        name = depth.name.removesuffix(".depth.png")
        color = next((p for s in SUFFIXES if (p := folder / f"{name}.color{s}").is_file()), None)
        pose = _pose(folder / f"{name}.pose.txt", name, skipped)
        if pose is not False:
            frames.append(RgbdFrame(name, depth, color, 1e-3, camera, camera, pose))
    return frames, skipped


def _read_scannet(root: Path) -> tuple[list[RgbdFrame], list[Skipped]]:
    intrinsic = root / "intrinsic"
    camera = _numbers(read_matrix(intrinsic / "intrinsic_depth.txt", (4, 4)))
    seen = intrinsic / "intrinsic_color.txt"
    color_camera = _numbers(read_matrix(seen, (4, 4))) if seen.is_file() else camera
    files = [path for path in (root / "depth").iterdir() if path.suffix.lower() == ".png"]
    frames, skipped = [], []
    for depth in sorted(files, key=lambda path: (int(path.stem) if path.stem.isdigit() else -1, path.stem)):
        name = depth.stem
        color = next((p for s in SUFFIXES if (p := root / "color" / f"{name}{s}").is_file()), None)
        pose = _pose(root / "pose" / f"{name}.txt", name, skipped)
        if pose is not False:
            frames.append(RgbdFrame(name, depth, color, 1e-3, camera, color_camera, pose))
    return frames, skipped


def _pose(path: Path, name: str, skipped: list[Skipped]) -> np.ndarray | None | Literal[False]:
    """(4, 4), None where there is no file, False (and a line in `skipped`) for a pose that is none."""
    if not path.is_file():
        return None
    pose = read_matrix(path, (4, 4))
    if not np.isfinite(pose).all():
        skipped.append(Skipped(name, "its pose is not finite: tracking was lost"))
        return False
    if not is_rigid(pose, tolerance=1e-2):
        skipped.append(Skipped(name, "its pose is not a rotation and a translation"))
        return False
    return pose


def _read_tum(root: Path) -> tuple[list[RgbdFrame], list[Skipped]]:
    depth_times, depth_files = _listed(root / "depth.txt")
    color_times, color_files = (
        _listed(root / "rgb.txt") if (root / "rgb.txt").is_file() else (np.zeros(0), [])
    )
    truth = root / "groundtruth.txt"
    poses = _trajectory(truth) if truth.is_file() else None
    camera = _tum_camera(root)
    frames, skipped = [], []
    for time, file in zip(depth_times, depth_files, strict=True):
        pose = None
        if poses is not None:
            near = _nearest(poses[:, 0], time)
            if near is None:
                skipped.append(
                    Skipped(Path(file).stem, f"no pose within {_PAIRED} s of it in groundtruth.txt")
                )
                continue
            row = poses[near]
            if not np.isfinite(row).all() or not np.linalg.norm(row[4:]) > 0:
                skipped.append(Skipped(Path(file).stem, "its pose is not finite: tracking was lost"))
                continue
            pose = rigid(rotation_from_quaternion(row[[7, 4, 5, 6]]), row[1:4])
        picture = _nearest(color_times, time)
        color = None if picture is None else root / color_files[picture]
        frames.append(RgbdFrame(Path(file).stem, root / file, color, _TUM_UNIT, camera, camera, pose))
    return frames, skipped


def _tum_camera(root: Path) -> Intrinsics:
    if (root / "camera-intrinsics.txt").is_file():
        return _numbers(read_intrinsics(root))
    name = root.resolve().name.lower()
    fx, fy, cx, cy = next(camera for part, camera in _TUM_CAMERAS.items() if part in name)
    return fx, fy, cx + 0.5, cy + 0.5


def _listed(path: Path) -> tuple[np.ndarray, list[str]]:
    """Rows of (seconds, file) in the order of time."""
    rows = []
    for number, words in _rows(path):
        if len(words) != 2:
            raise DataError(path, f"line {number}: expected a time and a file, got {len(words)} words")
        rows.append((_number(path, number, words[0]), words[1]))
    rows.sort()
    return np.array([time for time, _ in rows]), [file for _, file in rows]


def _trajectory(path: Path) -> np.ndarray:
    """(N, 8): seconds, place, quaternion x y z w, in the order of time."""
    rows = []
    for number, words in _rows(path):
        if len(words) != 8:
            raise DataError(path, f"line {number}: expected a time and 7 numbers, got {len(words)} words")
        rows.append([_number(path, number, word) for word in words])
    table = np.array(rows).reshape(-1, 8)
    return table[np.argsort(table[:, 0], kind="stable")]


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    lines = enumerate(read_text(path).splitlines(), start=1)
    return [(n, line.split()) for n, line in lines if line.strip() and not line.lstrip().startswith("#")]


def _number(path: Path, line: int, word: str) -> float:
    try:
        return float(word)
    except ValueError as error:
        raise DataError(path, f"line {line}: {word!r} is not a number") from error


def _nearest(times: np.ndarray, time: float) -> int | None:
    """Row of the time nearest to `time`, None where that is too far away. `times` rise."""
    if not len(times):
        return None
    right = int(np.searchsorted(times, time))
    near = min((k for k in (right - 1, right) if 0 <= k < len(times)), key=lambda k: abs(times[k] - time))
    return near if abs(times[near] - time) < _PAIRED else None


def _numbers(matrix: np.ndarray) -> Intrinsics:
    return float(matrix[0, 0]), float(matrix[1, 1]), float(matrix[0, 2]), float(matrix[1, 2])
