"""`sparse3d reconstruct`: from posed photos to a scene that can be seen from everywhere."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sparse3d.commands.parsing import Commands, add_command
from sparse3d.commands.talk import Bar, Stages, say
from sparse3d.commands.train import INTERRUPTED

if TYPE_CHECKING:
    from sparse3d.commands.live import ShowLive
    from sparse3d.data.photos import PosedPhotos
    from sparse3d.recipes.radiance.config import RadianceConfig
    from sparse3d.recipes.scenes import ReconstructedScene
    from sparse3d.recipes.splatting.config import SplattingConfig

METHODS = {name: name for name in ("voxels", "hash", "lowrank", "nerf", "volsdf", "splats", "surfels")}


def add(commands: Commands) -> None:
    """Register with the parser."""
    reconstruct = add_command(
        commands, "reconstruct", _run, "Train a field or a cloud of Gaussians from posed photos."
    )
    reconstruct.add_argument("photos", metavar="PHOTOS", help="a folder of photos with poses")
    reconstruct.add_argument("overrides", nargs="*", metavar="a.b=c", help="changes of the config")
    reconstruct.add_argument(
        "--method",
        choices=sorted(METHODS),
        default="voxels",
        help="what the scene is made of (default: %(default)s)",
    )
    reconstruct.add_argument("--config", metavar="CONFIG", help="a config in place of the method's own")
    reconstruct.add_argument("--out", required=True, type=Path, metavar="DIR", help="run folder")
    reconstruct.add_argument("--views", type=int, metavar="K", help="train on K photos, by the protocol")
    reconstruct.add_argument("--scale", type=float, metavar="F", help="size of the photos, of their full one")
    reconstruct.add_argument(
        "--poses",
        choices=["files", "colmap"],
        help="where poses are from; colmap finds them from the photos (extra sfm)",
    )
    reconstruct.add_argument(
        "--refine-poses", action="store_true", help="correct the poses while the field is trained"
    )
    reconstruct.add_argument("--no-mesh", action="store_true", help="do not write mesh.ply")
    reconstruct.add_argument("--no-turntable", action="store_true", help="do not render a turn around it")
    reconstruct.add_argument(
        "--view", action="store_true", help="serve a page that shows the training, for this machine alone"
    )
    reconstruct.add_argument("--port", type=int, default=0, help="of that page (default: one that is free)")
    reconstruct.add_argument("--resume", action="store_true", help="continue the run in the folder")


def _run(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from sparse3d.engine.hooks import StopOnSignal
    from sparse3d.recipes import tasks
    from sparse3d.recipes.radiance.config import RadianceConfig
    from sparse3d.recipes.radiance.reconstruct import photos_of_split
    from sparse3d.recipes.scenes import load_run, scene_of
    from sparse3d.recipes.splatting.config import SplattingConfig

    source = arguments.config or METHODS[arguments.method]
    task = tasks.task_of(source, arguments.overrides)
    config = tasks.load(source, [*_changes(arguments, task.name), *arguments.overrides])
    if not isinstance(config, RadianceConfig | SplattingConfig):
        raise ValueError(f"{source} is a config of {task.name}; reconstruct takes radiance or splatting")
    with Stages() as stages:
        photos = photos_of_split(config.data, config.data.split, stages)
    extra = [_live(config, photos, arguments)] if arguments.view else []
    outcome = task.recipe.train(config, arguments.out, arguments.resume, photos=photos, extra_hooks=extra)
    if outcome.ended == StopOnSignal.REASON:
        say("interrupted after a whole step, checkpoint written; continue with the same command and --resume")
        return INTERRUPTED
    loaded = load_run(arguments.out)
    with Bar("rendering") as report, Bar("refining poses") as refining:
        held_out = photos.of_split(config.evaluation.split, config.data.views)
        judged = task.recipe.judge(
            loaded, arguments.out, held_out, progress=report, progress_of_poses=refining
        )
    Console().print(*judged.judgement.tables())
    say(f"{outcome.ended}; pictures in {judged.folder / 'views'}")
    _show(scene_of(loaded), photos, arguments)
    return 0


def _live(
    config: "RadianceConfig | SplattingConfig", photos: "PosedPhotos", arguments: argparse.Namespace
) -> "ShowLive":
    from sparse3d.commands.live import ShowLive

    made = ShowLive(config, photos, arguments.out.resolve().name, arguments.port)
    print(made.server.url, flush=True)
    say("the page of the training; who has this address sees it, from this machine alone")
    return made


def _changes(arguments: argparse.Namespace, task: str) -> list[str]:
    """What the options say, as overrides of the config."""
    changes = [f"data.root={arguments.photos}"]
    changes += [f"data.views={arguments.views}"] if arguments.views is not None else []
    changes += [f"data.scale={arguments.scale}"] if arguments.scale is not None else []
    changes += [f"data.poses={arguments.poses}"] if arguments.poses is not None else []
    if arguments.refine_poses:
        if task != "radiance":
            raise ValueError("--refine-poses is for radiance fields: voxels, hash, lowrank, nerf, volsdf")
        changes.append("pose_refinement.enabled=true")
        # Poses want a blurred start, which others have anyhow.
        if arguments.config is None and arguments.method in ("hash", "nerf", "volsdf"):
            changes.append("model.encoding.fine_end=0.5")
    return changes


def _show(scene: "ReconstructedScene", photos: "PosedPhotos", arguments: argparse.Namespace) -> None:
    """A short turntable of a finished run, and the mesh of a field or the file of a cloud."""
    from sparse3d.commands.mesh import write_field_mesh
    from sparse3d.commands.render import write_turntable
    from sparse3d.gaussians.cloud import GaussianCloud
    from sparse3d.gaussians.formats.table import write_splats

    if isinstance(scene.made_of, GaussianCloud):
        write_splats(arguments.out / "splats.ply", scene.made_of)
        kind = "surfels" if scene.made_of.surfels else "Gaussians"
        say(f"{len(scene.made_of)} {kind}: {arguments.out / 'splats.ply'}")
    try:
        if not arguments.no_turntable:
            write_turntable(scene, photos, arguments.out / "pictures" / "turntable", frames=30)
        if not arguments.no_mesh and not isinstance(scene.made_of, GaussianCloud):
            write_field_mesh(scene.made_of, arguments.out / "mesh.ply")
    except ValueError as error:  # a field that is empty, say: what was trained and judged stays good
        say(f"left out: {error}")
