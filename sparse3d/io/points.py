"""Point clouds on disk: .bin, .pcd, .ply and .npy in; .bin, .ply and .npy out.

A cloud is (N, 4) float32: x, y, z in metres and an intensity, zero where the file has none. Intensities that
a file stores as unsigned integers are divided by their largest value, so that they lie in [0, 1]; floats stay
as they are. Counts in headers are compared with the size of the file before anything is allocated.
"""

import io
import logging
from pathlib import Path

import numpy as np

from sparse3d.errors import DataError
from sparse3d.io.files import atomic_path, write_bytes
from sparse3d.io.pcd import read_pcd
from sparse3d.io.ply import read_ply_points, write_ply_points
from sparse3d.io.point_fields import points_from_fields
from sparse3d.io.reading import read_bytes

_log = logging.getLogger(__name__)

POINT_SUFFIXES = (".bin", ".pcd", ".ply", ".npy")


def read_points(path: str | Path, columns: int = 4) -> np.ndarray:
    """Read a cloud, (N, 4) float32; the suffix says the format.

    `columns` is the number of float32 values a point in a .bin file (KITTI 4, nuScenes 5, Waymo exports 6),
    of which the first four count; the other formats describe themselves. Raises DataError.
    """
    path = Path(path)
    match path.suffix.lower():
        case ".bin":
            return read_bin(path, columns)
        case ".pcd":
            return read_pcd(path)
        case ".ply":
            return read_ply_points(path)
        case ".npy":
            return _read_npy(path)
    raise DataError(path, f"unknown point cloud suffix {path.suffix!r}; expected {', '.join(POINT_SUFFIXES)}")


def write_points(path: str | Path, points: np.ndarray) -> None:
    """Write an (N, 4) cloud atomically as .bin, .npy (float32) or .ply (binary little endian, float)."""
    path = Path(path)
    points = np.ascontiguousarray(points, dtype="<f4")
    if points.ndim != 2 or points.shape[1] != 4:
        raise ValueError(f"points must be (N, 4): x, y, z, intensity; got {points.shape}")
    match path.suffix.lower():
        case ".bin":
            write_bytes(path, points.tobytes())
        case ".ply":
            write_ply_points(path, points)
        case ".npy":
            with atomic_path(path) as temporary, open(temporary, "wb") as file:
                np.save(file, points, allow_pickle=False)
        case _:
            raise ValueError(f"{path}: cannot write {path.suffix!r}; use .bin, .ply or .npy")


def drop_invalid(points: np.ndarray) -> tuple[np.ndarray, int]:
    """The rows without nan or infinity, and how many were dropped. Returns the array itself where all are
    finite.
    """
    finite = np.isfinite(points).all(axis=1)
    dropped = len(points) - int(np.count_nonzero(finite))
    return (points[finite], dropped) if dropped else (points, 0)


def read_valid_points(path: str | Path, columns: int = 4) -> np.ndarray:
    """`read_points` and `drop_invalid`; what was dropped is logged as a warning once a file."""
    points, dropped = drop_invalid(read_points(path, columns))
    if dropped and str(path) not in _reported:
        _reported.add(str(path))
        _log.warning("%s: dropped %d points with nan or infinite values", path, dropped)
    return points


_reported: set[str] = set()


def read_bin(path: str | Path, columns: int = 4) -> np.ndarray:
    """Read raw little-endian float32 rows of `columns` values."""
    if columns < 3:
        raise ValueError(f"columns must be at least 3 (x, y, z), got {columns}")
    data = read_bytes(path)
    row = 4 * columns
    if len(data) % row:
        raise DataError(
            path,
            f"{len(data)} bytes are not whole points of {columns} float32 ({row} bytes): "
            f"{len(data) % row} bytes are left over at offset {len(data) // row * row}; "
            "truncated, or other columns?",
        )
    table = np.frombuffer(data, dtype="<f4").reshape(-1, columns)
    points = np.zeros((len(table), 4), dtype=np.float32)
    points[:, : min(columns, 4)] = table[:, :4]
    return points


def _read_npy(path: Path) -> np.ndarray:
    """A structured array with fields x, y, z (and an intensity), or a plain (N, >= 3) one."""
    data = read_bytes(path)
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        if version not in read_header:
            raise DataError(
                path, f"npy format {version} is not supported; save plain numbers with numpy.save"
            )
        shape, _, dtype = read_header[version](file)
    except DataError:
        raise
    except Exception as error:
        # numpy reads the header as Python text; which errors come through (TokenError, ...) is nowhere said.
        raise DataError(path, f"bad npy header: {error}") from error
    if dtype.hasobject:
        raise DataError(path, "holds Python objects (would need unpickling), expected numbers")
    expected = dtype.itemsize
    for size in shape:
        expected *= int(size)
    if expected != len(data) - file.tell() or min(shape, default=0) < 0:
        raise DataError(
            path,
            f"header says shape {shape} of {dtype} ({expected} bytes), "
            f"the file holds {len(data) - file.tell()} bytes after offset {file.tell()}",
        )
    file.seek(0)
    array = np.load(file, allow_pickle=False)
    if dtype.names:
        return points_from_fields({name: array[name].ravel() for name in dtype.names}, path)
    if array.ndim != 2 or array.shape[1] < 3 or array.dtype.kind not in "fiu":
        raise DataError(path, f"expected numbers (N, >= 3), got {array.dtype} {array.shape}")
    fields = {name: array[:, i] for i, name in enumerate(("x", "y", "z", "intensity")[: array.shape[1]])}
    return points_from_fields(fields, path)
