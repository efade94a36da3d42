"""`sparse3d track`: objects that keep their number through a sequence of scans."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sparse3d.commands.parsing import Commands, add_command, add_run_arguments
from sparse3d.commands.talk import say

if TYPE_CHECKING:
    from PIL.Image import Image

VIDEO_MS = 100  # milliseconds a picture
TABLE_WIDTH = 118  # characters


def add(commands: Commands) -> None:
    """Register with the parser."""
    track = add_command(commands, "track", _run, "Detect and track the objects of a sequence of scans.")
    add_run_arguments(track)
    track.add_argument(
        "sequence", metavar="SEQUENCE", help="folder of scans, or a drive of the run's data set"
    )
    track.add_argument("--out", required=True, metavar="DIR", help="folder for tracks.json")
    track.add_argument(
        "--score",
        type=float,
        default=0.5,
        help="lowest score of a detection; AMOTA wants a low one (default: %(default)s)",
    )
    track.add_argument(
        "--max-age", type=int, default=3, help="scans that an object may be missed (default: %(default)s)"
    )
    track.add_argument(
        "--associate",
        choices=("centre", "query"),
        default="centre",
        help="what tells that two detections are one object: the distance of their boxes' centres, or of the "
        "voxels that found them, which VoxelNeXt tells (default: %(default)s)",
    )
    track.add_argument(
        "--period", type=float, default=0.1, help="seconds a scan without times.txt (default: %(default)s)"
    )
    track.add_argument("--pictures", action="store_true", help="also draw each scan from above, as .png")
    track.add_argument("--video", action="store_true", help="also an animation of them, tracks.webp")


def _run(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from sparse3d.io.files import atomic_path
    from sparse3d.models.tracker import TrackerConfig
    from sparse3d.recipes import tasks, track_files
    from sparse3d.recipes.detection import load_detector
    from sparse3d.viewers.bev import BevStyle, draw_bev

    if not 0.0 <= arguments.score <= 1.0:
        raise ValueError(f"--score is {arguments.score}, expected a number from 0 to 1")
    if not arguments.period > 0:
        raise ValueError(f"--period is {arguments.period}, expected seconds above 0")
    run, out = arguments.run_folder, Path(arguments.out)
    tasks.task_of_run(run, "detect")
    config = load_detector(run, arguments.checkpoint, arguments.device).config
    tracker = TrackerConfig(
        config.data.classes,
        score_threshold=arguments.score,
        max_age=arguments.max_age,
        associate=arguments.associate,
    )
    tracking = track_files.track(
        run,
        arguments.sequence,
        out,
        arguments.checkpoint,
        tracker=tracker,
        device=arguments.device,
        period=arguments.period,
    )
    numbers: set[int] = set()
    times: list[float] = []

    def drawn() -> Iterator["Image"]:
        for scan in tracking.scans:
            frame = scan.frame
            numbers.update(frame.ids.tolist())
            times.append(frame.time)
            print(f"{scan.name}: {len(frame.ids)} objects, {int((scan.ages == 1).sum())} new")
            if not arguments.pictures and not arguments.video:
                continue
            classes = [config.data.classes[label] for label in frame.labels]
            picture = draw_bev(
                scan.points,
                config.model.bounds,
                boxes=frame.boxes,
                labels=frame.ids,
                texts=[f"{name[:3]} {n}" for name, n in zip(classes, frame.ids, strict=True)],
                trails=scan.trails,
                title=scan.name,
                style=BevStyle(point_size=2),
                legend=False,
            )
            if arguments.pictures:
                with atomic_path(out / f"{scan.name}.png") as temporary:
                    picture.save(temporary, format="PNG")
            yield picture

    pictures = drawn()
    first = next(pictures, None)
    if first is not None and arguments.video:
        # Pillow takes the pictures one by one: a long sequence needs no more memory than a short one.
        with atomic_path(out / "tracks.webp") as temporary:
            options = {"save_all": True, "append_images": pictures, "duration": VIDEO_MS, "loop": 0}
            first.save(temporary, format="WEBP", quality=70, **options)
    for _ in pictures:
        pass
    if tracking.result is not None:
        console = Console()
        console.print(tracking.result.table(), width=max(console.width, TABLE_WIDTH))
    say(f"{len(times)} scans, {len(numbers)} objects; written to {out}")
    return 0
