"""`sparse3d mesh`: the surface of a trained field or cloud of Gaussians as a file of triangles."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse3d.commands.mesh_options import add_finish_options, add_frame_options, finish_of, frame_of
from sparse3d.commands.parsing import Commands, add_command
from sparse3d.commands.talk import say

if TYPE_CHECKING:
    from sparse3d.fields.build import Field
    from sparse3d.fields.mesh import MeshConfig
    from sparse3d.geometry.mesh import Mesh
    from sparse3d.io.mesh_frames import MeshFrame
    from sparse3d.recipes.conversion.finishing import FinishConfig


def add(commands: Commands) -> None:
    """Register with the parser."""
    mesh = add_command(commands, "mesh", _run, "The surface of a reconstructed scene, with colours.")
    mesh.add_argument("run_folder", metavar="RUN", help="folder of a reconstruction")
    mesh.add_argument(
        "--out", type=Path, metavar="FILE", help=".ply, .obj, .glb or .stl (default: RUN/mesh.ply)"
    )
    mesh.add_argument(
        "--level",
        type=float,
        metavar="L",
        help="density, 1/m, or distance, m; of Gaussians opacity (default: found; see the docs)",
    )
    mesh.add_argument("--resolution", type=int, metavar="N", help="cells along a side of the scene's cube")
    mesh.add_argument(
        "--method",
        choices=["density", "fusion"],
        help="of Gaussians: where their density passes the level, or their depth fused (default: density)",
    )
    mesh.add_argument(
        "--min-faces", type=int, metavar="N", help="leave out pieces of fewer triangles (default: 100)"
    )
    mesh.add_argument(
        "--volume",
        type=Path,
        metavar="DIR",
        help="of a voxel field: a mesh with a texture, and the voxels that add to it, as DIR",
    )
    mesh.add_argument("--checkpoint", default="last", help="best, last or a step (default: %(default)s)")
    mesh.add_argument("--device", choices=["auto", "cpu", "cuda"], help="(default: as in training)")
    add_finish_options(mesh)
    add_frame_options(mesh)


def _run(arguments: argparse.Namespace) -> int:
    from sparse3d.io.meshes import check_mesh_ending, write_mesh
    from sparse3d.recipes.radiance.reconstruct import LoadedField
    from sparse3d.recipes.scenes import load_run

    out = arguments.out or Path(arguments.run_folder) / "mesh.ply"
    check_mesh_ending(out)
    finish, frame = finish_of(arguments), frame_of(arguments)
    loaded = load_run(arguments.run_folder, arguments.checkpoint, arguments.device)
    if isinstance(loaded, LoadedField):
        from sparse3d.fields.mesh import MeshConfig

        if arguments.method is not None:
            raise ValueError("--method is for Gaussians, and this run trained a field")
        config = MeshConfig(**_chosen(arguments, "level", "resolution", "min_faces"))
        if arguments.volume is not None:
            _write_parts(loaded.field, arguments, config, finish)
            return 0
        write_field_mesh(loaded.field, out, config, finish, frame)
        return 0
    if arguments.volume is not None:
        raise ValueError("--volume is of a voxel field, and this run trained Gaussians")
    from sparse3d.recipes.conversion.finishing import finished
    from sparse3d.recipes.splatting.surface import SplatMeshConfig, run_to_mesh

    options = _chosen(arguments, "level", "resolution", "min_faces", "method")
    mesh = finished(run_to_mesh(loaded, SplatMeshConfig(**options)), finish)
    write_mesh(out, mesh, frame)
    _tell(mesh, out)
    return 0


def _write_parts(
    field: "Field", arguments: argparse.Namespace, config: "MeshConfig", finish: "FinishConfig"
) -> None:
    """A mesh and the voxels that add to it, with a line on how like the field both are."""
    from dataclasses import replace

    from sparse3d.fields.voxel_field import VoxelField
    from sparse3d.recipes.conversion.mesh_and_volume import likeness, mesh_and_volume, write_mesh_and_volume

    if arguments.out is not None:
        raise ValueError("--volume names the folder of both; leave out --out")
    if not isinstance(field, VoxelField):
        raise ValueError("--volume is of a voxel field; sparse3d convert makes one of any other")
    parts = mesh_and_volume(field, config, replace(finish, texture=finish.texture or 1024))
    write_mesh_and_volume(arguments.volume, parts)
    kept = 0 if parts.volume is None else len(parts.volume.coordinates)
    found = likeness(parts, field)
    say(
        f"{len(parts.mesh.faces)} triangles, {kept} of {len(field.coordinates)} voxels; against the field "
        f"the mesh alone {found.mesh:.2f} dB, both {found.both:.2f} dB: {arguments.volume}"
    )


def _chosen(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The options that were given."""
    values = {name: getattr(arguments, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _tell(mesh: "Mesh", out: Path) -> None:
    pieces, closed = mesh.components[0], "closed" if mesh.is_closed else "open where it ends"
    say(f"{len(mesh.faces)} triangles in {pieces} pieces, {closed}: {out}")


def write_field_mesh(
    field: "Field",
    out: Path,
    config: "MeshConfig | None" = None,
    finish: "FinishConfig | None" = None,
    frame: "MeshFrame | None" = None,
) -> None:
    """The surface of a field, to a file, with a line about it."""
    from sparse3d.fields.mesh import MeshConfig, field_mesh, seen_on_surface
    from sparse3d.io.mesh_frames import WORLD
    from sparse3d.io.meshes import write_mesh
    from sparse3d.recipes.conversion.finishing import FinishConfig, finished

    mesh = field_mesh(field, config or MeshConfig())
    mesh = finished(mesh, finish or FinishConfig(), lambda *place: seen_on_surface(field, *place))
    write_mesh(out, mesh, frame or WORLD)
    _tell(mesh, out)
