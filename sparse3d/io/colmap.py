"""COLMAP's sparse models, text and binary, as posed photos with the points that were found.

Poses in the files lead from the world to the camera (qw qx qy qz tx ty tz), with OpenCV's axes and pixel
centres at +0.5, as ours. Layouts: COLMAP's documentation, "Output format"; binary integers and floats are
little-endian.
"""

import struct
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparse3d.errors import DataError
from sparse3d.geometry.cameras import Camera, Lens
from sparse3d.geometry.rigid import inverse, rigid, rotation_from_quaternion
from sparse3d.io.captures import Capture, ScenePoints, Skipped, View, checked_capture
from sparse3d.io.image_folders import image_folder, same_stem
from sparse3d.io.reading import read_bytes, read_text


class _Model(NamedTuple):
    """A camera model: its number in binary files, how many focal lengths (1 or 2), and which of our
    coefficients its others are."""

    number: int
    focals: int
    coefficients: int
    fisheye: bool = False


# The coefficients come in our order: k; k1 k2; k1 k2 p1 p2; k1 k2 p1 p2 k3 k4 k5 k6; fisheye k1 .. k4.
_MODELS = {
    "SIMPLE_PINHOLE": _Model(0, 1, 0),
    "PINHOLE": _Model(1, 2, 0),
    "SIMPLE_RADIAL": _Model(2, 1, 1),
    "RADIAL": _Model(3, 1, 2),
    "OPENCV": _Model(4, 2, 4),
    "OPENCV_FISHEYE": _Model(5, 2, 4, True),
    "FULL_OPENCV": _Model(6, 2, 8),
    "SIMPLE_RADIAL_FISHEYE": _Model(8, 1, 1, True),
    "RADIAL_FISHEYE": _Model(9, 1, 2, True),
}
_NAMES = {model.number: name for name, model in _MODELS.items()}
_OTHERS = {7: "FOV", 10: "THIN_PRISM_FISHEYE", 11: "RAD_TAN_THIN_PRISM_FISHEYE"}

_LONGEST_NAME = 4096


class _Image(NamedTuple):
    """An image row: `seen` (K, 2) pixels of its features, `points` (K,) ids of the points they show, -1 where
    none."""

    name: str
    camera: int
    pose: np.ndarray
    seen: np.ndarray
    points: np.ndarray


class _Point(NamedTuple):
    position: tuple[float, float, float]
    color: tuple[int, int, int]
    error: float


def find_model(root: Path) -> Path | None:
    """The folder with a whole model (cameras and images): sparse/0, sparse, colmap/sparse/0 or the folder
    itself."""
    for name in ("sparse/0", "sparse", "colmap/sparse/0", "."):
        folder = root / name
        for ending in (".bin", ".txt"):
            if all((folder / f"{part}{ending}").is_file() for part in ("cameras", "images")):
                return folder
    return None


def read_colmap(root: str | Path, scale: float = 1.0) -> Capture:
    """A folder with a model and its photos in images/ (or images_8/ for scale 1/8); masks/NAME.png where
    there are some. See `read_model`."""
    root = Path(root)
    folder = find_model(root)
    if folder is None:
        raise DataError(root, "no COLMAP model: expected cameras and images (.bin or .txt) in sparse/0")
    return read_model(folder, image_folder(root, scale), root / "masks")


def read_model(folder: Path, photos: Path, masks: Path) -> Capture:
    """The images of a model with their photos in one folder and masks, where there are some, in another.
    Photos that are missing are listed in `skipped`; an image's `number` is its place in the order of names.

    DataError for files that are truncated or contradict each other, and for models of lenses that are not
    supported.
    """
    ending = ".bin" if (folder / "images.bin").is_file() else ".txt"
    cameras = _read_cameras(folder / f"cameras{ending}")
    path = folder / f"images{ending}"
    images = _read_images(path)
    views, skipped, row_of = [], [], {}
    for number, (image_id, image) in enumerate(sorted(images.items(), key=lambda item: item[1].name)):
        if image.camera not in cameras:
            raise DataError(path, f"image {image.name!r} has the camera {image.camera}, which is not there")
        try:
            camera = replace(cameras[image.camera], camera_to_world=image.pose)
        except ValueError as error:
            raise DataError(path, f"image {image.name!r}: {error}") from error
        photo = same_stem(photos, image.name)
        if photo is None:
            skipped.append(Skipped(image.name, f"not in {photos.name}"))
            continue
        row_of[image_id] = len(views)
        views.append(View(image.name, photo, camera, number, mask=same_stem(masks, image.name)))
    points = _scene_points(folder, images, row_of)
    return checked_capture(folder, Capture("colmap", tuple(views), tuple(skipped), points=points))


def read_colmap_points(folder: Path) -> ScenePoints | None:
    """points3D of a model, without tracks; None where there is no such file."""
    return _scene_points(folder, {}, {})


def _scene_points(folder: Path, images: dict[int, _Image], row_of: dict[int, int]) -> ScenePoints | None:
    path = next((p for ending in (".bin", ".txt") if (p := folder / f"points3D{ending}").is_file()), None)
    if path is None:
        return None
    table = _points_binary(path) if path.suffix == ".bin" else _points_text(path)
    ids = np.array(list(table), dtype=np.int64)
    positions = np.array([p.position for p in table.values()], dtype=np.float64).reshape(-1, 3)
    if not np.isfinite(positions).all():
        raise DataError(path, "a point's position is not finite")
    order = np.argsort(ids)
    track: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for image_id, row in row_of.items():
        image = images[image_id]
        seen = image.points >= 0
        place = np.minimum(np.searchsorted(ids[order], image.points[seen]), max(len(ids) - 1, 0))
        known = ids[order][place] == image.points[seen] if len(ids) else np.zeros(0, dtype=bool)
        point = order[place[known]] if len(ids) else np.zeros(0, dtype=np.int64)
        track.append((point, np.full(len(point), row, dtype=np.int64), image.seen[seen][: len(known)][known]))
    none = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros((0, 2)))
    point, view, pixel = (np.concatenate(column) for column in zip(none, *track, strict=True))
    return ScenePoints(
        positions,
        np.array([p.color for p in table.values()], dtype=np.uint8).reshape(-1, 3),
        np.array([p.error for p in table.values()], dtype=np.float64),
        point,
        view,
        pixel,
    )


def _camera(path: Path, camera_id: int, name: str, width: int, height: int, values: list[float]) -> Camera:
    model = _MODELS.get(name)
    if model is None:
        raise DataError(
            path,
            f"camera {camera_id}: the lens model {name} is not supported (there are {', '.join(_MODELS)}); "
            "undistort the photos with colmap image_undistorter",
        )
    expected = model.focals + 2 + model.coefficients
    if len(values) != expected:
        raise DataError(path, f"camera {camera_id}: {name} has {expected} parameters, here are {len(values)}")
    fx, fy = values[0], values[model.focals - 1]
    cx, cy, *rest = values[model.focals :]
    try:
        lens = Lens(tuple(rest) if any(rest) else (), model.fisheye)
        return Camera(fx, fy, cx, cy, width, height, np.eye(4), lens)
    except ValueError as error:
        raise DataError(path, f"camera {camera_id}: {error}") from error


def _pose(path: Path, name: str, quaternion: tuple[float, ...], translation: tuple[float, ...]) -> np.ndarray:
    try:
        rotation = rotation_from_quaternion(np.array(quaternion))
    except ValueError as error:
        raise DataError(path, f"image {name!r}: {error}") from error
    return inverse(rigid(rotation, np.array(translation)))


class _Bytes:
    """A binary file read front to back; whatever it lacks is a DataError with the offset."""

    def __init__(self, path: Path):
        self.path, self.data, self.at = path, read_bytes(path), 0

    def take(self, layout: str) -> tuple:
        size = struct.calcsize("<" + layout)
        self.need(size)
        out = struct.unpack_from("<" + layout, self.data, self.at)
        self.at += size
        return out

    def rows(self, dtype: np.dtype, count: int) -> np.ndarray:
        self.need(dtype.itemsize * count)
        out = np.frombuffer(self.data, dtype, count, self.at)
        self.at += dtype.itemsize * count
        return out

    def name(self) -> str:
        end = self.data.find(b"\0", self.at, self.at + _LONGEST_NAME)
        if end < 0:
            raise DataError(self.path, f"at byte {self.at}: a name without an end; truncated?")
        out = self.data[self.at : end].decode("utf-8", errors="surrogateescape")
        self.at = end + 1
        return out

    def count(self, least: int) -> int:
        """A number of entries of at least `least` bytes each."""
        (number,) = self.take("Q")
        self.need(number * least)
        return number

    def need(self, size: int) -> None:
        if self.at + size > len(self.data):
            raise DataError(
                self.path,
                f"at byte {self.at}: {size} bytes expected, {len(self.data) - self.at} are left; truncated?",
            )

    def done(self) -> None:
        if self.at != len(self.data):
            raise DataError(self.path, f"{len(self.data) - self.at} bytes too many after byte {self.at}")


def _read_cameras(path: Path) -> dict[int, Camera]:
    cameras = {}
    if path.suffix == ".txt":
        for where, words in _lines(path):
            camera_id, width, height = (_integer(path, where, w) for w in (*words[:1], *words[2:4]))
            values = _floats(path, where, words[4:])
            cameras[camera_id] = _camera(path, camera_id, words[1], width, height, values)
        return cameras
    file = _Bytes(path)
    for _ in range(file.count(24)):
        camera_id, model, width, height = file.take("iiQQ")
        name = _NAMES.get(model) or _OTHERS.get(model, f"number {model}")
        known = _MODELS.get(name)
        values = list(file.take(f"{known.focals + 2 + known.coefficients}d")) if known else []
        cameras[camera_id] = _camera(path, camera_id, name, width, height, values)
    file.done()
    return cameras


_SEEN = np.dtype([("pixel", "<f8", (2,)), ("point", "<i8")])


def _read_images(path: Path) -> dict[int, _Image]:
    images = {}
    if path.suffix == ".txt":
        lines = read_text(path).split("\n")
        numbered = [(n, line) for n, line in enumerate(lines, 1) if not line.startswith("#")]
        for (number, first), (other, second) in zip(
            numbered[::2], numbered[1::2] + [(len(lines), "")], strict=False
        ):
            if not first.strip():
                continue
            words = first.split(maxsplit=9)
            if len(words) != 10:
                raise DataError(
                    path, f"line {number}: {len(words)} values, expected 10 (id, pose, camera, name)"
                )
            values = _floats(path, number, words[1:8])
            seen = np.array(_floats(path, other, second.split())).reshape(-1)
            if len(seen) % 3:
                raise DataError(path, f"line {other}: {len(seen)} values, expected three for each feature")
            seen = seen.reshape(-1, 3)
            name = words[9].strip()
            images[_integer(path, number, words[0])] = _Image(
                name,
                _integer(path, number, words[8]),
                _pose(path, name, tuple(values[:4]), tuple(values[4:])),
                seen[:, :2],
                seen[:, 2].astype(np.int64),
            )
        return images
    file = _Bytes(path)
    for _ in range(file.count(73)):
        image_id, *values = file.take("i7d")
        (camera,) = file.take("i")
        name = file.name()
        seen = file.rows(_SEEN, file.count(_SEEN.itemsize))
        pose = _pose(path, name, tuple(values[:4]), tuple(values[4:]))
        images[image_id] = _Image(name, camera, pose, seen["pixel"], seen["point"])
    file.done()
    return images


def _points_binary(path: Path) -> dict[int, _Point]:
    file = _Bytes(path)
    points = {}
    for _ in range(file.count(51)):
        point_id, x, y, z, r, g, b, error, track = file.take("Q3d3BdQ")
        file.need(8 * track)
        file.at += 8 * track  # the same as what the images say they see
        points[point_id] = _Point((x, y, z), (r, g, b), error)
    file.done()
    return points


def _points_text(path: Path) -> dict[int, _Point]:
    points = {}
    for where, words in _lines(path):
        if len(words) < 8:
            raise DataError(path, f"line {where}: {len(words)} values, expected at least 8")
        x, y, z, error = _floats(path, where, [*words[1:4], words[7]])
        r, g, b = (_integer(path, where, word) for word in words[4:7])
        if not all(0 <= c <= 255 for c in (r, g, b)):
            raise DataError(path, f"line {where}: colour {r} {g} {b}, expected 0 to 255")
        points[_integer(path, where, words[0])] = _Point((x, y, z), (r, g, b), error)
    return points


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """(line number, words) of all lines that are no comment."""
    out = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            words = line.split()
            if path.stem == "cameras" and len(words) < 5:
                raise DataError(
                    path, f"line {number}: {len(words)} values, expected id, model, size, parameters"
                )
            out.append((number, words))
    return out


def _integer(path: Path, where: int, word: str) -> int:
    try:
        return int(word)
    except ValueError as error:
        raise DataError(path, f"line {where}: {word[:40]!r} is not a whole number") from error


def _floats(path: Path, where: int, words: list[str]) -> list[float]:
    try:
        return [float(word) for word in words]
    except ValueError as error:
        raise DataError(path, f"line {where}: {error}") from error
