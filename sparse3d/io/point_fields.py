"""Named columns of a point file brought into one (N, 4) float32 cloud."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sparse3d.errors import DataError

# Names that writers in use give to the returned strength (PCL, Open3D, CloudCompare, ROS), lower case.
_INTENSITY_NAMES = ("intensity", "i", "reflectance", "reflectivity", "scalar_intensity", "scalar_reflectance")


def points_from_fields(fields: Mapping[str, np.ndarray], path: str | Path) -> np.ndarray:
    """Columns by name, each (N,) -> (N, 4) float32 x, y, z, intensity. DataError where x, y or z is
    missing.
    """
    lower = {name.lower(): column for name, column in fields.items()}
    missing = [name for name in "xyz" if name not in lower]
    if missing:
        raise DataError(path, f"no field {', '.join(missing)} among {', '.join(fields) or 'none'}")
    points = np.zeros((len(lower["x"]), 4), dtype=np.float32)
    intensity = next((name for name in _INTENSITY_NAMES if name in lower), None)
    for i, name in enumerate(("x", "y", "z", intensity)):
        if name is None:
            continue
        column = lower[name]
        if column.dtype.kind not in "fiu" or column.ndim != 1:
            raise DataError(
                path, f"field {name} holds {column.dtype} {column.shape}, expected one number a point"
            )
        # A float64 beyond float32 becomes infinite and is dropped with the invalid points.
        with np.errstate(over="ignore"):
            points[:, i] = column
        if name == intensity and column.dtype.kind == "u":
            points[:, i] /= np.iinfo(column.dtype).max
    return points


def parse_table(text: bytes, rows: int, columns: int, path: str | Path, first_line: int) -> np.ndarray:
    """`rows` lines of `columns` numbers -> float64 (rows, columns); what follows them is not looked at.

    `first_line` is the line number, from 1, at which `text` begins in its file. Raises DataError with a line.
    """
    # The shortest row is a digit and a separator a column: an absurd count fails before anything is
    # allocated.
    if rows * columns * 2 > len(text) + 1:
        raise DataError(path, f"header promises {rows} points, the file ends after {len(text)} bytes of data")
    lines = text.split(b"\n", rows)[:rows]
    try:
        table = np.array([line.split() for line in lines], dtype=np.float64)
    except ValueError:
        table = np.empty(0)
    if table.shape == (rows, columns) or not rows:
        return table.reshape(rows, columns)
    for number, line in enumerate(lines, start=first_line):
        words = line.split()
        if len(words) != columns:
            raise DataError(f"{path}:{number}", f"{len(words)} values, expected {columns}")
        for word in words:
            try:
                float(word)
            except ValueError:
                raise DataError(f"{path}:{number}", f"not a number: {word[:40]!r}") from None
    raise DataError(f"{path}:{first_line + len(lines)}", f"{len(lines)} points, the header promises {rows}")
