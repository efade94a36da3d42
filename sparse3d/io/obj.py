"""Wavefront .obj as meshes: positions, colours of vertices (`v x y z r g b`, in [0, 1], as MeshLab and
Blender have them), polygons, and a texture with its coordinates.

Materials are in a file beside it (`mtllib`), textures are pictures beside that (`map_Kd`); v of texture
coordinates goes up in these files. Metallic and roughness are `Pm` and `Pr`, the extension of 3ds Max and
Blender. Normals are left out.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sparse3d.errors import DataError
from sparse3d.geometry.material import Material
from sparse3d.geometry.mesh import Mesh
from sparse3d.io.files import atomic_path, write_text
from sparse3d.io.polygons import checked_mesh, fans
from sparse3d.io.reading import read_bytes
from sparse3d.io.textures import texture_beside, write_texture

_AT_ONCE = 1 << 16  # lines


def write_obj(path: str | Path, mesh: Mesh) -> None:
    """Write vertices, with colours where there are, and faces; atomically. With a texture, NAME.png and
    NAME.mtl are written before NAME.obj, which names them."""
    rows, path = mesh.vertices, Path(path)
    if mesh.colors is not None:
        rows = np.concatenate([rows, mesh.colors / np.float32(255)], 1)
    # Nine digits hold a float32 exactly, four a colour of 8 bits.
    form = "v" + " %.9g" * 3 + " %.4f" * (rows.shape[1] - 3) + "\n"
    head, tables = "", [(rows, form)]
    if mesh.has_texture:
        _write_material(path, mesh.material)
        first, places, uv = mesh.split_at_seams()
        upward = np.stack([uv[:, 0], 1 - uv[:, 1]], 1)
        corners = np.stack([mesh.faces, places], 2).reshape(-1, 6) + 1
        head = f"mtllib {path.stem}.mtl\nusemtl painted\n"
        tables += [(upward, "vt %.9g %.9g\n"), (corners, "f %d/%d %d/%d %d/%d\n")]
    else:
        tables.append((mesh.faces + 1, "f %d %d %d\n"))
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        file.write(head)
        for table, line in tables:
            for begin in range(0, len(table), _AT_ONCE):
                part = table[begin : begin + _AT_ONCE]
                file.write(line * len(part) % tuple(part.ravel().tolist()))


def _write_material(path: Path, material: Material | None) -> None:
    assert material is not None and material.texture is not None
    write_texture(path.with_suffix(".png"), material.texture)
    write_text(
        path.with_suffix(".mtl"),
        # illum 0 is colour alone, 2 has light and highlights.
        f"newmtl painted\nKa 0 0 0\nKd 1 1 1\nKs 0 0 0\nillum {0 if material.unlit else 2}\n"
        f"Pm {material.metallic:g}\nPr {material.roughness:g}\nmap_Kd {path.stem}.png\n",
    )


@dataclass
class _Lines:
    """What the lines of a file say: positions, texture coordinates, polygons as rows of both (-1 where a
    corner has no coordinates), and the material of each polygon."""

    vertices: list[list[float]] = field(default_factory=list)
    places: list[list[float]] = field(default_factory=list)
    polygons: list[list[int]] = field(default_factory=list)
    painted: list[list[int]] = field(default_factory=list)
    materials: list[str] = field(default_factory=list)
    libraries: list[str] = field(default_factory=list)
    material: str = ""

    def take(self, words: list[str], rest: str) -> None:
        """One line. ValueError for what is none."""
        match words[0]:
            case "v":
                self.vertices.append(_vertex(words))
            case "vt":
                self.places.append([float(word) for word in words[1:3]])
                if len(self.places[-1]) != 2:
                    raise ValueError("a texture coordinate of fewer than two numbers")
            case "f":
                # v, v/vt, v//vn or v/vt/vn; below 0 counts back from the last one so far.
                parts = [word.split("/") for word in words[1:]]
                self.polygons.append(_rows([part[0] for part in parts], len(self.vertices), "vertices"))
                named = [part[1] if len(part) > 1 else "" for part in parts]
                there = bool(self.places) and all(named)
                self.painted.append(
                    _rows(named, len(self.places), "texture coordinates") if there else [-1] * len(parts)
                )
                self.materials.append(self.material)
            case "usemtl":
                self.material = rest
            case "mtllib":
                self.libraries.append(rest)


def read_obj(path: str | Path) -> Mesh:
    """Vertices, colours (where every vertex has one), faces and, where every corner has its place in it, the
    texture. Several textures become colours of vertices. Raises DataError with the line."""
    lines = _Lines()
    for number, line in enumerate(read_bytes(path).decode("latin-1").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            lines.take(words, line.split(None, 1)[-1].strip())
        except ValueError as error:
            raise DataError(f"{path}:{number}", f"{error} in {line.strip()[:80]!r}") from error
    sizes = np.array([len(polygon) for polygon in lines.polygons], dtype=np.int64)
    faces = fans(_flat(lines.polygons), sizes)
    positions = np.array([vertex[:3] for vertex in lines.vertices], dtype=np.float64).reshape(-1, 3)
    with np.errstate(over="ignore"):
        positions = positions.astype(np.float32)
    colors = None
    if lines.vertices and all(len(vertex) == 6 for vertex in lines.vertices):
        colors = np.rint(np.clip([vertex[3:] for vertex in lines.vertices], 0, 1) * 255).astype(np.uint8)
    mesh = checked_mesh(path, positions, faces, colors)
    return _with_paint(mesh, path, lines, fans(_flat(lines.painted), sizes), np.maximum(sizes - 2, 0))


def _with_paint(
    mesh: Mesh, path: str | Path, lines: _Lines, painted: np.ndarray, triangles: np.ndarray
) -> Mesh:
    """With the materials of its faces; `painted` (F, 3) rows of texture coordinates, `triangles` (P,) of each
    polygon."""
    used = list(dict.fromkeys(lines.materials))
    known: dict[str, Material] = {}
    for name in lines.libraries:
        known |= _materials(path, name)
    if not any(name in known for name in used):
        return mesh
    # Row -1, of corners that have none, is the last.
    places = np.array([*lines.places, [0.0, 0.0]], dtype=np.float32)
    places[:, 1] = 1 - places[:, 1]
    if len(used) == 1 and used[0] in known:
        textured = known[used[0]].texture is not None and (painted >= 0).all()
        return Mesh(
            mesh.vertices, mesh.faces, mesh.colors, places[painted] if textured else None, known[used[0]]
        )
    which = np.repeat([used.index(name) for name in lines.materials], triangles)
    shades = np.full((len(mesh.faces), 3, 3), 0.5)
    for number, name in enumerate(used):
        rows = np.flatnonzero(which == number)
        material = known.get(name, Material((0.5, 0.5, 0.5)))
        shades[rows] = material.at(places[painted[rows]].reshape(-1, 2)).reshape(-1, 3, 3)
    return mesh if mesh.colors is not None else mesh.with_corner_colors(shades)


def _materials(path: str | Path, name: str) -> dict[str, Material]:
    """Those of a library beside the file, by name; none where it is not there."""
    folder = Path(path).parent.resolve()
    library = (folder / name).resolve()
    if not library.is_relative_to(folder) or not library.is_file():
        return {}
    found: dict[str, dict[str, object]] = {}
    own: dict[str, object] = {}
    for number, line in enumerate(read_bytes(library).decode("utf-8", "replace").splitlines(), 1):
        words = line.split()
        try:
            match words:
                case ["newmtl", *_]:
                    own = found.setdefault(line.split(None, 1)[1].strip(), {})
                case ["Kd", red, green, blue]:
                    own["color"] = tuple(min(max(float(value), 0.0), 1.0) for value in (red, green, blue))
                case ["Pm" | "Pr" as key, value]:
                    own["metallic" if key == "Pm" else "roughness"] = min(max(float(value), 0.0), 1.0)
                case ["illum", value]:
                    own["unlit"] = int(value) == 0
                case ["map_Kd", *options]:
                    if options:  # options, "-s 1 1 1", stand before the name
                        name = line.split(None, 1)[1].strip() if options[0][0] != "-" else options[-1]
                        own["texture"] = texture_beside(path, name)
        except (ValueError, IndexError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{library}:{number}", f"{error} in {line.strip()[:80]!r}") from error
    return {name: Material(**values) for name, values in found.items()}  # pyright: ignore[reportArgumentType]


def _vertex(words: list[str]) -> list[float]:
    values = [float(word) for word in words[1:]]
    if len(values) not in (3, 4, 6):  # x y z, with a weight or a colour
        raise ValueError(f"a vertex of {len(values)} numbers")
    return values if len(values) == 6 else values[:3]


def _rows(words: list[str], count: int, what: str) -> list[int]:
    rows = [int(word) for word in words]
    found = [row - 1 if row > 0 else count + row for row in rows]
    if 0 in rows or min(found, default=0) < 0 or (what != "vertices" and max(found, default=0) >= count):
        raise ValueError(f"{what} {rows}, counted from 1; there are {count} so far")
    return found


def _flat(rows: list[list[int]]) -> np.ndarray:
    return np.array([row for polygon in rows for row in polygon], dtype=np.int64)
