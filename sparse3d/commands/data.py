"""`sparse3d data make | check | objects | list`: data sets."""

import argparse
from dataclasses import replace
from pathlib import Path

from sparse3d.commands.parsing import Commands, add_command, add_group
from sparse3d.commands.talk import Bar, say

CHECKED = ("kitti", "semantickitti", "nuscenes", "argoverse2", "waymo", "kitti_raw")


def add(commands: Commands) -> None:
    """Register with the parser."""
    data = add_group(commands, "data", "Make, check, prepare or list data sets.", "Data sets.")
    make = add_command(data, "make", _make, "Generate scenes; repeat an interrupted call to continue.")
    make.add_argument(
        "name", choices=["minidrive", "minidrive-drives", "three-spheres"], help="what to generate"
    )
    make.add_argument("--out", required=True, metavar="DIR", help="folder for the scenes")
    make.add_argument(
        "--scenes", type=int, default=400, help="how many scenes or drives (default: %(default)s)"
    )
    make.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    make.add_argument(
        "--views", type=int, default=50, help="three-spheres: pictures to train on (default: %(default)s)"
    )
    make.add_argument(
        "--specular", type=float, default=0.0, help="three-spheres: highlights (default: %(default)s)"
    )
    make.add_argument("--val-fraction", type=float, default=0.2, help="share in val (default: %(default)s)")
    make.add_argument(
        "--labels", action="store_true", help="also a class and an instance for each point (.label)"
    )
    check = add_command(data, "check", _check, "Read every file of a data set and say what is wrong.")
    check.add_argument("name", choices=CHECKED, help="layout of the folder")
    check.add_argument(
        "--root", required=True, metavar="DIR", help="the folder, or its name in $SPARSE3D_DATASETS"
    )
    check.add_argument(
        "--columns", type=int, default=4, help="kitti: float32 values a point (default: %(default)s)"
    )
    check.add_argument(
        "--every", type=int, default=1, metavar="N", help="drives: read every N-th frame (default: all)"
    )
    check.add_argument("--picture", metavar="PNG", help="draw the first frame with its boxes from above")
    objects = add_command(
        data, "objects", _objects, "Cut out the objects that training pastes into scenes, before it starts."
    )
    objects.add_argument("config", metavar="CONFIG", help="a file, or the name of a config")
    objects.add_argument("overrides", nargs="*", metavar="a.b=c", help="changes, as for train")
    objects.add_argument("--workers", type=int, default=4, help="processes (default: %(default)s)")
    add_command(data, "list", _list, "List the data sets that sparse3d knows and those that are here.")


def _make(arguments: argparse.Namespace) -> int:
    from sparse3d.data.minidrive import write_drives, write_minidrive

    if arguments.name == "three-spheres":
        from sparse3d.data.three_spheres import ThreeSpheresConfig, write_three_spheres

        config = ThreeSpheresConfig(views=arguments.views, specular=arguments.specular)
        write_three_spheres(arguments.out, config)
        say(f"three spheres in {arguments.out}; next: sparse3d reconstruct {arguments.out} --out DIR")
        return 0
    if arguments.name == "minidrive-drives":
        with Bar("generating drives") as report:
            write_drives(arguments.out, arguments.scenes, arguments.seed, progress=report)
        say(f"{arguments.scenes} drives in {arguments.out}; next: sparse3d track RUN {arguments.out}/0000")
        return 0
    with Bar("generating scenes") as report:
        write_minidrive(
            arguments.out,
            arguments.scenes,
            arguments.seed,
            val_fraction=arguments.val_fraction,
            labels=arguments.labels,
            progress=report,
        )
    say(f"{arguments.scenes} scenes in {arguments.out}; train with data.root={arguments.out}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    name, root = arguments.name, arguments.root
    if arguments.picture and name == "semantickitti":
        raise ValueError("--picture shows boxes, and semantickitti has none")
    if arguments.every < 1:
        raise ValueError(f"--every is {arguments.every}, expected at least 1")
    if name == "semantickitti":
        from sparse3d.data.semantickitti_check import check_semantickitti

        report = check_semantickitti(root)
    elif name == "kitti":
        from sparse3d.data.kitti_check import check_kitti

        report = check_kitti(root, arguments.columns)
    else:
        from sparse3d.data.drives_check import check_drives

        with Bar(f"reading {name}") as progress:
            report = check_drives(name, root, arguments.every, progress)
    print(report)
    if arguments.picture:
        _draw_first(name, report.root, Path(arguments.picture))
    return 0 if report.ok else 1


def _draw_first(name: str, root: Path, target: Path) -> None:
    """The first frame of the data set that can be read, with every class that it has."""
    from sparse3d.data.drives_check import NAMES, splits_of
    from sparse3d.data.kitti import KittiDatasetConfig
    from sparse3d.data.open import open_dataset
    from sparse3d.io.files import atomic_path
    from sparse3d.viewers.bev import BevStyle, draw_bev

    if name in NAMES:
        _, config, split = next(splits_of(name, root))
    else:
        split = sorted(path.stem for path in (root / "ImageSets").glob("*.txt"))[0]
        config = KittiDatasetConfig(root=str(root))
    dataset = open_dataset(replace(config, skip_missing=True), split)
    frame = dataset.frame(0)
    picture = draw_bev(
        frame.points,
        (-54.0, -54.0, -5.0, 54.0, 54.0, 5.0),
        boxes=frame.boxes,
        labels=frame.labels,
        class_names=dataset.class_names,
        title=f"{name} {frame.frame_id}",
        style=BevStyle(pixels_per_metre=10, point_size=1),
    )
    with atomic_path(target) as temporary:
        picture.save(temporary, format="PNG")
    say(f"{frame.frame_id}: {len(frame.points)} points, {len(frame.boxes)} boxes; written to {target}")


def _objects(arguments: argparse.Namespace) -> int:
    from sparse3d import config
    from sparse3d.data.object_database import open_object_database
    from sparse3d.data.open import open_dataset
    from sparse3d.recipes.detection_config import DetectionConfig

    if arguments.workers < 0:
        raise ValueError(f"--workers is {arguments.workers}, expected at least 0")
    loaded = config.load(DetectionConfig, arguments.config, arguments.overrides)
    dataset = open_dataset(loaded.dataset, loaded.loader.split)
    with Bar("cutting out objects") as report:
        folder = dataset.object_database(arguments.workers, report)
    database = open_object_database(folder)
    for label, name in enumerate(database.class_names):
        print(f"{name}: {int((database.labels == label).sum())}")
    say(f"{len(database)} objects of {len(dataset)} frames in {folder}")
    return 0


# Folders that data sets have in their roots.
_SIGNS = ("ImageSets", "sequences", "train", "training", "2011_09_26")


def _list(arguments: argparse.Namespace) -> int:
    import os

    folder = os.environ.get("SPARSE3D_DATASETS")
    print("kitti      the KITTI object benchmark; the expected folders: datasets/README.md")
    print("semantickitti  scans with a class for every point; the same file shows its tree")
    print("nuscenes, argoverse2, waymo, kitti_raw  drives: scans with poses and times, labelled with boxes")
    print("minidrive  generated streets in the same layout: sparse3d data make minidrive --out DIR")
    print(f"$SPARSE3D_DATASETS: {folder or 'not set (data.root is then a path)'}")
    for path in sorted(Path(folder).iterdir()) if folder and Path(folder).is_dir() else []:
        if any((path / part).is_dir() for part in _SIGNS) or any(path.glob("v1.0-*")):
            print(f"  {path.name}")
    return 0
