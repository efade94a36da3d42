"""`sparse3d fuse`: one mesh of a recording of depth frames or LiDAR sweeps."""

import argparse
from pathlib import Path

from sparse3d.commands.parsing import Commands, add_command
from sparse3d.commands.talk import Bar, say


def add(commands: Commands) -> None:
    """Register with the parser."""
    fuse = add_command(commands, "fuse", _run, "Fuse depth frames or LiDAR sweeps with poses into one mesh.")
    fuse.add_argument(
        "dataset",
        metavar="DATASET",
        help="folder of an RGB-D recording (7-Scenes, TUM, ScanNet) or of a LiDAR sequence (KITTI odometry)",
    )
    fuse.add_argument(
        "--voxel-size", type=float, default=0.01, metavar="M", help="metres (default: %(default)s)"
    )
    fuse.add_argument("--out", type=Path, required=True, metavar="FILE", help=".ply, .obj or .glb")
    fuse.add_argument(
        "--truncation", type=float, metavar="M", help="metres kept around a surface (default: 4 voxels)"
    )
    fuse.add_argument("--every", type=int, default=1, metavar="N", help="take each n-th frame")
    fuse.add_argument("--min-depth", type=float, metavar="M", help="nearer is not counted (LiDAR: 1.5)")
    fuse.add_argument("--max-depth", type=float, metavar="M", help="further is not counted (LiDAR: 80)")
    fuse.add_argument(
        "--min-weight", type=float, default=0.0, metavar="W", help="leave out what fewer frames saw"
    )
    fuse.add_argument(
        "--min-faces", type=int, default=0, metavar="N", help="leave out pieces of fewer triangles"
    )
    fuse.add_argument(
        "--carving",
        type=float,
        default=0.0,
        metavar="W",
        help="LiDAR: rays clear what they pass through with this weight, so that traffic leaves no ghosts; "
        "1 is a good one (default: off)",
    )
    fuse.add_argument("--no-colors", action="store_true", help="without the pictures")
    fuse.add_argument(
        "--max-blocks", type=int, metavar="N", help="blocks of 8^3 voxels in memory (10 kB each with colours)"
    )
    fuse.add_argument("--blocks-folder", type=Path, metavar="DIR", help="where the other blocks wait")
    fuse.add_argument(
        "--track", action="store_true", help="find the camera's poses by ICP against what was fused (Open3D)"
    )
    fuse.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="(default: %(default)s)")


def _run(arguments: argparse.Namespace) -> int:
    from sparse3d.io.meshes import check_mesh_ending, write_mesh
    from sparse3d.recipes.fusion import FusionConfig, fuse

    check_mesh_ending(arguments.out)
    config = FusionConfig(
        voxel_size=arguments.voxel_size,
        truncation=arguments.truncation,
        colors=not arguments.no_colors,
        every=arguments.every,
        min_depth=arguments.min_depth,
        max_depth=arguments.max_depth,
        min_weight=arguments.min_weight,
        min_faces=arguments.min_faces,
        carving=arguments.carving,
        max_blocks=arguments.max_blocks,
        folder=arguments.blocks_folder,
        track=arguments.track,
        device=arguments.device,
    )
    with Bar("frames") as progress:
        fused = fuse(arguments.dataset, config, progress)
    blocks = len(fused.volume.blocks.all_keys)
    fused.volume.close()
    write_mesh(arguments.out, fused.mesh)
    left_out = f", {len(fused.skipped)} left out" if fused.skipped else ""
    say(
        f"{fused.frames} frames{left_out}: {blocks} blocks, "
        f"{len(fused.mesh.faces)} triangles: {arguments.out}"
    )
    return 0
