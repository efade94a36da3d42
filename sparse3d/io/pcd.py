"""Point Cloud Library files (.pcd), version 0.5 to 0.7: ascii, binary and binary_compressed."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparse3d.errors import DataError
from sparse3d.io import lzf
from sparse3d.io.files import write_bytes
from sparse3d.io.point_fields import parse_table, points_from_fields
from sparse3d.io.reading import read_bytes

_TYPES = {
    (t, s): np.dtype(f"<{t.lower()}{s}")
    for t, s in [*(("F", n) for n in (4, 8)), *((k, n) for k in "IU" for n in (1, 2, 4, 8))]
}

# A header of the format has eleven short lines; more than this is not one.
_MAX_HEADER_LINES = 100
_MAX_LINE_BYTES = 4096


@dataclass(frozen=True)
class _Header:
    names: list[str]
    dtypes: list[np.dtype]
    counts: list[int]
    points: int
    encoding: str
    end: int
    """Offset of the first byte after the header."""
    lines: int


def read_pcd(path: str | Path) -> np.ndarray:
    """Read a .pcd, (N, 4) float32: x, y, z, intensity. Fields with several values a point are skipped."""
    data = read_bytes(path)
    header = _read_header(data, path)
    match header.encoding:
        case "ascii":
            fields = _ascii_fields(data, header, path)
        case "binary":
            fields = _binary_fields(data, header, path)
        case "binary_compressed":
            fields = _compressed_fields(data, header, path)
        case other:
            raise DataError(path, f"DATA {other!r}; expected ascii, binary or binary_compressed")
    return points_from_fields(fields, path)


def write_pcd(path: str | Path, positions: np.ndarray, colors: np.ndarray | None = None) -> None:
    """Write places (N, 3), metres, and colours (N, 3) uint8 where there are, as version 0.7, binary;
    atomically. A colour is one number, 0x00rrggbb, whose bits stand there as a float: PCL's `rgb`."""
    columns = [("x", positions[:, 0]), ("y", positions[:, 1]), ("z", positions[:, 2])]
    if colors is not None:
        packed = (colors.astype(np.uint32) * np.array([1 << 16, 1 << 8, 1], np.uint32)).sum(
            1, dtype=np.uint32
        )
        columns.append(("rgb", packed.view(np.float32)))
    table = np.stack([column.astype("<f4") for _, column in columns], 1)
    count, width = len(table), len(columns)
    header = (
        f"# .PCD v0.7 - Point Cloud Data file format\nVERSION 0.7\nFIELDS {' '.join(n for n, _ in columns)}\n"
        f"SIZE{' 4' * width}\nTYPE{' F' * width}\nCOUNT{' 1' * width}\nWIDTH {count}\nHEIGHT 1\n"
        f"VIEWPOINT 0 0 0 1 0 0 0\nPOINTS {count}\nDATA binary\n"
    )
    write_bytes(path, header.encode("ascii") + table.tobytes())


def _read_header(data: bytes, path: str | Path) -> _Header:
    entries: dict[str, list[str]] = {}
    offset = 0
    for number in range(1, _MAX_HEADER_LINES + 1):
        end = data.find(b"\n", offset, offset + _MAX_LINE_BYTES)
        if end < 0:
            raise DataError(f"{path}:{number}", "not a .pcd header, or it ends before its DATA line")
        words = data[offset:end].decode("latin-1").split()
        offset = end + 1
        if words and not words[0].startswith("#"):
            entries[words[0].upper()] = words[1:]
            if words[0].upper() == "DATA":
                return _checked_header(entries, offset, number, path)
    raise DataError(path, f"no DATA line among the first {_MAX_HEADER_LINES} lines")


def _checked_header(entries: dict[str, list[str]], end: int, lines: int, path: str | Path) -> _Header:
    names = entries.get("FIELDS", [])

    def numbers(key: str, default: list[str]) -> list[int]:
        words = entries.get(key, default)
        try:
            values = [int(word) for word in words]
        except ValueError:
            raise DataError(path, f"{key} {' '.join(words)}: expected whole numbers") from None
        if any(value < 0 for value in values):
            raise DataError(path, f"{key} {' '.join(words)}: negative")
        return values

    sizes, counts = numbers("SIZE", []), numbers("COUNT", ["1"] * len(names))
    types = entries.get("TYPE", [])
    if not names or not len(names) == len(sizes) == len(types) == len(counts):
        raise DataError(
            path,
            f"{len(names)} FIELDS, {len(sizes)} SIZE, {len(types)} TYPE, {len(counts)} COUNT: must agree",
        )
    for kind in zip(types, sizes, strict=True):
        if kind not in _TYPES:
            raise DataError(path, f"no type {kind[0]!r} of {kind[1]} bytes")
    size = numbers("POINTS", []) or [
        a * b for a, b in zip(numbers("WIDTH", []), numbers("HEIGHT", ["1"]), strict=False)
    ]
    if len(size) != 1:
        raise DataError(path, "neither POINTS nor WIDTH and HEIGHT give one count")
    dtypes = [_TYPES[kind] for kind in zip(types, sizes, strict=True)]
    encoding = " ".join(entries["DATA"]).lower()
    return _Header(names, dtypes, counts, size[0], encoding, end, lines)


def _ascii_fields(data: bytes, header: _Header, path: str | Path) -> dict[str, np.ndarray]:
    columns = sum(header.counts)
    table = parse_table(data[header.end :], header.points, columns, path, header.lines + 1)
    starts = np.cumsum([0, *header.counts])
    result = {}
    for name, dtype, count, start in zip(header.names, header.dtypes, header.counts, starts, strict=False):
        if count == 1:
            column = table[:, start]
            # Integers keep their type, which says how intensities scale; nan has no integer.
            whole = dtype.kind in "iu" and bool(np.isfinite(column).all())
            result[name] = _whole(column, dtype, name, path) if whole else column
    return result


def _whole(column: np.ndarray, dtype: np.dtype, name: str, path: str | Path) -> np.ndarray:
    limits = np.iinfo(dtype)
    if len(column) and not (limits.min <= column.min() and column.max() <= limits.max):
        raise DataError(path, f"field {name} has a value outside of {dtype}")
    return column.astype(dtype)


def _binary_fields(data: bytes, header: _Header, path: str | Path) -> dict[str, np.ndarray]:
    row = sum(d.itemsize * c for d, c in zip(header.dtypes, header.counts, strict=True))
    _check_size(header.points * row, len(data) - header.end, header, path)
    table = np.frombuffer(data, dtype=np.uint8, count=header.points * row, offset=header.end)
    table = table.reshape(header.points, row)
    result, start = {}, 0
    for name, dtype, count in zip(header.names, header.dtypes, header.counts, strict=True):
        if count == 1:
            column = np.ascontiguousarray(table[:, start : start + dtype.itemsize])
            result[name] = column.view(dtype).reshape(header.points)
        start += dtype.itemsize * count
    return result


def _compressed_fields(data: bytes, header: _Header, path: str | Path) -> dict[str, np.ndarray]:
    """Two uint32 (compressed and full size), then LZF of all values of field 0, then of field 1, ..."""
    if len(data) < header.end + 8:
        raise DataError(path, f"ends at offset {len(data)}, inside of the sizes of the compressed data")
    packed_size, size = (int(v) for v in np.frombuffer(data, dtype="<u4", count=2, offset=header.end))
    start = header.end + 8
    if packed_size > len(data) - start:
        raise DataError(
            path, f"{packed_size} compressed bytes promised, {len(data) - start} after offset {start}"
        )
    row = sum(d.itemsize * c for d, c in zip(header.dtypes, header.counts, strict=True))
    _check_size(header.points * row, size, header, path)
    if size > packed_size * lzf.MAX_EXPANSION:
        raise DataError(path, f"{packed_size} compressed bytes cannot hold {size} bytes")
    out = np.empty(size, dtype=np.uint8)
    bad = lzf.decompress(np.frombuffer(data, dtype=np.uint8, count=packed_size, offset=start), out)
    if bad >= 0:
        raise DataError(path, f"corrupt compressed data at offset {start + bad}")
    result, offset = {}, 0
    for name, dtype, count in zip(header.names, header.dtypes, header.counts, strict=True):
        size = dtype.itemsize * count * header.points
        if count == 1:
            result[name] = out[offset : offset + size].view(dtype)
        offset += size
    return result


def _check_size(needed: int, held: int, header: _Header, path: str | Path) -> None:
    if needed > held:
        raise DataError(
            path,
            f"header promises {header.points} points ({needed} bytes), "
            f"{held} bytes follow it at offset {header.end}",
        )
