"""Wavefront .obj as meshes: positions, colours of vertices (`v x y z r g b`, in [0, 1], as MeshLab and
Blender have them) and polygons. Materials, textures and normals are left out."""

from pathlib import Path

import numpy as np

from sparse3d.errors import DataError
from sparse3d.geometry.mesh import Mesh
from sparse3d.io.files import atomic_path
from sparse3d.io.polygons import checked_mesh, fans
from sparse3d.io.reading import read_bytes

_AT_ONCE = 1 << 16  # lines


def write_obj(path: str | Path, mesh: Mesh) -> None:
    """Write vertices, with colours where there are, and faces; atomically."""
    rows = mesh.vertices
    if mesh.colors is not None:
        rows = np.concatenate([rows, mesh.colors / np.float32(255)], 1)
    # Nine digits hold a float32 exactly, four a colour of 8 bits.
    form = "v" + " %.9g" * 3 + " %.4f" * (rows.shape[1] - 3) + "\n"
    with atomic_path(path) as temporary, open(temporary, "w", encoding="ascii", newline="\n") as file:
        for table, line in ((rows, form), (mesh.faces + 1, "f %d %d %d\n")):
            for begin in range(0, len(table), _AT_ONCE):
                part = table[begin : begin + _AT_ONCE]
                file.write(line * len(part) % tuple(part.ravel().tolist()))


def read_obj(path: str | Path) -> Mesh:
    """Vertices, colours (where every vertex has one) and faces of an .obj. Raises DataError with the line."""
    vertices: list[list[float]] = []
    polygons: list[list[int]] = []
    for number, line in enumerate(read_bytes(path).decode("latin-1").splitlines(), 1):
        words = line.split()
        if not words or words[0] not in ("v", "f"):
            continue
        try:
            if words[0] == "v":
                vertices.append(_vertex(words))
            else:
                # v, v/vt, v//vn or v/vt/vn; below 0 counts back from the last vertex so far.
                rows = [int(word.split("/", 1)[0]) for word in words[1:]]
                polygons.append([row - 1 if row > 0 else len(vertices) + row for row in rows])
                if 0 in rows or min(polygons[-1], default=0) < 0:
                    raise ValueError(f"vertices {rows}, counted from 1; there are {len(vertices)} so far")
        except ValueError as error:
            raise DataError(f"{path}:{number}", f"{error} in {line.strip()[:80]!r}") from error
    sizes = np.array([len(polygon) for polygon in polygons], dtype=np.int64)
    rows = np.array([row for polygon in polygons for row in polygon], dtype=np.int64)
    positions = np.array([vertex[:3] for vertex in vertices], dtype=np.float32).reshape(-1, 3)
    colors = None
    if vertices and all(len(vertex) == 6 for vertex in vertices):
        colors = np.rint(np.clip([vertex[3:] for vertex in vertices], 0, 1) * 255).astype(np.uint8)
    return checked_mesh(path, positions, fans(rows, sizes), colors)


def _vertex(words: list[str]) -> list[float]:
    values = [float(word) for word in words[1:]]
    if len(values) not in (3, 4, 6):  # x y z, with a weight or a colour
        raise ValueError(f"a vertex of {len(values)} numbers")
    return values if len(values) == 6 else values[:3]
