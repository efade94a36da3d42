"""From a recording to one mesh: depth frames or LiDAR sweeps with their poses, fused in a TSDF volume.

What a recording would need is estimated before anything is fused, from a few of its frames at larger voxels:
a surface needs blocks as its area does, so half the voxel size needs four times as many.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from sparse3d.errors import DataError
from sparse3d.fusion.blocks import SIDE, bytes_of_block, free_memory, voxel_size_that_fits
from sparse3d.fusion.tracking import track
from sparse3d.fusion.volume import FAR, TSDFVolume
from sparse3d.geometry.mesh import Mesh
from sparse3d.io.captures import Skipped
from sparse3d.io.images import read_depth, read_image
from sparse3d.io.points import POINT_SUFFIXES, read_points
from sparse3d.io.rgbd_frames import RgbdFrame, RgbdRecording, find_rgbd_frames
from sparse3d.io.scan_folder import ScanFile, find_scans
from sparse3d_ops.tsdf_blocks import depth_blocks, ray_blocks

_log = logging.getLogger(__name__)

_LOOKS = 24  # frames that the estimate is made from
_COARSE = 4  # how much larger its voxels are
# Blocks need this many times their bytes: the mesh is made beside them.
_ROOM = 2.0
# A step between frames counts as a jump from this many times the usual one on, and from metres and radians
# that a hand or a car does not pass between two frames.
_UNUSUAL, _FAR_STEP, _WIDE_TURN = 10.0, {"rgbd": 0.5, "lidar": 10.0}, 0.8
_LIDAR_NEAR = 1.5  # metres: nearer returns are the vehicle

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class FusionConfig:
    """How a recording is fused; lengths in metres."""

    voxel_size: float = 0.01
    truncation: float | None = None  # default: 4 voxels
    colors: bool = True
    every: int = 1  # take each n-th frame
    min_depth: float | None = None  # default: 0, and 1.5 for LiDAR
    max_depth: float | None = None  # default: no limit, and 80 for LiDAR
    max_weight: float = math.inf
    carving: float = 0.0  # LiDAR: weight with which rays clear what they pass through; 0: what moved stays
    min_weight: float = 0.0  # of the mesh: parts that fewer frames saw are left out
    min_faces: int = 0  # pieces of fewer triangles are left out, but not the largest
    max_blocks: int | None = None  # blocks in memory; the others wait in `folder`
    folder: Path | None = None
    track: bool = False  # find the poses of an RGB-D recording that has none, or not use its own
    device: str = "cpu"

    def __post_init__(self):
        if not 0 < self.voxel_size < math.inf:
            raise ValueError(f"voxel_size is {self.voxel_size}, expected metres above 0")
        if not 0 <= self.carving < math.inf:
            raise ValueError(f"carving is {self.carving}, expected a weight, or 0 for none")
        if self.every < 1 or self.min_faces < 0:
            raise ValueError(
                f"every is {self.every} and min_faces {self.min_faces}; expected at least 1 and 0"
            )


@dataclass(frozen=True)
class Fused:
    """The volume, how many frames went in, those that did not, with the reason, and the poses (4, 4) of all
    frames that were to go in, by name."""

    volume: TSDFVolume
    frames: int
    poses: dict[str, np.ndarray] = field(repr=False)
    skipped: tuple[Skipped, ...]
    mesh: Mesh = field(repr=False)


def fuse(dataset: str | Path, config: FusionConfig, progress: Progress = lambda done, total: None) -> Fused:
    """Fuse a folder: an RGB-D recording (`io.rgbd_frames`) or a LiDAR sequence (`io.scan_folder`).

    DataError for a folder that is neither, or of which no frame can be used; ValueError where the voxels
    would need more memory than there is, before anything is fused.
    """
    source = _open(Path(dataset), config)
    keep, skipped = source.without_jumps()
    source.refuse_too_much(keep)
    near, far = source.limits
    volume = TSDFVolume(
        config.voxel_size,
        config.truncation,
        config.colors and source.has_colors,
        config.max_weight,
        near,
        far,
        config.max_blocks,
        config.folder,
        config.device,
    )
    taken = 0
    for number, row in enumerate(keep):
        try:
            source.integrate(volume, row)
            taken += 1
        except DataError as error:
            _log.warning("frame %s is left out: %s", source.name(row), error)
            skipped.append(Skipped(source.name(row), str(error)))
        progress(number + 1, len(keep))
    if not taken:
        raise DataError(dataset, f"no frame can be used ({len(skipped)} skipped, first {skipped[0].reason})")
    mesh = volume.mesh(config.min_weight)
    if config.min_faces:
        mesh = mesh.without_small_pieces(config.min_faces)
    poses = {source.name(row): source.poses[row] for row in keep}
    return Fused(volume, taken, poses, tuple(skipped), mesh)


def _open(dataset: Path, config: FusionConfig) -> "_Source":
    if not dataset.is_dir():
        raise DataError(dataset, "no such folder; expected an RGB-D recording or a LiDAR sequence")
    recording = find_rgbd_frames(dataset)
    if recording is not None:
        if config.track:
            return _Tracked(recording, config)
        if not recording.has_poses:
            raise DataError(dataset, "no poses in this recording; --track finds them frame by frame")
        return _Depth(recording, config)
    clouds = dataset / "velodyne" if (dataset / "velodyne").is_dir() else dataset
    if any(path.suffix.lower() in POINT_SUFFIXES for path in clouds.iterdir()):
        if config.track:
            raise ValueError("--track finds the poses of depth frames; LiDAR sweeps need poses.txt")
        return _Lidar(find_scans(dataset), config)
    raise DataError(
        dataset,
        "no recording: expected depth frames as 7-Scenes (frame-000000.depth.png), TUM (depth.txt) or "
        "ScanNet (depth/, pose/, intrinsic/) have them, or LiDAR sweeps (velodyne/ or "
        f"{', '.join(POINT_SUFFIXES)})",
    )


class _Source:
    """Frames that can be fused one by one."""

    kind: str
    has_colors: bool
    limits: tuple[float, float]

    def __init__(self, config: FusionConfig, poses: list[np.ndarray]):
        self.config, self.poses = config, poses
        self.skipped: tuple[Skipped, ...] = ()  # by the reader

    def name(self, row: int) -> str:
        raise NotImplementedError

    def integrate(self, volume: TSDFVolume, row: int) -> None:
        raise NotImplementedError

    def keys(self, row: int, voxel_size: float, truncation: float) -> tuple[torch.Tensor, int]:
        """The blocks that a frame touches at other voxels, and how many measurements it has."""
        raise NotImplementedError

    def without_jumps(self) -> tuple[list[int], list[Skipped]]:
        """Rows of every n-th frame but those whose pose lies elsewhere than both neighbours' (told)."""
        rows = list(range(0, len(self.poses), self.config.every))
        jumps, stays = pose_jumps([self.poses[row] for row in rows], _FAR_STEP[self.kind])
        for place in stays:
            _log.warning(
                "frame %s: its pose jumps from that of the frame before; it is kept, as the frames after it "
                "follow it",
                self.name(rows[place]),
            )
        skipped = list(self.skipped)
        for place in jumps:
            reason = "its pose jumps away from both neighbours'"
            _log.warning("frame %s is left out: %s", self.name(rows[place]), reason)
            skipped.append(Skipped(self.name(rows[place]), reason))
        return [row for place, row in enumerate(rows) if place not in jumps], skipped

    def refuse_too_much(self, rows: list[int]) -> None:
        """ValueError with the estimate where the blocks need more memory than is free."""
        config = self.config
        size = bytes_of_block(config.colors and self.has_colors) * _ROOM
        free = free_memory(torch.device(config.device))
        if free is None:
            return
        truncation = config.truncation or 4 * config.voxel_size
        blocks = self._estimate(rows, config.voxel_size, truncation)
        if min(blocks, config.max_blocks or blocks) * size <= free:
            return
        fits, need = config.voxel_size, blocks
        while need * size > free:
            fits = voxel_size_that_fits(fits, need * size, free)
            need = self._estimate(rows, fits, truncation * fits / config.voxel_size)
        raise ValueError(
            f"voxels of {config.voxel_size:g} m would need about {blocks * size / 1e9:.3g} GB of memory "
            f"({blocks} blocks of {SIDE}^3), {free / 1e9:.3g} GB are free; --voxel-size {fits:g} would fit, "
            f"or keep blocks on disk: --max-blocks {max(8, int(free / size / 2))} --blocks-folder DIR"
        )

    def _estimate(self, rows: list[int], voxel_size: float, truncation: float) -> int:
        """How many blocks a few of the frames touch, at least."""
        found, measured = [], 0
        for place in np.unique(np.linspace(0, len(rows) - 1, _LOOKS).round().astype(int)):
            try:
                keys, count = self.keys(rows[place], voxel_size * _COARSE, truncation * _COARSE)
            except DataError:  # told when it is its turn
                continue
            found.append(keys)
            measured += count
        if not found:
            return 0
        blocks = len(torch.unique(torch.cat(found))) * _COARSE**2
        # However small voxels are, a measurement touches no more blocks than its own way through truncation.
        way = 2 * truncation / (SIDE * voxel_size)
        return int(min(blocks, measured * (1 + 3 * way) * len(rows) / len(found)))


class _Depth(_Source):
    kind = "rgbd"

    def __init__(self, recording: RgbdRecording, config: FusionConfig):
        self.frames = recording.frames
        super().__init__(config, [f.camera_to_world for f in self.frames if f.camera_to_world is not None])
        self.skipped = recording.skipped
        for name, reason in recording.skipped:
            _log.warning("frame %s is left out: %s", name, reason)
        self.has_colors = any(frame.color is not None for frame in self.frames)
        self.limits = config.min_depth or 0.0, config.max_depth or FAR

    def name(self, row: int) -> str:
        return self.frames[row].name

    def keys(self, row, voxel_size, truncation):
        frame = self.frames[row]
        depth = torch.from_numpy(read_depth(frame.depth, frame.depth_unit))
        pose = torch.from_numpy(self.poses[row])
        keys = depth_blocks(depth, list(frame.intrinsics), pose, voxel_size, SIDE, truncation, *self.limits)
        return keys, depth.numel()

    def integrate(self, volume: TSDFVolume, row: int) -> None:
        frame = self.frames[row]
        depth, color = read_frame(frame, volume.colors)
        volume.integrate(depth, frame.intrinsics, self.poses[row], color)


class _Tracked(_Depth):
    """Depth frames whose poses are found: the first one stands at the origin of the world."""

    def __init__(self, recording: RgbdRecording, config: FusionConfig):
        super().__init__(recording, config)
        self.poses = [np.eye(4) for _ in self.frames]
        self._last = np.eye(4)
        self._first = True

    def refuse_too_much(self, rows: list[int]) -> None:
        super().refuse_too_much(rows[:1])  # of the others nobody knows yet where they are

    def integrate(self, volume: TSDFVolume, row: int) -> None:
        frame = self.frames[row]
        depth, color = read_frame(frame, volume.colors)
        if not self._first:
            found = track(volume, depth, np.array(frame.intrinsics), self._last)
            if found is None:
                raise DataError(frame.depth, "tracking was lost: too little of it fits what was fused so far")
            self._last = found.camera_to_world
        volume.integrate(depth, frame.intrinsics, self._last, color)
        self.poses[row], self._first = self._last, False


class _Lidar(_Source):
    kind, has_colors = "lidar", False

    def __init__(self, scans: list[ScanFile], config: FusionConfig):
        self.scans = scans
        super().__init__(config, [scan.world_from_lidar for scan in scans])
        near = _LIDAR_NEAR if config.min_depth is None else config.min_depth
        self.limits = near, config.max_depth or 80.0

    def name(self, row: int) -> str:
        return self.scans[row].path.stem

    def _points(self, row: int) -> tuple[torch.Tensor, list[float]]:
        pose = self.poses[row]
        points = read_points(self.scans[row].path)[:, :3].astype(np.float64)
        return torch.from_numpy(points @ pose[:3, :3].T + pose[:3, 3]), pose[:3, 3].tolist()

    def keys(self, row, voxel_size, truncation):
        points, origin = self._points(row)
        return ray_blocks(points, origin, voxel_size, SIDE, truncation, *self.limits)[0], len(points)

    def integrate(self, volume: TSDFVolume, row: int) -> None:
        volume.integrate_rays(*self._points(row), carving=self.config.carving)


def read_frame(frame: RgbdFrame, with_color: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Depth (H, W) float32 metres, NaN where unknown, and the picture (H, W, 3) uint8 as the depth camera
    would see it, None without one."""
    depth = read_depth(frame.depth, frame.depth_unit)
    if frame.color is None or not with_color:
        return depth, None
    color = read_image(frame.color)[..., :3]
    if color.dtype != np.uint8:
        raise DataError(frame.color, f"holds {color.dtype}, expected a picture of 8 bits")
    if color.shape[:2] == depth.shape and frame.color_intrinsics == frame.intrinsics:
        return depth, np.ascontiguousarray(color)
    # Both see from one place: a depth pixel's direction names a pixel of the picture.
    places = []
    for axis, count in ((0, depth.shape[1]), (1, depth.shape[0])):
        focal, centre = frame.intrinsics[axis], frame.intrinsics[axis + 2]
        way = (np.arange(count) + 0.5 - centre) / focal
        place = np.floor(way * frame.color_intrinsics[axis] + frame.color_intrinsics[axis + 2])
        places.append(place.astype(np.int64).clip(0, color.shape[1 - axis] - 1))
    return depth, np.ascontiguousarray(color[places[1][:, None], places[0]])


def pose_jumps(poses: list[np.ndarray], far: float) -> tuple[list[int], list[int]]:
    """Which of (4, 4) poses jump: those that lie away from both neighbours, which are near each other, and
    those where the way goes on from elsewhere. A step is a jump from `far` metres or `_WIDE_TURN` radians
    on, if it is more than ten times the usual one."""
    if len(poses) < 3:
        return [], []
    stack = np.stack(poses)
    usual = [np.median(steps) for steps in _steps(stack[:-1], stack[1:])]
    limits = max(far, _UNUSUAL * usual[0]), max(_WIDE_TURN, _UNUSUAL * usual[1])

    def wide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        way, turn = _steps(a, b)
        return (way > limits[0]) | (turn > limits[1])

    step, over = wide(stack[:-1], stack[1:]), wide(stack[:-2], stack[2:])
    alone = [k + 1 for k in range(len(poses) - 2) if step[k] and step[k + 1] and not over[k]]
    near = {k for place in alone for k in (place, place + 1)}
    return alone, [k + 1 for k in np.flatnonzero(step).tolist() if k + 1 not in near]


def _steps(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Metres and radians between poses (N, 4, 4)."""
    way = np.linalg.norm(b[:, :3, 3] - a[:, :3, 3], axis=1)
    trace = np.einsum("nij,nij->n", a[:, :3, :3], b[:, :3, :3])
    return way, np.arccos(((trace - 1) / 2).clip(-1, 1))
