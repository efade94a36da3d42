"""transforms.json: the dialects of nerfstudio, instant-ngp and NeRF-synthetic.

Frames hold camera-to-world matrices with OpenGL's axes (x right, y up, looking along -z), turned here into
OpenCV's. Intrinsics stand in the file, in each frame, or follow from `camera_angle_x`. Distortion is
OpenCV's: k1 k2 p1 p2 k3 k4 k5 k6, or k1 to k4 of a fisheye. The world is the file's own: neither nerfstudio's
re-centring nor instant-ngp's scale and offset is applied.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from sparse3d.errors import DataError
from sparse3d.geometry.cameras import OPENGL_TO_OPENCV, Camera, Lens
from sparse3d.io.captures import Capture, ScenePoints, Skipped, View, checked_capture
from sparse3d.io.images import image_size
from sparse3d.io.ply import read_ply_points
from sparse3d.io.reading import read_text

_PERSPECTIVE = (
    "OPENCV",
    "PINHOLE",
    "SIMPLE_PINHOLE",
    "SIMPLE_RADIAL",
    "RADIAL",
    "FULL_OPENCV",
    "PERSPECTIVE",
)
_ORDER = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
_FISHEYE_ORDER = ("k1", "k2", "k3", "k4")

# instant-ngp puts a scene into its cube by x * 0.33 + 0.5 where the file says nothing else.
_NGP_SCALE, _NGP_OFFSET = 0.33, 0.5

# NeRF-synthetic objects lie within this of the origin; its cameras look at it from 4.03 away, near 2, far 6.
_BLENDER_BOX = 1.5


def read_transforms(path: str | Path) -> Capture:
    """The frames of one transforms file; frames whose image is missing are listed in `skipped`.

    DataError for text that is no such file, for intrinsics or poses that cannot be, and where no frame is
    left.
    """
    path = Path(path)
    table = _table(path)
    rows = table.get("frames")
    if not isinstance(rows, list):
        raise DataError(path, "no list 'frames'; not a transforms file?")
    views, skipped = [], []
    names = {}
    for number, row in enumerate(rows):
        what = f"frame {number}"
        if not isinstance(row, dict) or not isinstance(row.get("file_path"), str):
            raise DataError(path, f"{what} has no file_path")
        what, image = f"{what} ({row['file_path']})", _image_path(path, row["file_path"])
        if not image.is_file():
            skipped.append(Skipped(row["file_path"], "no such file"))
            continue
        names[Path(row["file_path"]).as_posix()] = len(views)
        mask, depth = (
            _beside(path, row, ("mask_path",)),
            _beside(path, row, ("depth_file_path", "depth_path")),
        )
        views.append(
            View(
                name=row["file_path"].removeprefix("./"),
                image=image,
                camera=_camera(path, what, {**table, **row}, row, image),
                number=number,
                mask=mask,
                depth=depth,
                depth_unit=_number(
                    path, what, {**table, **row}, ("integer_depth_scale", "depth_unit_scale_factor"), 1e-3
                ),
            )
        )
    capture = Capture(
        "transforms",
        tuple(views),
        tuple(skipped),
        splits=_named_splits(path, table, names),
        points=_points(path, table),
        box=_box(path, table),
    )
    return checked_capture(path, capture)


def read_blender(root: str | Path) -> Capture:
    """A NeRF-synthetic folder: transforms_train.json and, where there, _val and _test, as one capture with
    these splits. White is its background."""
    root = Path(root)
    views, skipped, splits = [], [], {}
    for split in ("train", "val", "test"):
        path = root / f"transforms_{split}.json"
        if not path.is_file():
            continue
        part = read_transforms(path)
        splits[split] = tuple(range(len(views), len(views) + len(part.views)))
        views += part.views
        skipped += part.skipped
    box = np.array([[-_BLENDER_BOX] * 3, [_BLENDER_BOX] * 3])
    return checked_capture(
        root, Capture("blender", tuple(views), tuple(skipped), splits, box=box, background=(1.0, 1.0, 1.0))
    )


def _table(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(path, f"not JSON ({error}); truncated?") from error
    if not isinstance(table, dict):
        raise DataError(path, f"holds a {type(table).__name__}, expected an object with frames")
    return table


def _image_path(path: Path, name: str) -> Path:
    """NeRF-synthetic leaves the .png out; Windows writes backslashes."""
    image = path.parent / name.replace("\\", "/")
    if not image.suffix or (not image.is_file() and image.with_name(image.name + ".png").is_file()):
        image = image.with_name(image.name + ".png")
    return image


def _beside(path: Path, row: dict[str, Any], keys: tuple[str, ...]) -> Path | None:
    for key in keys:
        if isinstance(row.get(key), str):
            return path.parent / row[key].replace("\\", "/")
    return None


def _number(
    path: Path, what: str, row: dict[str, Any], keys: tuple[str, ...], default: float | None = None
) -> float:
    for key in keys:
        if key in row:
            value = row[key]
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise DataError(path, f"{what}: {key} is {value!r}, expected a finite number")
            return float(value)
    if default is None:
        raise DataError(path, f"{what}: no {' nor '.join(keys)}")
    return default


def _camera(path: Path, what: str, row: dict[str, Any], own: dict[str, Any], image: Path) -> Camera:
    def number(*keys: str, default: float | None = None) -> float:
        return _number(path, what, row, keys, default)

    if "w" in row and "h" in row:
        width, height = round(number("w")), round(number("h"))
    else:
        width, height = image_size(image)
    fx = _focal(path, what, row, own, "x", width)
    fy = _focal(path, what, row, own, "y", height, default=fx)
    try:
        matrix = np.array(own.get("transform_matrix"), dtype=np.float64)
        if matrix.shape not in ((4, 4), (3, 4)):
            raise ValueError(f"transform_matrix has the shape {matrix.shape}, expected (4, 4)")
        pose = np.eye(4)
        pose[: len(matrix)] = matrix
        return Camera(
            fx,
            fy,
            number("cx", default=width / 2),
            number("cy", default=height / 2),
            width,
            height,
            pose @ OPENGL_TO_OPENCV,
            _lens(path, what, row),
        )
    except DataError:
        raise
    except (ValueError, TypeError) as error:
        raise DataError(path, f"{what}: {error}") from error


def _focal(
    path: Path,
    what: str,
    row: dict[str, Any],
    own: dict[str, Any],
    axis: str,
    pixels: int,
    default: float | None = None,
) -> float:
    """In pixels; what a frame says itself goes before what the file says for all."""
    for source in (own, row):
        if f"fl_{axis}" in source:
            return _number(path, what, source, (f"fl_{axis}",))
        if f"camera_angle_{axis}" in source:
            angle = _number(path, what, source, (f"camera_angle_{axis}",))
            if not 0 < angle < math.pi:
                raise DataError(
                    path, f"{what}: camera_angle_{axis} is {angle:g}, expected radians in (0, pi)"
                )
            return 0.5 * pixels / math.tan(0.5 * angle)
    if default is None:
        raise DataError(path, f"{what}: neither fl_{axis} nor camera_angle_{axis}")
    return default


def _lens(path: Path, what: str, row: dict[str, Any]) -> Lens:
    model = row.get("camera_model", "OPENCV_FISHEYE" if row.get("is_fisheye") else "OPENCV")
    if model not in (*_PERSPECTIVE, "OPENCV_FISHEYE"):
        raise DataError(path, f"{what}: camera_model {model!r} is not supported; undistort the photos first")
    fisheye = model == "OPENCV_FISHEYE"
    values = tuple(_number(path, what, row, (key,), 0.0) for key in (_FISHEYE_ORDER if fisheye else _ORDER))
    return Lens(values if any(values) else (), fisheye)


def _named_splits(path: Path, table: dict[str, Any], names: dict[str, int]) -> dict[str, tuple[int, ...]]:
    """nerfstudio's lists of file names; those without an image were skipped with their frames."""
    splits = {}
    for split in ("train", "val", "test"):
        listed = table.get(f"{split}_filenames")
        if isinstance(listed, list):
            splits[split] = tuple(names[name] for n in listed if (name := Path(str(n)).as_posix()) in names)
    return splits


def _points(path: Path, table: dict[str, Any]) -> ScenePoints | None:
    ply = _beside(path, table, ("ply_file_path",))
    if ply is None or not ply.is_file():
        return None
    return ScenePoints.without_tracks(read_ply_points(ply)[:, :3].astype(np.float64))


def _box(path: Path, table: dict[str, Any]) -> np.ndarray | None:
    """The cube that instant-ngp would fill: `aabb_scale` sides around the middle of its unit cube."""
    if "aabb_scale" not in table:
        return None
    half = _number(path, "the file", table, ("aabb_scale",)) / 2
    scale = _number(path, "the file", table, ("scale",), _NGP_SCALE)
    try:
        offset = np.broadcast_to(np.asarray(table.get("offset", _NGP_OFFSET), dtype=np.float64), (3,))
    except (ValueError, TypeError) as error:
        raise DataError(path, f"offset is {table['offset']!r}, expected three numbers") from error
    if not (half > 0 and scale > 0 and np.isfinite(offset).all()):
        raise DataError(
            path, f"aabb_scale {2 * half:g}, scale {scale:g} and offset {offset.tolist()} make no box"
        )
    return np.stack([(0.5 - half - offset) / scale, (0.5 + half - offset) / scale])
