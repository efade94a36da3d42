"""Posed photos from a folder, whatever tool wrote it; images stay on disk until they are asked for."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from sparse3d.data.structure_from_motion import Progress, StructureFromMotionConfig, posed_by_motion
from sparse3d.data.view_protocols import split_rows
from sparse3d.errors import DataError
from sparse3d.geometry.cameras import Camera, Cameras
from sparse3d.geometry.rays import Rays, rays_of_image
from sparse3d.io.captures import Capture, Skipped, View, scaled_camera
from sparse3d.io.colmap import find_model, read_colmap
from sparse3d.io.dtu import read_idr, read_mvsnet
from sparse3d.io.image_folders import same_stem
from sparse3d.io.images import image_has_alpha, image_size, read_depth, read_image, read_mask, resample
from sparse3d.io.llff import read_llff
from sparse3d.io.rgbd_folder import frames_folder, read_rgbd
from sparse3d.io.spare import find_split, read_spare
from sparse3d.io.tiny_nerf import read_tiny_nerf, read_tiny_nerf_image
from sparse3d.io.transforms import read_blender, read_transforms

_log = logging.getLogger(__name__)


class Photo(NamedTuple):
    """One photo at the size of its camera: `rgb` (H, W, 3) float32 in [0, 1], not multiplied by the opacity
    `alpha` (H, W); `mask` (H, W) bool, true on what counts; `depth` (H, W) float32 metres along the optical
    axis, NaN where unknown. What a capture does not have is None."""

    rgb: np.ndarray
    alpha: np.ndarray | None
    mask: np.ndarray | None
    depth: np.ndarray | None

    def over(self, background: Sequence[float]) -> np.ndarray:
        """(H, W, 3): the photo in front of a colour."""
        if self.alpha is None:
            return self.rgb
        opacity = self.alpha[..., None]
        return self.rgb * opacity + np.asarray(background, dtype=np.float32) * (1 - opacity)


@dataclass(frozen=True, eq=False)
class PosedPhotos:
    """Photos with their cameras, both at the scale that was asked for.

    `views` say where each photo's files are; `cameras` are theirs at `scale`; `skipped` lists the views that
    files name and that are not there. `capture` holds what belongs to all: scene points, bounds, background.
    """

    root: Path
    scale: float
    split: str
    views: tuple[View, ...]
    cameras: Cameras
    skipped: tuple[Skipped, ...]
    capture: Capture

    def __len__(self) -> int:
        return len(self.views)

    @property
    def names(self) -> tuple[str, ...]:
        """The photos' names, as their files have them."""
        return tuple(view.name for view in self.views)

    def photo(self, row: int) -> Photo:
        """Read one photo, with its mask and depth map where it has them. DataError where a file is broken or
        does not fit."""
        pixels = self.pixels(row)
        alpha = pixels[..., 3].astype(np.float32) / 255 if pixels.shape[2] == 4 else None
        return Photo(pixels[..., :3].astype(np.float32) / 255, alpha, self.mask(row), self.depth(row))

    def pixels(self, row: int) -> np.ndarray:
        """(H, W, 3 or 4) uint8: one photo alone, without its mask and depth."""
        view, size = self.views[row], self._size(row)
        if view.row < 0:
            return read_image(view.image, size)
        stored = read_tiny_nerf_image(view.image, view.row)
        return stored if stored.shape[1::-1] == size else resample(stored, size)

    def mask(self, row: int) -> np.ndarray | None:
        """(H, W) bool: the mask of one photo."""
        view = self.views[row]
        if view.mask is None:
            return None
        _check_beside(view.mask, view)
        return read_mask(view.mask, self._size(row))

    def depth(self, row: int) -> np.ndarray | None:
        """(H, W) float32: the depth map of one photo, metres along the optical axis, NaN where unknown."""
        view = self.views[row]
        if view.depth is None:
            return None
        _check_beside(view.depth, view)
        return read_depth(view.depth, view.depth_unit, self._size(row))

    def has_alpha(self, row: int) -> bool:
        """Whether one photo has an opacity; only the header of its file is read."""
        return self.views[row].row < 0 and image_has_alpha(self.views[row].image)

    def rays(self, row: int, dtype: torch.dtype = torch.float32) -> Rays:
        """The rays of all pixels of one photo, row after row."""
        return rays_of_image(self.cameras[row], dtype)

    def select(self, rows: Sequence[int]) -> "PosedPhotos":
        """Some of the photos."""
        return replace(self, views=tuple(self.views[row] for row in rows), cameras=self.cameras[list(rows)])

    def of_split(self, split: str, views: int | None = None) -> "PosedPhotos":
        """Photos of another split of the same capture, at the same scale; `views` as in `open_photos`."""
        return _of_split(self.root, self.scale, self.capture, split, views)

    def _size(self, row: int) -> tuple[int, int]:
        width, height = self.cameras.size[row]
        return int(width), int(height)


def open_photos(
    path: str | Path,
    *,
    scale: float = 1.0,
    split: str = "all",
    views: int | None = None,
    format: str | None = None,
    masks: str | Path | None = None,
    depths: str | Path | None = None,
    depth_unit: float = 1e-3,
    poses: StructureFromMotionConfig | None = None,
    cache_dir: str | Path = "",
    progress: Progress | None = None,
) -> PosedPhotos:
    """Open a folder (or file) of posed photos.

    `scale` in (0, 1] shrinks photos and intrinsics: 0.125 is an eighth of the full size. `split` is "all",
    "train", "val" or "test"; `views` the K of the few-view protocol (`sparse3d.data.view_protocols`).
    `format` is detected from the files; naming one of FORMATS overrules that. `masks` and `depths` are
    folders with a file for each photo of the same name (the ending may differ; in the same subfolder, or in
    none where names do not repeat), in place of what the layout brings; depths are in steps of `depth_unit`
    metres. `poses` finds the poses of photos that have none (`sparse3d.data.structure_from_motion`, which
    `cache_dir` and `progress` are for), whatever else lies in the folder.

    ValueError for arguments that fit nothing, DataError for files that are broken or contradict each other.
    Views whose image is missing are left out, counted in the log and listed in `skipped`.
    """
    path = Path(path).expanduser()
    if not 0 < scale <= 1:
        raise ValueError(
            f"scale is {scale:g}, expected a part of the full size in (0, 1]; an eighth is 0.125"
        )
    if format is not None and format not in FORMATS:
        raise ValueError(f"no format {format!r}; there are {', '.join(FORMATS)}")
    if not path.exists():
        raise DataError(path, "no such folder")
    if poses is not None:
        capture = posed_by_motion(path, poses, cache_dir=cache_dir, progress=progress)
    else:
        found = FORMATS[format] if format else _detect(path)
        capture = found.read(path, scale, views)
    if capture.skipped:
        some = ", ".join(f"{skipped.name} ({skipped.reason})" for skipped in capture.skipped[:3])
        _log.warning("%s: %d views are left out: %s ...", path, len(capture.skipped), some)
    return _of_split(path, scale, _with_folders(capture, masks, depths, depth_unit), split, views)


def _of_split(path: Path, scale: float, capture: Capture, split: str, views: int | None) -> PosedPhotos:
    rows = split_rows(capture, split, views)
    if not rows:
        raise DataError(path, f"the split {split!r} is empty")
    chosen = tuple(capture.views[row] for row in rows)
    cameras = Cameras.stack([_camera(view, scale) for view in chosen])
    return PosedPhotos(path, scale, split, chosen, cameras, capture.skipped, capture)


class Format(NamedTuple):
    """How a layout of files is told from others, and read at a scale for a few-view protocol. `says` names it
    for people."""

    says: str
    fits: Callable[[Path], bool]
    read: Callable[[Path, float, int | None], Capture]


def _has(*names: str) -> Callable[[Path], bool]:
    return lambda path: path.is_dir() and all((path / name).exists() for name in names)


def _transforms_file(path: Path) -> Path:
    return path if path.is_file() else path / "transforms.json"


def _tiny_nerf_file(path: Path) -> Path | None:
    """The .npz itself, or the only one of a folder."""
    if path.is_file():
        return path if path.suffix == ".npz" else None
    found = sorted(path.glob("*.npz"))
    return found[0] if len(found) == 1 else None


def _read_tiny(path: Path) -> Capture:
    found = _tiny_nerf_file(path)
    if found is None:
        raise DataError(path, "no .npz file, or more than one; name the file")
    return read_tiny_nerf(found)


# In the order in which they are tried.
FORMATS: dict[str, Format] = {
    "blender": Format(
        "transforms_train.json (NeRF-synthetic)",
        _has("transforms_train.json"),
        lambda path, scale, views: read_blender(path),
    ),
    "transforms": Format(
        "transforms.json (nerfstudio, instant-ngp)",
        lambda path: path.suffix == ".json" or _has("transforms.json")(path),
        lambda path, scale, views: read_transforms(_transforms_file(path)),
    ),
    "dtu": Format(
        "cameras_sphere.npz and image/ (DTU as IDR and NeuS have it)",
        lambda path: _has("cameras_sphere.npz", "image")(path) or _has("cameras.npz", "image")(path),
        lambda path, scale, views: read_idr(path, scale),
    ),
    "llff": Format(
        "poses_bounds.npy and images/",
        _has("poses_bounds.npy"),
        lambda path, scale, views: read_llff(path, scale),
    ),
    "colmap": Format(
        "sparse/0/cameras.bin, images.bin (or .txt) and images/ (COLMAP)",
        lambda path: path.is_dir() and find_model(path) is not None,
        lambda path, scale, views: read_colmap(path, scale),
    ),
    "mvsnet": Format(
        "cams/00000000_cam.txt and images/ (MVSNet, BlendedMVS)",
        lambda path: path.is_dir() and next(path.glob("[cC]am*/*_cam.txt"), None) is not None,
        lambda path, scale, views: read_mvsnet(path, scale),
    ),
    "rgbd": Format(
        "frame-000000.color.png, .depth.png, .pose.txt (7-Scenes)",
        lambda path: path.is_dir() and frames_folder(path) is not None,
        lambda path, scale, views: read_rgbd(path),
    ),
    "spare": Format(
        "a scene below a split file (SpaRe)",
        lambda path: path.is_dir() and find_split(path, None) is not None,
        lambda path, scale, views: read_spare(path, views),
    ),
    "tiny_nerf": Format(
        "a single .npz with images, poses, focal",
        lambda path: _tiny_nerf_file(path) is not None,
        lambda path, scale, views: _read_tiny(path),
    ),
}


def _detect(path: Path) -> Format:
    for candidate in FORMATS.values():
        if candidate.fits(path):
            return candidate
    known = "\n".join(f"  {name}: {candidate.says}" for name, candidate in FORMATS.items())
    raise DataError(
        path,
        f"no layout of posed photos that is known:\n{known}\ndatasets/README.md shows each. Poses of photos "
        "alone can be found from them: --poses colmap",
    )


def _with_folders(
    capture: Capture, masks: str | Path | None, depths: str | Path | None, depth_unit: float
) -> Capture:
    """The capture with masks and depth maps of the user's own. Photos without one have none; DataError for a
    folder that has none at all."""
    for kind, folder in (("mask", masks), ("depth", depths)):
        if folder is None:
            continue
        folder = Path(folder).expanduser()
        more = (".npy", ".exr") if kind == "depth" else ()
        found = [same_stem(folder, view.name, more) for view in capture.views]
        short = [Path(view.name).name for view in capture.views]
        for row, name in enumerate(short):
            if found[row] is None and (flat := same_stem(folder, name, more)) is not None:
                if short.count(name) > 1:
                    raise DataError(
                        flat,
                        f"may belong to {capture.views[row].name} or to another {name}; "
                        "use subfolders as those of the photos",
                    )
                found[row] = flat
        if not any(found):
            raise DataError(folder, f"holds no {kind} with the name of a photo, as {capture.views[0].name}")
        changes = [{kind: path} | ({"depth_unit": depth_unit} if kind == "depth" else {}) for path in found]
        views = tuple(replace(view, **change) for view, change in zip(capture.views, changes, strict=True))
        capture = replace(capture, views=views)
    return capture


def _camera(view: View, scale: float) -> Camera:
    """The camera at the scale; arrays of photos have the size that their camera says."""
    if view.row < 0:
        return scaled_camera(view, scale)
    camera = view.camera
    return camera.resized(max(1, round(camera.width * scale)), max(1, round(camera.height * scale)))


def _check_beside(path: Path, view: View) -> None:
    """A mask or depth map must show what the photo shows: its size is the photo's, or has its aspect."""
    (width, height), camera = image_size(path), view.camera
    if abs(width * camera.height - height * camera.width) > max(camera.width, camera.height):
        raise DataError(
            path, f"is {width} x {height}, another aspect than its photo's {camera.width} x {camera.height}"
        )
