"""Put the downloads of SemanticKITTI together.

    python datasets/prepare_semantickitti.py --out DIR ZIP [ZIP ...]

The scans come from KITTI's odometry benchmark (data_odometry_velodyne.zip, and data_odometry_calib.zip), the
labels from semantic-kitti.org (data_odometry_labels.zip). Each archive is unpacked into DIR/sequences,
whatever folder it begins with; files that are there with the same size are kept, so an interrupted call goes
on. `--from DIR2` links an odometry folder that is unpacked already in place of its archives.
"""

import argparse
import sys
from pathlib import Path, PurePosixPath

from sparse3d.errors import DataError
from sparse3d.io.archives import unpack

# What of the archives is read: sequences/xx/<one of these>.
PARTS = ("velodyne", "labels", "poses.txt", "calib.txt", "times.txt")


def place_of(path: PurePosixPath) -> PurePosixPath | None:
    """Where a member of an archive belongs below DIR, None for what is not needed."""
    if "sequences" not in path.parts:
        return None
    inside = path.parts[path.parts.index("sequences") :]
    wanted = len(inside) >= 3 and inside[1].isdigit() and inside[2] in PARTS
    return PurePosixPath(*inside) if wanted else None


def link(odometry: Path, out: Path) -> int:
    """Link the parts of every sequence of an unpacked folder; returns how many links were made."""
    folder = odometry / "sequences" if (odometry / "sequences").is_dir() else odometry
    made = 0
    for sequence in sorted(path for path in folder.iterdir() if path.name.isdigit()):
        for name in PARTS:
            source, target = sequence / name, out / "sequences" / sequence.name / name
            if source.exists() and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(source.resolve())
                made += 1
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description="Put the downloads of SemanticKITTI together.")
    parser.add_argument("archives", nargs="*", type=Path, metavar="ZIP")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--from", dest="odometry", type=Path, metavar="DIR", help="unpacked odometry folder")
    arguments = parser.parse_args()
    if not arguments.archives and arguments.odometry is None:
        parser.error("name the archives, or an unpacked folder with --from")
    for path in (*arguments.archives, *filter(None, [arguments.odometry])):
        if not path.exists():
            sys.exit(f"{path}: no such file or folder")
    if arguments.odometry is not None:
        print(f"{arguments.odometry}: {link(arguments.odometry, arguments.out)} links")
    try:
        for archive in arguments.archives:
            written, kept = unpack(archive, arguments.out, place_of)
            print(f"{archive}: {written} files written, {kept} were there")
    except DataError as error:
        sys.exit(str(error))
    print(f"check it with: sparse3d data check semantickitti --root {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
