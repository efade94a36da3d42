"""`sparse3d data make | check | list`: data sets."""

import argparse
from pathlib import Path

from sparse3d.commands.parsing import Commands, add_command, add_group
from sparse3d.commands.talk import Bar, say


def add(commands: Commands) -> None:
    """Register with the parser."""
    data = add_group(commands, "data", "Make, check or list data sets.", "Data sets.")
    make = add_command(data, "make", _make, "Generate scenes; repeat an interrupted call to continue.")
    make.add_argument("name", choices=["minidrive", "minidrive-drives"], help="what to generate")
    make.add_argument("--out", required=True, metavar="DIR", help="folder for the scenes")
    make.add_argument(
        "--scenes", type=int, default=400, help="how many scenes or drives (default: %(default)s)"
    )
    make.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    make.add_argument("--val-fraction", type=float, default=0.2, help="share in val (default: %(default)s)")
    make.add_argument(
        "--labels", action="store_true", help="also a class and an instance for each point (.label)"
    )
    check = add_command(data, "check", _check, "Read every file of a data set and say what is wrong.")
    check.add_argument("name", choices=["kitti", "semantickitti"], help="layout of the folder")
    check.add_argument(
        "--root", required=True, metavar="DIR", help="the folder, or its name in $SPARSE3D_DATASETS"
    )
    check.add_argument("--columns", type=int, default=4, help="float32 values a point (default: %(default)s)")
    add_command(data, "list", _list, "List the data sets that sparse3d knows and those that are here.")


def _make(arguments: argparse.Namespace) -> int:
    from sparse3d.data.minidrive import write_drives, write_minidrive

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
    from sparse3d.data.kitti_check import check_kitti

    if arguments.name == "semantickitti":
        from sparse3d.data.semantickitti_check import check_semantickitti

        report = check_semantickitti(arguments.root)
    else:
        report = check_kitti(arguments.root, arguments.columns)
    print(report)
    return 0 if report.ok else 1


def _list(arguments: argparse.Namespace) -> int:
    import os

    folder = os.environ.get("SPARSE3D_DATASETS")
    print("kitti      the KITTI object benchmark; the expected folders: datasets/README.md")
    print("semantickitti  scans with a class for every point; the same file shows its tree")
    print("minidrive  generated streets in the same layout: sparse3d data make minidrive --out DIR")
    print(f"$SPARSE3D_DATASETS: {folder or 'not set (data.root is then a path)'}")
    for path in sorted(Path(folder).iterdir()) if folder and Path(folder).is_dir() else []:
        if (path / "ImageSets").is_dir() or (path / "sequences").is_dir():
            print(f"  {path.name}")
    return 0
