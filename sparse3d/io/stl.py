"""Stereolithography files (.stl): triangles and nothing else, in bytes or as text.

Each triangle stands there with corners of its own; corners of the very same numbers are one vertex of ours.
Bytes: 80 of header, the number of triangles, then 50 for each: normal, three corners, two that count for
nothing. 3D Systems, "StereoLithography Interface Specification", 1988.
"""

import re
from pathlib import Path

import numpy as np

from sparse3d.errors import DataError
from sparse3d.geometry.mesh import Mesh
from sparse3d.io.files import write_bytes
from sparse3d.io.polygons import checked_mesh
from sparse3d.io.reading import read_bytes

_HEADER = 84
_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_WORD = re.compile(rb"vertex\s+(\S+)\s+(\S+)\s+(\S+)", re.IGNORECASE)


def write_stl(path: str | Path, mesh: Mesh) -> None:
    """Write the triangles in bytes; atomically. Colours and textures have no place there."""
    triangles = np.zeros(len(mesh.faces), dtype=_TRIANGLE)
    length = np.linalg.norm(mesh.face_normals, axis=1, keepdims=True)
    triangles["normal"] = mesh.face_normals / np.where(length > 0, length, 1)
    triangles["corners"] = mesh.vertices[mesh.faces]
    count = np.array([len(triangles)], dtype="<u4")
    write_bytes(path, b"sparse3d".ljust(80) + count.tobytes() + triangles.tobytes())


def read_stl(path: str | Path) -> Mesh:
    """Read either kind. Raises DataError."""
    data = read_bytes(path)
    count = int.from_bytes(data[80:_HEADER], "little") if len(data) >= _HEADER else 0
    whole = _HEADER + count * _TRIANGLE.itemsize
    # Some programs begin files of bytes with "solid" too: their length tells them.
    if data[:5].lower() == b"solid" and len(data) != whole:
        corners = _corners_of_text(data, path)
    elif len(data) < max(whole, _HEADER):
        raise DataError(
            path, f"is cut off: {count} triangles need {max(whole, _HEADER)} bytes, there are {len(data)}"
        )
    else:
        table = np.frombuffer(data, dtype=_TRIANGLE, count=count, offset=_HEADER)
        corners = table["corners"].reshape(-1, 3)
    return checked_mesh(path, corners, np.arange(len(corners)).reshape(-1, 3)).welded_at_seams()


def _corners_of_text(data: bytes, path: str | Path) -> np.ndarray:
    words = _WORD.findall(data)
    if b"endsolid" not in data[-200:].lower():
        raise DataError(path, f"is cut off: no endsolid at its end, after {len(words)} corners")
    loops = len(re.findall(rb"outer\s+loop", data, re.IGNORECASE))
    if len(words) != 3 * loops:
        raise DataError(path, f"{len(words)} corners in {loops} loops; each has three")
    try:
        return np.array(words).astype(np.float32).reshape(-1, 3)
    except ValueError as error:
        raise DataError(path, f"a corner is no number: {error}") from error
