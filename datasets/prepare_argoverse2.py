"""Put the downloads of Argoverse 2's sensor data set together.

    python datasets/prepare_argoverse2.py --out DIR train-000.tar ... val-000.tar ...

Of the archives (from argoverse.org) labels, poses, calibration and LiDAR scans are unpacked and the pictures
left out. Files that are there with the same size are kept, so an interrupted call goes on. A folder that was
copied from the bucket (s5cmd) needs none of this: its train, val and test are what is read.
"""

import argparse
import sys
from pathlib import Path, PurePosixPath

from sparse3d.errors import DataError
from sparse3d.io.archives import unpack

SPLITS = ("train", "val", "test")
FILES = ("annotations.feather", "city_SE3_egovehicle.feather")


def place_of(path: PurePosixPath, split: str | None = None) -> PurePosixPath | None:
    """split/log/... of what is read; `split` where the archive begins with logs."""
    parts = path.parts
    at = next((i for i, part in enumerate(parts[:-1]) if part in SPLITS), None)
    if at is None and split is None:
        return None
    inside = PurePosixPath(*parts[at:]) if at is not None else PurePosixPath(split or "", path)
    log = inside.parts[2:]
    wanted = len(log) == 1 and log[0] in FILES
    wanted |= len(log) == 2 and log[0] == "calibration"
    wanted |= len(log) == 3 and log[:2] == ("sensors", "lidar")
    return inside if wanted else None


def main() -> int:
    parser = argparse.ArgumentParser(description="Put the downloads of Argoverse 2 together.")
    parser.add_argument("archives", nargs="+", type=Path, metavar="TAR")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    arguments = parser.parse_args()
    for archive in arguments.archives:
        split = next((name for name in SPLITS if archive.name.startswith(name)), None)
        try:
            written, kept = unpack(archive, arguments.out, lambda path, split=split: place_of(path, split))
        except DataError as error:
            sys.exit(str(error))
        print(f"{archive}: {written} files written, {kept} were there")
    print(f"check it with: sparse3d data check argoverse2 --root {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
