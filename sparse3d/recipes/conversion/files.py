"""Files of every representation: what one holds, reading and writing it."""

from pathlib import Path

from sparse3d.errors import DataError
from sparse3d.fields.voxel_field import VoxelField
from sparse3d.gaussians.cloud import GaussianCloud
from sparse3d.gaussians.formats.gltf_splats import holds_splats
from sparse3d.gaussians.formats.sog import META
from sparse3d.gaussians.formats.table import ENDINGS as SPLAT_ENDINGS
from sparse3d.gaussians.formats.table import ply_holds, read_splats, write_splats
from sparse3d.gaussians.repair import repair
from sparse3d.geometry.mesh import Mesh
from sparse3d.geometry.painted_points import PaintedPoints
from sparse3d.io.array_files import ARRAY_ENDINGS
from sparse3d.io.gltf import Gltf
from sparse3d.io.mesh_frames import WORLD, MeshFrame
from sparse3d.io.meshes import MESH_ENDINGS, read_mesh, write_mesh
from sparse3d.io.painted_points import read_painted_points, write_painted_points
from sparse3d.io.points import POINT_SUFFIXES
from sparse3d.mesh.occupancy import OccupiedVoxels
from sparse3d.mesh.signed_band import SignedBand
from sparse3d.recipes.conversion.kinds import Kind, Thing, kind_of
from sparse3d.recipes.conversion.voxel_files import read_voxel_file, write_voxel_file, write_voxel_run
from sparse3d.recipes.scenes import load_run, scene_of

_SPLATS = (Kind.GAUSSIANS, Kind.SURFELS)
# What a file of an ending can hold, the likeliest first.
_OF_ENDING: dict[str, tuple[Kind, ...]] = {
    ".glb": (Kind.MESH, Kind.GAUSSIANS),
    ".obj": (Kind.MESH,),
    ".stl": (Kind.MESH,),
    ".ply": (Kind.MESH, *_SPLATS, Kind.POINTS),
    ".npy": (Kind.POINTS,),
    ".bin": (Kind.POINTS,),
    ".pcd": (Kind.POINTS,),
    **dict.fromkeys(ARRAY_ENDINGS, (Kind.BAND, Kind.OCCUPANCY, Kind.VOXELS)),
    **{ending: (Kind.GAUSSIANS,) for ending in SPLAT_ENDINGS if ending not in (".ply", ".glb")},
}
KNOWN = ", ".join(sorted(set(_OF_ENDING)))


def kinds_for(path: str | Path) -> tuple[Kind, ...]:
    """What a file of this name can hold; a name without an ending is a run's folder. ValueError for
    another."""
    name = Path(path).name.lower()
    fitting = [ending for ending in _OF_ENDING if name.endswith(ending)]
    if fitting:
        return _OF_ENDING[max(fitting, key=len)]
    if not Path(name).suffix:
        return (Kind.VOXELS,)
    raise ValueError(f"{path}: what this ending holds is not known; there are {KNOWN}, and folders of runs")


def target_kind(path: str | Path, source: Kind, wanted: str | None = None) -> Kind:
    """What is to be written to a file: what was asked for; or what the source is, where the file can hold it;
    or the likeliest. ValueError where it cannot hold what was asked for."""
    kinds = kinds_for(path)
    if wanted is not None:
        if wanted not in kinds:
            raise ValueError(f"{path} cannot hold {wanted}; by its ending it holds {', '.join(kinds)}")
        return Kind(wanted)
    return source if source in kinds else kinds[0]


def source_is_splats(path: str | Path) -> bool:
    """Whether a file holds Gaussians or surfels; headers alone are read. False for what is not there."""
    path = Path(path)
    name = path.name.lower()
    if path.is_dir():
        return (path / META).is_file()
    if name.endswith(".compressed.ply"):
        return True
    if name.endswith((".ply", ".glb")) and path.is_file():
        return ply_holds(path) in _SPLATS if name.endswith(".ply") else holds_splats(Gltf(path))
    return name.endswith(tuple(SPLAT_ENDINGS)) and not name.endswith((".ply", ".glb"))


def read_thing(path: str | Path, frame: MeshFrame = WORLD, axes: str | None = None) -> Thing:
    """What a file holds, or the folder of a run; `frame` of meshes, `axes` of Gaussians, where they are not
    what their formats say. Raises DataError."""
    path = Path(path)
    if not path.exists():
        raise DataError(path, "no such file or folder")
    if source_is_splats(path):
        return repair(read_splats(path, axes))[0]
    if path.is_dir():
        return _of_run(path)
    ending = path.suffix.lower()
    if ending in ARRAY_ENDINGS:
        return read_voxel_file(path)
    if ending in POINT_SUFFIXES and not (ending == ".ply" and ply_holds(path) == Kind.MESH):
        return read_painted_points(path)
    if ending in MESH_ENDINGS:
        return read_mesh(path, frame)
    raise DataError(
        path, f"nothing that can be converted by its ending; there are {KNOWN}, and folders of runs"
    )


def write_thing(
    path: str | Path, thing: Thing, frame: MeshFrame = WORLD, axes: str | None = None, **options: object
) -> None:
    """Write a file, or a run's folder, whole or not at all; `options` are those of a format of Gaussians.
    ValueError where a file of this name cannot hold it."""
    kind = kind_of(thing)
    target_kind(path, kind, kind)
    if isinstance(thing, Mesh):
        write_mesh(path, thing, frame)
    elif isinstance(thing, GaussianCloud):
        write_splats(path, thing, axes, **options)
    elif isinstance(thing, PaintedPoints):
        write_painted_points(path, thing)
    elif isinstance(thing, (SignedBand, OccupiedVoxels)):
        write_voxel_file(path, thing)
    else:
        assert isinstance(thing, VoxelField), "other fields cannot be written, which target_kind says"
        write = write_voxel_file if Path(path).suffix.lower() in ARRAY_ENDINGS else write_voxel_run
        write(path, thing)


def _of_run(path: Path) -> Thing:
    made_of = scene_of(load_run(path, device="cpu")).made_of
    return made_of if not isinstance(made_of, GaussianCloud) else repair(made_of)[0]
