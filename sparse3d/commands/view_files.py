"""Files of triangles and of Gaussians as exhibits for `sparse3d view`; what a .ply or a .glb holds is found
from its header."""

from pathlib import Path
from typing import Literal

from sparse3d.errors import DataError
from sparse3d.gaussians.cloud import GaussianCloud
from sparse3d.gaussians.formats.gltf_splats import holds_splats
from sparse3d.gaussians.formats.sog import META
from sparse3d.gaussians.formats.table import ENDINGS, PlyHolds, open_splats, ply_holds
from sparse3d.gaussians.render import SplatConfig
from sparse3d.gaussians.repair import repair
from sparse3d.io.gltf import Gltf
from sparse3d.io.meshes import MESH_ENDINGS, read_mesh
from sparse3d.io.points import POINT_SUFFIXES
from sparse3d.viewers.exhibit import UP, Exhibit, exhibit_of_mesh, exhibit_of_splats

FileKind = Literal["cloud", "mesh", "splats"]
_OF_PLY: dict[PlyHolds, FileKind] = {
    "gaussians": "splats",
    "surfels": "splats",
    "mesh": "mesh",
    "points": "cloud",
}


def kind_of(path: Path) -> FileKind:
    """What a file holds, or a folder with META, an unpacked .sog. DataError for endings that nobody knows,
    and for files that are damaged where they say it."""
    name = path.name.lower()
    if path.is_dir() or name == META:
        return "splats"
    if name.endswith(".ply"):
        return _OF_PLY[ply_holds(path)]
    if name.endswith(".glb"):
        return "splats" if holds_splats(Gltf(path)) else "mesh"
    if name.endswith(MESH_ENDINGS):
        return "mesh"
    if name.endswith(ENDINGS):
        return "splats"
    if name.endswith(POINT_SUFFIXES):
        return "cloud"
    known = dict.fromkeys([*POINT_SUFFIXES, *MESH_ENDINGS, *ENDINGS])
    raise DataError(path, f"unknown ending {path.suffix!r}; what can be viewed ends in {', '.join(known)}")


def exhibit_of_file(path: Path, kind: FileKind, up: str | None = None) -> Exhibit:
    """A mesh or Gaussians. `up`: one of UP; None: +y in .glb, as glTF has it, -y for Gaussians, since most
    were trained from COLMAP's cameras, +z for other meshes."""
    if kind == "mesh":
        ours = "y" if path.suffix.lower() == ".glb" else "z"
        return exhibit_of_mesh(path.name, read_mesh(path), UP[up or ours])
    splats = open_splats(path)
    mode = "antialiased" if splats.antialiased else "classic"
    return exhibit_of_splats(path.name, usable(path, splats.cloud()), UP[up or "-y"], SplatConfig(mode=mode))


def usable(path: Path, cloud: GaussianCloud) -> GaussianCloud:
    """The Gaussians that can be drawn, with a line about others."""
    from sparse3d.commands.talk import say

    cloud, found = repair(cloud)
    if found.left_out:
        say(f"{path}: {found.left_out} Gaussians have a NaN or an infinity and are left out")
    return cloud
