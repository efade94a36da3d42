"""Options of commands that write meshes: what is done to one first, and what its file's numbers are."""

import argparse
from dataclasses import fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sparse3d.io.mesh_frames import MeshFrame
    from sparse3d.recipes.conversion.finishing import FinishConfig


def add_finish_options(parser: argparse.ArgumentParser) -> None:
    """See `FinishConfig`."""
    group = parser.add_argument_group("before the mesh is written")
    group.add_argument(
        "--fill-holes", type=int, metavar="N", default=0, help="close borders of up to N edges"
    )
    group.add_argument(
        "--smooth", type=int, metavar="N", default=0, help="N steps of smoothing that does not shrink"
    )
    group.add_argument("--simplify", type=int, metavar="N", help="to about N triangles")
    group.add_argument(
        "--texture", type=int, metavar="N", help="its colours as a texture of N x N, not at vertices"
    )
    group.add_argument(
        "--lit", action="store_true", help="viewers put light on it (default: colours hold the light already)"
    )
    group.add_argument(
        "--metallic", type=float, default=0.0, metavar="M", help="0 to 1 (default: %(default)s)"
    )
    group.add_argument(
        "--roughness", type=float, default=1.0, metavar="R", help="0 to 1 (default: %(default)s)"
    )


def add_frame_options(parser: argparse.ArgumentParser) -> None:
    """See `MeshFrame`."""
    group = parser.add_argument_group("the numbers of the mesh's file")
    group.add_argument(
        "--units", choices=["mm", "cm", "m", "in"], default="m", help="lengths are in (default: %(default)s)"
    )
    group.add_argument(
        "--up",
        choices=["y", "z"],
        default="z",
        help="the axis that the world's +z becomes; y for most viewers of .glb (default: z, nothing turns)",
    )


def finish_of(arguments: argparse.Namespace) -> "FinishConfig":
    """What was asked for. ValueError for numbers that make no sense."""
    from sparse3d.recipes.conversion.finishing import FinishConfig

    return FinishConfig(**{field.name: getattr(arguments, field.name) for field in fields(FinishConfig)})


def frame_of(arguments: argparse.Namespace) -> "MeshFrame":
    """What was asked for."""
    from sparse3d.io.mesh_frames import MeshFrame

    return MeshFrame(arguments.units, arguments.up)
