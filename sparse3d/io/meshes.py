"""Triangle meshes from and to files, by the ending of their names: .ply, .obj, .glb.

Coordinates are written as they are, in the world's frame; glTF's viewers take +y for up. Written by hand
rather than through a library: the three layouts are short, and what is damaged is told with its place.
"""

from pathlib import Path

from sparse3d.errors import DataError
from sparse3d.geometry.mesh import Mesh
from sparse3d.io.glb import read_glb, write_glb
from sparse3d.io.obj import read_obj, write_obj
from sparse3d.io.ply_mesh import read_ply_mesh, write_ply_mesh

_READERS = {".ply": read_ply_mesh, ".obj": read_obj, ".glb": read_glb}
_WRITERS = {".ply": write_ply_mesh, ".obj": write_obj, ".glb": write_glb}
MESH_ENDINGS = tuple(_WRITERS)


def check_mesh_ending(path: str | Path) -> None:
    """ValueError unless `write_mesh` can write a file of this name."""
    if Path(path).suffix.lower() not in _WRITERS:
        raise ValueError(f"{path}: a mesh is written as {', '.join(MESH_ENDINGS)}")


def write_mesh(path: str | Path, mesh: Mesh) -> None:
    """Write a mesh atomically, in the format that the name's ending says."""
    check_mesh_ending(path)
    _WRITERS[Path(path).suffix.lower()](path, mesh)


def read_mesh(path: str | Path) -> Mesh:
    """Read a mesh; polygons are cut into triangles. DataError for a file that is damaged or holds no
    triangles."""
    reader = _READERS.get(Path(path).suffix.lower())
    if reader is None:
        raise DataError(path, f"not a mesh by its ending; there are {', '.join(_READERS)}")
    return reader(path)
