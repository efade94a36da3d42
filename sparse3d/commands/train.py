"""`sparse3d train`: from a config to a trained model."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sparse3d.commands.parsing import Commands, add_command
from sparse3d.commands.talk import Bar, say

if TYPE_CHECKING:
    from sparse3d.engine.loop import Hook

INTERRUPTED = 130


def add(commands: Commands) -> None:
    """Register with the parser."""
    train = add_command(commands, "train", _run, "Train a model as a config says.")
    train.add_argument(
        "config", metavar="CONFIG", help="a file, or the name of a config (sparse3d config list)"
    )
    train.add_argument(
        "overrides", nargs="*", metavar="a.b=c", help="changes of the config, e.g. train.epochs=20"
    )
    train.add_argument("--out", type=Path, metavar="DIR", help="run folder (default: runs/<config name>)")
    train.add_argument("--resume", action="store_true", help="continue the run in the folder")
    train.add_argument(
        "--resume-if-begun",
        action="store_true",
        help="continue the run if the folder has one, else start it",
    )
    train.add_argument("--profile", action="store_true", help="say where the time of the first steps goes")
    train.add_argument(
        "--profile-steps", type=int, default=50, metavar="N", help="how many (default: %(default)s)"
    )
    train.add_argument(
        "--trace", type=Path, metavar="FILE", help="with --profile: three steps for ui.perfetto.dev (.json)"
    )


def _run(arguments: argparse.Namespace) -> int:
    from sparse3d.engine.hooks import StopOnSignal
    from sparse3d.recipes import tasks

    task = tasks.task_of(arguments.config, arguments.overrides)
    loaded = tasks.load(arguments.config, arguments.overrides)
    out = arguments.out or Path("runs") / Path(arguments.config).stem
    arguments.out = out
    with Bar("generating scenes") as report:
        outcome = task.recipe.train(
            loaded,
            out,
            arguments.resume,
            if_begun=arguments.resume_if_begun,
            progress_of_data=report,
            extra_hooks=_profile(arguments),
        )
    interrupted = outcome.ended == StopOnSignal.REASON
    if outcome.is_main and interrupted:
        say(f"interrupted after a whole step, checkpoint written{how_to_resume(arguments)}")
    elif outcome.is_main:
        say(f"{outcome.ended}; evaluate with: sparse3d evaluate {outcome.run}")
    return INTERRUPTED if interrupted else 0


def _profile(arguments: argparse.Namespace) -> "list[Hook]":
    if not arguments.profile:
        if arguments.trace is not None:
            raise ValueError("--trace is written by a profile; add --profile")
        return []
    from rich.console import Console

    from sparse3d.engine.profile import Profile, ProfileSteps

    def tell(profile: Profile) -> None:
        Console().print(profile.table())
        print("\n".join(profile.lines()), flush=True)

    return [ProfileSteps(arguments.profile_steps, tell, arguments.trace)]


def how_to_resume(arguments: argparse.Namespace) -> str:
    if getattr(arguments, "command", None) != "train":
        return ""
    return f"; continue with the same command and --resume (run folder: {arguments.out or 'runs/...'})"
