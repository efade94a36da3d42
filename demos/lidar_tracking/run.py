"""Objects that keep their number: a detector, trained within a minute, and a tracker on a drive.

    python demos/lidar_tracking/run.py [--run runs/centerpoint_minidrive] [--headless out.png]

Streets are generated and scanned by a spinning LiDAR; a small SECOND learns cars, pedestrians and cyclists
from 160 of them, and follows them through a drive that it has never seen. `--run` takes a trained detector.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sparse3d.cli import main as sparse3d
from sparse3d.data.minidrive import DriveConfig, write_drives
from sparse3d.models.tracker import TrackerConfig
from sparse3d.recipes.detection import load_detector
from sparse3d.recipes.track_files import TrackedScan, track
from sparse3d.viewers.colors import class_color, height_colors
from sparse3d.viewers.exhibit import Exhibit, Lines, Points, Viewpoint
from sparse3d.viewers.scene import box_lines
from sparse3d.viewers.stage import Stage, demo_arguments

# A smaller street than the config's: half the time, and what is near has the most points anyway.
NEAR = ["model.bounds=[0,-16,-3,32,16,1]", "generate=null", "loader.workers=1"]
SCORE = 0.3  # lowest of a detection that is followed
VIEW = Viewpoint((-9.0, -5.0, 8.5), (9.0, 0.5, -1.5))


def main() -> None:
    parser = demo_arguments("Detect and track objects on a generated drive.")
    parser.add_argument("--run", type=Path, help="a trained detector (default: one is trained now)")
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/lidar_tracking"), help="(default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=2, help="of the drive (default: %(default)s)")
    arguments = parser.parse_args()
    stage = Stage(arguments.headless, panel=(640, 400))
    run = arguments.run or trained(arguments.folder, scenes=6 if arguments.quick else 160)

    drives = arguments.folder / f"drives_{arguments.seed}"
    write_drives(drives, 1, arguments.seed, DriveConfig(4 if arguments.quick else 40))
    classes = load_detector(run).config.data.classes
    tracker = TrackerConfig(classes, score_threshold=SCORE)
    tracking = track(run, drives / "0000", arguments.folder / "tracked", tracker=tracker)
    pages = []
    for page in exhibits(tracking.scans, classes):
        stage.show(page)
        pages.append(page)
    for page in pages[:: -(-len(pages) // 4)][:4]:
        stage.keep(page)
    if tracking.result is not None:
        print(f"AMOTA of all that can be seen: {100 * tracking.result.amota:.0f} %")
    stage.play(pages)
    stage.end()


def trained(folder: Path, scenes: int) -> Path:
    """A run of `sparse3d train`; what is there is taken again, and one that was interrupted goes on."""
    data, run, steps = folder / "data", folder / f"second_{scenes}", max(1, 2 * scenes - 20)
    call("data", "make", "minidrive", "--out", data, "--scenes", scenes, "--val-fraction", "0.05")
    options = [f"data.root={data}", f"train.steps={steps}", *NEAR, "--out", run, "--resume-if-begun"]
    call("train", "second_minidrive", *options)
    return run


def call(*words: object) -> None:
    """One command of sparse3d, shown as one would type it."""
    command = [str(word) for word in words]
    print("$ sparse3d", *command, flush=True)
    if code := sparse3d(command):
        sys.exit(code)


def exhibits(scans: Iterator[TrackedScan], classes: tuple[str, ...]) -> Iterator[Exhibit]:
    """Each scan with the boxes of its objects and the ways that they came, in a colour for each number."""
    for scan in scans:
        places, boxes, ids = scan.points[:, :3], scan.frame.boxes, scan.frame.ids.tolist()
        shades = height_colors((places[:, 2] + 2) / 4).astype(np.uint8)
        ends, owners = [], []
        for number, lines, way in zip(ids, box_lines(boxes), scan.trails, strict=True):
            floor = boxes[ids.index(number), 2] - boxes[ids.index(number), 5] / 2
            trail = np.insert(way, 2, floor, axis=1)
            ends += [lines, np.stack([trail[:-1], trail[1:]], 1)]
            owners += [number] * (len(lines) + len(trail) - 1)
        colors = np.array([class_color(n) for n in owners], np.uint8).reshape(-1, 3)
        drawn = Lines(np.concatenate([np.zeros((0, 2, 3)), *ends]), colors)
        counts = np.bincount(scan.frame.labels, minlength=len(classes))
        named = ", ".join(f"{n} {name}" for n, name in zip(counts, classes, strict=True) if n)
        title = f"{scan.frame.time:.1f} s: {named or 'nothing'}; {int((scan.ages == 1).sum())} new"
        yield Exhibit(title, VIEW, points=Points(places, shades, 0.06), lines=drawn)


if __name__ == "__main__":
    main()
