"""Triangle meshes from and to files, by the ending of their names: .ply, .obj, .glb, .stl.

Coordinates are those of the world, in metres, unless a `MeshFrame` says what the file's are; glTF's viewers
take +y for up. Written by hand rather than through a library: the layouts are short, and what is damaged is
told with its place. .stl holds the shape alone; a texture of an .obj or .ply is a .png beside it.
"""

from pathlib import Path

from sparse3d.errors import DataError
from sparse3d.geometry.mesh import Mesh
from sparse3d.io.glb import read_glb, write_glb
from sparse3d.io.mesh_frames import WORLD, MeshFrame
from sparse3d.io.obj import read_obj, write_obj
from sparse3d.io.ply_mesh import read_ply_mesh, write_ply_mesh
from sparse3d.io.stl import read_stl, write_stl

_READERS = {".ply": read_ply_mesh, ".obj": read_obj, ".glb": read_glb, ".stl": read_stl}
_WRITERS = {".ply": write_ply_mesh, ".obj": write_obj, ".glb": write_glb, ".stl": write_stl}
MESH_ENDINGS = tuple(_WRITERS)


def check_mesh_ending(path: str | Path) -> None:
    """ValueError unless `write_mesh` can write a file of this name."""
    if Path(path).suffix.lower() not in _WRITERS:
        raise ValueError(f"{path}: a mesh is written as {', '.join(MESH_ENDINGS)}")


def write_mesh(path: str | Path, mesh: Mesh, frame: MeshFrame = WORLD) -> None:
    """Write a mesh atomically, in the format that the name's ending says. ValueError for a mesh without
    triangles."""
    check_mesh_ending(path)
    if not len(mesh.faces):
        raise ValueError(f"{path}: a mesh without triangles ({len(mesh.vertices)} vertices): not written")
    _WRITERS[Path(path).suffix.lower()](path, frame.to_file(mesh))


def read_mesh(path: str | Path, frame: MeshFrame = WORLD) -> Mesh:
    """Read a mesh; polygons are cut into triangles. DataError for a file that is damaged or holds no
    triangles."""
    reader = _READERS.get(Path(path).suffix.lower())
    if reader is None:
        raise DataError(path, f"not a mesh by its ending; there are {', '.join(_READERS)}")
    mesh = reader(path)
    try:
        return frame.to_world(mesh)
    except ValueError as error:
        raise DataError(path, f"{error}, after {frame}") from error
