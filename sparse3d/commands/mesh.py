"""`sparse3d mesh`: the surface of a trained field as a file of triangles."""

import argparse
from pathlib import Path

from sparse3d.commands.parsing import Commands, add_command
from sparse3d.commands.talk import say


def add(commands: Commands) -> None:
    """Register with the parser."""
    mesh = add_command(commands, "mesh", _run, "The surface of a reconstructed scene, with colours.")
    mesh.add_argument("run_folder", metavar="RUN", help="folder of a reconstruction")
    mesh.add_argument("--out", type=Path, metavar="FILE", help=".ply, .obj or .glb (default: RUN/mesh.ply)")
    mesh.add_argument(
        "--level", type=float, metavar="L", help="density, 1/m, or distance, m (default: found; see the docs)"
    )
    mesh.add_argument("--resolution", type=int, metavar="N", help="cells along a side of the scene's cube")
    mesh.add_argument(
        "--min-faces", type=int, metavar="N", help="leave out pieces of fewer triangles (default: 100)"
    )
    mesh.add_argument("--checkpoint", default="last", help="best, last or a step (default: %(default)s)")
    mesh.add_argument("--device", choices=["auto", "cpu", "cuda"], help="(default: as in training)")


def _run(arguments: argparse.Namespace) -> int:
    from sparse3d.fields.mesh import MeshConfig
    from sparse3d.io.meshes import check_mesh_ending
    from sparse3d.recipes.radiance import reconstruct as radiance

    out = arguments.out or Path(arguments.run_folder) / "mesh.ply"
    check_mesh_ending(out)
    chosen = {name: getattr(arguments, name) for name in ("level", "resolution", "min_faces")}
    config = MeshConfig(**{name: value for name, value in chosen.items() if value is not None})
    loaded = radiance.load_field(arguments.run_folder, arguments.checkpoint, arguments.device)
    write_field_mesh(loaded.field, out, config)
    return 0


def write_field_mesh(field, out: Path, config=None) -> None:
    """The surface of a field, to a file, with a line about it."""
    from sparse3d.fields.mesh import MeshConfig, field_mesh
    from sparse3d.io.meshes import write_mesh

    mesh = field_mesh(field, config or MeshConfig())
    write_mesh(out, mesh)
    pieces, closed = mesh.components[0], "closed" if mesh.is_closed else "open where it leaves the cube"
    say(f"{len(mesh.faces)} triangles in {pieces} pieces, {closed}: {out}")
