"""The header of a polygon file (.ply): which elements follow, and how their rows are laid out.

Format: Greg Turk, "The PLY polygon file format", 1994.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sparse3d.errors import DataError

_TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"},
    **{"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"},
    **{"float": "f4", "double": "f8", "float32": "f4", "float64": "f8"},
}
ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_MAX_HEADER_LINES = 1000
_MAX_LINE_BYTES = 4096
_USUAL_HEADER = 1 << 16


@dataclass
class Element:
    """`count` rows of `properties`, (name, numpy type code) in the order of the file. Those that are lists
    are in `lists` too: (name, type of the length, type of an item)."""

    name: str
    count: int
    properties: list[tuple[str, str]] = field(default_factory=list)
    lists: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def has_list(self) -> bool:
        return bool(self.lists)


@dataclass(frozen=True)
class Header:
    """`encoding` is one of ORDERS; the rows begin at byte `end`, after so many `lines`. `comments` are those
    of the file, without the word itself."""

    encoding: str
    elements: list[Element]
    end: int
    lines: int
    comments: tuple[str, ...] = ()


def read_header(data: bytes, path: str | Path) -> Header:
    """The header at the beginning of a file's bytes. Raises DataError with the line."""
    if data[:3] != b"ply":
        raise DataError(path, "does not begin with 'ply'")
    encoding, elements, offset = "", [], 0
    comments: list[str] = []
    for number in range(1, _MAX_HEADER_LINES + 1):
        end = data.find(b"\n", offset, offset + _MAX_LINE_BYTES)
        if end < 0:
            raise DataError(f"{path}:{number}", "the header ends before its end_header line")
        words = data[offset:end].decode("latin-1").split()
        offset = end + 1
        where = f"{path}:{number}"
        match words:
            case ["format", name, _] if name in ORDERS:
                encoding = name
            case ["element", name, count]:
                if not count.isdecimal():
                    raise DataError(where, f"element {name} has count {count!r}, expected a whole number")
                elements.append(Element(name, int(count)))
            case ["property", "list", size, item, name] if size in _TYPES and item in _TYPES and elements:
                elements[-1].lists.append((name, _TYPES[size], _TYPES[item]))
                elements[-1].properties.append((name, _TYPES[item]))
            case ["property", kind, name] if kind in _TYPES and elements:
                elements[-1].properties.append((name, _TYPES[kind]))
            case ["end_header"]:
                if not encoding:
                    raise DataError(path, "no format line before end_header")
                return Header(encoding, elements, offset, number, tuple(comments))
            case ["comment", *text]:
                comments.append(" ".join(text))
            case [] | ["ply"] | ["obj_info", *_]:
                pass
            case _:
                raise DataError(where, f"not a .ply header line: {' '.join(words)[:80]!r}")
    raise DataError(path, f"no end_header among the first {_MAX_HEADER_LINES} lines")


def has_faces(header: Header) -> bool:
    """Whether a file holds polygons; one without is a cloud of points."""
    return any(element.name == "face" and element.count and element.has_list for element in header.elements)


def open_header(file: BinaryIO, path: str | Path) -> Header:
    """The header of an open file, which is read as far as headers go. Raises DataError."""
    data = file.read(_USUAL_HEADER)
    if b"end_header" not in data:
        data += file.read(_MAX_HEADER_LINES * _MAX_LINE_BYTES)
    return read_header(data, path)


def row_type(element: Element, order: str) -> np.dtype:
    """A row of an element without lists, in a byte order of ORDERS."""
    # Positions stand in for the names, which need not be unique; duplicates would be refused by numpy.
    names = [name for name, _ in element.properties]
    unique = [name if names.index(name) == i else f"{name}#{i}" for i, name in enumerate(names)]
    return np.dtype(
        [(name, order + code) for name, (_, code) in zip(unique, element.properties, strict=True)]
    )
