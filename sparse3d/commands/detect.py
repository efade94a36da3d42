"""`sparse3d detect`: objects in point cloud files."""

import argparse
from pathlib import Path

from sparse3d.commands.parsing import Commands, add_command, add_run_arguments
from sparse3d.commands.talk import say


def add(commands: Commands) -> None:
    """Register with the parser."""
    detect = add_command(commands, "detect", _run, "Detect objects in point clouds.")
    add_run_arguments(detect)
    detect.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="point clouds (.bin .pcd .ply .npy) or folders"
    )
    detect.add_argument(
        "--out", required=True, metavar="DIR", help="folder for one .json and one KITTI result .txt an input"
    )
    detect.add_argument(
        "--calib", metavar="FILE", help="KITTI calibration of all inputs (default: the one in calib/ beside)"
    )
    detect.add_argument("--pictures", action="store_true", help="also draw each input from above, as .png")
    detect.add_argument(
        "--score", type=float, default=0.3, help="lowest score to report (default: %(default)s)"
    )


def _run(arguments: argparse.Namespace) -> int:
    from sparse3d.recipes import detect_files, tasks
    from sparse3d.recipes.detection import load_detector

    if not 0.0 <= arguments.score <= 1.0:
        raise ValueError(f"--score is {arguments.score}, expected a number from 0 to 1")
    run, out = arguments.run_folder, Path(arguments.out)
    tasks.task_of_run(run, "detect")
    model = load_detector(run, arguments.checkpoint, arguments.device).config.model
    found = detect_files.detect(
        run,
        arguments.inputs,
        out,
        arguments.score,
        arguments.checkpoint,
        calib=arguments.calib,
        device=arguments.device,
    )
    count = assumed = 0
    for path, points, detections, camera in found:
        count, assumed = count + 1, assumed + (camera.source is None)
        print(f"{path}: {len(detections.boxes)} objects")
        if arguments.pictures:
            from sparse3d.io.files import atomic_path
            from sparse3d.viewers.bev import BevStyle, draw_bev

            picture = draw_bev(
                points,
                model.bounds,
                boxes=detections.boxes.numpy(),
                labels=detections.labels.numpy(),
                scores=detections.scores.numpy(),
                class_names=model.classes,
                title=path.name,
                style=BevStyle(point_size=2),
            )
            with atomic_path(out / f"{path.stem}.png") as temporary:
                picture.save(temporary, format="PNG")
    if assumed:
        say(f"no calibration for {assumed} of {count} inputs: their .txt assume minidrive's (see --calib)")
    say(f"{count} files; written to {out}")
    return 0
