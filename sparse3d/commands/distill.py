"""`sparse3d distill`: a trained field teaches one of another kind."""

import argparse
from pathlib import Path

from sparse3d.commands.parsing import Commands, add_command
from sparse3d.commands.talk import Bar, say
from sparse3d.commands.train import INTERRUPTED

METHODS = ("voxels", "hash", "lowrank", "nerf", "volsdf")


def add(commands: Commands) -> None:
    """Register with the parser."""
    distill = add_command(
        commands, "distill", _run, "Teach a field of another kind what a trained one shows, without photos."
    )
    distill.add_argument("run_folder", metavar="RUN", help="folder of a field's reconstruction: the teacher")
    distill.add_argument("overrides", nargs="*", metavar="a.b=c", help="changes of the student's config")
    distill.add_argument("--method", choices=METHODS, required=True, help="what the student is")
    distill.add_argument("--config", metavar="CONFIG", help="a config in place of the method's own")
    distill.add_argument("--out", required=True, type=Path, metavar="DIR", help="the student's run folder")
    distill.add_argument("--resume", action="store_true", help="continue the run in the folder")


def _run(arguments: argparse.Namespace) -> int:
    from sparse3d.engine.hooks import StopOnSignal
    from sparse3d.recipes.radiance import distill, reconstruct

    config = distill.student_config(
        arguments.run_folder, arguments.config or arguments.method, arguments.overrides
    )
    outcome = reconstruct.train(config, arguments.out, arguments.resume)
    if outcome.ended == StopOnSignal.REASON:
        say("interrupted after a whole step, checkpoint written; continue with the same command and --resume")
        return INTERRUPTED
    with Bar("comparing") as report:
        judged = distill.judge_by_teacher(arguments.out, report)
    mean = judged.judgement.mean
    depth = f", depths {1000 * mean.depth.absolute:.1f} mm" if mean.depth else ""
    say(
        f"{outcome.ended}; {mean.image.psnr:.2f} dB from the teacher's pictures{depth}, mean of "
        f"{len(judged.judgement.views)} views in between; pictures in {judged.folder / 'views'}"
    )
    return 0
