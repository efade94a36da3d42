"""`sparse3d mesh`: the surface of a trained field as a file of triangles."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sparse3d.commands.mesh_options import add_finish_options, add_frame_options, finish_of, frame_of
from sparse3d.commands.parsing import Commands, add_command
from sparse3d.commands.talk import say

if TYPE_CHECKING:
    from sparse3d.fields.build import Field
    from sparse3d.fields.mesh import MeshConfig
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
        "--level", type=float, metavar="L", help="density, 1/m, or distance, m (default: found; see the docs)"
    )
    mesh.add_argument("--resolution", type=int, metavar="N", help="cells along a side of the scene's cube")
    mesh.add_argument(
        "--min-faces", type=int, metavar="N", help="leave out pieces of fewer triangles (default: 100)"
    )
    mesh.add_argument("--checkpoint", default="last", help="best, last or a step (default: %(default)s)")
    mesh.add_argument("--device", choices=["auto", "cpu", "cuda"], help="(default: as in training)")
    add_finish_options(mesh)
    add_frame_options(mesh)


def _run(arguments: argparse.Namespace) -> int:
    from sparse3d.fields.mesh import MeshConfig
    from sparse3d.io.meshes import check_mesh_ending
    from sparse3d.recipes.radiance import reconstruct as radiance

    out = arguments.out or Path(arguments.run_folder) / "mesh.ply"
    check_mesh_ending(out)
    chosen = {name: getattr(arguments, name) for name in ("level", "resolution", "min_faces")}
    config = MeshConfig(**{name: value for name, value in chosen.items() if value is not None})
    finish, frame = finish_of(arguments), frame_of(arguments)
    loaded = radiance.load_field(arguments.run_folder, arguments.checkpoint, arguments.device)
    write_field_mesh(loaded.field, out, config, finish, frame)
    return 0


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
    pieces, closed = mesh.components[0], "closed" if mesh.is_closed else "open where it leaves the cube"
    say(f"{len(mesh.faces)} triangles in {pieces} pieces, {closed}: {out}")
