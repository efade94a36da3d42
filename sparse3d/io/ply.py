"""Polygon files (.ply) as point clouds: the vertices' x, y, z and intensity; ascii and binary of both byte
orders.

Other elements (faces) are skipped. Format: Greg Turk, "The PLY polygon file format", 1994.
"""

from pathlib import Path

import numpy as np

from sparse3d.errors import DataError
from sparse3d.io.files import write_bytes
from sparse3d.io.ply_header import ORDERS, read_header, row_type
from sparse3d.io.point_fields import parse_table, points_from_fields
from sparse3d.io.reading import read_bytes


def read_ply_points(path: str | Path) -> np.ndarray:
    """Read the vertices of a .ply, (N, 4) float32: x, y, z, intensity. Raises DataError."""
    data = read_bytes(path)
    header = read_header(data, path)
    order = ORDERS[header.encoding]
    offset, skipped_lines = header.end, 0
    for element in header.elements:
        if element.name == "vertex":
            break
        if element.has_list:
            raise DataError(
                path, f"element {element.name!r} with lists stands before 'vertex': not supported"
            )
        if header.encoding == "ascii":
            skipped_lines += element.count
        else:
            offset += element.count * row_type(element, order).itemsize
    else:
        raise DataError(path, "no element 'vertex'")
    if element.has_list:
        raise DataError(path, "element 'vertex' has a list property, expected numbers")
    if header.encoding == "ascii":
        if skipped_lines > len(data):
            raise DataError(path, f"header promises {skipped_lines} lines before the vertices")
        text = data[offset:].split(b"\n", skipped_lines)[-1]
        columns = len(element.properties)
        table = parse_table(text, element.count, columns, path, header.lines + skipped_lines + 1)
        fields = {name: _typed(table[:, i], code, path) for i, (name, code) in enumerate(element.properties)}
        return points_from_fields(fields, path)
    row = row_type(element, order)
    if offset + element.count * row.itemsize > len(data):
        raise DataError(
            path,
            f"header promises {element.count} vertices ({element.count * row.itemsize} bytes), "
            f"{max(len(data) - offset, 0)} bytes follow offset {offset}",
        )
    table = np.frombuffer(data, dtype=row, count=element.count, offset=offset)
    return points_from_fields({name: table[name] for name, _ in element.properties}, path)


def write_ply_points(path: str | Path, points: np.ndarray) -> None:
    """Write (N, 4) x, y, z, intensity atomically as binary little endian floats."""
    names = "".join(f"property float {name}\n" for name in ("x", "y", "z", "intensity"))
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\n{names}end_header\n"
    write_bytes(path, header.encode("ascii") + np.ascontiguousarray(points, dtype="<f4").tobytes())


def _typed(column: np.ndarray, code: str, path: str | Path) -> np.ndarray:
    """Integers keep their type, which says how intensities scale."""
    if code[0] == "f":
        return column
    limits = np.iinfo(code)
    if not np.isfinite(column).all() or (
        len(column) and not (limits.min <= column.min() and column.max() <= limits.max)
    ):
        raise DataError(path, f"a value does not fit its type {np.dtype(code)}")
    return column.astype(code)
