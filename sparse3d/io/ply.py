"""Polygon files (.ply) as point clouds: the vertices' x, y, z and intensity; ascii and binary of both byte
orders.

Other elements (faces) are skipped. Format: Greg Turk, "The PLY polygon file format", 1994.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sparse3d.errors import DataError
from sparse3d.io.files import write_bytes
from sparse3d.io.point_fields import parse_table, points_from_fields
from sparse3d.io.reading import read_bytes

_TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"},
    **{"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"},
    **{"float": "f4", "double": "f8", "float32": "f4", "float64": "f8"},
}
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_MAX_HEADER_LINES = 1000
_MAX_LINE_BYTES = 4096


@dataclass
class _Element:
    name: str
    count: int
    properties: list[tuple[str, str]] = field(default_factory=list)
    """(name, numpy type code) of each scalar."""
    has_list: bool = False


@dataclass(frozen=True)
class _Header:
    encoding: str
    elements: list[_Element]
    end: int
    lines: int


def read_ply_points(path: str | Path) -> np.ndarray:
    """Read the vertices of a .ply, (N, 4) float32: x, y, z, intensity. Raises DataError."""
    data = read_bytes(path)
    header = _read_header(data, path)
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
            offset += element.count * _row_type(element, header).itemsize
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
    row = _row_type(element, header)
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


def _read_header(data: bytes, path: str | Path) -> _Header:
    if data[:3] != b"ply":
        raise DataError(path, "does not begin with 'ply'")
    encoding, elements, offset = "", [], 0
    for number in range(1, _MAX_HEADER_LINES + 1):
        end = data.find(b"\n", offset, offset + _MAX_LINE_BYTES)
        if end < 0:
            raise DataError(f"{path}:{number}", "the header ends before its end_header line")
        words = data[offset:end].decode("latin-1").split()
        offset = end + 1
        where = f"{path}:{number}"
        match words:
            case ["format", name, _] if name in _ORDERS:
                encoding = name
            case ["element", name, count]:
                if not count.isdecimal():
                    raise DataError(where, f"element {name} has count {count!r}, expected a whole number")
                elements.append(_Element(name, int(count)))
            case ["property", "list", size, item, _] if size in _TYPES and item in _TYPES and elements:
                elements[-1].has_list = True
            case ["property", kind, name] if kind in _TYPES and elements:
                elements[-1].properties.append((name, _TYPES[kind]))
            case ["end_header"]:
                if not encoding:
                    raise DataError(path, "no format line before end_header")
                return _Header(encoding, elements, offset, number)
            case [] | ["ply"] | ["comment", *_] | ["obj_info", *_]:
                pass
            case _:
                raise DataError(where, f"not a .ply header line: {' '.join(words)[:80]!r}")
    raise DataError(path, f"no end_header among the first {_MAX_HEADER_LINES} lines")


def _row_type(element: _Element, header: _Header) -> np.dtype:
    order = _ORDERS[header.encoding]
    # Positions stand in for the names, which need not be unique; duplicates would be refused by numpy.
    names = [name for name, _ in element.properties]
    unique = [name if names.index(name) == i else f"{name}#{i}" for i, name in enumerate(names)]
    return np.dtype(
        [(name, order + code) for name, (_, code) in zip(unique, element.properties, strict=True)]
    )


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
