"""Points with colours and normals: .ply both ways, .pcd with colours out; other formats of points, as
`io.points` has them, without."""

from pathlib import Path

import numpy as np

from sparse3d.errors import DataError
from sparse3d.geometry.painted_points import PaintedPoints
from sparse3d.io.files import write_bytes
from sparse3d.io.pcd import write_pcd
from sparse3d.io.ply_header import ORDERS, Element, read_header, row_type
from sparse3d.io.point_fields import parse_table
from sparse3d.io.points import read_valid_points, write_points
from sparse3d.io.reading import read_bytes

_COLORS, _NORMALS = ("red", "green", "blue"), ("nx", "ny", "nz")


def read_painted_points(path: str | Path) -> PaintedPoints:
    """Points that are finite, with colours and normals where a .ply has them. DataError for a file that is
    damaged or holds none."""
    if Path(path).suffix.lower() != ".ply":
        points = PaintedPoints(read_valid_points(path)[:, :3])
    else:
        points = _read_ply(path)
    if not len(points):
        raise DataError(path, "holds no points that are finite")
    return points


def write_painted_points(path: str | Path, points: PaintedPoints) -> None:
    """Write atomically; .ply keeps colours and normals, .pcd colours, .npy and .bin the places alone.
    ValueError for another ending."""
    match Path(path).suffix.lower():
        case ".ply":
            _write_ply(path, points)
        case ".pcd":
            write_pcd(path, points.positions, points.colors)
        case _:
            write_points(path, np.pad(points.positions, ((0, 0), (0, 1))))


def _write_ply(path: str | Path, points: PaintedPoints) -> None:
    columns = [(name, "<f4", points.positions[:, k]) for k, name in enumerate("xyz")]
    if points.normals is not None:
        columns += [(name, "<f4", points.normals[:, k]) for k, name in enumerate(_NORMALS)]
    if points.colors is not None:
        columns += [(name, "u1", points.colors[:, k]) for k, name in enumerate(_COLORS)]
    table = np.empty(len(points), dtype=[(name, kind) for name, kind, _ in columns])
    for name, _, values in columns:
        table[name] = values
    properties = "".join(
        f"property {'uchar' if kind == 'u1' else 'float'} {name}\n" for name, kind, _ in columns
    )
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(table)}\n{properties}end_header\n"
    write_bytes(path, header.encode("ascii") + table.tobytes())


def _read_ply(path: str | Path) -> PaintedPoints:
    data = read_bytes(path)
    header = read_header(data, path)
    element = header.elements[0] if header.elements else Element("", 0)
    names = [name for name, _ in element.properties]
    if element.name != "vertex" or element.has_list or not {"x", "y", "z"} <= set(names):
        raise DataError(
            path, f"its first element is {element.name!r} with {names}, expected vertices with x, y, z"
        )
    if header.encoding == "ascii":
        table = parse_table(data[header.end :], element.count, len(names), path, header.lines + 1)
        columns = {name: table[:, k] for k, name in enumerate(names)}
    else:
        row = row_type(element, ORDERS[header.encoding])
        if header.end + element.count * row.itemsize > len(data):
            raise DataError(
                path,
                f"header promises {element.count} vertices ({element.count * row.itemsize} bytes), "
                f"{len(data) - header.end} bytes follow offset {header.end}",
            )
        table = np.frombuffer(data, dtype=row, count=element.count, offset=header.end)
        columns = {name: table[name] for name in names}
    kinds = dict(element.properties)

    def stacked(wanted: tuple[str, ...]) -> np.ndarray | None:
        if not set(wanted) <= set(names):
            return None
        with np.errstate(over="ignore"):
            return np.stack([columns[name] for name in wanted], 1).astype(np.float32)

    positions, colors, normals = stacked(("x", "y", "z")), stacked(_COLORS), stacked(_NORMALS)
    assert positions is not None
    finite = np.isfinite(positions).all(1)
    if colors is not None:
        scale = 255.0 if kinds["red"][0] == "f" else 1.0
        colors = np.rint(np.nan_to_num(colors[finite]) * scale).clip(0, 255).astype(np.uint8)
    if normals is not None:
        normals = np.nan_to_num(normals[finite])
        length = np.linalg.norm(normals, axis=1, keepdims=True)
        normals = (normals / np.where(length > 0, length, 1)).astype(np.float32)
    return PaintedPoints(positions[finite], colors, normals)
