"""`sparse3d segment`: a class for every point of point cloud files."""

import argparse
from pathlib import Path

from sparse3d.commands.parsing import Commands, add_command, add_run_arguments
from sparse3d.commands.talk import say


def add(commands: Commands) -> None:
    """Register with the parser."""
    segment = add_command(commands, "segment", _run, "Label every point of point clouds.")
    add_run_arguments(segment)
    segment.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="point clouds (.bin .pcd .ply .npy) or folders"
    )
    segment.add_argument(
        "--out", required=True, metavar="DIR", help="folder for one SemanticKITTI .label an input"
    )
    segment.add_argument(
        "--tta",
        action="store_true",
        help="average over eight views of each cloud: better, eight times the work",
    )
    segment.add_argument("--pictures", action="store_true", help="also draw each input from above, as .png")


def _run(arguments: argparse.Namespace) -> int:
    from sparse3d.recipes import segment_files, tasks
    from sparse3d.recipes.run_folder import RunFolder
    from sparse3d.recipes.segmentation_config import SegmentationConfig

    run, out = arguments.run_folder, Path(arguments.out)
    tasks.task_of_run(run, "segment")
    classes = RunFolder(run).read_config(SegmentationConfig).model.classes
    segmented = segment_files.segment(
        run,
        arguments.inputs,
        out,
        arguments.checkpoint,
        tta=arguments.tta,
        device=arguments.device,
    )
    count = 0
    for path, points, labels, instances in segmented:
        count += 1
        print(f"{path}: {len(points)} points, {len(set(instances[instances > 0].tolist()))} objects")
        if arguments.pictures:
            from sparse3d.io.files import atomic_path
            from sparse3d.viewers.semantic import draw_semantic

            picture = draw_semantic(points, labels, classes, title=path.name)
            with atomic_path(out / f"{path.stem}.png") as temporary:
                picture.save(temporary, format="PNG")
    say(f"{count} files; written to {out}")
    return 0
