"""`sparse3d evaluate`: how good a trained model is on labelled data."""

import argparse

from sparse3d.commands.parsing import Commands, add_command, add_run_arguments
from sparse3d.commands.talk import Bar, say


def add(commands: Commands) -> None:
    """Register with the parser."""
    evaluate = add_command(commands, "evaluate", _run, "Judge a trained model on labelled data.")
    add_run_arguments(evaluate)
    evaluate.add_argument("--split", help="e.g. val, train (default: what the run's config says)")
    evaluate.add_argument("--tta", action="store_true", help="segmentation: average over eight views")
    evaluate.add_argument(
        "--analyse", action="store_true", help="detection: also write a page of what is wrong, analysis.html"
    )
    evaluate.add_argument("--data", metavar="DIR", help="a folder to use in place of the run's data.root")


def _run(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from sparse3d.recipes import tasks

    task = tasks.task_of_run(arguments.run_folder)
    options = {"tta": True} if arguments.tta else {}
    if options and task.name != "segmentation":
        raise ValueError(
            f"--tta averages over views of a scan for segmentation; this is a run of {task.name}"
        )
    if arguments.analyse and task.name != "detection":
        raise ValueError(f"--analyse looks at detections; this is a run of {task.name}")
    with Bar("evaluating") as report:
        outcome = task.recipe.evaluate(
            arguments.run_folder,
            arguments.split,
            arguments.checkpoint,
            device=arguments.device,
            data_root=arguments.data,
            progress=report,
            **options,
        )
    if outcome is None:  # not the first of several processes: nothing to tell
        return 0
    Console().print(*outcome.judgement.tables())
    say(f"{outcome.checkpoint.name}; written to {outcome.folder}")
    if arguments.analyse:
        from sparse3d.commands.detection_page import write_page

        page = outcome.folder / "analysis.html"
        title = f"{arguments.run_folder}, {outcome.checkpoint.name}, split {outcome.folder.name}"
        write_page(page, outcome.judgement, outcome.dataset, outcome.bounds, title)
        say(f"look at {page}")
    return 0
